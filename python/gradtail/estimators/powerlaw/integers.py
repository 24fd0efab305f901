"""Power-law fits to whole numbers."""

from __future__ import annotations

import math

import numpy as np

from gradtail.estimators.order import IntArray
from gradtail.estimators.powerlaw import zeta
from gradtail.estimators.powerlaw.points import distinct
from gradtail.estimators.powerlaw.sample import TailSample
from gradtail.estimators.powerlaw.tails import TailData
from gradtail.states.magnitudes import FloatArray

_ITERATIONS = 60
_TABLE = 1 << 12
_LARGEST = 2.0**53  # beyond which doubles skip whole numbers


class Integers(TailData):
    """Whole numbers, whose law is x**-(alpha + 1) / zeta(alpha + 1, xmin). See :class:`TailData`."""

    form = "integers"

    def __init__(self, values: FloatArray, count: FloatArray, unseen: int = 0) -> None:
        super().__init__(values, count, unseen)
        self._logs = np.log(values)
        self._drawn: tuple[int, float, FloatArray, FloatArray] | None = None
        self._above = np.cumsum((count * self._logs)[::-1])[::-1]

    def alphas(self, at: IntArray) -> FloatArray:
        """See :meth:`TailData.alphas`: CSN (2009) eq. 3.5, by Newton's method on a logarithmic scale.

        The start is their eq. 3.7, Hill's estimate with half a unit off xmin.
        """
        mean = self._above[at] / self.n_tail(at)
        q = self.values[at]
        alpha = 1 / (mean - np.log(q - 0.5))
        for _ in range(_ITERATIONS):
            first, second = zeta.derivatives(1 + alpha, q)
            # -zeta'/zeta is about log(q) + 1 / alpha: its excess over log(q) is near a power of alpha
            excess, wanted = -first - np.log(q), mean - np.log(q)
            step = excess / second * np.log(excess / wanted)
            alpha = alpha * np.exp(np.clip(step / alpha, -1.0, 1.0))
            if not np.any(np.abs(step) > 1e-10 * alpha):
                break
        return alpha

    def stderr(self, at: int, alpha: float) -> float:
        """CSN (2009) eq. 3.6."""
        _, second = zeta.derivatives(np.array(1 + alpha), self.values[at])
        return 1 / math.sqrt(float(self.n_tail(at)) * float(second))

    def survival(self, at: IntArray, alpha: FloatArray, j: IntArray) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.survival`: from each number on, and from the next one on."""
        s = 1 + alpha
        whole, x = zeta.log_zeta(s, self.values[at]), self.values[j]
        return np.exp(zeta.log_zeta(s, x) - whole), np.exp(zeta.log_zeta(s, x + 1) - whole)

    def draw(self, at: int, alpha: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See :meth:`TailData.draw`.

        By inversion: a table of the survival function, and beyond it the law of x - 1/2 rounded up, whose
        survival function differs by less than one part in a million there.
        """
        x, from_ = self._law(at, alpha)
        u = 1 - rng.random(n)
        found = x[np.searchsorted(-from_, -u, side="right") - 1]
        far = u < from_[-1]
        with np.errstate(over="ignore"):
            beyond = (x[-1] - 0.5) * (u[far] / from_[-1]) ** (-1 / alpha) + 0.5
        found[far] = np.floor(np.minimum(beyond, _LARGEST))
        return distinct(found)

    def _law(self, at: int, alpha: float) -> tuple[FloatArray, FloatArray]:
        """First numbers from xmin on and the fitted share from each on; kept, for samples come in series."""
        if self._drawn is None or self._drawn[:2] != (at, alpha):
            x = self.values[at] + np.arange(_TABLE + 1)
            s = 1 + alpha
            from_ = np.exp(zeta.log_zeta(s, x) - zeta.log_zeta(s, x[0]))
            self._drawn = at, alpha, x, from_
        return self._drawn[2:]

    def of(self, values: FloatArray, count: FloatArray, unseen: int) -> Integers:
        """See :meth:`TailData.of`."""
        return Integers(values, count, unseen)

    def sample(self, at: int) -> TailSample:
        """See :meth:`TailData.sample`."""
        there = self.count[at:] > 0
        logs = (self._logs[at:] - self._logs[at])[there]
        return TailSample("integers", float(self.values[at]), logs, logs, self.count[at:][there])
