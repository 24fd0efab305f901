"""Arrays that hurt: every dtype, scale and size at which the pass changes its way."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import reference
from hypothesis import strategies as st

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
MANTISSA = {"float64": 23, "float32": 23, "float16": 10, "bfloat16": 7}
SIZES = (0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 997, 4095, 4096, 4097, 8191, 10007, 65535, 65536, 65537)
KINDS = (
    "normal", "shifted", "patterns", "finite", "zeros", "subnormal", "constant", "signs", "channel", "spike",
    "sparse", "bad",
)  # fmt: skip


def quiet() -> Any:
    """Say nothing of signalling NaNs."""
    return np.errstate(invalid="ignore")


INTEGERS = (
    "count", "zeros", "nan", "posinf", "neginf", "first_nonfinite", "overflowed", "vanished", "mantissa",
    "low_bin", "high_bin",
)  # fmt: skip


def make(dtype: str, size: int, kind: str, seed: int) -> np.ndarray:
    """Make ``size`` values of one kind."""
    rng, type_ = np.random.default_rng(seed), DTYPES[dtype]
    unsigned = np.dtype(f"u{type_.itemsize}")
    if kind in ("patterns", "finite", "subnormal", "bad"):
        raw = rng.integers(0, np.iinfo(unsigned).max, size, unsigned, endpoint=True)
        if kind == "subnormal":
            raw &= unsigned.type(1 << {8: 52, 4: 23, 2: 10 if dtype == "float16" else 7}[type_.itemsize]) - 1
        x = raw.view(type_).copy()
        if kind == "finite":
            with quiet():
                x[~np.isfinite(x)] = 0
        if kind == "bad":
            x[:] = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0]), size)
        return x
    scale = 2.0 ** rng.integers(-14, 14)
    y = rng.standard_normal(size)
    if kind == "shifted":
        y += rng.uniform(-12, 12)
    elif kind == "zeros":
        y = np.where(y > 0, 0.0, -0.0)
    elif kind == "constant":
        y[:] = rng.uniform(0.5, 2)
    elif kind == "signs":
        y = np.where(np.arange(size) % 2, 1.0, -1.0) * rng.uniform(0.5, 2)
    elif kind == "channel":  # one column dominates: the samples of any regular grid may all fall there
        y = np.full(size, rng.uniform(1e-6, 1e-2))
        y[:: int(rng.choice([64, 128, 256]))] = rng.uniform(0.5, 1)
    elif kind == "spike":
        y *= 1e-4
        y[:1] = 1e3
    elif kind == "sparse":
        y[rng.uniform(size=size) < 0.9] = 0
    with np.errstate(over="ignore"):
        return (y * scale).astype(type_)


dtypes = st.sampled_from(list(DTYPES))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def arrays(draw: Any, sizes: tuple[int, ...] = SIZES, kinds: tuple[str, ...] = KINDS) -> np.ndarray:
    """Draw an array: free bit patterns (which shrink well), or one of ``make``."""
    dtype = draw(dtypes)
    if draw(st.booleans()):
        type_ = DTYPES[dtype]
        top = 2 ** (8 * type_.itemsize) - 1
        x = np.array(draw(st.lists(st.integers(0, top), max_size=20)), f"u{type_.itemsize}").view(type_)
        if "patterns" in kinds:
            return x
        with quiet():
            return x[np.isfinite(x)]
    return make(dtype, draw(st.sampled_from(sizes)), draw(st.sampled_from(kinds)), draw(seeds))


def finite(*arrays: np.ndarray) -> np.ndarray:
    """Return the finite values as float64."""
    with quiet():
        x = np.concatenate([np.asarray(a).astype(np.float64).ravel() for a in arrays])
    return x[np.isfinite(x)]


def assert_sums(summary: Any, x: np.ndarray, bound: float = 1e-6) -> None:
    """Compare power sum p with the reference: within ``bound`` of the sum of abs(x)**p."""
    e, sums, absolute = reference.scaled_power_sums(x)
    moments = summary.moments
    assert moments.exponent == e
    assert moments.max_abs == np.max(np.abs(x), initial=0.0)
    for p in (1, 2, 3, 4):
        assert abs(moments.sums[p - 1] - sums[p - 1]) <= bound * absolute[p - 1], f"power sum {p}"


def assert_same(a: Any, b: Any, bound: float, *x: np.ndarray) -> None:
    """Two summaries of the same values: integers equal, sums within ``bound`` of sum abs(x)**p."""
    left, right = a.state_dict(), b.state_dict()
    for name in ("schema", "bits", "max_abs", *INTEGERS):
        assert left[name] == right[name], name
    np.testing.assert_array_equal(left["bins"], right["bins"])
    np.testing.assert_array_equal(left["counts"], right["counts"])
    _, _, absolute = reference.scaled_power_sums(finite(*x))
    for p in (1, 2, 3, 4):
        assert math.isclose(left[f"sum{p}"], right[f"sum{p}"], rel_tol=0, abs_tol=bound * absolute[p - 1]), p
