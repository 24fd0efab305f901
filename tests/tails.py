"""What the tests of tails share: laws, their exponents, and small helpers."""

from __future__ import annotations

import math

import numpy as np

LAWS = {
    "pareto(1.5)": lambda rng, n: rng.pareto(1.5, n) + 1,
    "pareto(2)": lambda rng, n: rng.pareto(2, n) + 1,
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "t(1.5)": lambda rng, n: rng.standard_t(1.5, n),
    "t(3)": lambda rng, n: rng.standard_t(3, n),
    "t(5)": lambda rng, n: rng.standard_t(5, n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(size=n),
}
ALPHA = {"pareto(2)": 2.0, "cauchy": 1.0, "t(1.5)": 1.5, "t(3)": 3.0, "t(5)": 5.0}


def as_bfloat16(x):
    """Round float32 values toward zero to bfloat16, as float32."""
    return (np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def tail_of(x, tail):
    x = np.asarray(x, np.float64).ravel()
    x = {"both": np.abs(x), "upper": x, "lower": -x}[tail]
    return sorted((v for v in x.tolist() if 0 < v < math.inf), reverse=True)


def merged(states):
    whole = states[0]
    for state in states[1:]:
        whole = whole.merge(state)
    return whole


def has(found, word):
    return any(word in w for w in found.warnings)
