"""What a window of steps shows of the variance of a weight about the mean of the window."""

from __future__ import annotations

import math

import numpy as np

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs import Policy, spectrum, weight_variance

_TIMES = 8  # frequencies for each step of the window: what correlates over a window is seen in it
_VALUES = 1 << 20  # frequencies times curvatures at once


def variance_in_window(
    curvature: FloatArray, steps: int, *, eta: float, beta: float, M: int, policy: Policy
) -> FloatArray:
    """Return the expected mean square of a stationary weight about the mean over so many steps.

    Parameters
    ----------
    curvature : ndarray of float64, shape (k,)
        Positive.
    steps : int
    eta, beta, M, policy
        As for :func:`gradtail.theory.epochs.weight_variance`, for noise of variance 1.

    Returns
    -------
    ndarray of float64, shape (k,)

    Notes
    -----
    The variance of the weight less that of the window's mean. Both together are one integral over
    frequencies, of the power of the weight times 1 - F, with F(w) = (sin(T w / 2) / (T sin(w / 2)))**2. Of a
    fixed order the mean over whole epochs is a constant, and nothing is lost. O(T) a curvature.
    """
    if policy == "fixed":
        return np.asarray(weight_variance(curvature, eta=eta, beta=beta, M=M, policy=policy))
    size = _TIMES * steps
    k = np.arange(1, size // 2 + 1)
    half = math.pi * k / size
    sine = np.sin(half)
    fejer = (np.sin(steps * half) / (steps * sine)) ** 2
    # frequency 0 adds nothing, for F is 1 there; w and -w add alike
    shown = np.where(2 * k == size, 1.0, 2.0) / size * (1 - fejer) * spectrum(2 * half, M, policy=policy)
    x = 4 * sine**2  # abs(1 - exp(-iw))**2
    turn = (1 - beta) ** 2 * np.sin(2 * half) ** 2
    found = np.empty(curvature.shape)
    rows = max(1, _VALUES // len(k))
    for start in range(0, len(curvature), rows):
        some = eta * curvature[start : start + rows, None]
        # exp(iw) - (1 + beta - a) + beta exp(-iw): real part a - (1 + beta) x / 2, imaginary (1 - beta) sin w
        power = eta**2 / ((some - (1 + beta) * x / 2) ** 2 + turn)
        found[start : start + rows] = power @ shown
    return found
