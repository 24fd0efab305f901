"""Power-law fits to whole numbers."""

from __future__ import annotations

import math

import numpy as np

from gradtail.estimators.order import IntArray
from gradtail.estimators.powerlaw import zeta
from gradtail.estimators.powerlaw.points import distinct
from gradtail.estimators.powerlaw.sample import TailSample
from gradtail.estimators.powerlaw.tails import TailData, logs_below
from gradtail.states.magnitudes import FloatArray

_ITERATIONS = 60
_TABLE = 1 << 12
LARGEST = 2.0**53
"""From here on doubles skip whole numbers."""


class Integers(TailData):
    """Whole numbers, whose law is x**-(alpha + 1) / zeta(alpha + 1, xmin). See :class:`TailData`."""

    form = "integers"

    def __init__(self, values: FloatArray, count: FloatArray, unseen: int = 0) -> None:
        super().__init__(values, count, unseen)
        self._logs = logs_below(values)
        self._drawn: tuple[int, float, FloatArray, FloatArray] | None = None
        self._above = np.cumsum((count * self._logs)[::-1])[::-1]

    def alphas(self, at: IntArray) -> FloatArray:
        """See :meth:`TailData.alphas`: CSN (2009) eq. 3.5, by Newton's method on a logarithmic scale.

        The start is their eq. 3.7, Hill's estimate with half a unit off xmin.
        """
        wanted = self._above[at] / self.n_tail(at) - self._logs[at]
        q = self.values[at]
        alpha: FloatArray = 1 / (wanted - np.log1p(-0.5 / q))
        for _ in range(_ITERATIONS):
            excess, slope = zeta.mean_excess(1 + alpha, q)  # near 1 / alpha
            step = excess / slope * np.log(excess / wanted)
            alpha = alpha * np.exp(np.clip(step / alpha, -1.0, 1.0))
            if not np.any(np.abs(step) > 1e-10 * alpha):
                break
        return alpha

    def stderr(self, at: int, alpha: float) -> float:
        """CSN (2009) eq. 3.6."""
        _, slope = zeta.mean_excess(np.array(1 + alpha), self.values[at])
        return 1 / math.sqrt(float(self.n_tail(at)) * float(slope))

    def survival(self, at: IntArray, alpha: FloatArray, j: IntArray) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.survival`: from each number on, and from the next one on."""
        s, x = 1 + alpha, self.values[j]
        whole, fall = zeta.log_scaled(s, self.values[at]), s * (self._logs[j] - self._logs[at])
        from_ = np.exp(zeta.log_scaled(s, x) - whole - fall)
        return from_, np.exp(zeta.log_scaled(s, x + 1) - whole - fall - s * np.log1p(1 / x))

    def draw(self, at: int, alpha: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.draw`.

        How many there are of each of the first numbers, at once; beyond them, one by one, Pareto values from
        half a unit below, rounded: the survival functions differ by less than one part in a million there.
        """
        x, from_ = self._law(at, alpha)
        far = int(rng.binomial(n, from_[-1]))
        near = np.maximum(-np.diff(from_), 0.0)
        count = rng.multinomial(n - far, near / near.sum())
        with np.errstate(over="ignore"):
            beyond = (x[-1] - 0.5) * (1 - rng.random(far)) ** (-1 / alpha) + 0.5
        large, copies = distinct(np.floor(np.minimum(beyond, LARGEST)))
        used = np.flatnonzero(count)
        return np.concatenate([x[used], large]), np.concatenate([count[used].astype(np.float64), copies])

    def _law(self, at: int, alpha: float) -> tuple[FloatArray, FloatArray]:
        """First numbers from xmin on and the fitted share from each on; kept, for samples come in series."""
        if self._drawn is None or self._drawn[:2] != (at, alpha):
            k, s = np.arange(_TABLE + 1), np.array(1 + alpha)
            x = self.values[at] + k
            logs = zeta.log_scaled(s, x)
            self._drawn = at, alpha, x, np.exp(logs - logs[0] - s * np.log1p(k / x[0]))
        return self._drawn[2:]

    def of(self, values: FloatArray, count: FloatArray, unseen: int) -> Integers:
        """See :meth:`TailData.of`."""
        return Integers(values, count, unseen)

    def sample(self, at: int) -> TailSample:
        """See :meth:`TailData.sample`."""
        there = self.count[at:] > 0
        logs = (self._logs[at:] - self._logs[at])[there]
        return TailSample("integers", float(self.values[at]), logs, logs, self.count[at:][there])
