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
from tails import LAWS, has

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


# Cutoffs.


def test_copies_of_the_cutoff_are_kept():
    """Else the law from xmin on would be held against a sample without most of its xmin."""
    x = np.random.default_rng(20).zipf(2.2, 3000)
    ranked, given = powerlaw.fit(x, top=1100, discrete=True), powerlaw.fit(x, xmin=1, discrete=True)
    assert (ranked.n_tail, ranked.exponent) == (3000, given.exponent)
    assert ranked.exponent == pytest.approx(2.2, abs=4 * ranked.stderr)
    assert has(ranked, "top: 3000 values and not 1100 lie above the nearest tied value")
    tied = np.round(np.random.default_rng(21).pareto(1.5, 2000) + 1, 1)
    ranked = powerlaw.fit(tied, top=700)
    assert ranked.n_tail == np.count_nonzero(tied >= ranked.xmin) >= 700
    assert ranked.exponent == powerlaw.fit(tied, xmin=ranked.xmin).exponent


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cutoff_is_not_rounded_to_the_kind_of_the_values(dtype):
    x = np.array([1, 1, 1, 1.5, 2, 3, 8], dtype)
    for xmin in (1.0002, 1 + 1e-9):
        found = powerlaw.fit(x, xmin=xmin)
        assert (found.xmin, found.n_tail) == (xmin, 4)
    with pytest.raises(ValueError, match="at least 2 distinct nonzero values from xmin on, got 0"):
        powerlaw.fit(x, xmin=1e5)


@pytest.mark.parametrize("base", [10.0**9, 10.0**15, 2.0**52])
def test_large_whole_numbers_close_together(base):
    """A geometric law in steps of one, as x**-s is over a range that is short beside x."""
    steps = np.random.default_rng(22).geometric(0.6, 500) - 1
    found = powerlaw.fit(base + steps, xmin=base, discrete=True)
    rate = np.log1p(1 / steps.mean())
    assert found.exponent == pytest.approx(rate * base, rel=1e-6)
    empirical = np.cumsum(np.bincount(steps)) / 500
    fitted = 1 - np.exp(-rate * np.arange(1, empirical.size + 1))
    assert found.ks == pytest.approx(np.abs(empirical - fitted).max(), abs=1e-6)
    assert found.pvalue(100) > 0.01


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
        (([1.0, 2.0], "ks", 3), ValueError, "top: expected an int from 3 to 2, got 3"),
        (([1.0, 2.0], "ks", 2), ValueError, "top: expected at least 3, got 2"),
        (([1.0, 2.0], "ks", 2.0), TypeError, "top: expected an int, got float"),
        (([1.0, 2.0], 1.0, 3), ValueError, "top: expected None where xmin is a number, got both"),
        (([1.0, 2.5], "ks", None, True), ValueError, "source: expected whole numbers below 2"),
        (([1.0, 2.0**53], "ks", None, True), ValueError, "source: expected whole numbers below 2"),
        (([1.0, 2.0], 1.5, None, True), ValueError, "xmin: expected a whole number where discrete=True"),
        (([1.0, 2.0], "ks", None, 1), TypeError, "discrete: expected a bool, got int"),
        (([1.0, 1.0],), ValueError, "source: expected at least 2 distinct nonzero values in all, got 1"),
        (([1.0, 2.0], 1.5), ValueError, "source: expected at least 2 distinct nonzero values from xmin on"),
        (([1.0, 2.0], 9.0), ValueError, "distinct nonzero values from xmin on, got 0"),
        (([],), ValueError, "source: expected at least 2 distinct nonzero values in all, got 0"),
        (([3.0, 3.0, 3.0, 1.0], "ks", 3), ValueError, "source: expected at least 2 distinct nonzero values"),
        (("text",), TypeError, "source: expected a Summary, Magnitudes or array of real numbers"),
    ],
)  # fmt: skip
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        powerlaw.fit(*arguments)
