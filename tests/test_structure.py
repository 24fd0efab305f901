"""Columns and rows of a gradient matrix, tested for power laws and for normality."""

import math

import numpy as np
import pytest
from scipy import stats

from gradtail import GradientStream, powerlaw, summarize
from gradtail.estimators.structure import ColumnTests, Rate, all_rows, rows


def test_normal_rows_are_normal_and_rows_of_student_are_not():
    rng = np.random.default_rng(0)
    normal = rows(rng.standard_normal((1000, 4000)).astype(np.float32))
    assert normal.gaussian_rate.value == pytest.approx(0.95, abs=0.01)
    assert normal.power_law_rate.value == 0.0  # the small values of a row are no power law
    heavy = rows(rng.standard_t(5, (1000, 1000)))
    assert heavy.gaussian_rate.value < 0.01
    pearson = rows(rng.standard_normal((1000, 2000)), test="pearson_chi2")
    assert pearson.gaussian_rate.value == pytest.approx(0.95, abs=0.015)
    assert pearson.test == "pearson_chi2"


def test_rows_of_pareto_values_keep_the_size_of_the_test():
    rng = np.random.default_rng(1)
    found = rows(rng.choice([-1, 1], (400, 3000)) * (rng.pareto(1.5, (400, 3000)) + 1))
    assert found.power_law_rate.value == pytest.approx(0.95, abs=0.015)
    assert found.printed_power_law_rate.value > 0.985
    assert np.nanmean(found.exponent) == pytest.approx(2.5, abs=0.02)


@pytest.mark.parametrize("top", [60, 150, 1000])
def test_rows_are_fitted_as_vectors_are(top):
    rng = np.random.default_rng(2)
    x = rng.standard_t(3, (200, 30))
    x[rng.random((200, 30)) < np.linspace(0, 0.9, 30)] = 0.0  # ever more zeros
    x[3, 5], x[7, 6] = np.nan, np.inf
    found = rows(x, top=top)
    for i in range(30):
        column = x[np.isfinite(x[:, i]), i]
        k = min(top, np.count_nonzero(column))
        if k < 50:
            assert np.isnan(found.ks[i])
            assert found.n_tail[i] == 0
            continue
        raw = powerlaw.fit(column, top=k)
        assert found.ks[i] == pytest.approx(raw.ks, abs=1e-12)
        assert found.exponent[i] == pytest.approx(raw.exponent, rel=1e-12)
        assert (found.n_tail[i], found.critical[i]) == (k, pytest.approx(raw.critical(), rel=1e-12))


def test_rows_that_cannot_be_tested_are_counted():
    x = np.random.default_rng(3).standard_normal((100, 6))
    x[:, 0], x[:, 1], x[5:, 2] = 0.0, 2.5, np.nan
    found = rows(x)
    assert (found.skipped_constant, found.skipped_few) == (2, 1)
    assert found.gaussian_rate.tested == 3
    assert found.power_law_rate.tested == 3
    assert "skipped: 2 constant, 1 with too few values" in str(found)
    with pytest.raises(ValueError, match=r"source: expected shape \(T, m\), got \(100,\)"):
        rows(x[:, 3])


def test_columns_as_they_come():
    rng = np.random.default_rng(4)
    tests = ColumnTests("noise", top=400)
    columns = [rng.standard_t(3, 20_000) for _ in range(40)]
    for column in columns:
        tests.add(summarize(column, bits=7))
    tests.add(summarize(np.zeros(100)))
    tests.add(summarize(rng.standard_normal(300)))
    found = tests.result()
    raw = [powerlaw.fit(column, top=400) for column in columns]
    assert found.ks[:40] == pytest.approx([one.ks for one in raw], abs=0.012)
    assert found.exponent[:40] == pytest.approx([one.exponent for one in raw], rel=0.02)
    assert found.pvalue[:40] == pytest.approx(
        [stats.normaltest(column).pvalue for column in columns], abs=1e-6
    )
    assert np.isnan(found.ks[40:]).all()
    assert found.n_tail[41] == 0  # a tenth of 300 is too few
    assert (found.skipped_constant, found.skipped_few) == (1, 0)
    assert found.gaussian_rate.hits <= 1
    assert "noise across parameters, at one step" in str(found)


def test_all_coordinates_of_a_stream():
    rng = np.random.default_rng(5)
    stream = GradientStream(window=0, coordinates="dense")
    x, y = rng.standard_normal((300, 500)), rng.standard_t(3, (300, 200))
    for a, b in zip(x, y, strict=True):
        stream.update({"normal": a.astype(np.float32), "student": b.astype(np.float32)})
    found = all_rows([stream.coordinates(name) for name in stream.names])
    assert found.pvalue.shape == (700,)
    assert found.pvalue[:500] == pytest.approx([stats.jarque_bera(row).pvalue for row in x.T], abs=2e-3)
    assert (found.pvalue[500:] < 0.05).mean() > 0.97


def test_rates():
    rate = Rate(3, 40)
    low, high = rate.ci()
    exact = stats.binomtest(3, 40).proportion_ci(method="exact")
    assert (low, high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert (Rate(0, 5).ci()[0], Rate(5, 5).ci()[1]) == (0.0, 1.0)
    assert math.isnan(Rate(0, 0).value)
    assert str(Rate(0, 0)) == "none tested"
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        rate.ci(1.0)
