"""Hill's estimator: against brute force, against bins, and its error bars against the truth."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tails import ALPHA, LAWS, as_bfloat16, has, merged, tail_of

import gradtail
from gradtail import Summary, summarize
from gradtail.estimators import hill, hill_blocks, hill_curve
from gradtail.states.magnitudes import Magnitudes

BACKENDS = pytest.mark.parametrize("backend", gradtail.backends.available())
TAILS = pytest.mark.parametrize("tail", ["both", "upper", "lower"])


def brute_force(x, k, tail):
    """Hill's alpha and threshold by the definition, one value at a time."""
    top = tail_of(x, tail)
    xi = math.fsum(math.log(v / top[k]) for v in top[:k]) / k
    return (1 / xi if xi else math.inf), top[k]


def brute_force_ks(x, k, tail="both"):
    top = np.array(tail_of(x, tail)[: k + 1])
    alpha = 1 / np.mean(np.log(top[:k] / top[k]))
    law = (top[:k] / top[k]) ** -alpha
    return max(max(abs(law[i] - i / k), abs(law[i] - (i + 1) / k)) for i in range(k))


# Against the definition


@TAILS
@pytest.mark.parametrize("k", [1, 7, 49, 300, 0.1, 0.5])
def test_arrays_match_brute_force(tail, k):
    x = np.random.default_rng(1).standard_t(2, 2000).reshape(40, 50)
    x[0, :3] = 0, np.inf, np.nan
    n = len(tail_of(x, tail))
    count = k if isinstance(k, int) else round(k * n)
    alpha, threshold = brute_force(x, count, tail)
    found = hill(x, k=k, tail=tail)
    assert (found.k, found.n, found.tail, found.threshold) == (count, n, tail, threshold)
    assert found.alpha == pytest.approx(alpha, rel=1e-12)
    assert found.xi == pytest.approx(1 / alpha, rel=1e-12)
    assert found.stderr == pytest.approx(alpha / math.sqrt(count), rel=1e-12)
    assert (found.bin_stderr, found.drift, found.spread, found.k_ks, found.ks) == (0, 0, "iid", None, None)


@TAILS
def test_the_curve_of_an_array_is_hill_at_every_k(tail):
    x = np.random.default_rng(2).standard_t(1.5, 300)
    n = len(tail_of(x, tail))
    curve = hill_curve(x, tail)
    assert curve.k.tolist() == list(range(1, n))
    for k, alpha, threshold in zip(curve.k, curve.alpha, curve.threshold, strict=True):
        assert (alpha, threshold) == (
            pytest.approx(brute_force(x, k, tail)[0], rel=1e-11),
            tail_of(x, tail)[k],
        )
    thin = hill_curve(x, tail, k=[1, 10, 100])
    np.testing.assert_array_equal(thin.alpha, curve.alpha[[0, 9, 99]])
    one = hill(x, k=10, tail=tail)
    low, high = thin.ci(0.9)
    assert (low[1], high[1]) == pytest.approx(one.ci(0.9))
    assert thin.stderr[1] == pytest.approx(one.stderr)


def test_auto_is_a_tenth_of_the_k_nearest_to_pareto():
    x = np.random.default_rng(3).standard_t(3, 8000)
    found = hill(x)
    assert found.k == max(50, found.k_ks // 10)
    assert 50 <= found.k_ks <= 800
    assert found.ks == pytest.approx(brute_force_ks(x, found.k_ks), rel=1e-9)
    best = min(brute_force_ks(x, int(k)) for k in np.geomspace(50, 800, 12))
    assert found.ks <= best * 1.05  # of another grid
    assert found.drift == pytest.approx(
        math.log(found.alpha / brute_force(x, found.k_ks, "both")[0]) / (10**0.5 - 1)
    )


# Against bins


@BACKENDS
@pytest.mark.parametrize("law", ["t(3)", "pareto(1.5)", "cauchy", "normal"])
def test_four_bits_are_within_two_percent_of_sorted_values(backend, law):
    x = LAWS[law](np.random.default_rng(4), 1_000_000).astype(np.float32)
    state = summarize(x, backend=backend)
    for share in (0.001, 0.01, 0.1):
        binned, exact = hill(state, k=share), hill(x, k=share)
        bound = 0.04 if law == "normal" and share == 0.001 else 0.02
        assert binned.alpha == pytest.approx(exact.alpha, rel=bound)
        assert abs(binned.alpha - exact.alpha) < 3 * binned.bin_stderr
        assert binned.threshold == pytest.approx(exact.threshold, rel=0.01)
        assert (binned.k, binned.n) == (exact.k, exact.n)
        assert binned.stderr == pytest.approx(
            math.hypot(binned.alpha / math.sqrt(binned.k), binned.bin_stderr)
        )


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_bin_stderr_is_the_distance_from_sorted_values(bits):
    rng, away = np.random.default_rng(5), []
    for law in ("t(3)", "pareto(1.5)", "cauchy", "normal", "exponential"):
        for _ in range(8):
            x = LAWS[law](rng, 20_000).astype(np.float32)
            k = np.unique(np.geomspace(20, 10_000, 25).astype(int))
            binned, exact = hill_curve(summarize(x, bits=bits), k=k), hill_curve(x, k=k)
            away.append((binned.alpha / exact.alpha - 1) * binned.alpha / binned.bin_stderr)
    rms = np.sqrt(np.mean(np.square(away)))
    assert 0.5 < rms < 1.3
    assert np.mean(np.abs(away) < 3) > 0.98


@BACKENDS
@TAILS
def test_bfloat16_at_seven_bits_is_exact(backend, tail):
    x = as_bfloat16(np.random.default_rng(6).standard_t(3, 100_000))
    state = summarize(pytest.importorskip("ml_dtypes") and x.astype("bfloat16"), bits=7, backend=backend)
    assert state.magnitudes.exact
    for k in (1, 100, 0.001, 0.01, 0.1, "auto"):
        binned, exact = hill(state, k=k, tail=tail), hill(x, k=k, tail=tail)
        assert binned.alpha == pytest.approx(exact.alpha, rel=1e-9)
        assert binned.ks == pytest.approx(exact.ks, rel=1e-9) if k == "auto" else binned.ks is None
        names = ("k", "k_ks", "threshold", "n", "warnings", "plateau", "bin_stderr")
        assert [getattr(binned, a) for a in names] == [getattr(exact, a) for a in names]
    curve = hill_curve(state, tail)
    np.testing.assert_allclose(curve.alpha, hill_curve(x, tail, k=curve.k).alpha, rtol=1e-9)


@BACKENDS
@TAILS
def test_the_curve_of_bins_is_hill_at_every_edge(backend, tail):
    x = np.random.default_rng(7).standard_t(3, 100_000).astype(np.float32)
    state = summarize(x, backend=backend)
    curve, top = hill_curve(state, tail), np.array(tail_of(x, tail))
    edges = state.magnitudes.edges
    at_edges = {int(np.count_nonzero(top >= e)) for e in edges[(edges > 1e-20) & (edges < np.inf)]} - {
        0,
        top.size,
    }
    assert set(curve.k.tolist()) == at_edges
    for i in range(0, curve.k.size, 9):
        one = hill(state, k=int(curve.k[i]), tail=tail)
        assert (one.alpha, one.stderr, one.bin_stderr, one.threshold) == pytest.approx(
            (curve.alpha[i], curve.stderr[i], curve.bin_stderr[i], curve.threshold[i]), rel=1e-9
        )
    exact = hill_curve(x, tail, k=curve.k)
    away = (curve.alpha - exact.alpha) / curve.bin_stderr
    assert 0.5 < np.sqrt(np.mean(away**2)) < 1.3
    assert np.all(np.abs(away) < 9)  # the gap from an edge down to the next value is exponential, not normal


def test_auto_on_bins_agrees_with_auto_on_values():
    rng = np.random.default_rng(9)
    for law, alpha in ALPHA.items():
        x = LAWS[law](rng, 200_000).astype(np.float32)
        binned, exact = hill(summarize(x)), hill(x)
        assert binned.alpha == pytest.approx(alpha, abs=4 * binned.stderr)
        assert 0.2 < binned.k_ks / exact.k_ks < 5
        assert binned.ks == pytest.approx(exact.ks, abs=0.02)


# Error bars


def test_fixed_k_covers_pareto():
    rng, k, hits = np.random.default_rng(10), 200, 0
    for _ in range(2000):
        low, high = hill(rng.pareto(2.0, 2000) + 1, k=k).ci(0.95)
        hits += low <= 2.0 <= high
    assert 0.94 <= hits / 2000 <= 0.96


def test_the_interval_is_exact_at_small_k_and_other_levels():
    rng, hits = np.random.default_rng(11), np.zeros(3)
    for _ in range(2000):
        found = hill(rng.pareto(1.0, 60) + 1, k=5)
        hits += [low <= 1.0 <= high for low, high in map(found.ci, (0.5, 0.8, 0.99))]
    np.testing.assert_allclose(hits / 2000, [0.5, 0.8, 0.99], atol=0.035)


def test_bins_widen_the_interval_enough():
    rng, hits = np.random.default_rng(12), 0
    for _ in range(600):
        low, high = hill(summarize(rng.pareto(3.0, 20_000) + 1, bits=2), k=0.1).ci()
        hits += low <= 3.0 <= high
    assert hits / 600 >= 0.93


@pytest.mark.parametrize("law", ALPHA)
def test_auto_covers(law):
    rng, alpha, hits, errors, errors_ks = np.random.default_rng(13), ALPHA[law], 0, [], []
    silent = 0
    for _ in range(400):
        x = np.abs(LAWS[law](rng, 100_000))
        found = hill(x)
        low, high = found.ci()
        hits += low <= alpha <= high
        silent += found.plateau is not False
        errors.append(found.alpha - alpha)
        errors_ks.append(found.alpha / math.exp(found.drift * (math.sqrt(10) - 1)) - alpha)  # at k_ks
    assert hits / 400 >= 0.85
    if law == "t(5)":
        assert np.mean(np.square(errors)) < np.mean(np.square(errors_ks))
    assert silent / 400 >= (0.70 if law == "t(5)" else 0.95)


# Warnings


@BACKENDS
def test_values_beyond_float32_top_the_tail_of_both_signs(backend):
    x = np.random.default_rng(19).pareto(2.0, 20_000) + 1
    big = np.append(x, [1e300, -1e200, 1e-300])
    both = hill(summarize(big, backend=backend), k=500)
    assert both.n == big.size
    assert has(both, "2 values beyond float32 are counted as 2**128")
    clipped = np.append(x, [2.0**128, 2.0**128, 1e-300])
    assert both.alpha == pytest.approx(hill(clipped, k=500).alpha, rel=0.02)
    upper = hill(summarize(big, backend=backend), k=500, tail="upper")
    assert upper.n == x.size
    assert has(upper, "2 values beyond float32 are left out, their sign is not known")


# Edges


def test_equal_values_have_no_tail():
    for source in (np.full(1000, 0.1), summarize(as_bfloat16(np.full(1000, 3.0)), bits=10)):
        magnitudes = source.magnitudes if isinstance(source, Summary) else None
        if magnitudes is not None:  # float32 input: make it exact
            source = Magnitudes(10, 10, magnitudes.counts, 0, 0, 0)
        for k in (1, 100, "auto"):
            found = hill(source, k=k)
            assert (found.alpha, found.stderr, found.xi, found.plateau) == (math.inf, math.inf, 0.0, None)
            assert found.ci() == (0.0, math.inf)
            assert found.verdict == f"no tail: the {found.k + 1} largest values are equal"
            assert has(found, "ties")
    curve = hill_curve(np.full(5, 0.3))
    assert np.all(np.isinf(curve.alpha))
    assert curve.ci()[0].tolist() == [0.0] * 4


def test_two_values_are_enough():
    found = hill([1.0, math.e])
    assert (found.alpha, found.k, found.n, found.threshold) == (pytest.approx(1.0), 1, 2, 1.0)
    assert hill(summarize(np.array([1.0, 100.0]))).alpha == pytest.approx(1 / math.log(100), rel=0.05)


@pytest.mark.parametrize("n", [2, 3, 9, 50, 99, 499, 500, 501, 2000])
def test_any_size_has_an_answer(n):
    x = np.random.default_rng(n).standard_t(2, n)
    for source in (x, x.astype(np.float32), summarize(x), summarize(x, bits=0), summarize(x, bits=10)):
        found = hill(source)
        assert 1 <= found.k < n
        low, high = found.ci()
        assert 0 < low < found.alpha < high < math.inf
        assert str(found)
        assert (found.k_ks is None) == (n < 500)
        hill(source, k=n - 1)


def test_what_an_array_may_be():
    x = np.random.default_rng(20).standard_t(2, 500).astype(np.float32)
    want = hill(x, k=50).alpha
    torch = sys.modules.get("torch")
    if torch is None:
        torch = pytest.importorskip("torch")
    t = torch.from_numpy(x)
    for same in (x.tolist(), x.reshape(5, 100), x[::-1], t, t.reshape(20, 25), t.clone().requires_grad_()):
        assert hill(same, k=50).alpha == pytest.approx(want, rel=1e-12)
    assert hill(t.bfloat16(), k=50).alpha == hill(t.bfloat16().float().numpy(), k=50).alpha
    assert hill(x.astype(np.float16), k=50).alpha == pytest.approx(want, rel=0.01)
    assert hill([1, 2, 4, 8], k=3).alpha == hill([1.0, 2.0, 4.0, 8.0], k=3).alpha
    with pytest.raises(ValueError, match="source: expected a dense tensor on the CPU, got one on meta"):
        hill(t.to("meta"))
    with pytest.raises(ValueError, match="source: expected a dense tensor on the CPU, got one on"):
        hill(t.to_sparse())


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        (([True, False],), TypeError, "source: expected .*, got list"),
        ((np.ones(3, bool),), TypeError, "source: expected .*, got dtype bool"),
        ((np.ones(3, complex),), TypeError, "source: expected .*, got dtype complex128"),
        ((None,), TypeError, "source: expected .*, got NoneType"),
        (([[1.0], [1.0, 2.0]],), TypeError, "source: expected "),
        (([],), ValueError, "source: expected at least 2 nonzero values in all, got 0"),
        (([0.0, 0.0, np.nan, 1.0],), ValueError, "source: expected at least 2 nonzero values in all, got 1"),
        (
            ([1.0, 2.0, -1.0], 1, "lower"),
            ValueError,
            "source: expected at least 2 .* in the lower tail, got 1",
        ),
        ((Summary(),), ValueError, "source: expected at least 2 nonzero values in all, got 0"),
        (([1.0, 2.0, 3.0], 3), ValueError, "k: expected an int from 1 to 2, got 3"),
        (([1.0, 2.0, 3.0], 0), ValueError, "k: expected 'auto', .*, got 0"),
        (([1.0, 2.0, 3.0], -1), ValueError, "k: expected 'auto', .*, got -1"),
        (([1.0, 2.0, 3.0], 1.0), ValueError, "k: expected 'auto', .*, got 1.0"),
        (([1.0, 2.0, 3.0], math.nan), ValueError, "k: expected 'auto', .*, got nan"),
        (([1.0, 2.0, 3.0], "ks"), ValueError, "k: expected 'auto', .*, got 'ks'"),
        (([1.0, 2.0, 3.0], True), TypeError, "k: expected 'auto', .*, got bool"),
        (([1.0, 2.0, 3.0], None), TypeError, "k: expected 'auto', .*, got NoneType"),
        (([1.0, 2.0, 3.0], 1, "left"), ValueError, "tail: expected 'both', 'upper' or 'lower', got 'left'"),
    ],
)
def test_refusals(args, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        hill(*args)


def test_more_refusals():
    state = summarize(np.array([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"^k: expected an int from 1 to 2, got 3"):
        hill(state, k=3)
    with pytest.raises(ValueError, match=r"^k: expected ints from 1 to 2, got 0 to 2"):
        hill_curve(state, k=[0, 2])
    with pytest.raises(TypeError, match=r"^k: expected a sequence of ints"):
        hill_curve(state, k=0.5)
    for level in (0, 1, 95, math.nan):
        with pytest.raises(ValueError, match=r"^level: expected a number between 0 and 1"):
            hill(state, k=1).ci(level)
        with pytest.raises(ValueError, match=r"^level: expected a number between 0 and 1"):
            hill_curve(state).ci(level)
    with pytest.raises(ValueError, match=r"^blocks: expected at least one summary, got none"):
        hill_blocks([])
    with pytest.raises(TypeError, match=r"^blocks: expected a sequence of summaries"):
        hill_blocks([np.ones(3)])
    with pytest.raises(TypeError, match=r"^blocks: expected a sequence of summaries"):
        hill_blocks(state)
    with pytest.raises(ValueError, match=r"^blocks: expected one number of bits, got \[3, 4\]"):
        hill_blocks([state, summarize(np.ones(3), bits=3)])


# Laws


values = st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=2, max_size=60).map(np.array)
signed = st.lists(
    st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda v: abs(v) > 2.0**-60), min_size=4, max_size=60
).map(np.array)


@settings(max_examples=60, deadline=None)
@given(values, st.integers(-60, 60), st.sampled_from([0.05, 0.3, 0.9, "auto"]))
def test_scale_does_not_matter(x, exponent, k):
    scaled = np.ldexp(x, exponent)
    for one, other in ((x, scaled), (summarize(x), summarize(scaled)), (x, x * 0.3)):
        assert hill(one, k=k).xi == pytest.approx(hill(other, k=k).xi, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(signed, st.sampled_from([0.05, 0.3, 0.9, "auto"]))
def test_negation_swaps_the_tails(x, k):
    for form in (np.asarray, summarize):
        for tail, other in (("upper", "lower"), ("lower", "upper"), ("both", "both")):
            if (x > 0).sum() < 2 or (x < 0).sum() < 2:
                continue
            one, two = hill(form(x), k=k, tail=tail), hill(form(-x), k=k, tail=other)
            assert (one.alpha, one.stderr, one.n, one.warnings) == (
                two.alpha,
                two.stderr,
                two.n,
                two.warnings,
            )


@settings(max_examples=40, deadline=None)
@given(st.lists(values, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_merging_does_not_matter(parts, random):
    states = [summarize(p) for p in parts]
    shuffled = random.sample(states, len(states))
    want = hill(summarize(np.concatenate(parts)), k=0.3)
    assert hill(merged(shuffled), k=0.3) == want
    assert hill_blocks(shuffled, k=0.3) == hill_blocks(states, k=0.3)


@settings(max_examples=60, deadline=None)
@given(values, st.integers(0, 10))
def test_blur_covers_any_values(x, bits):
    # Bins of any width: never a NaN, an ordered interval, the threshold within its bin.
    state = summarize(x, bits=bits)
    curve = hill_curve(state, k=np.arange(1, x.size))
    exact = np.sort(np.abs(x))[::-1][1:]
    assert np.all(curve.alpha > 0)
    assert np.all(np.isfinite(curve.stderr))
    assert np.all(np.abs(np.log(curve.threshold / exact)) <= math.log1p(2.0**-bits) + 1e-12)
