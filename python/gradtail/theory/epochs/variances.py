"""Stationary variances of weights and velocities of heavy-ball SGD, exactly."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs.policies import (
    HeavyBall,
    Policy,
    as_given,
    check_batches,
    check_policy,
    real_values,
)

Method: TypeAlias = Literal["closed", "recursion"]
_Complex: TypeAlias = npt.NDArray[np.complex128]

_APART = 1e-3  # roots nearer than this, over M, lose digits in a divided difference
_SERIES_BELOW, _TERMS = 1.0, 24  # of M |1 - r|: the terms fall faster than 1 / k!
_VALUES = 1 << 20  # frequencies times curvatures at once


def weight_variance(
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    noise_variance: npt.ArrayLike = 1.0,
    policy: Policy = "reshuffle",
    method: Method = "closed",
) -> Any:
    r"""Stationary variance of the weight along directions of given curvature, averaged over the epoch.

    v <- beta v - eta (lambda theta + noise), theta <- theta + v: SGD with momentum, without dampening.

    Parameters
    ----------
    curvature : float, or array of float
        lambda, from 0 to below 2 (1 + beta) / eta. At 0 it is the limit of small curvature: inf with
        replacement, finite else.
    eta, beta : float
        Step size and momentum, 0 <= beta < 1.
    M : int
        Batches of an epoch.
    noise_variance : float, or array of float
        C, the variance of the noise of a batch in each direction; broadcast against ``curvature``.
    policy : {"reshuffle", "replacement", "fixed"}
        "fixed" is the average over random orders, each kept for good, of the variance about its mean.
    method : {"closed", "recursion"}
        Of "reshuffle": through the roots of the recursion, or step by step over an epoch.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    TypeError, ValueError
        A negative curvature, or one at which SGD is unstable; eta, beta, M, policy out of range.

    Notes
    -----
    With a = eta lambda, white noise of variance 1 has the autocovariance g(0) = c (1 + beta) / a,
    c = eta**2 / ((1 - beta) (2 (1 + beta) - a)), and g(h+1) = (1 + beta - a) g(h) - beta g(h-1). Since the
    noise of an epoch adds up to 0, its variance is one of differences d(h) = g(0) - g(h) alone,

    .. math:: \frac{2 C}{M (M-1)} \sum_{h=1}^{M-1} (M - h) d(h),

    where nothing cancels, however flat the direction. d(1) = c and
    d(h+1) = (1 + beta - a) d(h) - beta d(h-1) + c (1 + beta) ("recursion"). With r, s the roots of
    z**2 - (1 + beta - a) z + beta, d(h) is c times the divided difference at r, s of
    (beta + z) (1 - z**h) / (1 - z), and the variance 2 c C / (M (M-1)) times that of (beta + z) L(z),

    .. math:: L(z) = \sum_{j=0}^{M-2} \binom{M-j}{2} z^j

    ("closed"; by recursion where the roots are nearer than 1e-3 / M). A fixed order is a sum over the M - 1
    frequencies of its period, C / (M-1) sum_k abs(T(2 pi k / M))**2, with T the transfer function.

    "closed" O(1), the others O(M) a curvature. The model is that of Kuehn and Rosenow (2023),
    arXiv:2306.05300.

    Examples
    --------
    >>> weight_variance([0.0, 0.06, 6.0], eta=0.005, beta=0.9, M=1000).round(5).tolist()
    [0.40545, 0.22501, 0.00418]
    """
    balls, batches, scale, kind = _checked(curvature, eta, beta, M, noise_variance, policy)
    if method not in ("closed", "recursion"):
        raise ValueError(f"method: expected 'closed' or 'recursion', got {method!r}")
    if kind == "replacement":
        with np.errstate(divide="ignore"):
            found = balls.variogram_of_one * (1 + balls.beta) / balls.step
    elif kind == "fixed":
        found = _over_frequencies(balls, batches, velocity=False)
    else:
        found = _epoch_sums(balls, batches, method)[0]
    with np.errstate(invalid="ignore"):
        product = np.where(scale == 0, 0.0, scale * found)
    return as_given(product, curvature, noise_variance)


def velocity_variance(
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    noise_variance: npt.ArrayLike = 1.0,
    policy: Policy = "reshuffle",
    method: Method = "closed",
) -> Any:
    """Stationary variance of the velocity, the step from one weight to the next.

    Parameters
    ----------
    curvature, eta, beta, M, noise_variance, policy, method
        As for :func:`weight_variance`.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`.

    Notes
    -----
    2 c C with replacement, and 2 C (M d(1) - d(M) / M) / (M - 1) for reshuffled epochs, summed by parts; see
    :func:`weight_variance`.

    Examples
    --------
    >>> round(velocity_variance(0.06, eta=0.005, beta=0.9, M=1000), 9)
    0.000130926
    """
    balls, batches, scale, kind = _checked(curvature, eta, beta, M, noise_variance, policy)
    if method not in ("closed", "recursion"):
        raise ValueError(f"method: expected 'closed' or 'recursion', got {method!r}")
    if kind == "replacement":
        found = 2 * balls.variogram_of_one
    elif kind == "fixed":
        found = _over_frequencies(balls, batches, velocity=True)
    else:
        found = _epoch_sums(balls, batches, method)[1]
    return as_given(scale * found, curvature, noise_variance)


def _checked(
    curvature: npt.ArrayLike,
    eta: object,
    beta: object,
    M: object,
    noise_variance: npt.ArrayLike,
    policy: object,
) -> tuple[HeavyBall, int, FloatArray, Policy]:
    balls = HeavyBall.of(curvature, eta, beta)
    scale = real_values(noise_variance, "noise_variance", least=0.0)
    try:
        np.broadcast_shapes(balls.step.shape, scale.shape)
    except ValueError:
        raise ValueError(
            f"noise_variance: expected a shape that fits curvature's {balls.step.shape}, got {scale.shape}"
        ) from None
    return balls, check_batches(M), scale, check_policy(policy)


def _epoch_sums(balls: HeavyBall, batches: int, method: str) -> tuple[FloatArray, FloatArray]:
    """Variances of weight and velocity for reshuffled epochs and noise of variance 1."""
    step = balls.step.reshape(-1)
    closed = np.zeros(step.shape, bool)
    sums, last = np.empty(step.shape), np.empty(step.shape)
    if method == "closed":
        r, s, gap = _roots(step, balls.beta)
        closed = np.abs(gap) * batches > _APART
        if closed.any():
            r, s, gap = r[closed], s[closed], gap[closed]
            for target, polynomial in ((sums, _triangle), (last, _geometric)):
                first = (balls.beta + 1 - r) * polynomial(r, batches)
                second = (balls.beta + 1 - s) * polynomial(s, batches)
                target[closed] = np.real((first - second) / gap)
    if not closed.all():
        sums[~closed], last[~closed] = _by_recursion(step[~closed], balls.beta, batches)
    one = balls.variogram_of_one
    weight = 2 / (batches * (batches - 1)) * sums.reshape(one.shape)
    velocity = 2 / (batches - 1) * (batches - last.reshape(one.shape) / batches)
    return one * weight, one * velocity


def _roots(step: FloatArray, beta: float) -> tuple[_Complex, _Complex, _Complex]:
    """Return 1 - r, 1 - s and r - s of the roots r, s of z**2 - (1 + beta - a) z + beta, abs(r) >= abs(s).

    (1 - r) (1 - s) = a gives the one that is small without loss.
    """
    half = (1 - beta + step) / 2  # of the sum of 1 - r and 1 - s
    root: _Complex = np.sqrt((half**2 - step).astype(np.complex128))
    far: _Complex = half + root  # that away from 0
    return np.asarray(step / far), far, np.asarray(2 * root)


def _triangle(u: _Complex, batches: int) -> _Complex:
    """Sum of binomial(M - j, 2) (1 - u)**j over j = 0..M-2."""
    near = np.abs(u) * batches < _SERIES_BELOW
    safe = np.where(near, 1.0, u)
    power = _power(safe, batches)
    rest = batches * safe - 1 + power  # (M - 1) - M r + r**M
    direct = (batches * (batches - 1) / 2 - (1 - safe) * rest / safe**2) / safe
    # sum over k of (-u)**k binomial(M + 1, k + 3)
    term = np.full(u.shape, math.comb(batches + 1, 3), np.complex128)
    series = np.zeros_like(term)
    for k in range(_TERMS):
        series += term
        term = term * (-np.where(near, u, 0.0)) * ((batches - 2 - k) / (k + 4))
    return np.where(near, series, direct)


def _geometric(u: _Complex, batches: int) -> _Complex:
    """Sum of (1 - u)**j over j = 0..M-1."""
    near = np.abs(u) * batches < _SERIES_BELOW
    safe = np.where(near, 1.0, u)
    direct = (1 - _power(safe, batches)) / safe
    term = np.full(u.shape, batches, np.complex128)
    series = np.zeros_like(term)
    for k in range(_TERMS):
        series += term
        term = term * (-np.where(near, u, 0.0)) * ((batches - 1 - k) / (k + 2))
    return np.where(near, series, direct)


def _power(u: _Complex, exponent: int) -> _Complex:
    """(1 - u)**exponent, keeping the digits of a small u."""
    small = np.abs(u) < 0.5
    logs = np.log1p(-np.where(small, u, 0.0))
    return np.where(small, np.exp(exponent * logs), np.where(small, 1.0, 1 - u) ** exponent)


def _by_recursion(step: FloatArray, beta: float, batches: int) -> tuple[FloatArray, FloatArray]:
    """Sum of (M - h) d(h), and d(M), both over d(1)."""
    before, now = np.zeros_like(step), np.ones_like(step)
    sums, partial = np.zeros_like(step), np.zeros_like(step)
    for _ in range(1, batches):
        partial = partial + now
        sums = sums + partial
        before, now = now, (1 + beta - step) * now - beta * before + (1 + beta)
    return sums, now


def _over_frequencies(balls: HeavyBall, batches: int, *, velocity: bool) -> FloatArray:
    """Sum over the M - 1 frequencies of a period of abs(T)**2, over M - 1: every term is positive."""
    k = np.arange(1, batches // 2 + 1)
    times = np.where(2 * k == batches, 1.0, 2.0)  # k and M - k alike
    half = math.pi * k / batches
    x = 4 * np.sin(half) ** 2  # abs(1 - q)**2
    sine = 4 * np.sin(half) ** 2 * np.cos(half) ** 2  # sin(w)**2
    step = balls.step.reshape(-1)
    found = np.empty(step.shape)
    rows = max(1, _VALUES // len(k))
    for start in range(0, len(step), rows):
        some = step[start : start + rows, None]
        # exp(iw) - (1 + beta - a) + beta exp(-iw): real part a - (1 + beta) x / 2, imaginary (1 - beta) sin w
        size = (some - (1 + balls.beta) * x / 2) ** 2 + (1 - balls.beta) ** 2 * sine
        weights = times * x if velocity else times
        found[start : start + rows] = np.sum(weights / size, axis=1)
    return balls.eta**2 / (batches - 1) * found.reshape(balls.step.shape)
