"""Power-law fits to values that are known by their bins: the cost depends on bins and not on values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from gradtail.estimators.order import IntArray, tail_counts
from gradtail.estimators.powerlaw import binned_likelihood
from gradtail.estimators.powerlaw.sample import TailSample
from gradtail.estimators.powerlaw.tails import TailData
from gradtail.estimators.rounding import bin_starts
from gradtail.states.magnitudes import FloatArray, Magnitudes, edges_for
from gradtail.states.magnitudes import Tail as Side

_ENTRIES = 1 << 21  # of the tables of one chunk


@dataclass(frozen=True, repr=False, eq=False)
class Grid:
    """All bins that values may fall into.

    Attributes
    ----------
    edges : ndarray of float64, shape (r + 1,)
        Ascending; the last is infinity.
    least : ndarray of float64, shape (r,)
        Smallest value that is counted in each bin: its lower edge, or the point that it stands for.
    """

    edges: FloatArray
    least: FloatArray

    @cached_property
    def logs(self) -> FloatArray:
        """Log edges."""
        logs: FloatArray = np.log(self.edges)
        return logs

    @cached_property
    def _by_width(self) -> tuple[FloatArray, IntArray]:
        return width_classes(np.diff(self.logs))

    @cached_property
    def powers(self) -> FloatArray:
        """Powers of the log width of each bin, as :func:`binned_likelihood.powers` has them."""
        return binned_likelihood.powers(np.diff(self.logs))

    @property
    def widths(self) -> FloatArray:
        """Distinct log widths, the last infinite."""
        return self._by_width[0]

    @property
    def classes(self) -> IntArray:
        """Which of them each bin has."""
        return self._by_width[1]


class Bins(TailData):
    """Counts between edges. See :class:`TailData`.

    The likelihood is that of the bins (Virkar and Clauset 2014, Ann. Appl. Stat. 8, 89, eq. 3.1). With
    w = log(high / low) it depends on the places of the values and on how many lie in bins of each
    width w, of which there are few: 2**bits of them repeat in every binade.

    Parameters
    ----------
    grid : Grid
    index : ndarray of int64, shape (m,)
        Bins in use, ascending.
    count : ndarray of float64, shape (m,)
    unseen : int
        Values below all bins.
    """

    form = "bins"

    def __init__(self, grid: Grid, index: IntArray, count: FloatArray, unseen: int = 0) -> None:
        super().__init__(grid.edges[index], count, unseen)
        self.grid, self.index = grid, index
        self._low, self._high = grid.logs[index], grid.logs[index + 1]
        self._above = np.cumsum((count * self._low)[::-1])[::-1]
        classes, self._classes = np.unique(grid.classes[index], return_inverse=True)
        self.widths = grid.widths[classes]
        powers = count[:, None] * grid.powers[index]
        self._powers = powers[::-1].cumsum(axis=0)[::-1]
        width = np.where(powers[:, 0] > 0, grid.logs[index + 1] - grid.logs[index], 0.0)
        self._widest = np.maximum.accumulate(width[::-1])[::-1]

    def alphas(self, at: IntArray) -> FloatArray:
        """See :meth:`TailData.alphas`: Newton's method on the likelihood."""
        places = self._places(at)
        found, sure = binned_likelihood.by_powers(places, self._powers[at], self._widest[at])
        left = np.flatnonzero(~sure)
        rows = max(1, _ENTRIES // self.widths.size)
        for begin in range(0, left.size, rows):
            some = left[begin : begin + rows]
            found[some] = binned_likelihood.by_widths(places[some], self._by_width(at[some]), self.widths)
        return found

    def _places(self, at: IntArray) -> FloatArray:
        """Sum of log(low / xmin) over the tail at each position."""
        places: FloatArray = self._above[at] - self.n_tail(at) * self._low[at]
        return np.maximum(places, 0.0)

    def _by_width(self, at: IntArray) -> FloatArray:
        """Values of the tail at each (ascending) position in bins of each width."""
        table = np.zeros((at.size, self.widths.size))
        owner = np.searchsorted(at, np.arange(self.values.size), side="right") - 1  # the last tail to hold it
        held = owner >= 0
        np.add.at(table, (owner[held], self._classes[held]), self.count[held])
        return table[::-1].cumsum(axis=0)[::-1]

    def stderr(self, at: int, alpha: float) -> float:
        """See :meth:`TailData.stderr`."""
        w = self.widths[self._classes[at:]]
        finite = np.isfinite(w) & (w > 0)
        with np.errstate(over="ignore"):
            half = 2 * np.sinh(np.minimum(alpha * w[finite] / 2, 350.0))
        return float(1 / math.sqrt(float(np.sum(self.count[at:][finite] * (w[finite] / half) ** 2))))

    def survival(self, at: IntArray, alpha: FloatArray, j: IntArray) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.survival`: at the two edges."""
        start = self._low[at]
        return np.exp(alpha * (start - self._low[j])), np.exp(alpha * (start - self._high[j]))

    def law(self, at: int, alpha: float, n: float) -> tuple[IntArray, FloatArray]:
        """Bins from xmin on and their fitted shares; the last one holds all above, less than 1e-6 values."""
        start = int(self.index[at])
        logs = self.grid.logs[start:-1] - self.grid.logs[start]
        from_ = np.exp(-alpha * logs)
        last = int(np.searchsorted(-from_, -1e-6 / n))
        from_ = from_[: max(last, 2)]
        return start + np.arange(from_.size), -np.diff(from_, append=0.0)

    def draw(self, at: int, alpha: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.draw`: lower edges of bins."""
        bins, share = self.law(at, alpha, max(n, 1))
        count = rng.multinomial(n, share / share.sum())
        used = np.flatnonzero(count)
        return self.grid.edges[bins[used]], count[used].astype(np.float64)

    def of(self, values: FloatArray, count: FloatArray, unseen: int) -> Bins:
        """See :meth:`TailData.of`: from lower edges of bins."""
        return Bins(self.grid, np.searchsorted(self.grid.edges, values, side="right") - 1, count, unseen)

    def sample(self, at: int) -> TailSample:
        """See :meth:`TailData.sample`."""
        there = self.count[at:] > 0
        low, high = ((x[at:] - self._low[at])[there] for x in (self._low, self._high))
        return TailSample("bins", float(self.values[at]), low, high, self.count[at:][there])


def width_classes(w: FloatArray) -> tuple[FloatArray, IntArray]:
    """Distinct widths, told apart to rounding, and which one each bin has."""
    _, first, classes = np.unique(np.round(w, 12), return_index=True, return_inverse=True)
    return w[first], classes.reshape(-1)


@cache
def grid_of(bits: int, mantissa: int) -> Grid:
    """Return the bins of histograms of so many mantissa bits, of inputs of so many."""
    starts = bin_starts(bits, mantissa)  # the last, from 2**128, is for values beyond float32
    return Grid(np.append(starts, np.inf), edges_for(bits)[: starts.size])


def from_magnitudes(source: Magnitudes, side: Side) -> Bins:
    """Take one side of a histogram."""
    bits = min(source.bits, source.mantissa)
    counts = tail_counts(source, side)[:: 1 << (source.bits - bits)]
    used = np.flatnonzero(counts)
    unseen = source.vanished if side == "both" else 0
    return Bins(grid_of(bits, source.mantissa), used, counts[used].astype(np.float64), unseen)
