"""The noise itself: its variance, autocovariance and spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import whole
from gradtail.theory.epochs.policies import Policy, as_given, check_batches, check_policy, real_values

_SERIES_BELOW = 0.5  # where 1 - sin(y) / y would lose digits


def autocovariance(
    h: npt.ArrayLike, M: int, *, policy: Policy = "reshuffle", noise_variance: npt.ArrayLike = 1.0
) -> Any:
    r"""Autocovariance of the noise of batches at lag h, averaged over positions in the epoch.

    .. math:: R(h) = -C \frac{M - |h|}{M (M - 1)}, \quad 1 \le |h| \le M - 1

    for epochs that are reshuffled, and 0 beyond: two batches of one epoch have covariance -C / (M - 1), and
    (M - h) / M of the pairs share one. All lags add up to 0.

    Parameters
    ----------
    h : int, or array of int
        Lags in steps, of either sign.
    M : int
        Batches of an epoch, at least 2.
    policy : {"reshuffle", "replacement", "fixed"}
        With replacement R is 0 but at lag 0; a fixed order has R = C at multiples of M, -C / (M - 1) else.
    noise_variance : float or array
        C = R(0); broadcast against ``h``.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    TypeError, ValueError
        Lags that are no ints, M below 2, an unknown policy, a negative variance.

    Notes
    -----
    Kuehn and Rosenow (2023), arXiv:2306.05300; exact where the noise does not depend on the weights.

    Examples
    --------
    >>> autocovariance([0, 1, 9, 10], 10).round(4).tolist()
    [1.0, -0.1, -0.0111, 0.0]
    """
    batches, kind = check_batches(M), check_policy(policy)
    lags = np.asarray(h)
    if lags.dtype.kind not in "iu":
        raise TypeError(f"h: expected ints, got dtype {lags.dtype}")
    lags = np.abs(lags.astype(np.int64))
    scale = real_values(noise_variance, "noise_variance", least=0.0)
    if kind == "reshuffle":
        rest = np.where(lags < batches, -(batches - lags) / (batches * (batches - 1)), 0.0)
        found = np.where(lags == 0, 1.0, rest)
    elif kind == "replacement":
        found = np.where(lags == 0, 1.0, 0.0)
    else:
        found = np.where(lags % batches == 0, 1.0, -1 / (batches - 1))
    return as_given(scale * found, h, noise_variance)


def spectrum(
    w: npt.ArrayLike, M: int, *, policy: Policy = "reshuffle", noise_variance: npt.ArrayLike = 1.0
) -> Any:
    r"""Power spectrum of the noise, sum of R(h) exp(-i w h) over all lags.

    .. math:: \frac{C M}{M - 1} \left[1 - \frac{1}{M^2} \frac{\sin^2(M w / 2)}{\sin^2(w / 2)}\right]

    Parameters
    ----------
    w : float, or array of float
        Angular frequency, radians a step; periodic in 2 pi.
    M, noise_variance
        As for :func:`autocovariance`; the mean of the spectrum over w is ``noise_variance``.
    policy : {"reshuffle", "replacement"}
        A fixed order has no density: its power sits at the multiples of 2 pi / M, C M / (M - 1) / M each.

    Returns
    -------
    float, or ndarray of float64
        Accurate relative to itself down to w = 0, where it vanishes as (M + 1) M w**2 / 12.

    Raises
    ------
    TypeError, ValueError
        Frequencies that are not finite, or as for :func:`autocovariance`.

    Examples
    --------
    >>> spectrum([0.0, 0.01, np.pi], 100).round(4).tolist()
    [0.0, 0.0814, 1.0101]
    """
    batches, kind = check_batches(M), check_policy(policy)
    scale = real_values(noise_variance, "noise_variance", least=0.0)
    if kind == "fixed":
        raise ValueError(
            "policy: expected 'reshuffle' or 'replacement' (the power of a fixed order sits at multiples of "
            "2 pi / M and has no density), got 'fixed'"
        )
    x = real_values(w, "w")
    half = (x - 2 * math.pi * np.round(x / (2 * math.pi))) / 2
    found = np.ones_like(half)
    if kind == "reshuffle":
        one = _without_sinc(half)
        gap = np.maximum((_without_sinc(batches * half) - one) / (1 - one), 0.0)
        found = batches / (batches - 1) * gap * (2 - gap)
    return as_given(scale * found, w, noise_variance)


def _without_sinc(y: FloatArray) -> FloatArray:
    """Return 1 - sin(y) / y."""
    square = np.minimum(y * y, _SERIES_BELOW**2)
    series = np.zeros_like(square)
    for k in range(7, 0, -1):
        series = square / ((2 * k) * (2 * k + 1)) * (1 - series)
    safe = np.where(np.abs(y) > _SERIES_BELOW, y, 1.0)
    return np.where(np.abs(y) > _SERIES_BELOW, 1 - np.sin(safe) / safe, series)


def noise_variance(
    example_variance: npt.ArrayLike, *, batch_size: int, examples: int, policy: Policy = "reshuffle"
) -> Any:
    """Variance of the mean of a batch about the mean of all examples.

    Parameters
    ----------
    example_variance : float, or array of float
        Of the gradients of single examples, with N - 1 in the denominator.
    batch_size, examples : int
        S and N.
    policy : {"reshuffle", "replacement", "fixed"}
        (s**2 / S) (1 - S / N) without replacement, s**2 (N - 1) / (N S) with.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    TypeError, ValueError
        Negative variances, or a batch that is larger than the data, where drawn without replacement.

    Examples
    --------
    >>> noise_variance(2.0, batch_size=10, examples=100)
    0.18
    """
    size, n = whole(batch_size, "batch_size"), whole(examples, "examples", least=2)
    kind = check_policy(policy)
    scale = real_values(example_variance, "example_variance", least=0.0)
    if kind == "replacement":
        return as_given(scale * ((n - 1) / (n * size)), example_variance)
    if size > n:
        raise ValueError(f"batch_size: expected an int of at most examples = {n}, got {size}")
    return as_given(scale * ((n - size) / (n * size)), example_variance)
