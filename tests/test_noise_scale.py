"""Noise scale: unbiased parts, Fieller sets against their definition, coverage on known noise."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tails import has
from test_autocorrelation import rot8

from gradtail import noise_scale, noise_scale_from_batches, noise_scale_from_micro
from gradtail.estimators.fieller import fieller


def inside(x, n, d, v_nn, v_nd, v_dd, t):
    return (n - x * d) ** 2 <= t * t * (v_nn - 2 * x * v_nd + x * x * v_dd)


@given(
    n=st.floats(-1, 10),
    d=st.floats(-3, 3),
    s=st.floats(0.01, 2),
    e=st.floats(0.01, 2),
    r=st.floats(-0.99, 0.99),
    power=st.integers(-60, 60),
)
def test_set_is_that_of_the_definition(n, d, s, e, r, power):
    scale = 2.0**power
    low, high = fieller(n * scale, d, (s * scale) ** 2, r * s * e * scale, e * e, 2.0)
    assert 0 <= low <= high
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 400)])
    member = inside(grid, n, d, s * s, r * s * e, e * e, 2.0)
    bounded = d * d > 4 * e * e
    assert math.isfinite(high) == bounded
    for x, yes in zip(grid, member, strict=True):
        if low < x * scale * 0.999999 and x * scale * 1.000001 < high and low > 0:
            assert yes
        if yes and not (bounded and n < 0):
            assert low <= x * scale * 1.000001
            assert x * scale * 0.999999 <= high


def test_set_without_errors_is_a_point():
    assert fieller(6.0, 3.0, 0.0, 0.0, 0.0, 2.0) == (2.0, 2.0)
    assert fieller(0.0, 3.0, 0.0, 0.0, 0.0, 2.0) == (0.0, 0.0)
    assert fieller(1.0, 0.0, 0.0, 0.0, 0.0, 2.0) == (0.0, math.inf)
    assert fieller(5.0, 0.0, 1.0, 0.0, 1.0, 2.0)[1] == math.inf
    assert fieller(5.0, 0.0, 1.0, 0.0, 1.0, 2.0)[0] == pytest.approx(math.sqrt(21) / 2)


def test_parts_are_those_of_the_definition():
    small, big = np.array([10.0, 12.0, 9.0, 11.0]), np.array([4.0, 5.0, 4.5, 4.0])
    found = noise_scale(small, big, small=2, big=[8, 8, 16, 8])
    square = [(8 * 4 - 20) / 6, (40 - 24) / 6, (72 - 18) / 14, (32 - 22) / 6]
    trace = [6 / 0.375, 7 / 0.375, 4.5 / 0.4375, 7 / 0.375]
    assert found.square == pytest.approx(np.mean(square))
    assert found.trace == pytest.approx(np.mean(trace))
    assert found.value == pytest.approx(np.mean(trace) / np.mean(square))
    assert found.square_variance == pytest.approx(np.sum(np.diff(square) ** 2) / (2 * 3 * 4))
    assert found.covariance == pytest.approx(np.sum(np.diff(square) * np.diff(trace)) / (2 * 3 * 4))


def sample(rng, repeats, steps, micro, law, mean, heavy=False):
    """Squared norms of micro-batch gradients and of their means, shape (repeats, steps) each."""
    shape = (repeats, steps, micro, law.size)
    noise = rng.standard_t(5, shape) * math.sqrt(3 / 5) if heavy else rng.standard_normal(shape)
    g = mean + noise * np.sqrt(law)
    return np.sum(g**2, axis=3).mean(axis=2), np.sum(g.mean(axis=2) ** 2, axis=2)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("signal", "heavy"),
    [(3.0, False), (0.3, True), pytest.param(3.0, True, marks=SLOW), pytest.param(0.3, False, marks=SLOW)],
)
def test_coverage_over_steps(signal, heavy):
    """1000 resamplings of 40 steps of 4 micro-batches: 92 to 98 % of the sets hold the truth."""
    rng, law = np.random.default_rng(1), np.arange(1, 41) ** -1.0
    mean = np.zeros(40)
    mean[3] = math.sqrt(signal)
    truth = 8 * law.sum() / signal  # micro-batches of 8 examples
    small, big = sample(rng, 1000, 40, 4, law, mean, heavy)
    found = [noise_scale(a, b, small=8, big=32) for a, b in zip(small, big, strict=True)]
    held = [low <= truth <= high for low, high in (one.ci() for one in found)]
    assert 0.92 <= np.mean(held) <= 0.98
    bounded = np.mean([one.is_bounded() for one in found])
    assert bounded >= (0.95 if signal > 1 else 0.8)
    assert np.mean([one.trace for one in found]) == pytest.approx(8 * law.sum(), rel=0.02)
    assert np.mean([one.square for one in found]) == pytest.approx(signal, rel=0.05)


def test_coverage_without_signal():
    """No mean gradient: sets without an upper end, which hold the infinite truth."""
    rng, law = np.random.default_rng(2), np.ones(30)
    small, big = sample(rng, 400, 40, 4, law, 0.0)
    found = [noise_scale(a, b, small=1, big=4) for a, b in zip(small, big, strict=True)]
    open_ = np.mean([not one.is_bounded() for one in found])
    assert 0.92 <= open_ <= 0.98
    assert np.median([one.ci()[0] for one in found]) > 10
    text = str(next(one for one in found if not one.is_bounded()))
    assert "noise scale at least" in text
    assert "no upper bound" in text


def test_coverage_while_the_gradient_falls():
    """|G| falls tenfold over the steps: of the averages, and not of the trend."""
    rng, law, held, widths = np.random.default_rng(3), np.arange(1, 31) ** -1.0, [], []
    level = np.geomspace(3, 0.3, 60)
    truth = law.sum() / np.mean(level**2)
    for _ in range(400):
        g = rng.standard_normal((60, 4, 30)) * np.sqrt(law)
        g[:, :, 0] += level[:, None]
        one = noise_scale(
            np.sum(g**2, axis=2).mean(axis=1), np.sum(g.mean(axis=1) ** 2, axis=1), small=1, big=4
        )
        low, high = one.ci()
        held.append(low <= truth <= high)
        widths.append(high / low)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.median(widths) < 1.8


@pytest.mark.parametrize("signal", [1.0, 0.1])
def test_coverage_over_batches(signal):
    """One look at fixed weights: 40 batches of 2, by the jackknife."""
    rng, law, held = np.random.default_rng(4), np.arange(1, 41) ** -0.5, []
    mean = np.full(40, math.sqrt(signal / 40))
    truth = 2 * law.sum() / signal
    for _ in range(1000):
        found = noise_scale_from_batches(mean + rng.standard_normal((40, 40)) * np.sqrt(law), batch_size=2)
        low, high = found.ci()
        held.append(low <= truth <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_batches_by_brute_force():
    rng = np.random.default_rng(5)
    x = 0.5 + rng.standard_normal((9, 4))

    def parts(rows):
        n = len(rows)
        square = np.mean([rows[i] @ rows[j] for i in range(n) for j in range(n) if i != j])
        return np.array([3 * (np.mean(np.sum(rows**2, axis=1)) - square), square])

    found = noise_scale_from_batches(x, batch_size=3)
    assert [found.trace, found.square] == pytest.approx(parts(x))
    left = np.array([parts(np.delete(x, i, axis=0)) for i in range(9)])
    covariance = 8 / 9 * (left - left.mean(axis=0)).T @ (left - left.mean(axis=0))
    got = [[found.trace_variance, found.covariance], [found.covariance, found.square_variance]]
    assert np.array(got) == pytest.approx(covariance)
    far = noise_scale_from_batches(np.ldexp(x, -400), batch_size=3)
    assert far.value == pytest.approx(found.value, rel=1e-12)


def test_sketches_cover_too():
    """The same map at all steps: its error does not average out, and is in the interval."""
    rng, held, law = np.random.default_rng(6), [], np.arange(1, 401) ** -0.5
    mean = rng.standard_normal(400)
    mean *= math.sqrt(20) / np.linalg.norm(mean)
    truth = law.sum() / 20
    for seed in range(150):
        g = mean + rng.standard_normal((40, 400)) * np.sqrt(law)
        norms = np.linalg.norm(g, axis=1)
        found = noise_scale_from_batches(rot8(seed, g, 128), norms, batch_size=1)
        low, high = found.ci()
        held.append(low <= truth <= high)
        assert found.sketched
    assert np.mean(held) >= 0.92


def test_from_micro_records():
    rng = np.random.default_rng(7)
    for scale in (1.0, 0.125, 2.0**-100):  # what losses were multiplied by
        records, small, big = [], [], []
        for step in range(30):
            n = 1 if step == 5 else 2 + step % 3
            g = 1 + 2 * rng.standard_normal((n, 20))
            part = g * scale
            records.append(
                SimpleNamespace(
                    batches=n,
                    mean_square=np.mean(np.sum(part**2, axis=1)),
                    sum_square=np.sum(part.sum(axis=0) ** 2),
                )
            )
            if n > 1:
                small.append(np.mean(np.sum((n * part) ** 2, axis=1)))
                big.append(records[-1].sum_square)
        found = noise_scale_from_micro(records, batch_size=3)
        n = np.array([record.batches for record in records if record.batches > 1])
        expected = noise_scale(small, big, small=3, big=3 * n)
        assert found.value == pytest.approx(expected.value, rel=1e-12)
        assert found.ci() == pytest.approx(expected.ci(), rel=1e-9)
        assert found.samples == 29
    unknown = noise_scale_from_micro(records)
    assert unknown.value == pytest.approx(found.value / 3, rel=1e-12)
    assert "examples" not in str(unknown)
    assert f"{unknown.value:.3g} micro-batches" in str(unknown)
    assert noise_scale_from_micro(records, batch_size=3, buckets=4096).square_variance > found.square_variance


def test_in_words():
    found = noise_scale([10.0, np.nan, 12.0, 9.0, 11.0], [4.0, 5.0, 5.0, 4.5, 4.0], small=2, big=8)
    assert found.nonfinite == 1
    assert has(found, "1 steps with NaN or infinite values are left out")
    assert has(found, "4 steps are few: at least 20")
    assert str(found).startswith("noise scale ")
    far = np.full(40, 5.0)
    far[7] = 500.0
    assert has(noise_scale(2 * far, far, small=1, big=4), "few of the steps carry the spread")
    zero = noise_scale(np.zeros(5), np.zeros(5), small=1, big=2)
    assert (zero.value, zero.ci(), zero.stderr) == (math.inf, (0.0, math.inf), math.inf)
    assert "open" in str(zero)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 2"):
        found.ci(2)


REFUSED = [
    (
        {"small_square": [1.0] * 3, "big_square": [1.0] * 3},
        ValueError,
        "small_square: expected at least 4 steps",
    ),
    (
        {"big_square": [1.0] * 3},
        ValueError,
        r"big_square: expected shape \(5,\) of one dimension, got \(3,\)",
    ),
    ({"small_square": [-1.0] * 5}, ValueError, "small_square: expected squares of at least 0, got -1"),
    ({"small_square": ["x"] * 5}, TypeError, "small_square: expected an array of real numbers"),
    ({"big": 2}, ValueError, "big: expected more examples than the small batch's 2, got 2"),
    ({"small": 0}, ValueError, "small: expected a positive int, got 0"),
    ({"small": 1.5}, TypeError, "small: expected a positive int"),
    ({"big": [8, 8]}, ValueError, r"big: expected an int, or shape \(5,\), got \(2,\)"),
    ({"buckets": 0}, ValueError, "buckets: expected a positive int, got 0"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refused(changed, error, message):
    settings = {"small_square": [2.0] * 5, "big_square": [1.0] * 5, "small": 2, "big": 8} | changed
    with pytest.raises(error, match=message):
        noise_scale(settings.pop("small_square"), settings.pop("big_square"), **settings)


def test_refused_batches():
    with pytest.raises(ValueError, match="vectors: expected at least 4 batches with finite values, got 3"):
        noise_scale_from_batches(np.ones((3, 2)), batch_size=1)
    with pytest.raises(
        ValueError, match="records: expected at least 4 steps of two micro-batches or more, got 0"
    ):
        noise_scale_from_micro([], batch_size=1)
    with pytest.raises(TypeError, match="batch_size: expected a positive int"):
        noise_scale_from_batches(np.ones((5, 2)), batch_size=1.0)
