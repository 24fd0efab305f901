"""Time series of one number a step: how long they remember, and whether they keep their level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

ONE_IN_A_HUNDRED = 1.63
"""What the largest excursion of a Brownian bridge exceeds once in a hundred times (Kolmogorov)."""

_PIECES = 4  # whose levels may differ, without being taken for memory


def ranks(values: npt.ArrayLike) -> FloatArray:
    """Return the rank of each value, ties at their mean: what outliers and zeros cannot disturb."""
    x = np.asarray(values)
    _, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    middle: FloatArray = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(middle[where.reshape(-1)])


def correlation_time(values: FloatArray) -> float:
    """Return the integrated autocorrelation time: how many values are worth one independent one.

    Geyer's initial positive sequence (1992): autocorrelations are summed in neighbouring pairs until
    a pair is not positive. At least 1. O(n log n).
    """
    n = values.size
    x = values - values.mean()
    power = float(x @ x)
    if n < 4 or power <= 0:
        return 1.0
    f = np.fft.rfft(x, 2 * n)
    correlation = np.fft.irfft(f * f.conj())[:n] / power
    pairs = correlation[0 : n - 1 : 2] + correlation[1:n:2]
    pairs = pairs[: max(1, n // 3)]
    stop = int(np.argmax(pairs <= 0)) if np.any(pairs <= 0) else pairs.size
    return max(1.0, 2 * float(pairs[:stop].sum()) - 1)


def is_level(
    values: FloatArray, marks: Sequence[npt.NDArray[np.bool_]], bound: float = ONE_IN_A_HUNDRED
) -> bool:
    """Whether marks of a series are spread evenly over it, as far as chance and its memory allow.

    Parameters
    ----------
    values : ndarray, shape (n,)
        The series; its correlation time, within quarters, is that of the marks.
    marks : sequence of ndarray of bool, shape (n,)
    bound : float
        For the largest excursion of a Brownian bridge.
    """
    n = values.size
    x = ranks(values)
    pieces = np.array_split(x, _PIECES)
    memory = correlation_time(np.concatenate([piece - piece.mean() for piece in pieces if piece.size]))
    for mark in marks:
        share = float(mark.mean())
        if not 0 < share < 1:
            continue
        strayed = np.abs(np.cumsum(mark) - share * np.arange(1, n + 1)).max()
        if strayed > bound * math.sqrt(n * share * (1 - share) * memory):
            return False
    return True
