"""The typical size of each coordinate over batches: what a coordinate is standardised by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.estimators.stable.law import log_mean_of_normal
from gradtail.states.magnitudes import FloatArray

SEEN = 5
"""Values of a coordinate that its size is taken from at least."""

_CHUNK = 1 << 19  # values of some columns that are sorted at once


@dataclass(frozen=True, eq=False)
class TypicalSizes:
    """Geometric means of distances from a centre.

    Attributes
    ----------
    centre : ndarray of float64, shape (coordinates,)
    logs : ndarray of float64, shape (coordinates,)
        Sums of logs of distances that are not 0, of values that are not 0.
    seen : ndarray of float64, shape (coordinates,)
        How many.
    """

    centre: FloatArray
    logs: FloatArray
    seen: FloatArray

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which coordinates were seen often enough."""
        return np.asarray(self.seen >= SEEN)

    def of_normal(self) -> FloatArray:
        """Return the standard deviations of normal values with these sizes; 0 where not known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.known, np.exp(self.logs / self.seen - log_mean_of_normal()), 0.0)

    def standardised(self, row: FloatArray) -> FloatArray:
        """Return distances of a row over the sizes by the other rows; 0 where :meth:`about` is."""
        found = self.about(row)
        use = found != 0
        away = found[use]
        found[use] = away * np.exp(-(self.logs[use] - np.log(np.abs(away))) / (self.seen[use] - 1))
        return found

    def about(self, row: FloatArray) -> FloatArray:
        """Return distances of a row from the centre; 0 where it is 0 or no size is known."""
        return np.where((row != 0) & self.known, row - self.centre, 0.0)


def typical_sizes(
    matrix: npt.NDArray[np.floating], rows: npt.NDArray[np.int64], exponent: int, centred: bool
) -> TypicalSizes:
    """Take sizes column by column, of values times 2^exponent.

    With ``centred`` the centre is the mean of the middle half of the nonzero values: a column whose sample
    mean was taken off lies around minus its own outliers' share of that, by which distances from 0 would
    be large in every batch of it. The centre is 0 where the middle half is one value.
    """
    m = matrix.shape[1]
    centre, logs, seen = np.zeros(m), np.zeros(m), np.zeros(m)
    each = max(1, _CHUNK // max(rows.size, 1))
    for begin in range(0, m, each):
        part = slice(begin, min(begin + each, m))
        x = np.ldexp(matrix[rows, part].T.astype(np.float64, order="C"), exponent)
        there = x != 0
        if centred:
            centre[part] = _middle(x, there)
        away = np.abs(x - centre[part, None])
        there &= away != 0
        logs[part] = np.log(away, out=np.zeros(x.shape), where=there).sum(axis=1)
        seen[part] = there.sum(axis=1)
    return TypicalSizes(centre, logs, seen)


def _middle(x: FloatArray, there: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the mean of the middle half of the values of each row that are there; 0 of one value."""
    count = there.sum(axis=1)
    ordered = np.where(there, x, np.inf)
    ordered.sort(axis=1)
    first = count // 4
    last = count - first - 1  # inclusive
    place = np.arange(x.shape[1])
    middle = (place >= first[:, None]) & (place <= last[:, None])
    at = np.arange(len(x))
    spread = (count > 1) & (ordered[at, np.maximum(last, 0)] > ordered[at, np.minimum(first, x.shape[1] - 1)])
    total = np.sum(ordered, axis=1, where=middle)
    return np.where(spread, total / np.maximum(last - first + 1, 1), 0.0)
