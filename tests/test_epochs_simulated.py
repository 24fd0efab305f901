"""Simulated heavy-ball SGD against theory, with noise of actual batches."""

import numpy as np
import pytest

from gradtail.theory import epochs
from gradtail.theory.epochs import simulate, velocity_variance, weight_variance

CASES = [
    (0.9, 0.02, 100, "reshuffle", [0.15, 0.0015, 0.45, 7.5], 240),
    (0.9, 0.02, 100, "replacement", [0.15, 0.45, 7.5], 240),
    (0.0, 0.1, 50, "reshuffle", [0.6, 6.0], 200),
    (0.0, 0.1, 50, "fixed", [0.06, 0.6, 6.0], 30),
]


@pytest.mark.parametrize(("beta", "eta", "M", "policy", "curvature", "length"), CASES)
def test_simulated_variances(beta, eta, M, policy, curvature, length):
    seeds = 600 if policy == "fixed" else 32
    found = simulate(curvature, eta=eta, beta=beta, M=M, policy=policy, epochs=length, seeds=seeds, seed=1)
    settings = {"eta": eta, "beta": beta, "M": M, "policy": policy}
    for got, error, theory in (
        (found.weight_variance, found.weight_stderr, weight_variance(curvature, **settings)),
        (found.velocity_variance, found.velocity_stderr, velocity_variance(curvature, **settings)),
    ):
        assert np.all(np.abs(got - theory) <= 4 * error), (got, error, theory)
        assert np.all(error <= 0.05 * theory)
    low, high = found.weight_ci()
    assert np.all((low < found.weight_variance) & (found.weight_variance < high))
    assert found.noise_variance.tolist() == [1.0] * len(curvature)


def test_printed_points():
    settings = {"eta": 0.02, "beta": 0.9, "M": 100}
    found = simulate(0.15, **settings, epochs=400, seeds=48, seed=2)
    assert found.weight_stderr[0] < 0.01 * 0.3319
    assert found.weight_variance[0] == pytest.approx(0.3319, rel=0.02)
    white = simulate(0.15, **settings, policy="replacement", epochs=400, seeds=48, seed=3)
    assert white.weight_variance[0] == pytest.approx(0.667, rel=0.05)
    assert weight_variance(0.15, **settings, policy="replacement") == pytest.approx(0.667, rel=1e-3)


def test_actual_noise_vectors():
    """Heavy-tailed noise of 60 examples, each direction with its own, against theory at its variance."""
    rng = np.random.default_rng(4)
    noise = 5 + rng.standard_normal((60, 2)) ** 3 * [1.0, 3.0]
    for policy in ("reshuffle", "replacement"):
        found = simulate(
            [0.3, 2.0],
            eta=0.1,
            beta=0.5,
            M=20,
            batch_size=3,
            noise=noise,
            policy=policy,
            epochs=600,
            seeds=24,
        )
        scale = epochs.noise_variance(noise.var(axis=0, ddof=1), batch_size=3, examples=60, policy=policy)
        assert found.noise_variance == pytest.approx(scale, rel=1e-12)
        theory = weight_variance([0.3, 2.0], eta=0.1, beta=0.5, M=20, noise_variance=scale, policy=policy)
        assert np.all(np.abs(found.weight_variance - theory) <= 4 * found.weight_stderr)


def test_memory_of_the_start_is_told():
    found = simulate([1e-4, 1.0], eta=0.1, beta=0.0, M=10, epochs=40, seeds=2)
    assert found.relaxed.tolist() == [False, True]
    assert "may still remember its start" in str(found)
    assert (found.steps, found.seeds, found.policy) == (300, 2, "reshuffle")


def test_seeds_repeat():
    one, two, other = (simulate(1.0, eta=0.1, beta=0.0, M=5, epochs=9, seeds=2, seed=s) for s in (1, 1, 2))
    assert one.weight_variance == two.weight_variance
    assert one.weight_variance != other.weight_variance


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"noise": np.ones(7)},
            ValueError,
            r"noise: expected shape \(10,\) or \(10, 1\), one row an example",
        ),
        ({"seeds": 1}, ValueError, "seeds: expected an int of at least 2, got 1"),
        ({"burn_in": 10}, ValueError, "burn_in: expected an int below epochs = 10, got 10"),
        ({"curvature": np.ones((2, 2))}, ValueError, "curvature: expected a number, or one dimension"),
        ({"curvature": 100.0}, ValueError, "SGD is unstable"),
        ({"policy": "random"}, ValueError, "policy: expected one of"),
    ],
)
def test_refused(changed, error, message):
    settings = {"curvature": 1.0, "eta": 0.1, "beta": 0.0, "M": 10, "epochs": 10} | changed
    with pytest.raises(error, match=message):
        simulate(**settings)
