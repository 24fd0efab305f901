"""Eigenvalues over their rank: slopes side by side, gaps, and the bound for eigenvectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail import powerlaw
from gradtail.estimators.spectrum import covariance_spectrum, eigengaps, rank_power_law, subspace_bound


@pytest.mark.parametrize("s", [0.8, 1.0, 1.2, 1.8])
def test_both_slopes_of_a_line_of_ranks(s):
    found = rank_power_law(7.5 * np.arange(1, 1001) ** -s)
    assert found.slope == pytest.approx(s, rel=5e-3)
    assert found.loglog_slope == pytest.approx(s, rel=1e-9)
    assert (found.top, found.law.n_tail) == (1000, 1000)
    assert found.slope_stderr == pytest.approx(found.slope / np.sqrt(1000), rel=1e-9)
    assert found.verdict.startswith("power law not rejected at 5 %: distance 0.0016")


def test_published_rows_of_a_line_of_ranks():
    found = rank_power_law(1 / np.arange(1, 1001))
    assert (found.exponent, found.slope) == (
        pytest.approx(2.00439, abs=1e-5),
        pytest.approx(0.99563, abs=1e-5),
    )
    gaps = rank_power_law(eigengaps(1 / np.arange(1, 1002)))
    assert gaps.exponent == pytest.approx(1.50369, abs=1e-4)
    assert gaps.slope == pytest.approx(1.98534, abs=1e-4)
    assert gaps.ks == pytest.approx(0.0024, abs=1e-4)
    assert gaps.top == 1000


def test_slopes_of_independent_draws_have_the_errors_stated():
    rng = np.random.default_rng(0)
    found = [rank_power_law(rng.pareto(1.25, 400) + 1, top=200) for _ in range(400)]
    for slope, stderr in (("slope", "slope_stderr"), ("loglog_slope", "loglog_stderr")):
        values = np.array([getattr(one, slope) for one in found])
        stated = np.mean([getattr(one, stderr) for one in found])
        assert values.std() == pytest.approx(stated, rel=0.25)
        assert values.mean() == pytest.approx(0.8, abs=0.05)


def test_verdicts():
    ranks = np.arange(1, 1001)
    broken = np.where(ranks < 100, ranks**-0.5, 10 * ranks**-1.5)
    assert rank_power_law(broken).verdict.startswith("power law rejected")
    assert rank_power_law(np.exp(-ranks / 300)).verdict.startswith("power law rejected")
    rng = np.random.default_rng(2)
    between = [rank_power_law(np.exp(-np.sort(rng.standard_normal(61_706))[:1000])) for _ in range(60)]
    printed = [one.verdict for one in between if one.critical() < one.ks < one.critical(calibrated=False)]
    assert printed
    assert all("though below the printed 0.043" in one for one in printed)
    assert "slope" in str(between[0])


def test_a_spectrum_keeps_its_warnings():
    rng = np.random.default_rng(4)
    found = covariance_spectrum(rng.standard_normal((12, 300)))
    law = rank_power_law(found, top=8)
    assert found.warnings
    assert law.warnings[: len(found.warnings)] == found.warnings
    assert law.law == rank_power_law(found.eigenvalues, top=8).law


def test_top_and_order():
    values = np.concatenate([1 / np.arange(1, 301), [-5.0, -0.1, 0.0]])
    shuffled = np.random.default_rng(1).permutation(values)
    found = rank_power_law(shuffled, top=50)
    assert found.exponent == pytest.approx(2.06104, abs=1e-5)
    assert found.law == powerlaw.fit(values, top=50, tail="upper")
    assert rank_power_law(shuffled).top == 300
    with pytest.raises(ValueError, match="eigenvalues: expected at least 301 positive ones, got 300"):
        rank_power_law(shuffled, top=301)
    for top, error in ((2, ValueError), ("x", TypeError), (True, TypeError)):
        with pytest.raises(error, match="top: expected"):
            rank_power_law(shuffled, top=top)
    with pytest.raises(ValueError, match="eigenvalues: expected the 4 largest to differ, got 2 for all"):
        rank_power_law([2.0] * 5, top=4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_gaps_are_differences_in_order(values):
    gaps = eigengaps(values)
    assert (gaps >= 0).all()
    assert gaps.sum() == pytest.approx(max(values) - min(values), abs=1e-6)
    assert gaps.shape == (len(values) - 1,)


def test_bound_of_a_line_of_ranks_and_in_print():
    k = np.arange(1, 200)
    bound = subspace_bound(3.0 / np.arange(1, 201), 0.01)[:-1]
    assert bound == pytest.approx(2 * 0.01 * k * (k + 1) / 3.0)
    assert 2 * 0.01 * (k + 1) ** 2 / 3.0 / bound == pytest.approx((k + 1) / k)


def test_bound_is_never_violated():
    rng, n = np.random.default_rng(3), 24
    values = 1 / np.arange(1, n + 1)
    closest = 0.0
    for _ in range(1000):
        m = rng.standard_normal((n, n))
        m += m.T
        size = 10.0 ** rng.uniform(-4, -1)
        m *= size / np.linalg.norm(m, 2)
        _, turned = np.linalg.eigh(np.diag(values) + m)
        cosine = np.abs(np.diag(turned[:, ::-1]))
        sine = np.sqrt(np.maximum(1 - cosine**2, 0))
        bound = subspace_bound(values, size, complete=True)
        assert (sine <= bound + 1e-7).all()
        closest = max(closest, (sine / bound).max())
    assert closest > 0.05  # and not by a wide margin only


def test_edges_of_the_bound():
    assert np.isnan(subspace_bound([1.0, 0.5], 0.1)[-1])
    assert subspace_bound([1.0, 1.0, 0.5], 0.0, complete=True).tolist() == [np.inf, np.inf, 0.0]
    assert subspace_bound([1.0, 0.5], 0.1, complete=True).tolist() == [0.4, 0.4]


@pytest.mark.parametrize("call", [rank_power_law, eigengaps, lambda x: subspace_bound(x, 0.1)])
def test_refusals(call):
    with pytest.raises(ValueError, match=r"eigenvalues: expected shape \(n,\) with n of at least 2"):
        call([1.0])
    with pytest.raises(ValueError, match="eigenvalues: expected finite numbers"):
        call([1.0, np.nan])
    with pytest.raises(TypeError, match="eigenvalues: expected real numbers, got dtype complex128"):
        call(np.array([1.0, 2.0j]))
    with pytest.raises(TypeError, match="eigenvalues: expected"):
        call([[1.0, 2.0], [1.0]])


def test_refusals_of_the_norm():
    with pytest.raises(ValueError, match="perturbation: expected a norm of at least 0, got -1"):
        subspace_bound([1.0, 0.5], -1.0)
    with pytest.raises(TypeError, match="perturbation: expected a number, got str"):
        subspace_bound([1.0, 0.5], "a")
