"""A Summary as counts of values below points of the real line, for tests of a distribution function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradtail.estimators.normality.sources import IntArray, moments_of, no_spread
from gradtail.states.magnitudes import FloatArray, Magnitudes, edges_for
from gradtail.states.summary import Summary

_HALF_MANTISSA, _HALF_LEAST, _HALF_STEP = 10, 2.0**-14, 2.0**-24  # float16: below the second, evenly spaced


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

    Inputs of a short mantissa are taken as rounded to the nearest value that it has: each stands for
    the real numbers up to halfway to its neighbours, and so do the bins that it is in. Exact zeros
    and values that vanish in float32 are around 0, in the cell between the two middle points.
    """
    bits = min(magnitudes.bits, magnitudes.mantissa)
    half = magnitudes.counts.astype(np.int64).reshape(2, -1)
    positive, negative = half.reshape(2, -1, 1 << (magnitudes.bits - bits)).sum(axis=2)
    top = 255 << bits  # no values from here on
    middle = int(positive[0]) + int(negative[0]) + magnitudes.vanished
    cells = np.concatenate([[0], negative[top - 1 : 0 : -1], [middle], positive[1:top]])
    starts = _starts(bits, magnitudes.mantissa)
    return np.concatenate([-starts[::-1], starts]), np.cumsum(cells)


def _starts(bits: int, mantissa: int) -> FloatArray:
    """Where each bin from the second on begins, and where the last one ends, on the real line."""
    edges = edges_for(bits)[1 : (255 << bits) + 1]
    if mantissa > _HALF_MANTISSA:
        return edges
    before = (np.arange(1, edges.size + 1) << (mantissa - bits)) - 1
    starts = (edges + edges_for(mantissa)[before]) / 2
    if mantissa == _HALF_MANTISSA:
        small = edges < _HALF_LEAST
        starts[small] = (np.ceil(edges[small] / _HALF_STEP) - 0.5) * _HALF_STEP
    return np.asarray(starts)
