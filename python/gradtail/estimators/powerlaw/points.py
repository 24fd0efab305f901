"""Power-law fits to continuous values as they are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import IntArray
from gradtail.estimators.powerlaw.sample import TailSample
from gradtail.estimators.powerlaw.tails import TailData, logs_below
from gradtail.states.magnitudes import FloatArray

_FEW = 4096  # points that are simply all looked at
_EDGES = 16  # times sqrt(m): steps between them are then small beside a typical distance of 1 / (2 sqrt(m))


class Points(TailData):
    """Continuous values; equal ones are joined. See :class:`TailData`."""

    form = "points"
    last_step = 1.0

    def __init__(self, values: FloatArray, count: FloatArray, unseen: int = 0) -> None:
        super().__init__(values, count, unseen)
        self._logs = logs_below(values)
        self._above = np.cumsum((count * self._logs)[::-1])[::-1]

    def alphas(self, at: IntArray) -> FloatArray:
        """Hill's estimator: CSN (2009) eq. 3.1."""
        excess: FloatArray = self._above[at] / self.n_tail(at) - self._logs[at]
        alpha = np.full(excess.shape, np.inf)
        np.divide(1.0, excess, out=alpha, where=excess > 0)
        return alpha

    def stderr(self, at: int, alpha: float) -> float:
        """CSN (2009) eq. 3.2."""
        return alpha / math.sqrt(float(self.n_tail(at)))

    def survival(self, at: IntArray, alpha: FloatArray, j: IntArray) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.survival`; nothing lies at a point."""
        share = np.exp(alpha * (self._logs[at] - self._logs[j]))
        return share, share

    def distance(self, at: int, alpha: float) -> tuple[float, int]:
        """See :meth:`TailData.distance`.

        Of many points, those between two at which the shares are known are looked at only where the
        two leave room for a larger gap: O(sqrt(m)) for most samples, and exact for all.
        """
        last = self.values.size - 1
        if last - at < _FEW:
            return super().distance(at, alpha)
        edge = np.linspace(at, last, _EDGES * math.isqrt(last - at)).astype(np.int64)
        known = self.gaps(np.array([at]), np.array([alpha]), edge)[0]
        best, where = float(known.max()), int(edge[known.argmax()])
        low, high = edge[:-1], edge[1:]
        share = 1 - self.survival(np.int64(at), np.float64(alpha), edge)[0]  # type: ignore[arg-type]
        n = float(self.n_tail(at))
        least = (self.before[low] - self.before[at]) / n
        most = (self.before[high + 1] - self.last_step - self.before[at]) / n
        room = np.maximum(most - share[:-1], share[1:] - least) > best
        if not room.any():
            return best, where
        inside = np.concatenate([np.arange(a + 1, b) for a, b in zip(low[room], high[room], strict=True)])
        gap = self.gaps(np.array([at]), np.array([alpha]), inside)[0]
        if gap.size and gap.max() > best:
            best, where = float(gap.max()), int(inside[gap.argmax()])
        return best, where

    def draw(self, at: int, alpha: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.draw`."""
        with np.errstate(over="ignore"):
            drawn = self.values[at] * np.exp(rng.standard_exponential(n) / alpha)
        return distinct(np.minimum(drawn, np.finfo(np.float64).max))

    def of(self, values: FloatArray, count: FloatArray, unseen: int) -> Points:
        """See :meth:`TailData.of`."""
        return Points(values, count, unseen)

    def sample(self, at: int) -> TailSample:
        """See :meth:`TailData.sample`."""
        there = self.count[at:] > 0
        logs = (self._logs[at:] - self._logs[at])[there]
        return TailSample("points", float(self.values[at]), logs, logs, self.count[at:][there])


def distinct(values: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
    """Sort positive values and join equal ones: ascending values and their counts."""
    ordered = np.sort(values)
    first = np.empty(ordered.size, bool)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    start = np.flatnonzero(first)
    count = np.diff(start, append=ordered.size).astype(np.float64)
    return ordered[start].astype(np.float64), count
