"""Counts and power sums of a set of values, of any scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradtail.states.table import NO_INDEX

# Raw power sums lose central moments to rounding as the mean moves from zero. Measured on normal values
# with both backends: the kurtosis is off by 4e-7 at a mean of 100 standard deviations, 2e-5 at 300, 2e-3 at
# 1000 and 0.2 at 3000; the skewness by 1e-6 at 1000 and 3e-5 at 3000.
_MOST_MEAN_TO_SD = {3: 1e3, 4: 3e2}


@dataclass(frozen=True)
class Moments:
    """What the power sums say. Non-finite values are counted, and change nothing else.

    Attributes
    ----------
    count : int
        Finite values, zeros included.
    zeros, nan, posinf, neginf : int
    first_nonfinite : int or None
        Element index of the first NaN or infinity.
    max_abs : float
        Largest finite magnitude; 0 if there is none.
    sums : tuple of 4 floats
        Sums over finite x of (x / 2**e)**p, p = 1..4, with 2**(e-1) <= max_abs < 2**e.

    Notes
    -----
    Central moments follow from power sums about zero, which are sums over disjoint sets and so
    join by addition (Pébay, SAND2008-6212, with all means zero). That costs digits where the mean is
    many standard deviations from zero: beyond 1000 the skewness is NaN, beyond 300 the kurtosis.
    """

    count: int
    zeros: int
    nan: int
    posinf: int
    neginf: int
    first_nonfinite: int | None
    max_abs: float
    sums: tuple[float, float, float, float]

    @classmethod
    def from_record(cls, record: Any) -> Moments:
        """Read one record of a table."""
        first = int(record["first_nonfinite"])
        count, zeros, nan, posinf, neginf = (
            int(record[field]) for field in ("count", "zeros", "nan", "posinf", "neginf")
        )
        sums = (float(record["sum1"]), float(record["sum2"]), float(record["sum3"]), float(record["sum4"]))
        where = None if first == NO_INDEX else first
        return cls(count, zeros, nan, posinf, neginf, where, float(record["max_abs"]), sums)

    @property
    def exponent(self) -> int:
        """The e of :attr:`sums`."""
        return int(np.frexp(self.max_abs)[1])

    def power_sum(self, p: int) -> float:
        """Sum of x**p over finite values, p = 1..4; inf where a double cannot hold it."""
        return _ldexp(self.sums[p - 1], p * self.exponent)

    @property
    def norm(self) -> float:
        """Euclidean norm of the finite values."""
        return _ldexp(math.sqrt(self.sums[1]), self.exponent)

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN if there is none."""
        return _ldexp(self.sums[0] / self.count, self.exponent) if self.count else math.nan

    @property
    def variance(self) -> float:
        """Mean squared deviation (ddof = 0); NaN without values."""
        return _ldexp(self._central()[0], 2 * self.exponent)

    @property
    def skewness(self) -> float:
        """Third standardised moment; NaN without spread, or with abs(mean) above 1000 deviations."""
        m2, m3, _ = self._central()
        return m3 / (m2 * math.sqrt(m2)) if self._known(3, m2) else math.nan

    @property
    def excess_kurtosis(self) -> float:
        """Fourth standardised moment less 3; NaN without spread, or with abs(mean) above 300 deviations."""
        m2, _, m4 = self._central()
        return m4 / (m2 * m2) - 3 if self._known(4, m2) else math.nan

    def _central(self) -> tuple[float, float, float]:
        """Central moments 2, 3, 4 of x / 2**exponent."""
        if self.count == 0:
            return math.nan, math.nan, math.nan
        a, b, c, d = (s / self.count for s in self.sums)
        m2 = b - a * a
        m3 = c - a * (3 * b - 2 * a * a)
        m4 = d - a * (4 * c - a * (6 * b - 3 * a * a))
        return max(m2, 0.0), m3, max(m4, 0.0)

    def _known(self, order: int, m2: float) -> bool:
        return m2 > 0 and m2 * _MOST_MEAN_TO_SD[order] ** 2 > self.sums[1] / self.count


def _ldexp(x: float, e: int) -> float:
    try:
        return math.ldexp(x, e)
    except OverflowError:
        return math.copysign(math.inf, x)
