"""When SGD itself becomes heavy-tailed: least squares with fresh Gaussian data, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradtail.theory.arguments import number, whole
from gradtail.theory.least_squares.quadrature import Law

_FINEST_STEP = 1e-9  # eta sigma**2 / b, below which the tail is too far out for float64
_LONGEST_STEP = 1e9
_LARGEST = 10**7  # batch or dimension
_FARTHEST = 1e140  # sigma, whose square stays within float64
_LARGEST_POWER = 1e10


class NoStationaryLawError(ValueError):
    """There is no stationary law: on average each step makes distances grow, rho >= 0.

    Attributes
    ----------
    rho : float
        The Lyapunov exponent.
    """

    def __init__(self, message: str, rho: float) -> None:
        super().__init__(message)
        self.rho = rho


def moment(s: float, eta: float, b: int, d: int, sigma: float = 1.0) -> float:
    r"""Growth rate of the s-th moment, h(s) = lim (E \|M_k ... M_1\|^s)^(1/k).

    Parameters
    ----------
    s : float
        Power, from 0 to 1e10.
    eta : float
        Step size, above 0.
    b, d : int
        Batch size and dimension, from 1 to 1e7.
    sigma : float
        Standard deviation of each coordinate of the data.

    Returns
    -------
    float
        inf where it is beyond float64.

    Raises
    ------
    TypeError, ValueError
        An argument is no number, or out of range; eta sigma^2 / b must be from 1e-9 to 1e9.

    Notes
    -----
    SGD on (a x - y)^2 / 2 with a batch of fresh a ~ N(0, sigma^2 I) takes x to M x + q with
    M = I - (eta / b) (sum of a a^T). The law of M does not change under rotations, so that h(s) is the moment
    of one step, E ((1 - c X)^2 + c^2 X Y)^(s/2) with c = eta sigma^2 / b, X ~ chi2(b), Y ~ chi2(d - 1).
    Model: Gürbüzbalaban, Şimşekli and Zhu (2021), "The Heavy-Tail Phenomenon in SGD". Gauss-Legendre panels
    that shrink towards the zero of the integrand; errors of log h are of the order of 1e-15 (1 + s / 100).
    Costs some milliseconds, in 1e5 points.

    Examples
    --------
    >>> round(moment(2, eta=0.5, b=1, d=1), 12)  # 1 - 2 eta + eta^2 (d + b + 1) / b
    0.75
    """
    s = number(s, "s", least=0.0, most=_LARGEST_POWER)
    c, b, d = _step(eta, b, d, sigma)
    if s == 0:
        return 1.0
    log = Law(c, b, d, s).log_moment(s)
    return math.exp(log) if log < 709 else math.inf


def lyapunov(eta: float, b: int, d: int, sigma: float = 1.0) -> float:
    r"""Lyapunov exponent, rho = lim log \|M_k ... M_1\| / k.

    Parameters
    ----------
    eta, b, d, sigma
        As for :func:`moment`.

    Returns
    -------
    float
        Below 0 there is one stationary law, from 0 on there is none.

    Raises
    ------
    TypeError, ValueError
        As for :func:`moment`.

    Notes
    -----
    E log((1 - c X)^2 + c^2 X Y) / 2, see :func:`moment`.

    Examples
    --------
    >>> round(lyapunov(1.0, b=1, d=1), 6)
    -0.416992
    """
    c, b, d = _step(eta, b, d, sigma)
    return Law(c, b, d).growth(0.0)


def tail_index(eta: float, b: int, d: int, sigma: float = 1.0) -> float:
    r"""Tail exponent of the stationary law of SGD, P(\|x\| > r) ~ r^-alpha.

    Parameters
    ----------
    eta, b, d, sigma
        As for :func:`moment`.

    Returns
    -------
    float
        The one alpha > 0 with h(alpha) = 1. It depends on eta and sigma through eta sigma^2 alone, is 2 at
        :func:`eta_crit`, and falls to 0 at :func:`eta_max`; for small eta it is near 1.80 b / (eta sigma^2).

    Raises
    ------
    NoStationaryLawError
        A ValueError, whose text begins with "no stationary law": eta is not below :func:`eta_max`.
    TypeError, ValueError
        As for :func:`moment`.

    Notes
    -----
    Kesten (1973) and Goldie (1991): h is log-convex with h(0) = 1, so that h(alpha) = 1 has one root above 0
    where rho < 0. It is bracketed by the sign of log h, at s = 2 in closed form, and then found by Brent's
    method. Some 10 to 100 ms.

    Examples
    --------
    >>> round(tail_index(1.0, b=1, d=1), 6)
    1.090826
    >>> round(tail_index(0.15, b=5, d=10, sigma=2.0), 6)
    2.83694
    >>> try:
    ...     tail_index(2.5, b=1, d=1)
    ... except NoStationaryLawError as error:
    ...     print(str(error)[:40])
    no stationary law: rho = 0.0206 is not b
    """
    c, b, d = _step(eta, b, d, sigma)
    at_rest = Law(c, b, d, 1.0, 2.0)
    rho = at_rest.growth(0.0)
    if rho >= 0:
        raise NoStationaryLawError(
            f"no stationary law: rho = {rho:.3g} is not below 0, so that iterates grow without bound; "
            f"expected eta below eta_max = {eta_max(b, d, sigma):.6g}, got {eta:.6g}",
            rho,
        )
    if at_rest.mean_p >= 0:  # h(2) >= 1
        return _root(at_rest.log_growth, 0.0, 2.0) if at_rest.log_growth(2.0) > 0 else 2.0

    def log_growth(s: float) -> float:  # each s has its own points: bells of different s may be far apart
        return Law(c, b, d, s).log_growth(s)

    low, high = 2.0, max(3.0, 0.7 / c)
    while log_growth(high) < 0:
        low, high = high, 1.5 * high
    return _root(log_growth, low, high) if log_growth(low) < 0 else low  # the latter is 2, to rounding


def eta_crit(b: int, d: int, sigma: float = 1.0) -> float:
    """Step size at which alpha is 2: from there on the variance of the iterates is infinite.

    Parameters
    ----------
    b, d, sigma
        As for :func:`moment`.

    Returns
    -------
    float
        2 b / (sigma^2 (d + b + 1)).

    Raises
    ------
    TypeError, ValueError
        An argument is no number, or out of range.

    Examples
    --------
    >>> eta_crit(b=5, d=10)
    0.625
    """
    b, d, sigma = _shape(b, d, sigma)
    return 2 * b / (sigma * sigma * (d + b + 1))


def eta_max(b: int, d: int, sigma: float = 1.0) -> float:
    """Step size at which rho is 0: from there on there is no stationary law.

    Parameters
    ----------
    b, d, sigma
        As for :func:`moment`.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        An argument is no number, or out of range.

    Notes
    -----
    Root of :func:`lyapunov` by Brent's method. In many dimensions it is very near :func:`eta_crit`: 0.12 %
    above it for d = 100 and b = 1.

    Examples
    --------
    >>> round(eta_max(b=1, d=1), 6)
    2.42125
    """
    b, d, sigma = _shape(b, d, sigma)
    low = high = 2 / (d + b + 1)  # c at eta_crit, where rho < 0
    while Law(high, b, d).growth(0.0) < 0:
        low, high = high, high + max(0.3 * high, 2 * (high - low))
    return b / (sigma * sigma) * _root(lambda c: Law(c, b, d).growth(0.0), low, high)


def stationary(eta: float, b: int, d: int, sigma: float = 1.0) -> tuple[float | None, float]:
    """Return alpha, or None where there is no stationary law, and rho."""
    try:
        return tail_index(eta, b, d, sigma), lyapunov(eta, b, d, sigma)
    except NoStationaryLawError as error:
        return None, error.rho


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize  # here, since it would lengthen the import of the package

    return float(optimize.brentq(f, low, high, xtol=1e-14 * high, rtol=1e-14))


def _shape(b: object, d: object, sigma: object) -> tuple[int, int, float]:
    sizes = []
    for value, name in ((b, "b"), (d, "d")):
        size = whole(value, name)
        if size > _LARGEST:
            raise ValueError(f"{name}: expected an int of at most {_LARGEST}, got {size}")
        sizes.append(size)
    deviation = number(sigma, "sigma", above=0.0)
    if not 1 / _FARTHEST <= deviation <= _FARTHEST:
        raise ValueError(
            f"sigma: expected a number from {1 / _FARTHEST:g} to {_FARTHEST:g}, got {deviation:.3g}"
        )
    return sizes[0], sizes[1], deviation


def _step(eta: object, b: object, d: object, sigma: object) -> tuple[float, int, int]:
    """Return eta sigma**2 / b, b and d."""
    b, d, sigma = _shape(b, d, sigma)
    step = number(eta, "eta", above=0.0)
    c = step * sigma * sigma / b
    if not _FINEST_STEP <= c <= _LONGEST_STEP:
        raise ValueError(
            f"eta: expected eta sigma^2 / b from {_FINEST_STEP:g} to {_LONGEST_STEP:g}, got {c:.3g} "
            f"(eta = {step:g})"
        )
    return c, b, d
