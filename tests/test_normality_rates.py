"""Tests of normality by the thousand: their sizes, rejection rates and false discoveries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from gradtail import summarize
from gradtail.estimators.normality import (
    NormalityTest,
    NormalityTests,
    RejectionRate,
    benjamini_hochberg,
    dagostino,
    distance,
    histogram,
    jarque_bera,
    ks_normal,
    pearson_chi2,
)

CASES = {
    "dagostino": (dagostino, {}, 0.05),
    "jarque_bera": (jarque_bera, {}, {50: 0.0379, 1000: 0.0482}),  # measured, 40,000 samples
    "pearson_chi2": (pearson_chi2, {}, 0.05),
    "pearson_chi2, 4 cells": (pearson_chi2, {"cells": 4}, 0.05),
    "pearson_chi2, 10 cells": (pearson_chi2, {"cells": 10}, 0.05),
    "ks_normal": (ks_normal, {}, 0.05),
}


def of_binomial(rejected, tested, size, slack=0.0):
    """Whether a count is within 4 standard errors of a size, and what the law itself is off by."""
    return abs(rejected / tested - size) < 4 * math.sqrt(size * (1 - size) / tested) + slack


# Sizes and power


def test_iid_normal_rows_pass_at_the_level_and_students_fail():
    rng = np.random.default_rng(1)
    normal = dagostino(rng.standard_normal((20_000, 1000), dtype=np.float32), axis=1).rate()
    assert normal.tested == 20_000
    assert abs(normal.gaussian_rate - 0.95) < 0.01
    assert of_binomial(normal.rejected, 20_000, 0.0511)
    student = dagostino(rng.standard_t(5, size=(2000, 1000)), axis=1).rate()
    assert student.gaussian_rate < 0.01


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [50, 1000])
def test_sizes_on_arrays(case, n):
    test, options, size = CASES[case]
    size = size[n] if isinstance(size, dict) else size
    rate = test(np.random.default_rng(n).normal(3, 2, size=(6000, n)), axis=1, **options).rate()
    # 50 values are near the limit and not at it: K2 has 5.6 %, Pearson's test of 13 cells 4.5 %.
    assert of_binomial(rate.rejected, 6000, size, slack=0.006 if n == 50 else 0.002)


@pytest.mark.parametrize("case", ["dagostino", "pearson_chi2", "pearson_chi2, 4 cells"])
def test_sizes_on_summaries(case):
    test, options, size = CASES[case]
    rng = np.random.default_rng(2)
    found = [test(summarize(rng.normal(0.5, 2, 2000).astype(np.float32)), **options) for _ in range(1500)]
    assert of_binomial(sum(one.rejected for one in found), len(found), size, slack=0.002)


@pytest.mark.parametrize(("bits", "mean"), [(4, 0.0), (5, 1.0)])
def test_sizes_of_the_distance_on_summaries(bits, mean):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(2000):
        bins = histogram.bins_of(summarize(rng.normal(mean, 1, 2000).astype(np.float32), bits=bits))
        law, one = distance.at_points(bins)
        found.append(math.sqrt(2000) * one)
    draws = np.abs(distance.limit_draws(law, 20_000, rng)).max(axis=1)
    for size in (0.5, 0.05, 0.01):
        rejected = np.count_nonzero(found > np.quantile(draws, 1 - size))
        assert of_binomial(rejected, len(found), size, slack=0.1 * size)


def test_the_pvalue_of_the_distance_counts_the_draws(monkeypatch):
    bins = histogram.bins_of(summarize(np.random.default_rng(4).normal(size=3000)))
    law, found = distance.at_points(bins)
    monkeypatch.setattr(distance, "DRAWS", 99)
    draws = np.abs(distance.limit_draws(law, 99, np.random.default_rng(0))).max(axis=1)
    pvalue = ks_normal(summarize(np.random.default_rng(4).normal(size=3000))).pvalue
    assert pvalue == (1 + np.count_nonzero(draws >= math.sqrt(3000) * found)) / 100


@pytest.mark.parametrize("case", CASES)
def test_a_laplace_law_is_found_out(case):
    test, options, _ = CASES[case]
    x = np.random.default_rng(5).laplace(size=(500, 400)).astype(np.float32)
    assert test(x, axis=1, **options).rate().rate > 0.95
    assert test(x, **options).pvalue < 1e-10
    assert test(summarize(x), **options).pvalue <= 1 / 5000


# Rates


@given(hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(0, 1)), st.floats(0.001, 0.999))
def test_benjamini_hochberg_is_that_of_the_definition(p, level):
    rising = np.sort(p)
    expected = np.array([min(p.size * rising[j] / (j + 1) for j in np.flatnonzero(rising >= v)) for v in p])
    found = benjamini_hochberg(p)
    assert found == pytest.approx(expected, rel=1e-12, abs=0)
    if p.size and hasattr(stats, "false_discovery_control"):  # from SciPy 1.11 on
        assert found == pytest.approx(stats.false_discovery_control(p), rel=1e-12, abs=0)
    holes = np.insert(p, np.arange(p.size + 1), np.nan)
    with_holes = benjamini_hochberg(holes.reshape(1, -1))
    assert with_holes.shape == (1, 2 * p.size + 1)
    assert np.array_equal(with_holes[0, 1::2], found)
    assert np.isnan(with_holes[0, ::2]).all()
    tests = NormalityTests("K2", holes, holes, np.full(holes.shape, 9), skipped_few=p.size + 1)
    rate = tests.rate(level, "benjamini-hochberg")
    assert (rate.rejected, rate.tested) == (np.count_nonzero(found <= level), p.size)
    assert tests.rate(level).rejected == np.count_nonzero(p <= level) >= rate.rejected


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.999))
def test_the_interval_is_that_of_clopper_and_pearson(rejected, others, level):
    n = rejected + others
    rate = RejectionRate(0.05, None, rejected, n)
    if n == 0:
        assert rate.ci(level) == (0, 1)
        return
    expected = stats.binomtest(rejected, n).proportion_ci(level, method="exact")
    assert rate.ci(level) == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-12)
    assert rate.rate == rejected / n
    assert rate.gaussian_rate == 1 - rate.rate


def test_few_false_discoveries_among_many_normal_rows():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2000, 300))
    x[:200] = rng.exponential(size=(200, 300))
    found = dagostino(x, axis=1)
    adjusted = benjamini_hochberg(found.pvalue) <= 0.05
    assert found.rate(0.05, "benjamini-hochberg").rejected == adjusted.sum()
    assert adjusted[:200].all()
    assert adjusted[200:].sum() < 30 < (found.pvalue[200:] <= 0.05).sum()


def test_results_in_words():
    one = NormalityTest("D'Agostino's K2", 3.25, 0.197, 100, ("100 is a number",))
    assert str(one) == (
        "not told from a normal law (p = 0.2); D'Agostino's K2 3.25 of 100 values\n  warning: 100 is a number"
    )
    assert (one.rejected, NormalityTest("K2", 9.0, 0.05, 8).verdict) == (False, "not normal (p = 0.05)")
    p = np.array([[0.01, 0.5], [np.nan, 0.9]])
    many = NormalityTests("Jarque-Bera", p, p, np.full((2, 2), 50), 1, 0, 0, ("few",))
    assert repr(many) == "NormalityTests(Jarque-Bera, 3 tests, shape (2, 2))"
    assert str(many) == (
        "Jarque-Bera: 33.3 % of 3 tests reject a normal law at 5 % (95 % 0.84 to 90.6 % if they were "
        "independent; tests that share batches are not); skipped: 1 without variance\n  warning: few"
    )
    assert "at 5 % false discoveries (Benjamini-Hochberg)" in str(many.rate(correction="benjamini-hochberg"))
    assert many.rate().spread == "iid"


def test_refusals_of_rates():
    p = np.array([0.5])
    tests = NormalityTests("K2", p, p, np.array([50]))
    for wrong in (0, 1, -1, math.nan, True, "0.05"):
        with pytest.raises(ValueError, match=r"^level: expected a number between 0 and 1, got "):
            tests.rate(wrong)
    with pytest.raises(ValueError, match=r"^correction: expected None or 'benjamini-hochberg', got 'holm'$"):
        tests.rate(correction="holm")
    with pytest.raises(ValueError, match=r"^level: expected a number between 0 and 1, got 2$"):
        tests.rate().ci(2)
    with pytest.raises(ValueError, match=r"^pvalues: expected numbers from 0 to 1, got 1.5$"):
        benjamini_hochberg([0.5, 1.5])


def test_rejected_coordinates_are_those_of_the_rate():
    x = np.random.default_rng(8).standard_t(3, (200, 40))
    x[:, 3] = 1.0
    tests = dagostino(x, axis=0)
    assert tests.rejected.sum() == tests.rate().rejected > 20
    assert not tests.rejected[3]
