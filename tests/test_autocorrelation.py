"""Autocovariance of noise vectors: brute force, printed values, intervals of sketches and windows."""

import numpy as np
import pytest
from epoch_noise import POLICIES, batches, examples, ratio
from hypothesis import given
from hypothesis import strategies as st
from tails import has

from gradtail import GradientStream, autocorrelation, coordinate_autocorrelation
from gradtail.states.hashing import tensor_key
from gradtail.states.projection import sketch_map


def rot8(seed, x, buckets):
    bucket, sign = sketch_map(tensor_key(seed, "a"), np.arange(x.shape[1]), buckets)
    return np.array([np.bincount(bucket, sign * row, buckets) for row in x])


def by_pairs(x, steps, lag):
    """Mean inner product over the pairs of steps that are there, and their number."""
    found = [x[i] @ x[j] for i, s in enumerate(steps) for j, t in enumerate(steps) if t - s == lag]
    return (np.mean(found) if found else np.nan), len(found)


@given(seed=st.integers(0, 1000), centred=st.booleans(), stride=st.sampled_from([1, 3]))
def test_brute_force_over_pairs(seed, centred, stride):
    rng = np.random.default_rng(seed)
    steps = 5 + stride * np.sort(rng.choice(24, 15, replace=False))
    x = 1 + rng.standard_normal((15, 7))
    found = autocorrelation(x, steps=steps, centred=centred)
    y = x - x.mean(axis=0) if centred else x
    for i, lag in enumerate(found.lags.tolist()):
        mean, pairs = by_pairs(y, steps, lag)
        assert found.pairs[i] == pairs
        assert found.covariance[i] == pytest.approx(mean, abs=1e-12, nan_ok=True)
    assert found.lags[-1] == steps[-1] - steps[0]
    assert found.correlation == pytest.approx(found.covariance / found.covariance[0], abs=1e-12, nan_ok=True)


@given(exponent=st.integers(-400, 400))
def test_scaling_by_powers_of_two(exponent):
    x = np.random.default_rng(0).standard_normal((20, 5))
    one, other = autocorrelation(x), autocorrelation(np.ldexp(x, exponent))
    assert np.array_equal(one.correlation, other.correlation)
    assert np.array_equal(np.ldexp(one.covariance, 2 * exponent), other.covariance)


def test_many_columns_are_taken_by_parts():
    x = np.random.default_rng(0).standard_normal((900, 1500)).astype(np.float32)
    found = autocorrelation(x, lags=3)
    assert found.covariance[2] == pytest.approx(
        np.einsum("tm,tm->t", x[:-2].astype(float), x[2:].astype(float)).mean(), rel=1e-9
    )


def test_norms_set_the_diagonal():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 3000))
    norms = np.linalg.norm(x, axis=1)
    found = autocorrelation(rot8(0, x, 256), norms)
    assert found.covariance[0] == pytest.approx(np.mean(norms**2), rel=1e-12)
    assert (found.sketched, found.size, found.steps) == (True, 256, 40)
    zero = np.zeros((5, 8))
    assert np.isnan(autocorrelation(zero, np.zeros(5)).correlation).all()


def test_printed_values_of_three_policies():
    """M = 10: -0.100 at lag 1 and 0 at lag 10; 0; +1 at lag 10. All within the errors said."""
    rng = np.random.default_rng(2)
    noise = examples(rng, 60, 30, 0.5)
    for policy in POLICIES:
        found = autocorrelation(batches(rng, noise, 10, 4000, policy), lags=25, period=10)
        theory = found.expected(policy)
        if policy == "fixed":
            assert found.correlation[[10, 20]] == pytest.approx(1.0, abs=1e-6)
            assert found.correlation[1:10].mean() == pytest.approx(-1 / 9, rel=1e-3)
            assert (found.repeats, found.verdict) == (10, "fixed")
            continue
        assert found.verdict is None
        assert np.all(np.abs(found.correlation - theory)[1:] <= 4 * found.stderr[1:])
        assert found.stderr[1] < 0.002
        assert found.correlation[1] == pytest.approx(-0.1 if policy == "reshuffle" else 0.0, abs=0.006)
        assert found.correlation[10] == pytest.approx(0.0, abs=0.007)


def test_sum_rule():
    """Noise that cancels over epochs has sums over all lags that do."""
    rng = np.random.default_rng(3)
    noise = examples(rng, 40, 6, 1.0)
    for policy in ("reshuffle", "fixed"):
        found = autocorrelation(batches(rng, noise, 8, 5, policy), period=8)
        sums = found.covariance * found.pairs
        assert abs(sums[0] + 2 * sums[1:].sum()) < 1e-12 * sums[0]
    assert (
        abs(1 + 2 * autocorrelation(batches(rng, noise, 8, 5, "reshuffle")).expected(period=8)[1:].sum())
        < 1e-12
    )


@pytest.mark.parametrize("slope", [0.5, 1.5])
@pytest.mark.parametrize("buckets", [None, 256])
def test_intervals_of_white_noise(slope, buckets):
    """The standard error is that of the window, the spectrum and the sketch together."""
    rng, size = np.random.default_rng(4), 4000
    law = np.arange(1, size + 1) ** (-slope / 2)
    z, ratios = [], []
    for seed in range(40):
        x = rng.standard_t(5, (48, size)) * law
        norms = None if buckets is None else np.linalg.norm(x, axis=1)
        found = autocorrelation(x if buckets is None else rot8(seed, x, buckets), norms, lags=40)
        z.append(found.correlation[1:] / found.stderr[1:])
        ratios.append(1 / found.participation_ratio)
        if buckets is None:
            assert not found.sketch_stderr.any()
        else:
            assert found.sketch_stderr[1] == pytest.approx(1 / np.sqrt(256 * 47))
    z = np.array(z)
    assert np.mean(np.abs(z) <= 1.96) == pytest.approx(0.95, abs=0.02)
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.1)
    # a balanced map is better than its 1 / r by up to r / n, which is taken for directions
    truth, part = 1 / ratio(size, slope), 0.0 if buckets is None else 0.15 / 256
    assert np.mean(ratios) == pytest.approx(truth, abs=0.15 * truth + part)


def test_repeats_are_seen_in_sketches_and_beside_a_drift():
    rng = np.random.default_rng(5)
    noise = examples(rng, 120, 2000, 1.0)
    x = batches(rng, noise, 30, 4, "fixed")
    kept = autocorrelation(rot8(0, x, 4096), np.linalg.norm(x, axis=1))
    assert kept.repeats == 30
    assert kept.correlation[30] == pytest.approx(1.0, abs=1e-9)
    drift = (
        np.linspace(-1, 1, 120)[:, None] * np.linalg.norm(x, axis=1).mean() / np.sqrt(2000) * np.ones(2000)
    )
    moved = autocorrelation(x + drift, centred=True, frozen=False)
    assert (moved.repeats, moved.verdict) == (30, "fixed")
    assert "repeat in the same order after 30 steps" in str(moved)
    assert autocorrelation(x, period=20).repeats is None


def test_no_false_repeats():
    """Neither chance in many lags of few directions nor a mean that moves makes a verdict."""
    rng = np.random.default_rng(6)
    for slope in (0.5, 2.0, 4.0):
        noise = examples(rng, 128, 100, slope)
        for policy in ("reshuffle", "replacement"):
            for _ in range(15):
                x = batches(rng, noise, 32, 4, policy)
                assert autocorrelation(x, centred=True).repeats is None
    walk = np.cumsum(rng.standard_normal((128, 3)), axis=0)
    assert autocorrelation(walk, centred=True, frozen=False).repeats is None
    wave = np.sin(np.arange(128) / 5)[:, None] + 0.1 * rng.standard_normal((128, 50))
    assert autocorrelation(wave, centred=True).repeats is None


def test_training_cannot_tell():
    """SGD at step size 0.1 on a quadratic: the full gradient answers the noise, whatever the sampler."""
    rng = np.random.default_rng(7)
    law, size = np.ones(40), 40
    for policy in ("reshuffle", "replacement"):
        noise = batches(rng, examples(rng, 160, size, 0.0), 40, 40, policy)
        theta, stream = np.zeros(size), GradientStream(window=1024, sketch=1024)
        for xi in noise[:1000]:
            g = law * theta + xi
            stream.update({"w": g})
            theta = theta - 0.1 * g
        found = stream.autocorrelation(period=40)
        assert found.correlation[1] < -0.03
        assert found.verdict is None
        assert has(found, "cannot tell how batches were drawn")
        assert "the order of the batches: cannot tell" in str(found)


@pytest.mark.parametrize("product", [1.5, 1.7, 1.9, 1.99])
@pytest.mark.parametrize("period", [None, 2, 20])
def test_a_direction_that_oscillates_is_no_order(product, period):
    """SGD on one steep direction among flat ones: the gradient changes its sign at each step."""
    rng, theta = np.random.default_rng(12), np.zeros(10)
    law = np.append(product, np.full(9, 0.01))
    rows = []
    for _ in range(800):
        rows.append(
            law * theta + 0.05 * rng.standard_normal(10) + np.append(rng.standard_normal(), np.zeros(9))
        )
        theta = theta - rows[-1]
    found = autocorrelation(rows, centred=True, frozen=False, period=period)
    assert found.correlation[1] < -0.4
    assert found.verdict is None
    if product > 1.6 and period != 20:
        assert has(found, "a peak at lag 2 is no verdict")


@pytest.mark.parametrize("length", [2, 2.2, 2.5, 3, 3.3, 3.5, 4, 4.5, 5, 5.5, 7, 9, 11])
@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_waves_are_no_order(length, noise):
    rng, t = np.random.default_rng(13), np.arange(600)[:, None]
    turn = np.array([0.0, np.pi / 2])
    wave = np.cos(2 * np.pi * t / length + turn) + noise * rng.standard_normal((600, 2))
    assert autocorrelation(wave, centred=True, frozen=False).verdict is None


def test_a_fixed_order_in_training_is_seen():
    for batches_, step in ((6, 0.1), (10, 0.1), (40, 0.1), (40, 0.3)):
        rng = np.random.default_rng(14)
        noise = batches(rng, examples(rng, 4 * batches_, 60, 0.0), batches_, 400 // batches_, "fixed")
        theta, rows = np.full(60, 0.3), []
        for xi in noise:
            rows.append(theta + xi)
            theta = theta - step * rows[-1]
        found = autocorrelation(rows, centred=True, frozen=False)
        assert found.repeats == batches_, str(found)
        assert autocorrelation(rows[: 2 * batches_], centred=True, frozen=False).verdict is None


def test_of_a_stream():
    rng = np.random.default_rng(8)
    noise = examples(rng, 64, 500, 0.5)
    stream = GradientStream(sketch=1024)
    x = batches(rng, noise, 16, 4, "fixed")
    for row in x:
        stream.update({"a.w": row[:300], "a.b": row[300:], "c": np.zeros(3)})
    whole = stream.autocorrelation()
    assert (whole.repeats, whole.steps, whole.size, whole.centred, whole.frozen) == (
        16,
        64,
        1024,
        True,
        False,
    )
    exact = autocorrelation(x, centred=True)
    assert np.all(np.abs(whole.correlation - exact.correlation)[1:] <= 5 * whole.sketch_stderr[1:])
    part = stream.autocorrelation("a.w", period=16, frozen=True, centred=False)
    assert (part.repeats, part.size, part.centred) == (16, 128, False)
    assert part.expected("fixed")[16] == 1.0
    with pytest.raises(ValueError, match="group"):
        stream.autocorrelation("nothing")
    tracks = coordinate_autocorrelation(stream.tracks(["a.w", "a.b"]), period=16)
    assert np.nanmean(tracks.correlation[16]) > 0.8
    assert tracks.exceedance()[16] > 0.9


def test_coordinates():
    rng = np.random.default_rng(9)
    scale = 10.0 ** rng.integers(-20, 20, 300)
    x = (rng.standard_normal((100, 300)) + 3) * scale
    x[:, 7] = 4.0
    x[5, 11] = np.nan
    found = coordinate_autocorrelation(x, lags=60)
    assert found.constant == 1
    assert np.isnan(found.correlation[:, 7]).all()
    for j in (0, 11):
        keep = np.isfinite(x[:, j])
        y = np.where(keep, x[:, j] - x[keep, j].mean(), 0.0)
        for lag in (1, 30):
            pairs = np.sum(keep[:-lag] & keep[lag:])
            mean = np.sum(y[:-lag] * y[lag:]) / pairs / np.mean(y[keep] ** 2)
            assert found.correlation[lag, j] == pytest.approx(mean, abs=1e-9)
            assert found.stderr[lag, j] == pytest.approx(1 / np.sqrt(pairs))
    assert found.exceedance()[1:20].mean() == pytest.approx(0.05, abs=0.015)
    assert found.exceedance()[0] == 0
    moved = x.copy()
    moved[1:] += 0.6 * (x[:-1] - 3 * scale)
    moved[:, 11] = x[:, 10]
    assert coordinate_autocorrelation(moved).exceedance()[1] > 0.9
    assert "299" not in str(found)
    assert "1 coordinates do not change" in str(found)


REFUSED = [
    ({"vectors": np.ones(3)}, ValueError, r"vectors: expected shape \(steps, m\)"),
    ({"steps": [0, 2, 1]}, ValueError, "steps: expected rising numbers, got some that are not"),
    ({"steps": [0, 1, 1000]}, ValueError, "steps: expected at most 16 times as many steps as vectors"),
    ({"lags": 3}, ValueError, "lags: expected an int from 1 to 2, got 3"),
    ({"lags": 1.0}, TypeError, "lags: expected an int from 1 to 2, got 1.0"),
    ({"period": 1}, ValueError, "period: expected an int from 2, got 1"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refused(changed, error, message):
    settings = {"vectors": np.eye(3)} | changed
    with pytest.raises(error, match=message):
        autocorrelation(**settings)


def test_results_refuse():
    found = autocorrelation(np.eye(3))
    with pytest.raises(ValueError, match="period: expected the number of batches of an epoch, got None"):
        found.expected()
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 1"):
        found.ci(1)
    with pytest.raises(ValueError, match="values: expected a coordinate that changes, got none"):
        coordinate_autocorrelation(np.ones((5, 2)))
    with pytest.raises(ValueError, match=r"values: expected shape \(steps, m\)"):
        coordinate_autocorrelation(np.ones(5))
    with pytest.raises(ValueError, match="lags: expected an int from 1 to 4, got 5"):
        coordinate_autocorrelation(np.eye(5), lags=5)


def test_rows_that_are_not_finite_leave_gaps():
    x = np.random.default_rng(10).standard_normal((30, 4))
    broken = x.copy()
    broken[11, 2] = np.inf
    found = autocorrelation(broken)
    other = autocorrelation(np.delete(x, 11, axis=0), steps=np.delete(np.arange(30), 11))
    assert np.array_equal(found.covariance, other.covariance)
    assert found.nonfinite == 1
    assert has(found, "1 steps with NaN or infinite values are left out")
    assert has(autocorrelation(x, steps=3 * np.arange(30)), "these are every 3th step")
