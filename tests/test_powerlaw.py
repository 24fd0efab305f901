"""Fits of power laws to arrays and to histograms: exponents, distances, cutoffs, refusals."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import CLAUSET, clauset
from scipy import optimize, special
from tails import LAWS, as_bfloat16, has

from gradtail import powerlaw, summarize


def brute_force(x, xmin):
    """Hill's estimate and Clauset's distance, by the textbook."""
    x = np.sort(x[x >= xmin])
    n = x.size
    alpha = n / np.sum(np.log(x / xmin))
    return 1 + alpha, float(np.abs(np.arange(n) / n - (1 - (x / xmin) ** -alpha)).max())


def nearest(x):
    """The fit of least distance by measuring all of them, as the authors' program does."""
    fits = [(brute_force(x, xmin)[1], xmin) for xmin in np.unique(x)[:-1]]
    return min(fits)


# What is known without chance: values that lie exactly on a line of ranks.


@pytest.mark.parametrize(
    ("k", "s", "exponent", "slope", "ks"),
    [(1000, 1.0, 2.00439, 0.99563, 0.00161), (1000, 1.2, 1.83699, 1.19475, 0.00161),
     (50, 1.0, 2.06104, None, 0.02179)],
)  # fmt: skip
def test_zipf_sequences(k, s, exponent, slope, ks):
    found = powerlaw.fit(np.arange(1, 2 * k + 1.0) ** -s, top=k)
    assert found.exponent == pytest.approx(exponent, abs=1e-4)
    assert found.slope == pytest.approx(slope or 1 / (exponent - 1), abs=1e-4)
    assert found.ks == pytest.approx(ks, abs=1e-4)
    assert (found.n_tail, found.n, found.cutoff) == (k, 2 * k, "rank")
    assert found.xmin == k**-s
    if k == 1000:
        assert found.slope == pytest.approx(s, rel=5e-3)


def test_eigengaps_of_a_zipf_sequence():
    found = powerlaw.fit(-np.diff(1 / np.arange(1, 1002.0)), top=1000)
    assert found.exponent == pytest.approx(1.50369, abs=1e-4)
    assert found.slope == pytest.approx(1.98534, abs=1e-4)
    assert found.ks == pytest.approx(0.0024, abs=1e-4)


def test_critical_values():
    assert powerlaw.critical_value(1000, calibrated=False) == pytest.approx(0.0430, abs=1e-4)
    assert powerlaw.critical_value(50, calibrated=False) == pytest.approx(0.1923, abs=1e-4)
    assert powerlaw.critical_value(1000, rank=True) == pytest.approx(0.0334, abs=1e-3)
    found = powerlaw.fit(1 / np.arange(1, 1001.0), top=1000)
    assert found.critical(0.05, calibrated=False) == powerlaw.critical_value(1000, calibrated=False)
    assert found.critical(0.05) == powerlaw.critical_value(1000, rank=True)
    assert powerlaw.fit(1 / np.arange(1, 1001.0), xmin=1e-3).critical(0.05) == powerlaw.critical_value(1000)
    for bad in (0.0, 1.0, 2.0):
        with pytest.raises(ValueError, match="level: expected"):
            found.critical(bad)
    with pytest.raises(ValueError, match="level: expected"):
        found.critical(0.03, calibrated=False)


# Published fits.


@pytest.mark.parametrize("name", CLAUSET)
def test_published_fits(name):
    row, x = CLAUSET[name], clauset(name)
    found = powerlaw.fit(x, discrete=row.discrete)
    digits = len(row.exponent.partition(".")[2])
    assert x.size == row.n
    assert f"{found.exponent:.{digits}f}" == row.exponent
    assert found.xmin == pytest.approx(row.xmin, rel=1e-3 if row.xmin < 1 else 1e-4)
    assert found.n_tail == row.n_tail
    assert found.ks == pytest.approx(row.ks, abs=6e-6)
    assert (found.cutoff, found.search) == ("searched", "exact")


# The search.


@pytest.mark.parametrize("law", ["pareto(1.5)", "t(3)", "exponential", "ties", "few"])
def test_search_finds_what_measuring_all_finds(law):
    rng = np.random.default_rng(1)
    for n in (2, 5, 60, 700):
        if law == "ties":
            x = rng.zipf(2.0, n).astype(float)
        elif law == "few":
            x = rng.integers(1, 5, n + 3).astype(float)
        else:
            x = np.abs(LAWS[law](rng, n))
        if np.unique(x).size < 2:
            continue
        ks, xmin = nearest(x)
        found = powerlaw.fit(x)
        assert found.ks == pytest.approx(ks, abs=1e-12)
        assert (found.xmin, found.search) == (xmin, "exact")
        assert found.exponent == pytest.approx(brute_force(x, xmin)[0], rel=1e-12)


@pytest.mark.parametrize("law", ["pareto(2)", "t(3)", "normal"])
def test_coarse_search_comes_near_the_best(law):
    """Of 60,000 values not all are measured; the distance found is that of the best within a few per cent."""
    x = np.abs(LAWS[law](np.random.default_rng(2), 60_000))
    found = powerlaw.fit(x)
    assert found.search == "coarse to fine"
    exponent, ks = brute_force(x, found.xmin)
    assert found.exponent == pytest.approx(exponent, rel=1e-12)
    assert found.ks == pytest.approx(ks, abs=1e-12)
    some = np.sort(x)[::37][:-1]  # other candidates, not those of the search
    assert found.ks <= 1.05 * min(brute_force(x, xmin)[1] for xmin in some[::40])


def test_long_samples_are_measured_exactly_where_only_parts_are_looked_at():
    x = np.random.default_rng(3).pareto(1.7, 300_000) + 1
    for xmin in (1.0, 1.5, 20.0):
        found = powerlaw.fit(x, xmin=xmin)
        exponent, ks = brute_force(x, xmin)
        assert found.exponent == pytest.approx(exponent, rel=1e-10)
        assert found.ks == pytest.approx(ks, abs=1e-12)


# Error bars.


@pytest.mark.parametrize("how", ["given", "rank", "integers", "bins"])
def test_intervals_cover(how):
    rng, hits, repeats, z = np.random.default_rng(4), 0, 400, []
    for _ in range(repeats):
        x = rng.pareto(1.5, 400) + 1
        if how == "given":
            found, truth = powerlaw.fit(x, xmin=1), 2.5
        elif how == "rank":
            found, truth = powerlaw.fit(x, top=100), 2.5
        elif how == "integers":
            found, truth = powerlaw.fit(rng.zipf(2.5, 400), xmin=1, discrete=True), 2.5
        else:
            found, truth = powerlaw.fit(summarize(x, bits=0), xmin=1), 2.5
        low, high = found.ci(0.9)
        hits += low < truth < high
        z.append((found.exponent - truth) / found.stderr)
    assert abs(hits / repeats - 0.9) < 3.5 * math.sqrt(0.09 / repeats)
    assert np.std(z) == pytest.approx(1, abs=0.15)


# Whole numbers.


@pytest.mark.parametrize(("exponent", "xmin"), [(1.3, 1), (2.0, 3), (3.5, 1), (6.0, 2), (2.5, 1000)])
def test_whole_numbers_against_a_plain_maximum(exponent, xmin):
    rng = np.random.default_rng(5)
    x = np.floor((xmin - 0.5) * (rng.pareto(exponent - 1, 2000) + 1) + 0.5)
    x = x[x < 2.0**53]
    found = powerlaw.fit(x, xmin=xmin, discrete=True)
    x = x[x >= xmin]
    logs = np.log(x).mean()
    plain = optimize.minimize_scalar(
        lambda s: s * logs + np.log(special.zeta(s, xmin)), bounds=(1.01, 12), options={"xatol": 1e-10}
    )
    assert found.exponent == pytest.approx(plain.x, rel=1e-6)
    values = np.arange(xmin, min(x.max(), xmin + 3000) + 1)
    empirical = np.searchsorted(np.sort(x), values, side="right") / x.size
    fitted = 1 - special.zeta(found.exponent, values + 1) / special.zeta(found.exponent, xmin)
    assert found.ks >= np.abs(empirical - fitted).max() - 1e-12
    if x.max() < xmin + 3000:
        assert found.ks == pytest.approx(np.abs(empirical - fitted).max(), abs=1e-10)
    assert found.form == "integers"


def test_whole_numbers_are_drawn_from_their_law():
    data = powerlaw.fit(np.random.default_rng(6).zipf(1.6, 1000), xmin=2, discrete=True)._data
    values, count = data.draw(0, 0.6, 200_000, np.random.default_rng(7))
    assert values[0] == 2
    for x in (2, 3, 5, 50, 1000, 20_000, 1_000_000):
        share = special.zeta(1.6, x) / special.zeta(1.6, 2)
        seen = count[values >= x].sum() / 200_000
        assert seen == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / 200_000) + 1e-12)


# Bins.


@pytest.mark.parametrize("law", ["pareto(1.5)", "pareto(2)", "t(3)", "cauchy", "exponential", "normal"])
@pytest.mark.parametrize("n", [10_000, 1_000_000])
def test_bins_agree_with_values(law, n):
    for share in (0.1, 0.01, 0.001):
        if share * n < 300:
            continue
        gaps = []
        for seed in range(3):
            x = LAWS[law](np.random.default_rng(seed), n).astype(np.float32)  # as the bins have them
            binned = summarize(x)
            edges = binned.magnitudes.edges
            xmin = edges[np.searchsorted(edges, np.quantile(np.abs(x), 1 - share))]
            raw, bins = powerlaw.fit(x, xmin=xmin), powerlaw.fit(binned, xmin=xmin)
            assert bins.form == "bins"
            assert bins.warnings == raw.warnings
            assert (bins.xmin, bins.n_tail, bins.n) == (raw.xmin, raw.n_tail, raw.n)
            # not known to the bins: where in them the values lie, uniformly over log(2) / 16 or so
            chance = raw.alpha**2 * math.log(2) / 16 / math.sqrt(12 * raw.n_tail) / raw.exponent
            wanted = 0.01 if law == "normal" and share == 0.001 else 0.005
            assert bins.exponent == pytest.approx(raw.exponent, rel=max(wanted, 3.5 * chance))
            gaps.append(abs(bins.ks - raw.ks))
        assert np.mean(gaps) < (0.003 if raw.n_tail >= 1e5 else 0.6 / math.sqrt(raw.n_tail))


@pytest.mark.parametrize("law", ["pareto(1.5)", "pareto(2)", "t(3)", "cauchy"])
def test_searched_bins_agree_with_values(law):
    for seed in range(5):
        x = LAWS[law](np.random.default_rng(seed), 200_000)
        raw, bins = powerlaw.fit(x), powerlaw.fit(summarize(x))
        assert abs(bins.exponent - raw.exponent) < 2 * math.hypot(raw.stderr, bins.stderr)
        assert bins.search == "exact"


@pytest.mark.parametrize("bits", [0, 2, 4, 7, 10])
def test_likelihood_of_bins_is_at_its_maximum(bits):
    x = np.random.default_rng(9).pareto(1.8, 3000) + 1
    found = powerlaw.fit(summarize(x, bits=bits), xmin=2.0)
    sample = found._data.sample(found._at)

    def loss(alpha):
        return -np.sum(sample.count * np.log(np.exp(-alpha * sample.low) - np.exp(-alpha * sample.high)))

    plain = optimize.minimize_scalar(loss, bounds=(0.1, 10), options={"xatol": 1e-11})
    assert found.alpha == pytest.approx(plain.x, rel=1e-6)
    h = 1e-3
    curvature = (loss(plain.x + h) - 2 * loss(plain.x) + loss(plain.x - h)) / h**2
    assert found.stderr == pytest.approx(curvature**-0.5, rel=1e-3)


def test_cost_of_bins_does_not_depend_on_how_much_they_hold():
    """Counts beyond any array: a trillion values."""
    one = summarize(np.random.default_rng(10).pareto(2.0, 100_000) + 1)
    many = one
    for _ in range(23):
        many = many.merge(many)
    few, all_ = powerlaw.fit(one, xmin=1), powerlaw.fit(many, xmin=1)
    assert all_.n_tail == few.n_tail << 23
    assert all_.exponent == pytest.approx(few.exponent, rel=1e-12)
    assert all_.stderr == pytest.approx(few.stderr / math.sqrt(2**23), rel=1e-9)
    assert all_.pvalue(20) == 0.0  # a trillion of them: bins of 1e5 values are no smooth law


def test_rounded_values_are_intervals_about_points():
    """bfloat16 has 128 values a binade; as points their ties would rule out every law at 1e6 values."""
    x = (np.random.default_rng(11).pareto(1.5, 1_000_000) + 1).astype(np.float32)
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    import ml_dtypes

    binned = summarize(rounded.astype(ml_dtypes.bfloat16), bits=7)
    assert binned.magnitudes.exact
    found = powerlaw.fit(binned, xmin=4.0)
    assert found.exponent == pytest.approx(2.5, abs=4 * found.stderr)
    assert found.xmin == pytest.approx(4.0, rel=2**-7)
    assert found.n_tail == np.count_nonzero(rounded >= 4)
    assert found.pvalue(400) > 0.01
    coarse = powerlaw.fit(summarize(rounded.astype(ml_dtypes.bfloat16)), xmin=4.0)
    assert not summarize(rounded.astype(ml_dtypes.bfloat16)).magnitudes.exact
    assert (coarse.xmin, coarse.n_tail) == (found.xmin, found.n_tail)  # from halfway below 4
    assert coarse.exponent == pytest.approx(found.exponent, abs=found.stderr)
    wide = powerlaw.fit(summarize(rounded.astype(ml_dtypes.bfloat16), bits=9), xmin=4.0)
    assert (wide.exponent, wide.n_tail) == (pytest.approx(found.exponent, rel=1e-12), found.n_tail)
    tied = powerlaw.fit(as_bfloat16(x), xmin=4.0)
    assert has(tied, "ties: ")
    assert tied.pvalue() < 1e-3  # which is why


@pytest.mark.parametrize("bits", [4, 10])
def test_float16_below_its_normal_range_is_evenly_spaced(bits):
    """Values of 2**-24 to 2**-14: bins between two of them can hold none, and are no gaps in the law."""
    x = (2.0**-21 * (np.random.default_rng(19).pareto(1.5, 100_000) + 1)).astype(np.float16)
    binned = summarize(x, bits=bits)
    assert binned.magnitudes.mantissa == 10
    for xmin in (2.0**-20, 2.0**-14):
        found = powerlaw.fit(binned, xmin=xmin)
        assert found.n_tail == np.count_nonzero(x >= xmin)
        assert found.exponent == pytest.approx(2.5, abs=4 * found.stderr)
        assert found.pvalue(200) > 0.01
    assert powerlaw.fit(binned).pvalue(50) >= 0


def test_values_beyond_float32_count_as_the_tail():
    x = np.concatenate([np.random.default_rng(12).pareto(0.05, 3000) + 1, [1e39, 1e50]])
    found = powerlaw.fit(summarize(x), xmin=1.0)
    raw = powerlaw.fit(x, xmin=1.0)
    assert found.n_tail == raw.n_tail == x.size
    assert found.exponent == pytest.approx(raw.exponent, abs=raw.stderr)
    tiny = summarize(np.append(x, 1e-60))
    assert powerlaw.fit(tiny, xmin=1.0).n == x.size + 1


def test_rank_of_bins_is_the_nearest_edge():
    x = np.random.default_rng(13).pareto(2.0, 100_000) + 1
    found = powerlaw.fit(summarize(x), top=1000)
    assert found.n_tail == np.count_nonzero(x >= found.xmin)
    assert abs(found.n_tail - 1000) < 80
    assert found.cutoff == "rank"
    assert powerlaw.fit(x, xmin=found.xmin).exponent == pytest.approx(found.exponent, rel=5e-3)


# Laws.


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=60, unique=True),
    st.sampled_from([2.0**-60, 0.125, 4.0, 2.0**40]),
)
def test_scale_changes_nothing_but_the_scale(x, scale):
    found, scaled = powerlaw.fit(x), powerlaw.fit([scale * v for v in x])
    assert scaled.ks == pytest.approx(found.ks, abs=1e-9)
    again = powerlaw.fit([scale * v for v in x], xmin=scale * found.xmin)
    assert again.exponent == pytest.approx(found.exponent, rel=1e-6)
    assert again.ks == pytest.approx(found.ks, abs=1e-9)


@given(st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.5, 3.0, 8.0]), min_size=3, max_size=80))
def test_order_and_sign_do_not_matter(x):
    if len(set(x)) < 2:
        return
    found = powerlaw.fit(x)
    assert powerlaw.fit(x[::-1]) == found
    assert powerlaw.fit([-v for v in x]) == found
    assert powerlaw.fit([-v for v in x], tail="lower").exponent == found.exponent
    assert powerlaw.fit(np.array(x, np.float32)).exponent == found.exponent


def test_tails_are_told_apart():
    rng = np.random.default_rng(14)
    x = np.concatenate([rng.pareto(1.2, 5000) + 1, -(rng.pareto(3.0, 5000) + 1)])
    for source in (x, summarize(x)):
        upper, lower = (powerlaw.fit(source, xmin=1.0, tail=tail) for tail in ("upper", "lower"))
        assert upper.alpha == pytest.approx(1.2, abs=4 * upper.stderr)
        assert lower.alpha == pytest.approx(3.0, abs=4 * lower.stderr)
        assert (upper.n, lower.n, upper.tail, lower.tail) == (5000, 5000, "upper", "lower")


def test_no_cap_on_the_exponent():
    for exponent in (1.1, 4.0, 20.0, 80.0):
        x = np.random.default_rng(15).pareto(exponent - 1, 20_000) + 1
        found = powerlaw.fit(x, xmin=1)
        assert found.exponent == pytest.approx(exponent, abs=4 * found.stderr)


def test_any_scale():
    x = np.random.default_rng(16).pareto(2.0, 5000) + 1
    for scale in (1e-300, 1e-30, 1e30, 1e290):
        assert powerlaw.fit(scale * x, top=500).exponent == pytest.approx(powerlaw.fit(x, top=500).exponent)


def test_omitted_values_are_named():
    x = np.random.default_rng(17).pareto(2.0, 5000) + 1
    dirty = np.concatenate([x, np.zeros(500), [np.nan, np.inf, -np.inf]])
    for source in (dirty, summarize(dirty)):
        found = powerlaw.fit(source, xmin=1.0)
        assert (found.n, found.n_tail) == (5000, 5000)
        assert has(found, "3 non-finite values are left out")
        assert has(found, "500 zeros are left out")
    assert has(powerlaw.fit(x, top=49), "49 values from xmin on are few")
    assert powerlaw.fit(x, top=50).warnings == ()
    moved = powerlaw.fit(summarize(x), xmin=1.01)
    assert has(moved, "xmin was moved from 1.01 to the next edge of a bin")
    assert moved.xmin == 1.0625


def test_results_are_plain_values():
    found = powerlaw.fit(np.random.default_rng(18).pareto(2.0, 1000) + 1)
    assert copy.deepcopy(found) == found == pickle.loads(pickle.dumps(found))
    assert repr(found).startswith("PowerLawFit(exponent=")
    assert "_data" not in repr(found)
    with pytest.raises(AttributeError):
        found.exponent = 1.0
    p = found.pvalue(20)
    again = pickle.loads(pickle.dumps(p))
    assert (again, again.repeats, again.stderr) == (p, 20, p.stderr)


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 2.0], "KS"), ValueError, "xmin: expected 'ks' or a positive number, got 'KS'"),
        (([1.0, 2.0], 0.0), ValueError, "xmin: expected 'ks' or a positive number, got 0.0"),
        (([1.0, 2.0], math.nan), ValueError, "xmin: expected 'ks' or a positive number, got nan"),
        (([1.0, 2.0], True), TypeError, "xmin: expected 'ks' or a positive number, got bool"),
        (([1.0, 2.0], [1.0]), TypeError, "xmin: expected 'ks' or a positive number, got list"),
        (([1.0, 2.0], "ks", 3), ValueError, "top: expected an int from 2 to 2, got 3"),
        (([1.0, 2.0], "ks", 1), ValueError, "top: expected at least 2, got 1"),
        (([1.0, 2.0], "ks", 2.0), TypeError, "top: expected an int, got float"),
        (([1.0, 2.0], 1.0, 2), ValueError, "top: expected None where xmin is a number, got both"),
        (([1.0, 2.5], "ks", None, True), ValueError, "source: expected whole numbers where discrete=True"),
        (([1.0, 2.0], 1.5, None, True), ValueError, "xmin: expected a whole number where discrete=True"),
        (([1.0, 2.0], "ks", None, 1), TypeError, "discrete: expected a bool, got int"),
        (([1.0, 1.0],), ValueError, "source: expected at least 2 distinct nonzero values in all, got 1"),
        (([1.0, 2.0], 1.5), ValueError, "source: expected at least 2 distinct nonzero values from xmin on"),
        (([1.0, 2.0], 9.0), ValueError, "distinct nonzero values from xmin on, got 0"),
        (([1e3, 1e3 - 1.2e-13], 1e3 - 1.2e-13), ValueError, "source: expected values that differ by more"),
        (([],), ValueError, "source: expected at least 2 distinct nonzero values in all, got 0"),
        (([3.0, 3.0, 1.0], "ks", 2), ValueError, "source: expected at least 2 distinct nonzero values"),
        (("text",), TypeError, "source: expected a Summary, Magnitudes or array of real numbers"),
    ],
)  # fmt: skip
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        powerlaw.fit(*arguments)


def test_refusals_of_histograms():
    binned = summarize(np.array([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="source: expected an array of whole numbers, got Summary"):
        powerlaw.fit(binned, discrete=True)
    with pytest.raises(ValueError, match="top: expected an int from 2 to 3, got 4"):
        powerlaw.fit(binned, top=4)
    with pytest.raises(ValueError, match=r"xmin: expected at most 2\*\*128"):
        powerlaw.fit(binned, xmin=1e39)
    with pytest.raises(ValueError, match="at least 2 distinct nonzero values"):
        powerlaw.fit(summarize(np.ones(5)))
    with pytest.raises(ValueError, match="at least 2 distinct nonzero values"):
        powerlaw.fit(binned, xmin=3.0)
    with pytest.raises(ValueError, match="tail: expected"):
        powerlaw.fit(binned, tail="left")
