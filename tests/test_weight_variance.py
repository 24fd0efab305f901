"""Weight variance along directions: the window's theory by double sums, error bars held to their word."""

import numpy as np
import pytest
from scipy import signal

from gradtail import theory, weight_variances
from gradtail.estimators.weight_window import variance_in_window

ETA, BETA, M = 0.02, 0.9, 50
SETTINGS = {"eta": ETA, "beta": BETA, "M": M}


def heavy_ball(rng, curvature, epochs, policy="reshuffle", white=0.0):
    """Weights of a stationary run, one column a curvature, with independent noise of variance 1 each."""
    k = len(curvature)
    noise = rng.standard_normal((2 * epochs, M, k))
    if policy == "reshuffle":
        noise = (noise - noise.mean(axis=1, keepdims=True)) * np.sqrt(M / (M - 1))
    noise = noise.reshape(-1, k) + np.sqrt(white) * rng.standard_normal((2 * epochs * M, k))
    runs = [
        signal.lfilter([-ETA], [1, -(1 + BETA - ETA * a), BETA], noise[:, i]) for i, a in enumerate(curvature)
    ]
    return np.stack(runs, axis=1)[epochs * M :]


@pytest.mark.parametrize("policy", ["reshuffle", "replacement"])
@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_what_a_window_shows_is_a_double_sum(policy, beta):
    """Weights as sums of their noise: the impulse response, the covariance of all steps, its mean square."""
    eta, batches, steps = 0.3, 6, 40
    curvature = np.array([0.4, 2.0, 5.0])
    found = variance_in_window(curvature, steps, eta=eta, beta=beta, M=batches, policy=policy)
    for a, value in zip(curvature, found, strict=True):
        response = signal.lfilter([-eta], [1, -(1 + beta - eta * a), beta], np.eye(1, 600)[0])
        lags = np.arange(-700, 701)
        noise = theory.epochs.autocovariance(lags, batches, policy=policy)
        covariance = np.convolve(np.convolve(noise, response), response[::-1])
        middle = len(covariance) // 2
        c = covariance[middle : middle + steps]
        mean = sum((steps - abs(h)) * c[abs(h)] for h in range(1 - steps, steps)) / steps**2
        assert value == pytest.approx(c[0] - mean, rel=1e-6)


def test_a_fixed_order_loses_nothing_to_the_mean():
    curvature = np.array([0.5, 3.0])
    found = variance_in_window(curvature, 400, **SETTINGS, policy="fixed")
    expected = theory.epochs.weight_variance(curvature, **SETTINGS, policy="fixed")
    np.testing.assert_allclose(found, expected, rtol=1e-12)


CURVATURE = np.array([0.003, 0.03, 0.1, 0.2, 0.4, 0.8, 5.0, 30.0])


@pytest.mark.parametrize(("policy", "first"), [("reshuffle", 0), ("replacement", 2)])
def test_error_bars_keep_their_word(policy, first):
    """From the curvature on whose relaxation time fits into the window some dozen times."""
    rng = np.random.default_rng(5)
    weight, velocity, loss, repeats = [], [], [], 80
    for _ in range(repeats):
        x = heavy_ball(rng, CURVATURE, 60, policy)
        found = weight_variances(x, CURVATURE, **SETTINGS, noise_variance=1.0, policy=policy)
        low, high = found.weight_ci()
        weight.append((low <= found.expected) & (found.expected <= high))
        low, high = found.velocity_ci()
        velocity.append((low <= found.expected_velocity) & (found.expected_velocity <= high))
        low, high = found.fluctuation.ci()
        loss.append(low <= found.fluctuation.expected <= high)
    for hits in (np.array(weight)[:, first:], np.array(velocity)):
        assert hits.mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / hits.size))
    if policy == "reshuffle":
        assert np.mean(loss) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)


def test_numbers_are_those_of_plain_formulas():
    rng = np.random.default_rng(1)
    x = heavy_ball(rng, CURVATURE, 20)
    found = weight_variances(x, CURVATURE, **SETTINGS, noise_variance=2.0)
    np.testing.assert_allclose(found.weight, x.var(axis=0), rtol=1e-10)
    v = np.diff(x, axis=0)[-19 * M :]
    np.testing.assert_allclose(found.velocity, v.var(axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.correlation_time, 2 * x.var(axis=0) / v.var(axis=0), rtol=1e-10)
    relaxed = 0.1 / (ETA * CURVATURE) <= 20 * M
    np.testing.assert_array_equal(found.relaxed, relaxed)
    assert (found.compared, bool(found.relaxed[0])) == (7, False)
    expected = (CURVATURE * x.var(axis=0))[relaxed].sum() / 2
    assert found.fluctuation.value == pytest.approx(expected, rel=1e-10)
    whole = theory.epochs.loss_fluctuation(CURVATURE[relaxed], **SETTINGS, noise_variance=2.0)
    assert found.fluctuation.expected == pytest.approx(whole, rel=0.02)
    assert "1 left out, which cannot have relaxed" in str(found)


def test_noise_from_the_velocity():
    rng = np.random.default_rng(2)
    x = 3 * heavy_ball(rng, CURVATURE, 100)
    found = weight_variances(x, CURVATURE, **SETTINGS)
    assert found.noise_from == "velocity"
    np.testing.assert_allclose(found.velocity_ratio, 1, rtol=1e-12)
    np.testing.assert_allclose(found.noise_variance, 9, rtol=0.15)
    scaled = weight_variances(1e-9 * x, CURVATURE, **SETTINGS)
    np.testing.assert_allclose(scaled.ratio, found.ratio, rtol=1e-8)


def test_crossover_and_white_noise_on_top():
    rng = np.random.default_rng(3)
    curvature = np.geomspace(0.05, 2, 40)
    x = heavy_ball(rng, curvature, 150, white=0.06)
    found = weight_variances(x, curvature, **SETTINGS, noise_variance=1.0)
    assert found.crossover == pytest.approx(3 * 0.1 / (ETA * M))
    assert abs(found.white_excess.value - 0.06) < 4 * found.white_excess.stderr < 0.03
    bare, with_noise = found.find_crossover(without_excess=True), found.find_crossover()
    assert abs(bare.value - found.crossover) < 4 * bare.stderr < 0.1
    assert with_noise.value < bare.value  # what does not cancel looks like an earlier end of the reduction
    low, high = bare.ci()
    assert low < bare.value < high


def test_no_crossover_where_there_is_none():
    rng = np.random.default_rng(4)
    curvature = np.geomspace(0.05, 2, 40)
    x = heavy_ball(rng, curvature, 100, "replacement")
    found = weight_variances(x, curvature, **SETTINGS, noise_variance=1.0)
    assert np.isnan(found.find_crossover().value)
    assert abs(found.find_crossover().n - np.count_nonzero(np.abs(np.log(curvature / 0.3)) < np.log(3))) == 0
    far = weight_variances(x[:, :5], curvature[:5], **SETTINGS)
    assert str(far.find_crossover()) == "not known"


def test_curvature_that_is_not_positive_is_not_compared():
    rng = np.random.default_rng(6)
    x = heavy_ball(rng, np.array([1.0, 1.0]), 10)
    found = weight_variances(x, [1.0, -0.5], **SETTINGS)
    assert found.relaxed.tolist() == [True, False]
    assert np.isnan(found.expected[1])
    np.testing.assert_allclose(found.relaxation_time, [0.1 / ETA, np.inf])
    none = weight_variances(x, [0.0, 0.0], **SETTINGS)
    assert (none.compared, np.isnan(none.white_excess.value)) == (0, True)
    assert "no direction can have relaxed" in str(none)
    assert "not known, as no direction is compared" in str(none.fluctuation)


@pytest.mark.parametrize("noise", [None, 1.0, [1.0, 0.0, 1.0, 1.0]])
def test_what_never_moves_is_not_compared(noise):
    """Its 0 over 0 must not reach what is said of the others: those are as without it."""
    curvature = np.array([1.0, 2.0, 3.0, 4.0])
    x = heavy_ball(np.random.default_rng(8), curvature, 40)
    x[:, 1] = 0.1  # whose mean is not 0.1 to the last bit
    moving = [0, 2, 3]
    found = weight_variances(x, curvature, **SETTINGS, noise_variance=noise)
    alone = weight_variances(
        x[:, moving], curvature[moving], **SETTINGS, noise_variance=None if noise is None else 1.0
    )
    assert found.relaxed.tolist() == [True, False, True, True]
    assert (found.weight[1], found.velocity[1]) == (0, 0)
    assert found.white_excess.value == pytest.approx(alone.white_excess.value, rel=1e-9)
    assert found.white_excess.n == 3
    assert found.fluctuation.expected == pytest.approx(alone.fluctuation.expected, rel=1e-12)
    np.testing.assert_allclose(found.ratio[moving], alone.ratio, rtol=1e-12)
    assert "in 1 of 4 directions: these are not compared" in found.warnings[0]
    assert "nan" not in str(found)


def test_a_drift_is_told():
    x = heavy_ball(np.random.default_rng(7), np.ones(4), 20)
    assert weight_variances(x, np.ones(4), **SETTINGS).warnings == ()
    moving = x + np.linspace(0, 10, len(x))[:, None]
    assert "not stationary" in weight_variances(moving, np.ones(4), **SETTINGS).warnings[0]
    assert "fixed order" in weight_variances(x, np.ones(4), **SETTINGS, policy="fixed").warnings[0]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"weights": np.zeros(500)}, ValueError, r"weights: expected shape \(T, k\)"),
        ({"weights": np.zeros((399, 2))}, ValueError, "at least 8 epochs of 50 steps, got 399"),
        ({"weights": np.full((400, 2), np.nan)}, ValueError, "weights: expected finite"),
        ({"curvature": [1.0]}, ValueError, r"curvature: expected shape \(2,\)"),
        ({"curvature": [1.0, 200.0]}, ValueError, "unstable"),
        ({"noise_variance": [1.0, 2.0, 3.0]}, ValueError, "noise_variance: expected shape"),
        ({"noise_variance": -1.0}, ValueError, "noise_variance"),
        ({"policy": "sorted"}, ValueError, "policy: expected one of"),
        ({"M": 1}, ValueError, "M: "),
        ({"eta": 0.0}, ValueError, "eta: "),
    ],
)
def test_refusals(change, error, said):
    given = {"weights": np.zeros((400, 2)), "curvature": [1.0, 2.0], **SETTINGS, **change}
    with pytest.raises(error, match=said):
        weight_variances(given.pop("weights"), given.pop("curvature"), **given)
