"""SGD on given data and in ensembles, against transfer operators, exact sums and printed values."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from gradtail.theory import least_squares as ls
from gradtail.theory import levy


def on_the_circle(rows, eta, batches, s, angles=720):
    """Return log h(s) of SGD in the plane: growth of f(u) -> mean of |M u|**s f(M u / |M u|)."""
    at = np.arange(angles) * np.pi / angles
    u = np.stack([np.cos(at), np.sin(at)])
    moved = [u - eta / len(i) * rows[list(i)].T @ (rows[list(i)] @ u) for i in batches]
    sizes = np.array([np.linalg.norm(v, axis=0) ** s for v in moved])
    places = np.array([np.arctan2(v[1], v[0]) % np.pi for v in moved])
    f = np.ones(angles)
    for _ in range(60):
        found = np.mean(sizes * np.interp(places, np.append(at, np.pi), np.append(f, f[0])), axis=0)
        growth, f = found.mean() / f.mean(), found / found.mean()
    return math.log(growth)


ROWS = np.random.default_rng(3).standard_normal((30, 2)) * [1.0, 0.6]


@pytest.mark.parametrize("replacement", [True, False])
def test_given_data_against_an_operator(replacement):
    pairs = itertools.product(range(30), repeat=2) if replacement else itertools.combinations(range(30), 2)
    batches, eta = list(pairs), 1.3
    for s in (0.7, 2.0):
        found = ls.data_moment(s, ROWS, eta, 2, replacement=replacement, steps=75, seed=1)
        want = math.exp(on_the_circle(ROWS, eta, batches, s, 120))
        assert found.value == pytest.approx(want, abs=4 * found.stderr + 0.002)
        assert found.stderr < 0.015
    rho = ls.data_lyapunov(ROWS, eta, 2, replacement=replacement, steps=75, seed=2)
    want = on_the_circle(ROWS, eta, batches, 1e-4, 120) / 1e-4
    assert rho.value == pytest.approx(want, abs=4 * rho.stderr + 1e-3)


def test_tail_index_of_given_data():
    batches = [(i,) for i in range(30)]
    alpha = optimize.brentq(lambda s: on_the_circle(ROWS, 0.5, batches, s, 180), 0.3, 8, xtol=1e-3)
    found = ls.data_tail_index(ROWS, 0.5, 1, seed=3)
    assert found.value == pytest.approx(alpha, abs=4 * found.stderr + 0.02)
    assert 0 < found.stderr < 0.1
    assert found.ci()[0] < found.value < found.ci()[1]
    # one dimension: h(s) is a plain mean
    rows = np.random.default_rng(4).standard_normal((40, 1))
    factors = np.abs(1 - 1.1 * rows[:, 0] ** 2)
    alpha = optimize.brentq(lambda s: math.log(np.mean(factors**s)) / s, 0.01, 20)
    found = ls.data_tail_index(rows, 1.1, 1, seed=4)
    assert found.value == pytest.approx(alpha, abs=4 * found.stderr + 0.01)


def test_errors_of_given_data_are_those_of_repeats():
    rows = np.random.default_rng(4).standard_normal((40, 1))
    exact = math.log(np.mean(np.abs(1 - 0.8 * rows[:, 0] ** 2) ** 1.5))
    found = [ls.data_moment(1.5, rows, 0.8, 1, particles=60, steps=40, seed=i) for i in range(60)]
    z = np.array([(math.log(f.value) - exact) / (f.stderr / f.value) for f in found])
    assert abs(z.mean()) < 0.5
    assert 0.75 < z.std() < 1.35


def test_given_data_without_a_tail_or_a_law():
    found = ls.data_tail_index(ROWS, 0.05, 1)
    assert math.isinf(found.value)
    assert "no batch of these data can lengthen any vector" in str(found)
    with pytest.raises(ls.NoStationaryLawError, match="no stationary law"):
        ls.data_tail_index(ROWS, 5.0, 1)
    assert ls.data_moment(0, ROWS, 0.5, 1).value == 1
    with pytest.raises(ValueError, match="rows: expected rank 2, as many as columns, got 1"):
        ls.data_lyapunov(np.ones((5, 2)), 0.1, 1)
    with pytest.raises(
        ValueError, match="b: expected at most 30, the number of rows, without replacement, got 31"
    ):
        ls.data_lyapunov(ROWS, 0.1, 31, replacement=False)
    with pytest.raises(TypeError, match="rows: expected an array of real numbers, got dtype complex128"):
        ls.data_lyapunov(ROWS * 1j, 0.1, 1)
    with pytest.raises(
        ValueError, match="s: expected a finite number of at least 0 and of at most 64, got 65"
    ):
        ls.data_moment(65, ROWS, 0.1, 1)


@pytest.mark.parametrize("b", [2, 12, 29, 30])
def test_batches_without_replacement_are_uniform(b):
    from gradtail.theory.least_squares.batches import draw_batches

    drawn = draw_batches(30, b, 4000, False, np.random.default_rng(0))
    assert all(len(set(row)) == b for row in drawn.tolist())
    share = np.bincount(drawn.ravel(), minlength=30) / 4000
    assert share == pytest.approx(b / 30, abs=4.5 * math.sqrt(b / 30 * (1 - b / 30) / 4000) + 1e-12)


@pytest.mark.parametrize(
    ("eta", "b", "d", "alpha", "within", "steps"),
    [(2 / 3, 1, 1, 2.0, 0.3, 60), (1.0, 1, 1, 1.09, 0.15, 60), (0.625, 1, 2, 1.16, 0.2, 120)],
)
def test_hill_of_small_ensembles(eta, b, d, alpha, within, steps):
    found = ls.simulate(eta, b, d, chains=40_000, steps=steps, seed=1)
    assert found.hill.k == 400
    assert found.hill.alpha == pytest.approx(alpha, abs=within)
    assert found.alpha == pytest.approx(ls.tail_index(eta, b, d))
    assert not found.diverged
    assert np.isfinite(found.norms).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eta", "b", "d", "alpha", "within"),
    [(2 / 3, 1, 1, 2.0, 0.15), (1.0, 1, 1, 1.09, 0.08), (0.625, 1, 2, 1.16, 0.10)],
)
def test_hill_of_ensembles(eta, b, d, alpha, within):
    found = ls.simulate(eta, b, d, chains=200_000, steps=400, seed=1)
    assert found.hill.k == 2000
    assert found.hill.alpha == pytest.approx(alpha, abs=within)


@pytest.mark.parametrize(
    ("eta", "b", "d", "alpha", "within"),
    [(5 / 6, 1, 1, 1.43, 0.15), (0.75, 1, 2, 0.60, 0.08), (0.5, 1, 1, 2.0, 0.25)],
)
@pytest.mark.parametrize("given", [False, True])
def test_averaged_iterates(eta, b, d, alpha, within, given):
    rng, data = np.random.default_rng(8), None
    if given:
        rows = rng.standard_normal((10_000, d))
        data = rows, rows @ np.ones(d) + rng.standard_normal(10_000)
        within *= 1.3  # of the data themselves
    found = ls.simulate(eta, b, d, chains=1600, steps=1000, data=data, seed=2)
    assert found.averaged.alpha == pytest.approx(alpha, abs=within)
    assert set(found.averaged.by_block) == {2, 5, 10, 20, 40, 50, 100}
    assert not found.diverged
    assert found.given == given


def test_stderr_of_averaged_iterates_is_the_spread_of_repeats():
    for alpha in (0.8, 1.5):
        found = [ls.averaged_index(levy.sample(alpha, (1000, 1), seed=i)) for i in range(16)]
        spread = np.std([f.alpha for f in found])
        assert 0.65 < np.mean([f.stderr for f in found]) / spread < 1.8
        assert np.mean([f.alpha for f in found]) == pytest.approx(alpha, abs=0.05)


@pytest.mark.parametrize(("eta", "b", "d", "steps"), [(0.72, 5, 10, 300), (4.0, 1, 1, 300), (1e6, 1, 3, 100)])
def test_divergence_is_said(eta, b, d, steps):
    found = ls.simulate(eta, b, d, chains=300, steps=steps)
    assert found.diverged
    assert found.state == "diverges"
    assert found.alpha is None
    assert "no stationary law" in str(found)
    assert np.isfinite(found.norms).all()
    if not found.stopped:
        assert found.growth == pytest.approx(found.rho, abs=5 * found.growth_stderr + 0.2 * found.rho)
        assert any(w.startswith("diverging") for w in found.warnings)
    else:
        assert any("went beyond 1e100" in w for w in found.warnings)
    given = np.random.default_rng(0).standard_normal((500, d))
    fixed = ls.simulate(eta, b, d, chains=300, steps=steps, data=(given, np.arange(500) % 3))
    assert fixed.diverged


def test_a_slow_start_is_not_divergence():
    found = ls.simulate(0.01, 1, 1, chains=4000, steps=60, start=0.0)
    assert found.grows
    assert not found.diverged
    assert any(w.startswith("not stationary yet") for w in found.warnings)
    settled = ls.simulate(0.9, 1, 1, chains=1000, steps=200)
    assert not settled.warnings
    assert settled.stationary
    assert (found.state, found.stationary) == ("not stationary yet", False)


@pytest.mark.parametrize(
    ("eta", "b", "d", "more"),
    [
        (1e-4, 1, 3, {"steps": 200}),
        (0.01, 1, 1, {"steps": 40, "start": 10.0}),
        (0.18, 10, 100, {"steps": 60}),
    ],
)
def test_a_law_that_is_not_reached_is_said(eta, b, d, more):
    found = ls.simulate(eta, b, d, chains=1000, **more)
    assert (found.state, found.diverged) == ("not stationary yet", False)
    assert any(
        w.startswith("not stationary yet: ") and "the start is forgotten in about" in w
        for w in found.warnings
    )


def test_distances_that_shrink():
    found = ls.simulate(0.1, 1, 1, chains=1000, steps=40, start=1e3)  # -rho times steps is above 3
    assert not found.short
    assert found.shrinks
    assert any("log distances shrink by" in w for w in found.warnings)
    reached = [
        ls.simulate(0.5, 1, 1, chains=1000, steps=100, start=s, seed=i) for i, s in enumerate((0, 1, 5))
    ]
    assert all(one.state == "stationary" for one in reached)


def test_hill_of_one_value_is_said():
    found = ls.simulate(0.9, 1, 1, chains=100, steps=50)
    assert found.warnings[-1].startswith("Hill's estimate rests on 1 of 100 distances")


def test_stop_ends_a_run():
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(KeyboardInterrupt):
        ls.simulate(0.5, 1, 1, chains=100, steps=10**9, stop=stop)
    assert len(asked) == 3
    plain = ls.simulate(0.5, 1, 1, chains=100, steps=120)
    assert (
        ls.simulate(0.5, 1, 1, chains=100, steps=120, stop=lambda: False).norms.tolist()
        == plain.norms.tolist()
    )


def test_one_step_by_hand_and_scales():
    rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    found = ls.simulate(
        0.1, 2, 2, chains=100, steps=20, start=1.0, data=(rows, [3.0, 4.0]), replacement=False
    )
    # each batch holds both rows, without a residual: both coordinates shrink by a factor a step
    rng = np.random.default_rng(0)
    e = rng.standard_normal((100, 2)) * [0.95**20, 0.8**20]
    assert found.norms == pytest.approx(np.linalg.norm(e, axis=1), rel=1e-9)
    small, large = (ls.simulate(0.5, 1, 1, chains=4000, steps=50, noise=n, seed=5) for n in (1.0, 1000.0))
    assert np.median(large.norms) / np.median(small.norms) == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"chains": 10}, ValueError, "chains: expected an int of at least 100, got 10"),
        ({"steps": 1.5}, TypeError, "steps: expected an int of at least 20, got float"),
        ({"noise": 0}, ValueError, "noise: expected a finite number above 0, got 0"),
        ({"top": 1.0}, ValueError, "top: expected a share between 0 and 1, got 1"),
        ({"average": 10_000}, ValueError, "average: expected at most 1000, the number of steps, got 10000"),
        ({"data": 3}, TypeError, "data: expected a pair .rows, targets., got int"),
        ({"data": (np.eye(2), [1, 2])}, ValueError, "rows: expected 1 columns, as d says, got 2"),
        ({"data": (np.ones((3, 1)), [1, 2])}, ValueError, "targets: expected 3 of them, one a row, got 2"),
        ({"stop": True}, TypeError, "stop: expected a callable without arguments, got bool"),
        ({"seed": -1}, ValueError, "seed: expected an int of at least 0, got -1"),
    ],
)
def test_refusals(settings, error, said):
    with pytest.raises(error, match=said):
        ls.simulate(0.5, 1, 1, **settings)
