"""Stable samples, exit times and two wells, against other laws, other quadrature and closed forms."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import gradtail
from gradtail.theory import levy


def quadratic_exit(k, left, right, eps):
    """Mean exit time of Brownian noise from 0 in k x**2 / 2, by scale and speed, as nested quad."""
    up = lambda y: math.exp(k * y * y / eps**2)
    down = lambda y: 2 / eps**2 * math.exp(-k * y * y / eps**2)
    quad = lambda f, a, b: integrate.quad(f, a, b, epsrel=1e-11)[0]
    whole = quad(up, -left, right)
    before = quad(lambda y: down(y) * quad(up, -left, y), -left, 0)
    after = quad(lambda y: down(y) * quad(up, y, right), 0, right)
    return (quad(up, 0, right) * before + quad(up, -left, 0) * after) / whole


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7, 0.999, 1.0, 1.001, 1.3, 1.8, 2.0])
def test_characteristic_function_of_samples(alpha):
    n, scale = 200_000, 1.7
    x = levy.sample(alpha, n, scale=scale, seed=11)
    for u in (0.05, 0.5, 1.5):
        found = np.cos(u * x)
        assert found.mean() == pytest.approx(
            math.exp(-((scale * u) ** alpha)), abs=4.5 * found.std() / n**0.5
        )
        assert abs(np.sin(u * x).mean()) < 4.5 / n**0.5


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.5, 2.0])
def test_samples_against_scipys_law(alpha):
    law = {1.0: stats.cauchy(), 2.0: stats.norm(scale=math.sqrt(2))}.get(alpha, stats.levy_stable(alpha, 0))
    x = levy.sample(alpha, 20_000, seed=3)
    edges = np.array([-5.0, -1.0, -0.3, 0.0, 0.3, 1.0, 5.0])
    share = np.array([(x <= e).mean() for e in edges])
    want = law.cdf(edges)
    assert share == pytest.approx(want, abs=4.5 * 0.5 / math.sqrt(20_000))


@pytest.mark.parametrize("alpha", [0.8, 1.2, 1.5])
def test_tails_of_samples_have_the_constant(alpha):
    x = np.abs(levy.sample(alpha, 400_000, seed=4))
    at = 300.0
    want = 2 * levy.levy_constant(alpha) / alpha * at**-alpha
    assert (x > at).mean() == pytest.approx(want, abs=4.5 * math.sqrt(want / 400_000) + 0.02 * want)


def test_shapes_seeds_and_extremes():
    x = levy.sample(1.5, (3, 4), seed=1)
    assert x.shape == (3, 4)
    assert np.array_equal(x, levy.sample(1.5, (3, 4), seed=1))
    rng = np.random.default_rng(1)
    assert np.array_equal(x, levy.sample(1.5, (3, 4), seed=rng))
    assert not np.array_equal(x, levy.sample(1.5, (3, 4), seed=rng))
    assert levy.sample(0.5, 0).shape == (0,)
    assert np.isfinite(levy.sample(0.01, 10_000, scale=1e300, seed=0)).all()
    assert np.array_equal(2 * x, levy.sample(1.5, (3, 4), scale=2.0, seed=1))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2, 1.9])
def test_closed_form_of_exit_times(alpha):
    a, eps = 1.3, 0.02
    printed = math.pi * a**alpha / (2 * math.gamma(alpha) * math.sin(math.pi * alpha / 2) * eps**alpha)
    assert levy.exit_time(alpha, a, eps) == pytest.approx(printed, rel=1e-12)
    c = math.gamma(1 + alpha) * math.sin(math.pi * alpha / 2) / math.pi
    rate = c * eps**alpha / alpha * (0.7**-alpha + 2.0**-alpha)
    assert levy.exit_time(alpha, (0.7, 2.0), eps) == pytest.approx(1 / rate, rel=1e-12)
    assert levy.exit_time(alpha, (a, a), eps) == pytest.approx(printed, rel=1e-12)


def test_the_printed_time():
    assert levy.exit_time(1.2, 1, 0.03) == pytest.approx(120.9, abs=0.05)
    assert levy.exit_time(1.0, 1, 0.01) == pytest.approx(157.08, abs=0.005)


@pytest.mark.parametrize(
    ("k", "left", "right", "eps"), [(1, 1, 1, 0.5), (2, 1, 0.6, 0.5), (0, 2, 1, 0.3), (1, 1, 1, 0.3)]
)
def test_brownian_times_against_nested_quadrature(k, left, right, eps):
    found = levy.brownian_exit_time((left, right), eps, curvature=k)
    assert found == pytest.approx(quadratic_exit(k, left, right, eps), rel=1e-8)


def test_brownian_times_without_force_and_with_a_mirror():
    assert levy.brownian_exit_time((1.0, 2.0), 0.5, curvature=0, start=0.4) == pytest.approx(1.4 * 1.6 / 0.25)
    assert levy.brownian_exit_time((1.0, 2.0), 0.5, curvature=0, reflect_left=True) == pytest.approx(
        (9 - 1) / 0.25
    )
    # of a high barrier: exp(2 height / eps^2), over the edge of a wedge of slope k: both sides are alike
    low, high = (levy.brownian_exit_time(1.0, 0.3, curvature=k) for k in (2.0, 2.2))
    assert math.log(high / low) == pytest.approx(0.2 / 0.09, rel=0.12)


def small_exit(**settings):
    return levy.simulate_exit(1.2, 1.0, 0.05, paths=2500, dt=0.04, seed=7, **settings)


def test_small_exits():
    found, steep = small_exit(), small_exit(curvature=4.0)
    assert found.mean == pytest.approx(found.theory, rel=0.1)
    assert found.cv == pytest.approx(1, abs=0.07)
    assert found.censored == 0
    assert steep.mean == pytest.approx(found.mean, rel=0.1)
    assert found.stderr == pytest.approx(found.mean / 50, rel=0.1)
    assert "0 censored" in str(found)


def test_censored_paths_are_said_and_do_not_bias():
    found, cut = small_exit(), small_exit(t_max=50.0)
    assert cut.censored == np.count_nonzero(cut.times == 50.0)
    assert 500 < cut.censored < 2000
    assert cut.mean == pytest.approx(found.mean, abs=4 * cut.stderr)
    assert any("had not left by t = 50" in w for w in cut.warnings)
    with pytest.raises(ValueError, match="t_max: expected a time by which some path has left"):
        small_exit(t_max=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("curvature", [1.0, 4.0])
def test_exits_at_full_size(curvature):
    found = levy.simulate_exit(1.2, 1.0, 0.03, curvature=curvature, paths=8000, seed=1)
    assert found.mean == pytest.approx(120.9, rel=0.05)
    assert found.cv == pytest.approx(1, abs=0.07)


def test_brownian_exits_and_asymmetric_intervals():
    found = levy.simulate_exit(2.0, (1.0, 0.7), 0.5, paths=2000, dt=0.0005, seed=2)
    assert found.theory == pytest.approx(quadratic_exit(1, 1.0, 0.7, math.sqrt(2) * 0.5), rel=1e-7)
    # seen at steps alone, the ends lie 0.5826 sd of a step further out (Broadie, Glasserman and Kou 1997)
    out = 0.5826 * math.sqrt(2) * 0.5 * math.sqrt(0.0005)
    corrected = quadratic_exit(1, 1.0 + out, 0.7 + out, math.sqrt(2) * 0.5)
    assert found.mean == pytest.approx(corrected, abs=4 * found.stderr)
    found = levy.simulate_exit(1.0, (0.5, 2.0), 0.02, paths=2000, dt=0.04, seed=2)
    assert found.mean == pytest.approx(found.theory, rel=0.1)


def test_paths():
    start = np.zeros((500, 2))
    found = levy.simulate_paths(
        lambda x: 2 * x, start, alpha=1.5, eps=0.3, dt=0.05, steps=100, every=20, seed=3
    )
    assert found.positions.shape == (6, 500, 2)
    assert found.times == pytest.approx(np.arange(6.0))
    # the stationary scale of x <- (1 - k dt) x + eps dt^(1/alpha) S
    scale = 0.3 * (0.05 / (1 - 0.9**1.5)) ** (1 / 1.5)
    x = found.positions[-1].ravel()
    assert np.cos(x / scale).mean() == pytest.approx(math.exp(-1), abs=4.5 / math.sqrt(2000))
    still = levy.simulate_paths(lambda x: 2 * x, [1.0], alpha=1.5, eps=0.0, dt=0.1, steps=3)
    assert still.positions[:, 0] == pytest.approx([1, 0.8, 0.64, 0.512])


def test_fast_gradients_need_a_box():
    cubic = lambda x: x**3 - x
    with pytest.raises(ValueError, match="box: expected one, since a path left float64"):
        levy.simulate_paths(cubic, np.ones(200), alpha=1.0, eps=0.5, dt=0.05, steps=400)
    found = levy.simulate_paths(cubic, np.ones(200), alpha=1.0, eps=0.5, dt=0.05, steps=400, box=(-3.0, 3.0))
    assert np.abs(found.positions).max() <= 3
    assert found.held > 0


def test_two_wells_are_what_they_say():
    wells = levy.TwoWells((0.7, 2.0), (1.5, 0.4))
    assert wells.potential([-0.7, 0.0, 2.0]) == pytest.approx([-1.5, 0.0, -0.4])
    assert wells.gradient([-0.7, 0.0, 2.0]) == pytest.approx([0, 0, 0], abs=1e-12)
    x = np.linspace(-3, 5, 1601)
    slope = (wells.potential(x + 1e-6) - wells.potential(x - 1e-6)) / 2e-6
    assert wells.gradient(x) == pytest.approx(slope, abs=1e-5)
    c = levy.levy_constant(1.5)
    assert wells.levy_time(1.5, 0.1) == pytest.approx(1.5 * 0.7**1.5 / (c * 0.1**1.5))


def test_time_over_the_barrier_by_nested_quadrature():
    wells, eps = levy.TwoWells((1.0, 1.0), (0.5, 0.5)), 0.7
    u = lambda y: 2 / eps**2 * float(wells.potential(y))
    grid = np.linspace(-3.5, 0.5, 8001)
    inner = integrate.cumulative_trapezoid(np.exp(-2 / eps**2 * wells.potential(grid)), grid, initial=0)
    outer = [math.exp(u(y)) * i for y, i in zip(grid.tolist(), inner.tolist(), strict=True) if y >= -1]
    want = 2 / eps**2 * integrate.trapezoid(outer, grid[grid >= -1])
    assert wells.brownian_time(eps) == pytest.approx(want, rel=2e-3)


def test_levy_noise_sees_width_and_brownian_noise_height():
    found = levy.compare_wells(
        1.2, widths=(1.0, 2.0), heights=(0.5, 1.0), eps_levy=0.08, paths=300, dt=0.04, seed=1
    )
    assert len(found.rows) == 3
    power, error = found.width_power[0], found.width_power_stderr[0]
    assert power == pytest.approx(1.2, abs=4 * error)
    assert abs(found.height_rate[0]) < 4 * found.height_rate_stderr[0]
    exact = math.log(found.rows[2].brownian.theory / found.rows[0].brownian.theory) / 0.5
    assert found.height_rate[1] == pytest.approx(exact, abs=4 * found.height_rate_stderr[1] + 0.1)
    assert found.height_rate[1] > 3 * abs(found.height_rate[0])
    assert "log time rises by" in str(found)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (
            lambda: levy.sample(2.1, 3),
            ValueError,
            "alpha: expected a finite number above 0 and of at most 2",
        ),
        (lambda: levy.sample(1.0, 2.5), TypeError, "size: expected an int of at least 0, got float"),
        (lambda: levy.exit_time(2, 1, 0.1), ValueError, "alpha: expected a number below 2"),
        (lambda: levy.exit_time(1, (1, -1), 0.1), ValueError, "a: expected a finite number above 0, got -1"),
        (lambda: levy.exit_time(1, (1, 2, 3), 0.1), ValueError, "a: expected a number or a pair"),
        (
            lambda: levy.brownian_exit_time(1, 0.01),
            ValueError,
            "eps: expected 2 height / eps.2 of at most 690",
        ),
        (
            lambda: levy.brownian_exit_time(1, 1, start=1),
            ValueError,
            "start: expected a point between -1 and 1",
        ),
        (
            lambda: levy.brownian_exit_time(1, 1, gradient=lambda x: x[1:]),
            ValueError,
            "gradient: expected finite",
        ),
        (lambda: levy.exit_time(1.2, 1, 1e-300), ValueError, "eps: expected a size with a mean time within"),
        (lambda: levy.exit_time(1.2, 1e-300, 1e300), ValueError, "eps: expected a size with a mean time"),
        (lambda: levy.simulate_exit(1, 1, 0.1, paths=2), ValueError, "paths: expected an int of at least 10"),
        (lambda: levy.TwoWells((1.0,), (1, 1)), ValueError, "width: expected a pair"),
        (
            lambda: levy.compare_wells(widths=(1, 1)),
            ValueError,
            "widths: expected at least 2 numbers that ascend",
        ),
        (
            lambda: levy.simulate_paths(lambda x: 0, [0.0], alpha=1, eps=1, dt=1, steps=1),
            ValueError,
            "gradient: expected values of shape",
        ),
    ],
)
def test_refusals(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_theory_is_there_with_the_package():
    assert gradtail.theory.levy is levy
    assert callable(gradtail.theory.least_squares.tail_index)
