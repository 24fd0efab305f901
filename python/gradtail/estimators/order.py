"""The largest values of a source, in order: what a tail estimator starts from.

Both forms, sorted values and bins, answer the same questions at any k: the mean log excess over
the (k+1)-th largest value, that value, and how far the top k are from a Pareto law.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray, Magnitudes, Tail, edges_for
from gradtail.states.summary import Summary

IntArray = npt.NDArray[np.int64]
Source: TypeAlias = Summary | Magnitudes | npt.NDArray[np.floating[Any]]

_ENOUGH_FOR_SLOPE = 30  # values needed to tell the slope of the density inside a bin


@dataclass(frozen=True)
class Excess:
    """Hill's statistic at each of some k, all of shape (m,).

    Attributes
    ----------
    mean : mean of log(X_i / X_(k+1)) over the k largest: 1 / alpha
    threshold : X_(k+1)
    blur : relative standard error of ``mean`` from not knowing where in their bins the values lie
    """

    mean: FloatArray
    threshold: FloatArray
    blur: FloatArray


class Ordered(Protocol):
    """The values of one tail from the largest down: n of them, X_(k+1) known for k < known."""

    n: int
    known: int

    def excess(self, k: IntArray) -> Excess:
        """Hill's statistic at each k in 1..known-1."""

    def ks(self, k: IntArray, excess: Excess) -> FloatArray:
        """Kolmogorov-Smirnov distance of the top k from their Pareto law, at each k."""

    def ties(self, k: int) -> tuple[int, int] | None:
        """Distinct values among the k+1 largest and copies of the last; None where bins hide them."""


class SortedValues:
    """The ``depth`` largest of n positive values. Costs O(n + depth log depth)."""

    def __init__(self, values: npt.NDArray[Any], depth: int) -> None:
        self.n = values.size
        self.known = min(depth, self.n)
        if self.known < self.n:
            values = np.partition(values, self.n - self.known)[self.n - self.known :]
        self._values = np.sort(values)[::-1]
        logs = np.log(self._values, dtype=np.float64)
        self._top = float(logs[0])
        self._logs = logs - self._top  # small numbers: sums lose less
        self._sums = np.cumsum(self._logs)

    def excess(self, k: IntArray) -> Excess:
        """See :meth:`Ordered.excess`."""
        mean = np.maximum(self._sums[k - 1] / k - self._logs[k], 0.0)
        mean[self._values[0] == self._values[k]] = 0.0  # not the rounding of equal values
        return Excess(mean, self._values[k].astype(np.float64), np.zeros(k.shape))

    def ks(self, k: IntArray, excess: Excess) -> FloatArray:
        """See :meth:`Ordered.ks`."""
        distance = np.ones(k.size)
        rank = np.arange(int(k.max()), dtype=np.float64)
        for i in np.flatnonzero(excess.mean > 0):
            top = int(k[i])
            gap = (self._logs[top] - self._logs[:top]) / excess.mean[i]
            np.exp(gap, out=gap)
            gap -= rank[:top] / top
            distance[i] = max(gap.max(), 1 / top - gap.min())
        return distance

    def ties(self, k: int) -> tuple[int, int] | None:
        """See :meth:`Ordered.ties`."""
        top = self._values[: k + 1]
        return 1 + int(np.count_nonzero(np.diff(top))), int(np.count_nonzero(self._values == top[-1]))


@cache
def _log_bins(bits: int) -> tuple[FloatArray, FloatArray]:
    """Log lower edges and log widths of the bins; the last, from 2**128, is for values beyond float32."""
    low = np.log(edges_for(bits)[: (255 << bits) + 1])
    return low, np.append(np.diff(low), math.log1p(2.0**-bits))


class BinnedValues:
    """One tail of a histogram; costs depend on the bins in use and not on the values.

    Inside a bin of log width w, log x gets the density of a Pareto law cut to the bin, e^(-a t). Its
    exponent is that of the values in and above the bin: of C values whose bins lie D log units above
    this one in sum, a = log(1 + r) / w with r = C w / D, the maximum-likelihood exponent were all bins
    as wide as this one. D has half a bin added, which keeps a finite. With b = a w, the mean place in
    the bin is w (1/b - 1/r). A flat density would put it off by about w b / 12.
    """

    def __init__(self, counts: IntArray, bits: int, exact: bool, vanished: int) -> None:
        used = (counts != 0).nonzero()[0][::-1].copy()
        lows, widths = _log_bins(bits)
        self._m = m = counts[used].astype(np.float64)
        self._low = low = lows[used]
        self._upto = upto = m.cumsum()
        self.known = int(upto[-1]) if used.size else 0
        self.n, self._exact = self.known + vanished, exact
        sums = (m * low).cumsum()
        if exact:
            self._edge = edges_for(bits)[used]
        elif used.size:
            self._width = w = widths[used]
            self._r = r = upto * w / (sums - upto * low + 0.5 * w)
            self._b = b = np.log1p(r)
            few = min(int(upto.searchsorted(_ENOUGH_FOR_SLOPE)), used.size - 1)
            b[:few] = b[few] / w[few] * w[:few]
            r[:few] = np.expm1(b[:few])
            sums += (m * w * (r - b) / (b * r)).cumsum()
        self._sums = np.zeros(used.size + 1)  # of logs over the bins above each one
        self._sums[1:] = sums

    def edge_excess(self) -> tuple[IntArray, Excess]:
        """Every k for which the k largest values fill whole bins, and Hill's statistic there."""
        k = self._upto[:-1]
        return k.astype(np.int64), self._excess(slice(1, None), k, None)

    def excess(self, k: IntArray) -> Excess:
        """See :meth:`Ordered.excess`."""
        i = np.searchsorted(self._upto, k, side="right")  # the bin of X_(k+1)
        return self._excess(i, k, k - (self._upto[i] - self._m[i]))

    def _excess(self, i: Any, k: Any, inside: FloatArray | None) -> Excess:
        """``inside`` of the top k values are in bin i, that of X_(k+1); None: none are."""
        low, total = self._low[i], self._sums[:-1][i]
        if self._exact:
            if inside is not None:
                total = total + inside * low
            mean = np.maximum(total / k - low, 0.0)
            if inside is not None:
                mean[i == 0] = 0.0  # not the rounding of equal values
            return Excess(mean, self._edge[i], np.zeros(k.shape))
        m, w, r = self._m[i], self._width[i], self._r[i]
        # The (j+1)-th largest of m values is at the (j+1)/(m+1) upper quantile of their law, in the
        # mean; above it the law is of the same form, with r cut to that share.
        share = (1 if inside is None else inside + 1) / (m + 1)
        cut = share * r
        b = np.log1p(cut)
        rest = w * b / self._b[i]  # of the bin, above the threshold
        threshold = low + w - rest
        if inside is not None:
            total = total + inside * (threshold + rest * (1 / b - 1 / cut))
        mean = total / k - threshold
        # A density flat in x in place of the falling one, and chance: where k values lie within their
        # bins, and where the threshold lies in its own (a Beta law).
        own = w / mean
        slope = own * (own + w) / 12
        chance = own * own * (share * (1 - share) / (m + 2) + 1 / (12 * k))
        return Excess(mean, np.exp(threshold), np.sqrt(slope * slope + chance))

    def ks(self, k: IntArray, excess: Excess) -> FloatArray:
        """See :meth:`Ordered.ks`."""
        top = int(np.searchsorted(self._upto, k.max(), side="right"))  # bins wholly among the top k
        usable = np.where(excess.mean > 0, excess.mean, np.inf)[:, None]
        inside = self._upto[:top] <= k[:, None]
        gap = np.exp(np.minimum(np.log(excess.threshold)[:, None] - self._low[:top], 0.0) / usable)
        share = self._upto[:top] / k[:, None]
        distance = np.where(inside, np.abs(gap - share), 0.0).max(axis=1, initial=0.0)
        if self._exact:  # values are points, where both sides of each step count
            share -= self._m[:top] / k[:, None]
            before = np.where(inside, np.abs(gap - share), 0.0).max(axis=1, initial=0.0)
            i = np.searchsorted(self._upto, k, side="right")
            at_threshold = 1 - (self._upto[i] - self._m[i]) / k
            distance = np.maximum(np.maximum(distance, before), at_threshold)
        return np.where(excess.mean > 0, distance, 1.0)

    def ties(self, k: int) -> tuple[int, int] | None:
        """See :meth:`Ordered.ties`."""
        if not self._exact:
            return None
        i = int(np.searchsorted(self._upto, k, side="right"))
        return i + 1, int(self._m[i])


def check_tail(tail: object) -> Tail:
    """Return ``tail`` or raise in the library's voice."""
    if tail not in ("both", "upper", "lower"):
        raise ValueError(f"tail: expected 'both', 'upper' or 'lower', got {tail!r}")
    return tail


def order(source: Source, tail: Tail, depth: Callable[[int], int]) -> Ordered:
    """Order one tail of a source: of n values in an array, the ``depth(n)`` largest."""
    if not isinstance(source, np.ndarray):
        return order_bins(source, tail)
    size = np.abs(source) if tail == "both" else source if tail == "upper" else -source
    values = size[(size > 0) & (size < np.inf)]
    require_values(values.size, tail)
    return SortedValues(values, max(2, depth(values.size)))


def order_bins(source: Summary | Magnitudes, tail: Tail) -> BinnedValues:
    """Order one tail of a histogram; values beyond float32 count as 2**128 in the tail of both signs."""
    if isinstance(source, Summary):
        source = source.magnitudes
    counts = tail_counts(source, tail)
    whole = tail == "both"
    ordered = BinnedValues(counts, source.bits, source.exact, source.vanished if whole else 0)
    require_values(ordered.known, tail)
    return ordered


def tail_counts(source: Magnitudes, tail: Tail) -> IntArray:
    """Count nonzero values, as :meth:`Magnitudes.nonzero` has them, with the overflowed ones."""
    half = source.counts.size // 2
    counts = source.counts.view(np.int64)
    if tail == "both":
        new = counts[:half] + counts[half:]
        new[0] -= source.zeros
        new[255 << source.bits] = source.overflowed
    else:
        new = counts[:half].copy() if tail == "upper" else counts[half:].copy()
        new[0] = 0  # zeros are not told apart by sign
    return new


def left_out(source: Source) -> tuple[int, int, int, int]:
    """Count the finite values, zeros, non-finite values, and values beyond float32."""
    if isinstance(source, np.ndarray):
        finite = int(np.count_nonzero(np.isfinite(source)))
        return finite, source.size - int(np.count_nonzero(source)), source.size - finite, 0
    nonfinite = source.nonfinite if isinstance(source, Summary) else 0
    m = source.magnitudes if isinstance(source, Summary) else source
    return int(m.counts.sum()) + m.overflowed + m.vanished, m.zeros, nonfinite, m.overflowed


def require_values(n: int, tail: Tail) -> None:
    """Refuse a tail without the two values that Hill's statistic takes."""
    if n < 2:
        where = "in all" if tail == "both" else f"in the {tail} tail"
        raise ValueError(f"source: expected at least 2 nonzero values {where}, got {n}")


def as_source(source: object) -> Source:
    """Return a Summary or Magnitudes as it is, and anything else as a flat array of floats."""
    if isinstance(source, (Summary, Magnitudes)):
        return source
    return as_reals(source, "source", "a Summary, Magnitudes or").reshape(-1)


def as_reals(values: object, name: str, others: str = "a") -> npt.NDArray[np.floating[Any]]:
    """Return an array of real numbers as one of floats in its own shape; of a torch tensor, its memory.

    Raises
    ------
    TypeError, ValueError
        No array of real numbers, or a tensor that is not dense on the CPU; ``others`` are named as well.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        if values.device.type != "cpu" or values.layout != torch.strided:
            kind = values.device.type if values.device.type != "cpu" else str(values.layout)
            raise ValueError(f"{name}: expected a dense tensor on the CPU, got one on {kind}")
        dense: Any = values.detach()
        values = (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {others} real array, got {values!r:.60}") from error
    if x.dtype.name == "bfloat16":  # of ml_dtypes
        x = x.astype(np.float32)
    if x.dtype.kind not in "fiu":
        what = f"dtype {x.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(
            f"{name}: expected {'an' if others == 'a' else others} array of real numbers, got {what}"
        )
    return x if x.dtype.kind == "f" else x.astype(np.float64)
