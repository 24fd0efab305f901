"""A Summary as counts of values below points of the real line, for tests of a distribution function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradtail.estimators.normality.sources import IntArray, moments_of, no_spread
from gradtail.estimators.rounding import bin_starts
from gradtail.states.magnitudes import FloatArray, Magnitudes
from gradtail.states.summary import Summary


@dataclass(frozen=True)
class Bins:
    """How many values lie below each point, and the normal law fitted to the values themselves.

    Attributes
    ----------
    n : int
    z : ndarray of float64, shape (m,)
        The points, ascending, less the mean, in standard deviations (ddof = 0).
    below : ndarray of int64, shape (m,)
    """

    n: int
    z: FloatArray
    below: IntArray


def bins_of(source: Summary) -> Bins:
    """Standardise the histogram of a summary.

    Raises
    ------
    ValueError
        Without spread, or with a mean far from zero beside it, or with values beyond float32.
    """
    m, _ = moments_of(source)
    magnitudes = source.magnitudes
    if magnitudes.overflowed:
        raise ValueError(f"source: expected values within float32, got {magnitudes.overflowed} beyond it")
    if not np.isfinite(m.skewness):
        raise no_spread(m, 1000)
    points, below = counts_below(magnitudes)
    return Bins(m.count, (points - m.mean) / m.variance**0.5, below)


def counts_below(magnitudes: Magnitudes) -> tuple[FloatArray, IntArray]:
    """Points of the real line, ascending and symmetric, and how many values are below each.

    Bins begin as :func:`gradtail.estimators.rounding.bin_starts` has it. Exact zeros and values that
    vanish in float32 are around 0, in the cell between the two middle points.
    """
    bits = min(magnitudes.bits, magnitudes.mantissa)
    half = magnitudes.counts.astype(np.int64).reshape(2, -1)
    positive, negative = half.reshape(2, -1, 1 << (magnitudes.bits - bits)).sum(axis=2)
    top = 255 << bits  # no values from here on
    middle = int(positive[0]) + int(negative[0]) + magnitudes.vanished
    cells = np.concatenate([[0], negative[top - 1 : 0 : -1], [middle], positive[1:top]])
    starts = bin_starts(bits, magnitudes.mantissa)[1:]
    return np.concatenate([-starts[::-1], starts]), np.cumsum(cells)
