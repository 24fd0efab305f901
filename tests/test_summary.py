"""Summary is a monoid, is saved to the bit, and refuses in one voice."""

from __future__ import annotations

import io
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import values
from hypothesis import given
from hypothesis import strategies as st

from gradtail import Summary, backends, summarize


@given(values.arrays(), st.sampled_from([0, 4, 7]))
def test_empty_is_neutral(backend, x, bits):
    s, empty = summarize(x, bits=bits, backend=backend), Summary(bits, backend=backend)
    assert s.merge(empty) == s
    assert empty.merge(s) == s
    assert empty == Summary(bits, backend=backend)
    assert empty.count == 0
    assert math.isnan(empty.mean)
    assert math.isnan(empty.quantile(0.5))


@given(values.arrays(), values.arrays())
def test_merge_is_commutative_bit_for_bit(backend, x, y):
    a, b = summarize(x, backend=backend), summarize(y, backend=backend)
    before = a.state_dict(), b.state_dict()
    assert a.merge(b) == b.merge(a)
    assert _same_dicts((a.state_dict(), b.state_dict()), before), "merge changed its arguments"


@given(values.arrays(), values.arrays(), values.arrays())
def test_merge_is_associative(backend, x, y, z):
    a, b, c = (summarize(v, backend=backend) for v in (x, y, z))
    values.assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), 1e-12, x, y, z)


def test_a_summary_merges_with_itself(backend):
    x = np.array([1.0, -2.0, 0.0, np.nan])
    s = summarize(x, backend=backend)
    assert s.merge(s) == summarize([x, x], backend=backend)


@given(values.arrays(), st.lists(st.floats(0, 1), max_size=4), st.integers(0, 2**40))
def test_split_and_merge_equals_one_pass(backend, x, cuts, start):
    whole = summarize(x, start=start, backend=backend)
    at = [0, *sorted(int(c * x.size) for c in cuts), x.size]
    merged = Summary(backend=backend)
    for begin, end in pairwise(at):
        merged = merged.merge(summarize(x[begin:end], start=start + begin, backend=backend))
    if x.size == 0:
        assert whole.state_dict()["mantissa"] == merged.state_dict()["mantissa"]
    values.assert_same(merged, whole, 1e-6, x)


@given(st.lists(values.arrays(), min_size=1, max_size=5))
def test_a_list_or_mapping_or_updates_equal_their_merge(backend, xs):
    listed = summarize(xs, backend=backend)
    assert listed == summarize(tuple(xs), backend=backend)
    assert listed == summarize({f"p{i}": x for i, x in enumerate(xs)}, backend=backend)
    updated, merged, start = Summary(backend=backend), Summary(backend=backend), 0
    for x in xs:
        updated.update(x, start=start)
        merged = merged.merge(summarize(x, start=start, backend=backend))
        start += x.size
    values.assert_same(updated, listed, 1e-6, *xs)
    values.assert_same(merged, listed, 1e-6, *xs)


@given(values.arrays(), st.sampled_from([0, 4, 10]))
def test_save_and_load_are_exact(backend, x, bits):
    s = summarize(x, bits=bits, backend=backend)
    state = s.state_dict()
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        assert Summary.from_state_dict(loaded, backend=backend) == s
    text = json.dumps(state, default=lambda array: array.tolist())
    again = Summary.from_state_dict(json.loads(text), backend=backend)
    assert again == s
    assert _same_dicts(again.state_dict(), state)
    assert again.merge(s) == s.merge(s), "a loaded summary goes on as the saved one would"


def test_a_saved_summary_loads_on_the_other_backend(backend):
    s = summarize(values.make("float32", 997, "patterns", 3), backend=backend)
    for other in backends.available():
        assert Summary.from_state_dict(s.state_dict(), backend=other) == s


@given(values.arrays(kinds=("normal", "finite", "channel", "shifted")), values.seeds)
def test_nan_and_inf_are_counted_and_located_and_change_nothing_else(backend, x, seed):
    with values.quiet():
        x = x[np.isfinite(x)]
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    bad = rng.choice(np.array([np.nan, np.inf, -np.inf]), n)
    places = np.sort(rng.integers(0, x.size + 1, n))
    with_bad, clean = (summarize(v, backend=backend) for v in (np.insert(x, places, bad), x))
    assert with_bad.first_nonfinite == places[0]
    assert with_bad.nan == np.isnan(bad).sum()
    assert (with_bad.posinf, with_bad.neginf) == ((bad == np.inf).sum(), (bad == -np.inf).sum())
    assert with_bad.nonfinite == n
    repaired = {**with_bad.state_dict(), "nan": 0, "posinf": 0, "neginf": 0}
    repaired["first_nonfinite"] = clean.state_dict()["first_nonfinite"]
    values.assert_same(Summary.from_state_dict(repaired), clean, 1e-6, x)


def test_only_nonfinite_values(backend):
    s = summarize(np.array([np.nan, -np.inf, np.inf, np.nan], np.float32), start=10, backend=backend)
    assert (s.count, s.nan, s.posinf, s.neginf, s.first_nonfinite) == (0, 2, 1, 1, 10)
    assert (s.norm, s.max_abs) == (0.0, 0.0)
    assert math.isnan(s.mean)
    assert math.isnan(s.variance)
    assert math.isnan(s.skewness)
    assert math.isnan(s.quantile(1.0))


def test_repr(backend):
    x = np.array([3.0, 0.0, -4.0, np.nan])
    assert repr(summarize(x, backend=backend)) == (
        "Summary(count=3, zeros=1, nonfinite=1, mean=-0.333333, sd=2.86744, max_abs=4)"
    )
    assert repr(Summary(backend=backend)).startswith("Summary(count=0, zeros=0, nonfinite=0, mean=nan")


def test_equality_looks_at_every_number(backend):
    a = summarize(np.array([1.0, 2.0]), backend=backend)
    assert a != summarize(np.array([2.0, 2.0]), backend=backend)
    assert a != summarize(np.array([1.0, 2.0]), bits=5, backend=backend)
    assert a != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Summary(11), ValueError, "bits: expected an int from 0 to 10, got 11"),
        (lambda: Summary(-1), ValueError, "bits: expected an int from 0 to 10, got -1"),
        (lambda: Summary(4.0), TypeError, "bits: expected an int from 0 to 10, got 4.0"),
        (lambda: Summary(True), TypeError, "bits: expected an int from 0 to 10, got True"),
        (lambda: Summary(None), TypeError, "bits: expected an int from 0 to 10, got None"),
        (lambda: Summary(backend="cuda"), ValueError, "backend: expected one of .*, got 'cuda'"),
        (lambda: Summary(backend=3), TypeError, "backend: expected one of .*, got int"),
        (lambda: Summary().merge(None), TypeError, "other: expected a Summary, got NoneType"),
        (lambda: Summary().merge(Summary(5)), ValueError, "other: expected a summary of bits=4, got bits=5"),
        (lambda: Summary().quantile(1.5), ValueError, r"q: expected values in \[0, 1\], got 1.5"),
        (lambda: Summary().quantile([0.5, -0.1]), ValueError, r"q: expected values in \[0, 1\], got \[0.5"),
        (lambda: Summary().quantile(math.nan), ValueError, r"q: expected values in \[0, 1\], got nan"),
        (lambda: summarize(np.ones(2), start=0.5), TypeError, "start: expected an int, got float"),
        (lambda: summarize(np.ones(2), start=-1), ValueError, "start: expected an int of at least 0, got -1"),
    ],
)
def test_refusals_have_one_voice(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema": "other"}, ValueError, "state: expected schema gradtail.Summary/1, got other"),
        ({"count": None}, ValueError, "state: expected the key 'count', got none"),
        ({"schema": None}, ValueError, "state: expected schema gradtail.Summary/1, got nothing"),
        ({"bins": [1 << 20]}, ValueError, "state: expected bins from 0 to 8191, got 1048576"),
        ({"bins": [-1]}, ValueError, "state: expected bins from 0 to 8191, got -1"),
        ({"bins": [1, 2]}, ValueError, "state: expected one count a bin, got 2 bins and 1 counts"),
        ({"counts": [-1]}, ValueError, "state: expected counts of at least 0, got -1"),
        ({"counts": [3.0]}, ValueError, "state: expected integers for 'counts', got float64"),
        ({"counts": [4]}, ValueError, "state: expected 3 values in bins, got 4"),
        ({"bins": [2032, 2032], "counts": [1, 2]}, ValueError, "state: expected each bin once, got 2 bins"),
        ({"count": -5}, ValueError, "state: expected 'count' from 0 to 9223372036854775807, got -5"),
        ({"count": 3.5}, ValueError, "state: expected an int for 'count', got 3.5"),
        ({"zeros": 1}, ValueError, "state: expected 'zeros' of at most the count of bin 0, got 1"),
        ({"mantissa": 24}, ValueError, "state: expected 'mantissa' from 0 to 23, got 24"),
        ({"low_bin": 2048, "high_bin": 2048}, ValueError, "state: expected 'low_bin' of 2032 for these bins"),
        ({"high_bin": 10**7}, ValueError, "state: expected 'high_bin' of 2032 for these bins, got 10000000"),
        ({"max_abs": math.nan}, ValueError, "state: expected a finite number for 'max_abs', got nan"),
        ({"max_abs": -1.0}, ValueError, "state: expected 'max_abs' of at least 0, got -1.0"),
        ({"sum3": math.inf}, ValueError, "state: expected a finite number for 'sum3', got inf"),
        ({"bits": 30}, ValueError, "bits: expected an int from 0 to 10, got 30"),
    ],
)
def test_a_damaged_state_is_refused(change, error, message):
    state = {**summarize(np.ones(3)).state_dict(), **change}
    with pytest.raises(error, match=f"^{message}"):
        Summary.from_state_dict({k: v for k, v in state.items() if v is not None})


_SMALL = 2.0**-149  # in bin 0 at any number of bits


@pytest.mark.parametrize("bits", [0, 4, 10])
@pytest.mark.parametrize(
    "x",
    [
        [],
        [0.0],
        [0.0, -0.0],
        [_SMALL],
        [-_SMALL, 0.0],
        [_SMALL, -_SMALL, -0.0, 1.0],
        [1.0, -2.0, 0.0],
        [1e-60],
        [1e300, 0.0],
        [np.nan, np.inf],
    ],
)
def test_the_range_of_bins_of_a_loaded_state_is_that_of_the_pass(backend, x, bits):
    s = summarize(np.array(x, np.float64), bits=bits, backend=backend)
    assert Summary.from_state_dict(s.state_dict(), backend=backend) == s
    twice = s.merge(s)
    assert Summary.from_state_dict(twice.state_dict(), backend=backend) == twice


def test_a_state_is_a_mapping():
    with pytest.raises(TypeError, match=r"^state: expected a mapping, got list"):
        Summary.from_state_dict([])


def _same_dicts(a, b) -> bool:
    return repr(a) == repr(b)
