"""Bins of float32 patterns: exact for every dtype; quantiles within one bin."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
import reference
import values
from hypothesis import given
from hypothesis import strategies as st

from gradtail import summarize
from gradtail.states.magnitudes import edges_for


def _bins(summary):
    state = summary.state_dict()
    found = dict(zip(state["bins"].tolist(), state["counts"].tolist(), strict=True))
    found.update({k: state[k] for k in (reference.OVERFLOWED, reference.VANISHED) if state[k]})
    return found


def _check(x, bits, backend):
    s = summarize(x, bits=bits, backend=backend)
    numbers = _floats(x)
    good = [v for v in numbers if math.isfinite(v)]
    expected = reference.bins(good, bits)
    assert _bins(s) == dict(expected)
    counted = reference.counts(numbers)
    assert {k: getattr(s, k) for k in counted} == counted
    half = 1 << (8 + bits)
    nonzero = [
        b % half
        for v, b in ((v, next(iter(reference.bins([v], bits)))) for v in good if v)
        if isinstance(b, int)
    ]
    state = s.state_dict()
    if nonzero:
        assert (state["low_bin"], state["high_bin"]) == (min(nonzero), max(nonzero))
    else:
        assert state["low_bin"] > state["high_bin"]


def _floats(x):
    with np.errstate(invalid="ignore"):
        return x.astype(np.float64).ravel().tolist()


@given(values.arrays(sizes=(0, 1, 2, 31, 64, 65, 997)), st.sampled_from([0, 4, 7, 10]))
def test_bins_and_counts_equal_the_reference(backend, x, bits):
    _check(x, bits, backend)


@given(values.arrays(sizes=(1, 64, 65, 127)))
def test_bins_and_counts_equal_the_reference_at_every_level(simd, x):
    _check(x, 4, "native")


@cache
def _all_patterns(dtype):
    """Bins of the reference at bits = 10; a smaller number merges neighbours."""
    x = np.arange(1 << 16, dtype=np.uint16).view(values.DTYPES[dtype])
    return reference.bins([v for v in _floats(x) if math.isfinite(v)], 10)


def _is_finite(x):
    with values.quiet():
        return np.isfinite(x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("bits", [0, 4, 7, 10])
def test_all_patterns_of_half_precision(backend, dtype, bits):
    x = np.arange(1 << 16, dtype=np.uint16).view(values.DTYPES[dtype])
    s = summarize(x, bits=bits, backend=backend)
    expected = Counter()
    for bin_, n in _all_patterns(dtype).items():
        expected[bin_ >> (10 - bits)] += n
    assert _bins(s) == expected
    assert s.first_nonfinite == int(np.argmin(_is_finite(x)))
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float32)
    a, b = s, summarize(wide, bits=bits, backend=backend)
    np.testing.assert_array_equal(a.magnitudes.counts, b.magnitudes.counts)
    assert (a.nan, a.posinf, a.neginf, a.zeros, a.max_abs) == (b.nan, b.posinf, b.neginf, b.zeros, b.max_abs)
    assert a.magnitudes.mantissa == values.MANTISSA[dtype]
    assert a.magnitudes.exact == (values.MANTISSA[dtype] <= bits)


def test_all_patterns_of_half_precision_at_every_level(simd):
    for dtype in ("float16", "bfloat16"):
        x = np.arange(1 << 16, dtype=np.uint16).view(values.DTYPES[dtype])
        assert _bins(summarize(x, bits=7, backend="native")) == _bins(summarize(x, bits=7, backend="numpy"))
        _check(x[::17].copy(), 4, "native")


def test_a_comb_of_float32_patterns(backend):
    """Every 4093rd pattern: each sign and exponent, 2048 mantissas of each."""
    x = np.arange(0, 1 << 32, 4093, dtype=np.uint64).astype(np.uint32)
    s = summarize(x.view(np.float32), bits=7, backend=backend)
    magnitude = x & 0x7FFFFFFF
    finite = magnitude < 0x7F800000
    expected = np.bincount(x[finite] >> 16, minlength=1 << 16)
    np.testing.assert_array_equal(s.magnitudes.counts, expected)
    assert s.nan == np.count_nonzero(magnitude > 0x7F800000)
    assert s.zeros == np.count_nonzero(magnitude == 0)
    assert s.first_nonfinite == np.argmin(finite)


EDGES_64 = [
    2.0**-149, 2.0**-150, 2.0**-150 * (1 + 2.0**-52), 3 * 2.0**-150, 2.5 * 2.0**-149, 2.0**-151,
    5e-324, 2.0**-126 * (1 - 2.0**-25), 2.0**-126 * (1 - 2.0**-24), 2.0**-126, 1 - 2.0**-25, 1 - 2.0**-26,
    1 + 2.0**-24, 1 + 3 * 2.0**-24, 1 + 2.0**-24 + 2.0**-52, 1.0625 - 2.0**-25, 1.0625 - 2.0**-24,
    2.0**128 - 2.0**104, 2.0**128 - 2.0**103, math.nextafter(2.0**128 - 2.0**103, 0), 2.0**128, 1e308,
    1.7976931348623157e308,
]  # fmt: skip


@pytest.mark.parametrize("bits", [0, 4, 7, 10])
def test_float64_is_rounded_to_nearest_even(backend, bits):
    _check(np.array(EDGES_64 + [-x for x in EDGES_64] + [0.0, -0.0]), bits, backend)
    for x in EDGES_64:
        _check(np.array([x]), bits, backend)


def test_float64_that_leaves_float32_is_counted_apart(backend):
    s = summarize(np.array([1e300, -1e300, 1e-300, 0.0, 1.0]), backend=backend)
    m = s.magnitudes
    assert (m.overflowed, m.vanished, s.zeros, s.count, s.posinf) == (2, 1, 1, 5, 0)
    assert s.quantile([0, 0.25, 1]).tolist() == [0.0, 2.0**-149, 1e300]
    assert s.quantile(0.75) == 1e300, "among the overflowed: no more is known than the maximum"
    assert 1 <= s.quantile(0.5) <= 1.0625


@pytest.mark.parametrize("bits", range(11))
def test_edges_are_the_values_of_the_patterns(bits):
    edges, half = edges_for(bits), 1 << (8 + bits)
    patterns = (np.arange(half, dtype=np.uint64) << np.uint64(23 - bits)).astype(np.uint32)
    finite = patterns < 0x7F800000
    lower = patterns[finite].view(np.float32).astype(np.float64)
    lower[0] = 2.0**-149
    np.testing.assert_array_equal(edges[: lower.size], lower)
    assert edges[lower.size] == 2.0**128
    assert np.all(np.isinf(edges[lower.size + 1 :]))
    assert not edges.flags.writeable


Q = np.concatenate([np.linspace(0, 1, 101), [1e-6, 0.001, 0.999, 0.999999]])


@pytest.mark.parametrize("bits", [0, 4, 7, 10])
@pytest.mark.parametrize("kind", ["normal", "spike", "sparse", "channel", "finite", "subnormal", "constant"])
@pytest.mark.parametrize("n", [1, 2, 997, 70_001])
def test_quantiles_are_within_one_bin(backend, bits, kind, n):
    x = values.make("float32", n, kind, 7)
    magnitude = np.abs(x.astype(np.float64))
    s = summarize(x, bits=bits, backend=backend)
    got, truth = s.quantile(Q), np.quantile(magnitude, Q, method="lower")
    edges = edges_for(bits)
    bin_of_truth = np.searchsorted(edges, truth, side="right") - 1
    bin_of_got = np.searchsorted(edges, got * (1 - 1e-14), side="right") - 1
    assert np.all((np.abs(bin_of_got - bin_of_truth) <= 1) | (got == truth))
    np.testing.assert_array_equal(got == 0, truth == 0)
    assert s.quantile(1) == s.max_abs == magnitude.max()
    assert np.all(np.diff(s.quantile(np.linspace(0, 1, 101))) >= 0)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 7), ("float16", 10), ("bfloat16", 10)])
@pytest.mark.parametrize("kind", ["normal", "finite", "subnormal", "sparse"])
def test_quantiles_are_exact_where_a_bin_is_a_point(backend, dtype, bits, kind):
    x = values.make(dtype, 10_007, kind, 8)
    s = summarize(x, bits=bits, backend=backend)
    magnitude = np.abs(x.astype(np.float64))
    q = np.linspace(0, 1, 10_007)[::13]  # ranks that are integers, but for rounding
    ranks = q * (x.size - 1)
    np.testing.assert_array_equal(s.quantile(q), np.sort(magnitude)[np.floor(ranks).astype(int)])
    assert s.quantile(0) == magnitude.min()
    assert s.quantile(1) == magnitude.max()


def test_quantile_keeps_the_shape_of_q(backend):
    s = summarize(np.array([1.0, 2.0]), backend=backend)
    assert isinstance(s.quantile(0.5), float)
    assert s.quantile([[0.1, 0.2, 0.3]]).shape == (1, 3)
    assert s.quantile([]).shape == (0,)


@given(values.arrays(kinds=("normal", "sparse", "finite", "zeros", "subnormal")), st.sampled_from([0, 4, 7]))
def test_histogram_holds_every_value_once(backend, x, bits):
    s = summarize(x, bits=bits, backend=backend)
    h, m = s.histogram(), s.magnitudes
    total = int(h.positive.sum()) + int(h.negative.sum()) + h.zeros
    assert total == s.count - m.overflowed - m.vanished
    assert h.edges.size == h.positive.size + (1 if h.positive.size or h.edges.size else 0)
    assert h.positive.shape == h.negative.shape
    if h.positive.size:
        assert h.positive[0] + h.negative[0] > 0
        assert h.positive[-1] + h.negative[-1] > 0
        lower, upper = h.edges[0], h.edges[-1]
        with np.errstate(over="ignore"):
            inside = np.abs(values.finite(x).astype(np.float32)[values.finite(x) != 0])
        inside = inside[np.isfinite(inside) & (inside != 0)]
        assert lower <= inside.min()
        assert inside.max() < upper


def test_histogram_of_a_known_set(backend):
    h = summarize(np.array([1.0, 1.5, -2.0, 0.0, np.nan], np.float32), bits=0, backend=backend).histogram()
    assert h.edges.tolist() == [1, 2, 4]
    assert h.positive.tolist() == [2, 0]
    assert h.negative.tolist() == [0, 1]
    assert h.zeros == 1
