"""Tests of normality on arrays: against oracles, and what must not change them."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from gradtail.estimators import lilliefors
from gradtail.estimators.normality import (
    NormalityTest,
    NormalityTests,
    cells,
    cut,
    dagostino,
    jarque_bera,
    ks_normal,
    pearson_chi2,
    sources,
)

ALL = [dagostino, jarque_bera, pearson_chi2, ks_normal]
TESTS = pytest.mark.parametrize("test", ALL)
FEW_FOR_SCIPY = pytest.mark.filterwarnings("ignore:kurtosistest only valid")
LAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "far from zero": lambda rng, n: rng.normal(1e3, 1, size=n),
    "t(3)": lambda rng, n: rng.standard_t(3, size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "two points": lambda rng, n: (np.arange(n) < 0.3 * n) * 1.0,
}


# Against oracles


@FEW_FOR_SCIPY
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [8, 19, 100, 5000])
def test_moment_tests_are_scipys(law, n):
    x = LAWS[law](np.random.default_rng(n), n)
    expected = stats.normaltest(x)
    found = dagostino(x)
    assert (found.statistic, found.pvalue) == pytest.approx(tuple(expected), rel=1e-10, abs=1e-300)
    expected = stats.jarque_bera(x)
    found = jarque_bera(x)
    assert (found.statistic, found.pvalue) == pytest.approx(tuple(expected), rel=1e-10, abs=1e-300)


@FEW_FOR_SCIPY
def test_a_skewness_of_zero_adds_nothing():
    x = np.array([-3.0, -2, -1, -1, 0, 1, 1, 2, 3])  # where scipy 1.17 takes it for a standard error of 1
    assert dagostino(x).statistic == pytest.approx(stats.kurtosistest(x).statistic ** 2, rel=1e-10)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [8, 9, 500])
def test_the_distance_is_that_of_the_definition(law, n):
    x = np.sort(LAWS[law](np.random.default_rng(n), n))
    mean, deviation = math.fsum(x) / n, float(x.std(ddof=1))
    distance = 0.0
    for value in x:
        law_there = 0.5 * math.erfc((mean - value) / deviation / math.sqrt(2))
        at, before = np.count_nonzero(x <= value) / n, np.count_nonzero(x < value) / n
        distance = max(distance, abs(at - law_there), abs(before - law_there))
    found = ks_normal(x)
    assert found.statistic == pytest.approx(distance, abs=1e-9)
    assert found.pvalue == pytest.approx(lilliefors.pvalue("normal", n, distance), rel=1e-6)


@pytest.mark.parametrize("law", ["normal", "far from zero", "t(3)", "exponential"])
@pytest.mark.parametrize(("n", "count"), [(20, None), (20, 4), (333, None), (3000, 11)])
def test_pearsons_statistic_is_that_of_the_definition(law, n, count):
    x = LAWS[law](np.random.default_rng(n), n)
    c = math.ceil(2 * n**0.4) if count is None else count
    edges = x.mean() + x.std() * special.ndtri(np.arange(c + 1) / c)
    counts = np.histogram(x, edges)[0]
    found = pearson_chi2(x, cells=count)
    assert found.statistic == pytest.approx(((counts - n / c) ** 2).sum() * c / n, rel=1e-12)
    law = cells.chernoff_lehmann(np.array(found.statistic), c, cells.equal_losses(c))
    assert found.pvalue == pytest.approx(float(law), rel=1e-12)


@pytest.mark.parametrize("z", [[-1.0, 0.2, 0.9], special.ndtri(np.arange(1, 12) / 12), [-0.1, 0.1, 5, 9]])
def test_information_lost_is_that_of_the_derivatives_of_probabilities(z):
    z = np.asarray(z, float)
    step = 1e-5

    def probability(mean, deviation):
        return np.diff(special.ndtr((z - mean) / deviation), prepend=0, append=1)

    slopes = np.array(
        [
            (probability(step, 1) - probability(-step, 1)) / (2 * step),
            (probability(0, 1 + step) - probability(0, 1 - step)) / (2 * step),
        ]
    )
    p = probability(0, 1)
    kept = (slopes / np.where(p > 1e-15, p, np.inf)) @ slopes.T / np.sqrt(np.outer([1, 2], [1, 2]))
    law = cut.CutNormal(z)
    assert law.probability == pytest.approx(p, abs=1e-15)
    assert law.lost == pytest.approx(np.eye(2) - kept, abs=1e-8)


@pytest.mark.parametrize(("c", "losses"), [(4, None), (5, None), (9, None), (40, None), (6, (0.9, 0.02))])
def test_the_chernoff_lehmann_law_is_that_of_brute_force(c, losses):
    losses = losses or cells.equal_losses(c)
    at = np.linspace(0, 8, 801 if c > 4 else 1601)  # Q_1 has a root at 0
    weight = np.exp(-(at**2) / 2) * np.where(at == 0, 0.5, 1)
    weight /= weight.sum()
    taken = losses[0] * at[:, None] ** 2 + losses[1] * at**2
    for p in (0.9, 0.3, 0.05, 1e-4):
        s = special.chdtri(c - 2, p)
        left = np.maximum(s - taken, 0)
        rest = special.chdtrc(c - 3, left) if c > 4 else special.erfc(np.sqrt(left / 2))
        expected = weight @ rest @ weight
        assert float(cells.chernoff_lehmann(np.array(s), c, losses)) == pytest.approx(expected, abs=1e-6)


@given(st.integers(4, 2000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 3))
def test_the_chernoff_lehmann_law_lies_between_two_chi_squares(c, first, second, share):
    s = np.array([share, share + 0.1]) * c
    found = cells.chernoff_lehmann(s, c, (first, second))
    assert found[1] <= found[0]
    assert np.all(found >= special.chdtrc(c - 3, s) - 1e-9)
    assert np.all(found <= special.chdtrc(c - 1, s) + 1e-9)
    ends = [cells.chernoff_lehmann(s, c, (end, end)) for end in (0.0, 1.0)]
    assert ends[0] == pytest.approx(special.chdtrc(c - 3, s), abs=1e-9)
    assert ends[1] == pytest.approx(special.chdtrc(c - 1, s), abs=1e-9)


def test_more_cells_lose_less_information():
    lost = np.array([cells.equal_losses(c) for c in (4, 8, 16, 100, 1000)])
    assert np.all(np.diff(lost, axis=0) < 0)
    assert np.all((lost > 0) & (lost < 0.7))


# What must not change them


@pytest.mark.parametrize("test", [dagostino, jarque_bera, ks_normal])
@given(
    x=hnp.arrays(np.float64, st.integers(20, 80), elements=st.floats(-10, 10, width=16)),
    scale=st.floats(0.01, 100),
    sign=st.sampled_from([-1, 1]),
    shift=st.floats(-100, 100),
)
def test_scale_sign_and_shift_do_not_matter(test, x, scale, sign, shift):
    spread = np.ptp(x)
    if spread < 1e-2:
        return
    found, moved = test(x), test(x * (scale * sign) + shift)
    assert moved.statistic == pytest.approx(found.statistic, rel=1e-5, abs=1e-7)
    assert moved.n == found.n


@pytest.mark.parametrize("n", [100, 101])
def test_scale_sign_and_shift_do_not_matter_to_pearsons_test(n):
    x = np.random.default_rng(3).gamma(2, size=n)
    expected = pearson_chi2(x).statistic
    for moved in (-x, 3 * x + 1, -1e-3 * x + 7, 1e200 * x, 1e-300 * x):
        assert pearson_chi2(moved).statistic == pytest.approx(expected, rel=1e-12)


@TESTS
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 5e306])
def test_the_ends_of_float64_do_no_harm(test, scale):
    x = np.random.default_rng(4).choice([-3.0, -1, 0, 1, 2, 8, 30], size=60)
    x[:2] = -30, 30
    assert test(x * scale).statistic == pytest.approx(test(x).statistic, rel=1e-3 if scale < 1e-300 else 1e-9)


# Rows


@TESTS
@pytest.mark.parametrize("missing", [False, True])
def test_rows_are_single_tests(test, missing, monkeypatch):
    monkeypatch.setattr(sources, "_VALUES_A_PIECE", 500)
    rng = np.random.default_rng(5)
    x = rng.gamma(4, size=(7, 90, 5))
    if missing:
        x[rng.random(x.shape) < rng.random((7, 1, 5)) * 0.6] = np.nan
    found = test(x, axis=1)
    assert isinstance(found, NormalityTests)
    assert found.statistic.shape == found.pvalue.shape == found.n.shape == (7, 5)
    assert found.tested == 35
    for i, j in np.ndindex(7, 5):
        one = test(x[i, :, j][~np.isnan(x[i, :, j])])
        assert found.statistic[i, j] == pytest.approx(one.statistic, rel=1e-11)
        assert found.pvalue[i, j] == pytest.approx(one.pvalue, rel=1e-9)
        assert found.n[i, j] == one.n


@TESTS
def test_the_axis_is_a_matter_of_layout_alone(test):
    x = np.random.default_rng(6).normal(size=(40, 3, 4)).astype(np.float32)
    expected = test(x, axis=0)
    for other in (
        test(np.moveaxis(x, 0, 2), axis=-1),
        test(np.ascontiguousarray(x.transpose(1, 0, 2)), axis=1),
        test(x.reshape(40, 12), axis=-2),
        test(x.tolist(), axis=0),
    ):
        assert other.pvalue.reshape(-1).tolist() == expected.pvalue.reshape(-1).tolist()
    assert test(x[:, 0, 0], axis=0).pvalue.shape == ()
    assert test(x, axis=0).n.tolist() == np.full((3, 4), 40).tolist()


@TESTS
def test_torch_tensors_are_arrays(test, torch):
    x = np.random.default_rng(7).normal(size=(30, 6)).astype(np.float32)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tensor = torch.from_numpy(x).to(dtype).requires_grad_()
        wide = tensor.detach().float().numpy()
        assert test(tensor, axis=0).pvalue.tolist() == test(wide, axis=0).pvalue.tolist()
        assert test(tensor.T, axis=1).pvalue.tolist() == test(wide, axis=0).pvalue.tolist()
        assert test(tensor).statistic == test(wide).statistic


@TESTS
def test_rows_without_variance_or_values_are_skipped_and_counted(test):
    rng = np.random.default_rng(8)
    x = rng.normal(size=(100, 60))
    x[3:8] = np.array([0.0, 0.1, -7e30, 1e-320, 1 / 3])[:, None]
    x[20:29, 3:] = np.nan
    x[50] = np.inf
    x[51, :20] = -np.inf
    x[4, 0] = np.nan
    found = test(x, axis=1)
    gone = np.zeros(100, bool)
    gone[[*range(3, 8), *range(20, 29), 50]] = True
    assert np.array_equal(np.isnan(found.pvalue), gone)
    assert np.array_equal(np.isnan(found.statistic), gone)
    assert (found.skipped_constant, found.skipped_few, found.skipped_unknown, found.tested) == (5, 10, 0, 85)
    assert found.n[[0, 4, 20, 50, 51]].tolist() == [60, 59, 3, 0, 40]
    assert "80 infinite values are left out" in found.warnings
    rate = found.rate()
    assert (rate.tested, rate.skipped_constant, rate.skipped_few) == (85, 5, 10)
    assert rate.rejected == np.count_nonzero(found.pvalue[~gone] <= 0.05)
    assert rate.gaussian_rate == 1 - rate.rejected / 85
    assert "skipped: 5 without variance, 10 with too few values" in str(rate)


@TESTS
def test_memory_does_not_grow_with_the_rows(test):
    x = np.random.default_rng(9).normal(size=(2000, 8000)).astype(np.float16)
    test(x[:, :100], axis=0)
    tracemalloc.start()
    test(x, axis=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20 < 8 * x.size / 2


@TESTS
def test_no_rows_are_no_tests(test):
    for shape in ((0, 30), (30, 0)):
        found = test(np.zeros(shape), axis=0)
        assert found.tested == 0
        assert found.pvalue.shape == shape[1:]
        assert str(found.rate()).startswith("no tests")
        assert math.isnan(found.rate().rate)
        assert found.rate().ci() == (0, 1)


# Warnings and refusals


@TESTS
def test_values_that_are_not_finite_are_left_out(test):
    x = np.random.default_rng(10).normal(size=(50, 50))
    clean = test(x.reshape(-1)[3:])
    x[0, :3] = np.nan, np.inf, -np.inf
    found = test(x)
    assert isinstance(found, NormalityTest)
    assert (found.statistic, found.pvalue, found.n) == (clean.statistic, clean.pvalue, 2497)
    assert found.warnings == ("3 non-finite values are left out", *clean.warnings)
    assert clean.warnings == ()


def test_few_values_are_a_warning():
    x = np.random.default_rng(11).normal(size=(3, 2000))
    assert dagostino(x[0, :19]).warnings == ("19 values are few: the p-value is rough below 20",)
    assert dagostino(x[0, :20]).warnings == ()
    assert "approximate below 2000" in jarque_bera(x[0, :1999]).warnings[0]
    assert jarque_bera(x[0]).warnings == ()
    assert "approximate below 2000" in jarque_bera(x[:, :1999], axis=1).warnings[0]
    assert pearson_chi2(x[0, :29], cells=10).warnings == (
        "29 values are few for 10 cells: the p-value is rough below 3 a cell",
    )
    assert pearson_chi2(x[0, :30], cells=10).warnings == ()


@TESTS
def test_refusals_are_in_one_voice(test):
    fewest = 20 if test is pearson_chi2 else 8
    x = np.random.default_rng(12).normal(size=(3, fewest))
    assert test(x[0]).n == fewest
    with pytest.raises(
        ValueError, match=rf"^source: expected at least {fewest} finite values, got {fewest - 1}$"
    ):
        test(x[0, 1:])
    with pytest.raises(
        ValueError, match=r"^source: expected values that are not all equal, got 30 equal ones$"
    ):
        test(np.full(30, 0.1))
    with pytest.raises(ValueError, match=r"^axis: expected an int from -2 to 1, got 2$"):
        test(x, axis=2)
    with pytest.raises(ValueError, match=r"^axis: expected an int from 0 to -1, got 0$"):
        test(np.float64(3), axis=0)
    for axis in (True, "0", 1.0, (0, 1)):
        with pytest.raises(TypeError, match=r"^axis: expected None or an int, got "):
            test(x, axis=axis)
    for source in ("values", None, x > 0, x + 1j, {"a": 1}):
        with pytest.raises(TypeError, match=r"^source: expected .* real"):
            test(source)
        with pytest.raises(TypeError, match=r"^source: expected .* real"):
            test(source, axis=0)


def test_refusals_of_cells():
    x = np.arange(100.0)
    for wrong in (4.0, True, "4"):
        with pytest.raises(TypeError, match=r"^cells: expected an int of at least 4, got "):
            pearson_chi2(x, cells=wrong)
    with pytest.raises(ValueError, match=r"^cells: expected an int of at least 4, got 3$"):
        pearson_chi2(x, cells=3)
    assert pearson_chi2(x, cells=np.int64(4)).pvalue == pearson_chi2(x, cells=4).pvalue
