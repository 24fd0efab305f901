"""Quantiles, densities and the other two estimators of stable laws, against SciPy's and known laws."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from stable_samples import stable

from gradtail.estimators.stable import law
from gradtail.estimators.stable.rivals import by_characteristic_function, by_quantiles


@pytest.mark.parametrize("alpha", [0.5, 0.7, 0.95, 1.05, 1.5, 1.9, 2.0])
def test_distribution_and_density_agree_with_scipy(alpha):
    for x in (0.1, 1.0, 5.0):
        below, density = law.distribution(x, alpha)
        assert below == pytest.approx(stats.levy_stable.cdf(x, alpha, 0), abs=1e-9)
        assert density == pytest.approx(stats.levy_stable.pdf(x, alpha, 0), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.8, 1.3, 1.7])
def test_density_is_the_transform_of_the_characteristic_function(alpha):
    for x in (0.3, 2.0):
        by_transform = integrate.quad(
            lambda u, x=x: math.cos(u * x) * math.exp(-(u**alpha)), 0, 120, limit=500
        )
        assert law.distribution(x, alpha)[1] == pytest.approx(by_transform[0] / math.pi, abs=1e-7)


def test_known_laws():
    assert law.distribution(1.0, 1.0) == pytest.approx((0.75, 1 / (2 * math.pi)))
    below, density = law.distribution(1.0, 2.0)
    normal = stats.norm(scale=math.sqrt(2))
    assert (below, density) == pytest.approx((normal.cdf(1.0), normal.pdf(1.0)), rel=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 0.62, 0.98, 1.0, 1.01, 1.27, 1.5, 1.99, 2.0])
def test_table_is_inverted(alpha):
    quartile = float(law.table().quartile(alpha))
    outer = quartile * math.exp(float(law.table().log_ratio(alpha)))
    assert law.alpha_of_ratio(math.log(outer / quartile)) == pytest.approx(alpha, abs=1e-9)
    if abs(alpha - 1) > 0.03:
        assert law.distribution(quartile, alpha)[0] == pytest.approx(0.75, abs=2e-5)  # between its points
        assert law.distribution(outer, alpha)[0] == pytest.approx(0.95, abs=2e-5)


def test_beyond_the_table():
    lighter = math.log(stats.uniform.ppf(0.95) - 0.5) - math.log(0.25)
    assert law.alpha_of_ratio(lighter) > 2
    assert math.isnan(law.alpha_of_ratio(5.0))


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5, 1.9])
def test_both_estimators_hold_their_errors(alpha):
    rng = np.random.default_rng(int(100 * alpha))
    away = []
    for _ in range(150):
        x = 3e-4 * stable(alpha, 4000, rng)
        found, scale = by_quantiles(x)
        other = by_characteristic_function(x, found.alpha, scale)
        away.append([(one.alpha - alpha) / one.stderr for one in (found, other)])
    assert scale == pytest.approx(3e-4, rel=0.2)
    assert np.std(away, axis=0) == pytest.approx(1, abs=0.2)  # 150 values: +- 0.06
    assert np.abs(np.mean(away, axis=0)).max() < 0.4


def test_neither_knows_place_or_scale():
    x = stable(1.6, 5000, np.random.default_rng(1))
    first, scale = by_quantiles(x)
    again, other_scale = by_quantiles(1e-8 * x + 1e-6)
    assert again.alpha == pytest.approx(first.alpha, rel=1e-9)
    assert other_scale == pytest.approx(1e-8 * scale, rel=1e-9)
    one = by_characteristic_function(x, first.alpha, scale)
    two = by_characteristic_function(1e-8 * x + 1e-6, again.alpha, other_scale)
    assert two.alpha == pytest.approx(one.alpha, rel=1e-9)


def test_what_cannot_be_said():
    half_equal = np.concatenate([np.ones(900), np.arange(100.0)])
    found, scale = by_quantiles(half_equal)
    assert math.isnan(found.alpha)
    assert math.isnan(by_characteristic_function(half_equal, found.alpha, scale).alpha)
    assert str(found) == "quantiles (McCulloch): not known"
