"""Null laws of fitted Kolmogorov-Smirnov distances: true sizes, exact and published values, consistency."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gradtail.estimators.lilliefors import critical, printed, pvalue
from gradtail.estimators.lilliefors_table import FIRST_OF_SURFACE, LEVELS

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # at the end, for it must not hide the package that is installed

from benchmarks import null_tables  # noqa: E402

LAWS = {"exponential": 2, "exponential_rank": 3, "normal": 3}
EVERY_LAW = pytest.mark.parametrize("law", list(LAWS))


def clauset(x, xmin):
    """The largest |i/n - F(x_i)|, i = 0..n-1, of samples in rows under their fitted power laws."""
    x = np.sort(x, axis=1)
    n = x.shape[1]
    excess = np.log(x / xmin)
    alpha = n / excess.sum(axis=1, keepdims=True)
    return np.abs(np.arange(n) / n - (1 - np.exp(-alpha * excess))).max(axis=1)


def two_sided(x):
    """The largest |F_n - F| of samples in rows under their fitted normal laws."""
    x = np.sort(x, axis=1)
    n = x.shape[1]
    law = special.ndtr((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True))
    return np.maximum(np.arange(1, n + 1) / n - law, law - np.arange(n) / n).max(axis=1)


def draw(law, n, repeats, seed):
    """Distances of samples from the law itself, of parameters that are not the standard ones."""
    rng = np.random.default_rng(seed)
    if law == "normal":
        return two_sided(rng.normal(3.0, 7.0, (repeats, n)))
    if law == "exponential":
        return clauset(2.5 * (1 + rng.pareto(1.7, (repeats, n))), 2.5)
    x = -np.sort(-rng.pareto(0.6, (repeats, 2 * n)), axis=1)[:, :n] + 1  # of more values, the n largest
    return clauset(x, x[:, -1:])


# True sizes


@pytest.mark.parametrize(
    ("n", "repeats"), [(3, 40_000), (5, 160_000), (17, 160_000), (55, 50_000), (230, 12_000), (3500, 600)]
)
@EVERY_LAW
def test_tests_have_the_size_that_they_name(law, n, repeats):
    p = pvalue(law, n, draw(law, n, repeats, [n, list(LAWS).index(law)]))
    for level in (0.99, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05, 0.01, 0.001):
        error = math.sqrt(level * (1 - level) / repeats)
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * error + 1 / repeats + 2e-3 * level)


def test_the_printed_value_for_large_samples_accepts_nearly_all_power_laws():
    d = draw("exponential_rank", 1000, 4000, 5)
    rejected = np.mean(d > printed(1000, 0.05))
    assert rejected == pytest.approx(pvalue("exponential_rank", 1000, printed(1000, 0.05)), abs=0.004)
    assert rejected < 0.01
    assert d.mean() == pytest.approx(0.0228, abs=4e-4)


@pytest.mark.parametrize(("law", "n"), [(law, n) for law in LAWS for n in (5, 9, 14, 100)])
def test_the_table_is_what_the_script_makes(law, n):
    """From another seed, and far fewer repeats."""
    rough = null_tables.quantiles(law, n, values=40_000.0 * n, seed=1)
    found = pvalue(law, n, rough / math.sqrt(n))
    error = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / 40_000)
    assert (np.abs(found - LEVELS) < 5 * error + 2e-3 * (1 - np.array(LEVELS)) + 3e-5).all()


# Exact values


def test_two_values_above_a_threshold():
    """y_0 / (y_0 + y_1) is uniform up to 1/2, and D is F(y_0) where that is large."""
    d = np.linspace(0.4, 0.63, 24)
    np.testing.assert_allclose(pvalue("exponential", 2, d), 1 + np.log(1 - d), atol=2e-3)


def test_three_values_of_which_one_is_the_threshold():
    d = np.linspace(0.34, 0.44, 21)
    np.testing.assert_allclose(pvalue("exponential_rank", 3, d), 1 + 2 / 3 * np.log(2 / 3 - d), atol=2e-3)


# Published values


@pytest.mark.parametrize(
    ("level", "point"), [(0.15, 0.775), (0.1, 0.819), (0.05, 0.895), (0.025, 0.955), (0.01, 1.035)]
)
@pytest.mark.parametrize(("n", "good_to"), [(10, 0.01), (30, 0.01), (100, 0.01), (10**6, 0.025)])
def test_normal_as_stephens_has_it(level, point, n, good_to):
    """Stephens (1974), J. Am. Stat. Assoc. 69, 730, table 1A, case 3: from n up to 100."""
    root = math.sqrt(n)
    assert critical("normal", n, level) * (root - 0.01 + 0.85 / root) == pytest.approx(point, rel=good_to)


@pytest.mark.parametrize(("level", "point"), [(0.15, 0.926), (0.1, 0.990), (0.05, 1.094), (0.01, 1.308)])
@pytest.mark.parametrize("law", ["exponential", "exponential_rank"])
def test_exponential_at_large_n_as_stephens_has_it(level, point, law):
    """Stephens (1974), table 1A, case 4: another distance, the same at large n."""
    assert critical(law, 10**12, level) * 1e6 == pytest.approx(point, rel=0.015)
    at_large = critical("exponential", 10**12, level)
    assert critical(law, 10**12, level) == pytest.approx(at_large, rel=3e-3)


def test_power_law_cut_at_its_thousandth_value():
    assert critical("exponential_rank", 1000, 0.05) == pytest.approx(0.0334, abs=1e-3)
    assert critical("exponential_rank", 1000, 0.01) == pytest.approx(0.0401, abs=1e-3)


@pytest.mark.parametrize(
    ("n", "points"),
    [(5, (0.2893, 0.3188, 0.3427)), (10, (0.2171, 0.2410, 0.2616)), (20, (0.1589, 0.1764, 0.1920)),
     (30, (0.1315, 0.1460, 0.1590)), (40, (0.1147, 0.1275, 0.1386))],
)  # fmt: skip
def test_normal_as_molin_and_abdi_have_it(n, points):
    """Molin and Abdi (1998), New tables and numerical approximation for the Lilliefors test of normality."""
    np.testing.assert_allclose(critical("normal", n, np.array([0.2, 0.1, 0.05])), points, rtol=5e-3)


# One law: p-values and critical distances are of one mind


@given(
    law=st.sampled_from(list(LAWS)),
    n=st.integers(3, 10**12),
    level=st.floats(LEVELS[-1], LEVELS[0]),
)
@settings(max_examples=300, deadline=None)
def test_the_p_value_of_a_critical_distance_is_its_level(law, n, level):
    assert pvalue(law, n, critical(law, n, level)) == pytest.approx(level, abs=1e-9)


@given(
    law=st.sampled_from(list(LAWS)),
    n=st.integers(3, 10**12),
    pair=st.tuples(st.floats(0, 4), st.floats(0, 4)).map(sorted),
)
@settings(max_examples=300, deadline=None)
def test_a_larger_distance_has_no_larger_p_value(law, n, pair):
    small, large = pvalue(law, n, np.array(pair) / math.sqrt(n))
    assert 0 <= large <= small <= 1


@EVERY_LAW
def test_distances_rise_strictly_at_every_n(law):
    n = np.unique(np.append(np.arange(LAWS[law], 300), np.geomspace(300, 1e12, 200).round()))
    table = critical(law, n[:, None], np.array(LEVELS))
    assert (np.diff(table, axis=1) > 0).all()
    assert ((table > 0) & (table < 1)).all()


@EVERY_LAW
def test_single_quantiles_go_over_into_the_surface(law):
    n = np.arange(FIRST_OF_SURFACE - 3, FIRST_OF_SURFACE + 4)
    for level in (0.5, 0.1, 0.05, 0.01):
        at = critical(law, n, level) * np.sqrt(n)
        assert np.abs(np.diff(at, 2)).max() < 5e-3  # where a step may be 2e-2


@EVERY_LAW
@pytest.mark.parametrize("n", [5, 40, 10**9])
def test_beyond_the_table(law, n):
    assert pvalue(law, n, 0.0) == 1.0
    assert pvalue(law, n, -1.0) == 1.0
    assert pvalue(law, n, np.nextafter(0, 1)) > 1 - 1e-6
    assert pvalue(law, n, 1.0) < 1e-4
    assert math.isnan(pvalue(law, n, math.nan))
    tail = critical(law, n, np.array([1e-4, 1e-5, 1e-6]))
    assert (np.diff(tail) > 0).all()
    assert critical(law, n, 1e-300) <= 1
    assert critical(law, n, 1 - 1e-16) >= 0


def test_arrays_and_numbers():
    assert type(pvalue("normal", 20, 0.2)) is float
    assert type(critical("normal", np.int64(20), np.float32(0.05))) is float
    assert type(printed(20, 0.05)) is float
    n, d = np.array([5, 20, 1000, 20]), np.array([[0.2], [0.1], [0.05]])
    found = pvalue("exponential", n, d)
    assert found.shape == (3, 4)
    assert all(found[i, j] == pvalue("exponential", n[j], d[i, 0]) for i in range(3) for j in range(4))
    back = critical("exponential", n, np.array([0.1, 0.2, 0.3, 0.4]))
    assert back.tolist() == [critical("exponential", *at) for at in zip(n, (0.1, 0.2, 0.3, 0.4), strict=True)]
    assert pvalue("normal", n, np.empty((0, 4))).shape == (0, 4)
    np.testing.assert_allclose(printed(n, 0.01), 1.63 / np.sqrt(n))


# What is refused


@pytest.mark.parametrize("call", [critical, pvalue])
def test_refusals(call):
    with pytest.raises(ValueError, match=r"law: expected 'exponential', .*, got 'weibull'"):
        call("weibull", 20, 0.05)
    for law, fewest in LAWS.items():
        assert math.isfinite(call(law, fewest, 0.5))
        with pytest.raises(ValueError, match=f"n: expected whole numbers of at least {fewest}, got 1"):
            call(law, np.array([20, 1]), 0.05)
    for n in (20.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="n: expected whole numbers of at least 3, got"):
            call("normal", n, 0.05)


@pytest.mark.parametrize("level", [0, 1, -0.1, 5, math.nan])
def test_levels_are_probabilities(level):
    with pytest.raises(ValueError, match="level: expected probabilities between 0 and 1, got"):
        critical("normal", 20, np.array([0.5, level]))


def test_printed_levels():
    with pytest.raises(ValueError, match=r"level: expected one of 0.2, 0.15, 0.1, 0.05, 0.01, got 0.02"):
        printed(1000, 0.02)
    with pytest.raises(ValueError, match="n: expected whole numbers of at least 1, got 0"):
        printed(0, 0.05)
