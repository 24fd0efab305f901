"""What the library must answer, by brute force. Imports nothing of gradtail.

Two ways: exact integers and fractions for small sets; ``math.fsum`` of float64 terms, whose error
of 1e-16 is nothing against the bounds that are tested, for large ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

OVERFLOWED, VANISHED = "overflowed", "vanished"


def float32_pattern(x: float) -> int | str:
    """Magnitude pattern of the float32 nearest to finite ``x``, ties to even, by exact arithmetic."""
    if x == 0:
        return 0
    unit = max(math.frexp(x)[1] - 24, -149)  # exponent of the last place
    n = round(abs(Fraction(x)) / Fraction(2) ** unit)  # Python rounds a Fraction half to even
    if n == 1 << 24:
        n, unit = 1 << 23, unit + 1
    if n == 0:
        return VANISHED
    if unit + 24 > 128:
        return OVERFLOWED
    return n if n < 1 << 23 else ((unit + 150) << 23) | (n - (1 << 23))


def bins(values: Iterable[float], bits: int) -> Counter[int | str]:
    """Count finite values by the top ``9 + bits`` bits of their float32 pattern."""
    found: Counter[int | str] = Counter()
    for x in values:
        pattern = float32_pattern(x)
        if isinstance(pattern, int):
            pattern = ((math.copysign(1, x) < 0) << 31 | pattern) >> (23 - bits)
        found[pattern] += 1
    return found


def counts(values: Iterable[float]) -> dict[str, int | None]:
    """Count what a Summary counts; ``first_nonfinite`` is None if there is none."""
    r: dict[str, int | None] = dict.fromkeys(("count", "zeros", "nan", "posinf", "neginf"), 0)
    r["first_nonfinite"] = None
    for i, x in enumerate(values):
        if math.isfinite(x):
            kinds = ["count", "zeros"] if x == 0 else ["count"]
        else:
            kinds = ["nan" if math.isnan(x) else "posinf" if x > 0 else "neginf"]
            if r["first_nonfinite"] is None:
                r["first_nonfinite"] = i
        for kind in kinds:
            r[kind] += 1  # type: ignore[operator]
    return r


def exact_power_sum(values: Iterable[float], p: int) -> tuple[Fraction, Fraction]:
    """Exact sums of x**p and |x|**p."""
    ratios = [float(x).as_integer_ratio() for x in values]
    common = max((d for _, d in ratios), default=1)
    scaled = [n * (common // d) for n, d in ratios]
    below = common**p
    return Fraction(sum(n**p for n in scaled), below), Fraction(sum(abs(n) ** p for n in scaled), below)


def scaled_power_sums(x: np.ndarray) -> tuple[int, list[float], list[float]]:
    """Return e with 2**(e-1) <= max |x| < 2**e, and the sums of y**p and |y|**p, y = x / 2**e."""
    x = np.asarray(x, np.float64)
    e = math.frexp(float(np.max(np.abs(x), initial=0.0)))[1]
    y = np.ldexp(x, -e)
    return e, [math.fsum(y**p) for p in (1, 2, 3, 4)], [math.fsum(np.abs(y) ** p) for p in (1, 2, 3, 4)]


def two_pass(x: np.ndarray) -> dict[str, float]:
    """Mean, variance (ddof = 0), skewness and excess kurtosis, by two float64 passes."""
    x = np.asarray(x, np.float64)
    mean = x.mean()
    d = x - mean
    d2 = d * d
    m2, m3, m4 = d2.mean(), (d2 * d).mean(), (d2 * d2).mean()
    return {"mean": mean, "variance": m2, "skewness": m3 / m2**1.5, "excess_kurtosis": m4 / m2**2 - 3}
