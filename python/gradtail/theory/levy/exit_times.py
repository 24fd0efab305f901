"""Mean times of first exit from an interval: small Lévy noise in closed form, Brownian noise exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import number, stable_alpha
from gradtail.theory.levy.stable import levy_constant

Interval: TypeAlias = "float | tuple[float, float]"
Gradient: TypeAlias = Callable[[FloatArray], FloatArray]

_GRID = 40_001
_LARGEST_EXPONENT = 690.0


def interval(a: object) -> tuple[float, float]:
    """Return how far the interval goes to the left and to the right of the minimum, each above 0."""
    if isinstance(a, tuple):
        if len(a) != 2:
            raise ValueError(
                f"a: expected a number or a pair (left, right) of distances, got {len(a)} values"
            )
        return number(a[0], "a", above=0.0), number(a[1], "a", above=0.0)
    far = number(a, "a", above=0.0)
    return far, far


def exit_time(alpha: float, a: Interval, eps: float) -> float:
    r"""Mean time of first exit of dX = -f'(X) dt + eps dL from an interval about a minimum, as eps goes to 0.

    Parameters
    ----------
    alpha : float
        Of the symmetric stable process L, in (0, 2), with characteristic function exp(-t \|u\|^alpha).
    a : float or (float, float)
        The interval is (-a, a), or (-left, right), about the minimum at 0.
    eps : float
        Above 0.

    Returns
    -------
    float
        For (-a, a) alpha a^alpha / (2 c eps^alpha) with c = Gamma(1 + alpha) sin(pi alpha / 2) / pi. It asks
        for the width of the well, in a power, and not for the height of its sides.

    Raises
    ------
    TypeError, ValueError
        An argument, or the time, is out of range; alpha = 2 is :func:`brownian_exit_time`.

    Notes
    -----
    The rate of jumps that reach out, (c eps^alpha / alpha)(left^-alpha + right^-alpha): Imkeller and
    Pavlyukevich (2006), Stoch. Proc. Appl. 116, 611. A form with c = 1 is also in print; it belongs to
    another scale of L.

    Examples
    --------
    >>> round(exit_time(1.2, 1.0, 0.03), 1)
    120.9
    """
    alpha, (left, right), eps = stable_alpha(alpha), interval(a), number(eps, "eps", above=0.0)
    if alpha == 2:
        raise ValueError("alpha: expected a number below 2 (brownian_exit_time has the normal case), got 2")
    try:
        found = alpha / (levy_constant(alpha) * ((eps / left) ** alpha + (eps / right) ** alpha))
    except (OverflowError, ZeroDivisionError):
        found = 0.0
    if not 0 < found < math.inf:
        raise ValueError(
            f"eps: expected a size with a mean time within float64, got {eps:.3g} for alpha = {alpha:g} and "
            f"an interval of {left:.3g} and {right:.3g}"
        )
    return float(found)


def quadratic(curvature: float) -> Gradient:
    """Return the gradient of curvature x^2 / 2."""
    k = number(curvature, "curvature", least=0.0)
    return lambda x: np.asarray(k * x)


def brownian_exit_time(
    a: Interval,
    eps: float,
    *,
    gradient: Gradient | None = None,
    curvature: float = 1.0,
    start: float = 0.0,
    reflect_left: bool = False,
) -> float:
    """Mean time of first exit of dX = -f'(X) dt + eps dW from an interval, exact for every eps.

    Parameters
    ----------
    a : float or (float, float)
        As for :func:`exit_time`.
    eps : float
        Above 0. W is standard Brownian motion: stable noise of alpha = 2 and size eps is sqrt(2) eps of it.
    gradient : callable, optional
        f', of an array of positions; default: ``curvature`` x.
    curvature : float
        At least 0.
    start : float
        Inside the interval.
    reflect_left : bool
        Whether the left end turns the path back instead of letting it out.

    Returns
    -------
    float
        For a high barrier about exp(2 height / eps^2), with no power of the width but in what stands before
        it.

    Raises
    ------
    TypeError, ValueError
        An argument is out of range, the gradient is not finite, or 2 height / eps^2 exceeds 690.

    Notes
    -----
    The Green function of the scale and speed densities exp(2 f / eps^2) and (2 / eps^2) exp(-2 f / eps^2)
    (Karlin and Taylor 1981, A Second Course in Stochastic Processes, ch. 15), integrated by cubic splines on
    40,001 points; relative errors are about 1e-9 where 2 height / eps^2 is some tens.

    Examples
    --------
    >>> round(brownian_exit_time(1.0, 0.5, curvature=0.0), 9)  # a^2 / eps^2
    4.0
    >>> [round(brownian_exit_time(1.0, 0.5, curvature=k), 2) for k in (1.0, 2.0)]
    [27.43, 504.09]
    """
    (left, right), eps = interval(a), number(eps, "eps", above=0.0)
    start = number(start, "start")
    if not -left < start < right:
        raise ValueError(f"start: expected a point between {-left:g} and {right:g}, got {start:g}")
    slope = quadratic(curvature) if gradient is None else gradient
    x = np.union1d(np.linspace(-left, right, _GRID), [start])
    at = int(np.searchsorted(x, start))
    values = np.asarray(slope(x), np.float64)
    if values.shape != x.shape or not np.isfinite(values).all():
        raise ValueError(f"gradient: expected finite values of shape {x.shape}, got shape {values.shape}")
    u = (2 / eps**2) * _integral(x, values)
    if float(u.max() - u.min()) > _LARGEST_EXPONENT:
        raise ValueError(
            f"eps: expected 2 height / eps^2 of at most {_LARGEST_EXPONENT:g}, "
            f"got {float(u.max() - u.min()):.4g}"
        )
    u -= u[at]
    scale, speed = np.exp(u), (2 / eps**2) * np.exp(-u)
    if reflect_left:
        return float(_integral(x[at:], (scale * _integral(x, speed))[at:])[-1])
    to_left = _integral(x, scale)  # S, from the left end
    to_right = _integral(-x[::-1], scale[::-1])[::-1]  # S(right) - S, without loss near the right end
    before = _integral(x[: at + 1], (to_left * speed)[: at + 1])[-1]
    after = _integral(x[at:], (to_right * speed)[at:])[-1]
    return float((to_right[at] * before + to_left[at] * after) / to_left[-1])


def _integral(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the integral of y from x[0] on, at every x."""
    from scipy import interpolate  # here, since it would lengthen the import of the package

    return np.asarray(interpolate.CubicSpline(x, y).antiderivative()(x))
