"""Power sums and what follows from them, against exact arithmetic and two float64 passes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import reference
import values
from hypothesis import given
from hypothesis import strategies as st

from gradtail import backends, summarize


def _exact_check(x, backend=None):
    """Compare all four sums with exact arithmetic."""
    m = summarize(x, backend=backend).moments
    numbers = values.finite(x).tolist()
    for p in (1, 2, 3, 4):
        exact, absolute = reference.exact_power_sum(numbers, p)
        got = Fraction(m.sums[p - 1]) * Fraction(2) ** (p * m.exponent)
        assert abs(got - exact) <= absolute / 10**6, f"power sum {p}"


@given(values.arrays(sizes=(0, 1, 2, 31, 33, 63, 64, 65, 127)))
def test_power_sums_of_small_sets_are_exact_to_the_bound(backend, x):
    _exact_check(x, backend)


@given(values.arrays(sizes=(0, 1, 33, 64, 65)))
def test_power_sums_of_small_sets_are_exact_to_the_bound_at_every_level(simd, x):
    _exact_check(x, "native")


@given(values.arrays())
def test_power_sums_are_within_the_bound(backend, x):
    values.assert_sums(summarize(x, backend=backend), values.finite(x))


ADVERSARIES = {
    "constant": lambda n, rng: np.full(n, 1.1),
    "minus constant": lambda n, rng: np.full(n, -0.7),
    "alternating": lambda n, rng: np.where(np.arange(n) % 2, 1.1, -1.1),
    "one dominant": lambda n, rng: np.concatenate([np.full(n - 1, 1.3e-4), [1.0]]),
    "one dominant first": lambda n, rng: np.concatenate([[1e30], np.full(n - 1, 1.3e26)]),
    "wide": lambda n, rng: 10.0 ** rng.uniform(-38, 38, n) * rng.choice([-1, 1], n),
    "wide positive": lambda n, rng: 10.0 ** rng.uniform(-38, 38, n),
    "long runs": lambda n, rng: np.repeat(rng.uniform(-1, 1, n // 997 + 1), 997)[:n],
    "just below a power": lambda n, rng: np.full(n, 1 - 2.0**-24),
    "just above a power": lambda n, rng: np.full(n, 1 + 2.0**-23),
    "largest": lambda n, rng: np.full(n, float(np.finfo(np.float32).max)),
    "smallest": lambda n, rng: np.full(n, 2.0**-149),
    "growing": lambda n, rng: 1.0005 ** np.arange(n).clip(0, 150_000) * 1e-20,
    "falling": lambda n, rng: 1e10 * 0.9995 ** np.arange(n),
    "near cancelling": lambda n, rng: np.where(np.arange(n) % 2, 1.0, -1.0) + rng.uniform(0, 1e-6, n),
    **{
        f"column {period}": lambda n, rng, period=period: np.where(np.arange(n) % period == 0, 0.87654, 1e-6)
        for period in (2, 3, 8, 16, 32, 64, 127, 128, 129, 256, 1024)
    },
    "column on a plateau": lambda n, rng: np.where(np.arange(n) % 128 == 0, 0.97, 0.123),
    "column against a plateau": lambda n, rng: np.where(np.arange(n) % 128 == 0, 0.97, -0.061),
    "plateau then nothing": lambda n, rng: np.where(np.arange(n) < 3900, 0.9, 1e-9),
}


@pytest.mark.parametrize("name", ADVERSARIES)
@pytest.mark.parametrize("n", [10, 4096 + 130, 70_001])
def test_adversaries_stay_within_the_bound(backend, name, n):
    x = ADVERSARIES[name](n, np.random.default_rng(1))
    for dtype in ("float32", "float64", "bfloat16"):
        with np.errstate(over="ignore"):
            y = x.astype(values.DTYPES[dtype])
        values.assert_sums(summarize(y, backend=backend), values.finite(y))


@pytest.mark.parametrize("name", ADVERSARIES)
def test_adversaries_stay_within_the_bound_at_every_level(simd, name):
    for n in (129, 4096 + 130):
        x = ADVERSARIES[name](n, np.random.default_rng(1)).astype(np.float32)
        values.assert_sums(summarize(x, backend="native"), values.finite(x))


@given(
    st.sampled_from(["normal", "shifted", "channel", "spike"]),
    st.sampled_from([2, 33, 997, 4097, 70_000]),
    values.seeds,
    st.sampled_from([-60, -37, -1, 1, 13, 60]),
    st.sampled_from(["float32", "float64"]),
)
def test_powers_of_two_change_no_bit_of_skewness_and_kurtosis(backend, kind, n, seed, k, dtype):
    x = values.make(dtype, n, kind, seed)
    if dtype == "float64":
        k *= 12
    a, b = (summarize(v, backend=backend) for v in (x, np.ldexp(x, k)))
    assert a.moments.sums == b.moments.sums
    assert _same(a.skewness, b.skewness)
    assert _same(a.excess_kurtosis, b.excess_kurtosis)
    assert a.mean == math.ldexp(b.mean, -k)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1e-30), (np.float32, 1e30), (np.float64, 1e-250), (np.float64, 1e250)]
)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_tiny_and_huge_data_have_the_shape_of_ordinary_data(backend, dtype, scale, shift):
    x = np.random.default_rng(2).gamma(2.0, size=50_000) - 2 + shift
    a, b = (summarize(v.astype(dtype), backend=backend) for v in (x, x * scale))
    assert b.skewness == pytest.approx(a.skewness, rel=1e-6)
    assert b.excess_kurtosis == pytest.approx(a.excess_kurtosis, rel=1e-6)
    assert b.mean / scale == pytest.approx(a.mean, rel=1e-6, abs=1e-7)
    assert b.norm / scale == pytest.approx(a.norm, rel=1e-6)


def test_float64_beyond_any_fourth_power(backend):
    s = summarize(np.array([1e308, -1e308, 1e308]), backend=backend)
    assert s.max_abs == 1e308
    assert s.mean == pytest.approx(1e308 / 3)
    assert s.norm == pytest.approx(math.sqrt(3) * 1e308)
    assert s.variance == math.inf, "a double cannot hold it"
    assert s.skewness == pytest.approx(-1 / math.sqrt(2))
    tiny = summarize(np.array([5e-324, 5e-324, -5e-324, 0.0]), backend=backend)
    assert (tiny.count, tiny.zeros, tiny.max_abs) == (4, 1, 5e-324)
    assert tiny.moments.sums == (0.5, 0.75, 0.125, 0.1875)


def test_moments_of_known_sequences(backend):
    two = summarize(np.array([1.0, 1.0, -1.0, -1.0], np.float32), backend=backend)
    assert (two.mean, two.variance, two.skewness, two.excess_kurtosis, two.norm) == (0, 1, 0, -2, 2)
    uniform = summarize(np.arange(1, 1001, dtype=np.float64), backend=backend)
    assert uniform.mean == 500.5
    assert uniform.variance == pytest.approx((1000**2 - 1) / 12, rel=1e-13)
    assert uniform.skewness == pytest.approx(0, abs=1e-12)
    assert uniform.excess_kurtosis == pytest.approx(-1.2 * (1000**2 + 1) / (1000**2 - 1), rel=1e-12)
    p = 1 / 8
    rare = summarize(np.array([1.0] + [0.0] * 7), backend=backend)
    assert rare.mean == p
    assert rare.variance == pytest.approx(p * (1 - p), rel=1e-14)
    assert rare.skewness == pytest.approx((1 - 2 * p) / math.sqrt(p * (1 - p)), rel=1e-12)
    assert rare.excess_kurtosis == pytest.approx((1 - 6 * p * (1 - p)) / (p * (1 - p)), rel=1e-12)
    assert [rare.moments.power_sum(k) for k in (1, 2, 3, 4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("n", [1, 2, 3, 33, 65, 997, 5000, 70_001])
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_a_constant_has_no_shape(backend, dtype, n):
    x = np.full(n, 1.1).astype(values.DTYPES[dtype])
    s = summarize(x, backend=backend)
    assert s.mean == pytest.approx(float(x[0]), rel=1e-6)
    assert s.variance <= 1e-12
    assert math.isnan(s.skewness)
    assert math.isnan(s.excess_kurtosis)


def test_zeros_of_both_signs(backend):
    s = summarize(np.array([0.0, -0.0, -0.0], np.float16), backend=backend)
    assert (s.count, s.zeros, s.mean, s.variance, s.max_abs, s.norm) == (3, 3, 0, 0, 0, 0)
    assert math.isnan(s.skewness)


N = 10_000_000
LAWS = {
    "normal": lambda rng: rng.standard_normal(N, np.float32),
    "gamma": lambda rng: (rng.standard_gamma(3.0, N, np.float32) - 3) / np.float32(math.sqrt(3)),
    "t9": lambda rng: (rng.standard_t(9.0, N) * math.sqrt(7 / 9)).astype(np.float32),
}


@pytest.mark.parametrize("law", LAWS)
def test_accuracy_on_ten_million_values(law):
    base = LAWS[law](np.random.default_rng(5))
    for mean, bound in ((0.0, 1e-5), (1.0, 1e-5), (10.0, 1e-3)):
        x = base + np.float32(mean) if mean else base
        truth = reference.two_pass(x)
        for backend in backends.available():
            s = summarize(x, backend=backend)
            for name, value in truth.items():
                scale = value if name == "variance" else max(abs(value), 1)  # near zero the bound is absolute
                assert abs(getattr(s, name) - value) <= bound * scale, (name, mean, backend)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_shape_far_from_zero_is_right_or_nan(backend, dtype):
    base = np.random.default_rng(6).standard_normal(100_000)
    for mean, bound in ((100, 1e-6), (-280, 1e-4), (350, math.nan), (3000, math.nan)):
        x = (base + mean).astype(dtype)
        truth, s = reference.two_pass(x), summarize(x, backend=backend)
        if math.isnan(bound):
            assert math.isnan(s.excess_kurtosis)
        else:
            assert s.excess_kurtosis == pytest.approx(truth["excess_kurtosis"], abs=bound)
        if abs(mean) < 1000:
            assert s.skewness == pytest.approx(truth["skewness"], abs=1e-5)
        else:
            assert math.isnan(s.skewness)


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
