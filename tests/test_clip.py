"""Clip thresholds: rates that hold for steps to come, intervals that cover, and which steps are used."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats
from tails import has

from gradtail import GradientStream
from gradtail.estimators import clip_rate, suggest_clip
from gradtail.estimators.series import correlation_time, ranks

SPREAD = 0.3


def norms_of(rng, n, memory=0.0):
    """Log-normal norms whose logarithms are a stationary AR(1) series."""
    steps = signal.lfilter([math.sqrt(1 - memory**2)], [1, -memory], rng.standard_normal(n + 200))[200:]
    return np.exp(SPREAD * steps)


def law(rate):
    return math.exp(SPREAD * stats.norm.ppf(1 - rate))


def exceedance(threshold):
    return stats.norm.sf(math.log(threshold) / SPREAD)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("n", "rate"), [(150, 0.05), (400, 0.05), (1000, 0.02)])
def test_intervals_cover(memory, n, rate):
    rng, repeats = np.random.default_rng([1, n]), 150
    held, real = np.zeros(3), []
    for _ in range(repeats):
        norms = norms_of(rng, n, memory)
        found, used = suggest_clip(norms, rate=rate), clip_rate(norms, law(0.1))
        real.append(exceedance(found.threshold))
        ends = [(found.ci(), law(rate)), (found.rate_ci(), real[-1]), (used.ci(), 0.1)]
        held += [low <= truth <= high for (low, high), truth in ends]
    assert np.all(held / repeats >= 0.9), held / repeats
    if memory < 0.9:  # the expected rate holds for steps to come
        assert np.mean(real) == pytest.approx(rate, rel=0.1, abs=4 * np.std(real) / math.sqrt(repeats))


def test_rate_is_exact_for_exchangeable_norms():
    """The next norm exceeds the threshold with just that probability, however few there are."""
    rng = np.random.default_rng(2)
    real = [exceedance(suggest_clip(norms_of(rng, 40)).threshold) for _ in range(3000)]
    assert np.mean(real) == pytest.approx(0.05, abs=4 * np.std(real) / math.sqrt(3000))


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (lambda t: np.where(t < 40, 10 * 0.9**t + 1, 1), 0.5),
        (lambda t: 1 + 5 * np.exp(-t / 60), 0.2),
        (lambda t: np.where(t < 360, 1.0, 2.0), 0.2),
    ],
    ids=["warm-up", "decay", "jump"],
)
def test_early_steps_are_left_out(level, kept):
    rng, repeats, n = np.random.default_rng(3), 60, 600
    t = np.arange(n)
    ratios, shares = [], []
    for _ in range(repeats):
        found = suggest_clip(level(t) * norms_of(rng, n), steps=10 * t)
        ratios.append(found.threshold / (level(t)[-1] * law(0.05)))
        shares.append(found.n / n)
        assert found.last_step == 10 * (n - 1)
        assert found.first_step == 10 * (n - found.n)
    assert np.mean(ratios) == pytest.approx(1, abs=0.06)
    assert np.mean(shares) >= kept
    assert np.mean(shares) < 1


def test_a_short_record_with_a_warm_up_is_cut():
    """A fifth of the record is warm-up, which lengthens the memory that its drift is judged by."""
    rng, t, repeats = np.random.default_rng(12), np.arange(90), 60
    level = np.where(t < 20, 1 + 10 * np.exp(-t / 6), 1.0)
    found = [suggest_clip(level * norms_of(rng, 90)) for _ in range(repeats)]
    assert np.median([one.threshold for one in found]) == pytest.approx(law(0.05), rel=0.15)
    assert np.mean([one.threshold > 3 for one in found]) <= 0.1
    assert np.mean([one.first_step >= 15 for one in found]) >= 0.9
    used = [clip_rate(level * norms_of(rng, 90), law(0.1)) for _ in range(repeats)]
    assert np.mean([one.first_step >= 15 for one in used]) >= 0.85


def test_shown_in_a_few_words():
    norms = norms_of(np.random.default_rng(13), 300)
    assert str(clip_rate(norms, 1.0)).startswith("a threshold of 1 clips ")
    for text in (repr(clip_rate(norms, 1.0)), repr(suggest_clip(norms))):
        assert len(text) < 250
    assert "upper end unknown" in str(suggest_clip(norms[:40]))


def test_trend_is_told():
    rng, n = np.random.default_rng(4), 200
    told = lambda level: np.mean(
        [has(suggest_clip(level * norms_of(rng, n)), "do not keep their level") for _ in range(60)]
    )
    assert told(np.geomspace(30, 1, n)) >= 0.9
    assert told(np.ones(n)) <= 0.05
    found = suggest_clip(np.geomspace(100, 1, n) * norms_of(rng, n), last=100)
    assert any("they fell from" in w for w in found.warnings)


def test_record_that_grows_slower_than_its_memory_is_level():
    rng = np.random.default_rng(5)
    used = [suggest_clip(norms_of(rng, 400, 0.8)).n for _ in range(60)]
    assert np.mean(np.array(used) == 400) >= 0.9


def test_last_takes_so_many():
    norms = norms_of(np.random.default_rng(6), 300)
    found = suggest_clip(norms, last=100)
    assert (found.first_step, found.last_step, found.n) == (200, 299, 100)
    assert found.threshold == pytest.approx(np.quantile(norms[-100:], 0.95, method="weibull"))
    assert clip_rate(norms, 1.0, last=100).rate == np.mean(norms[-100:] > 1)
    everything = suggest_clip(norms)
    assert (everything.first_step, everything.n) == (0, 300)
    assert everything.threshold == pytest.approx(np.quantile(norms, 0.95, method="weibull"))


def test_nonfinite_steps_are_told_apart():
    norms = norms_of(np.random.default_rng(7), 300)
    broken = norms.copy()
    broken[[10, 50]], broken[200] = np.nan, np.inf
    found, clean = suggest_clip(broken), suggest_clip(np.delete(norms, [10, 50, 200]))
    assert (found.threshold, found.n, found.nonfinite) == (clean.threshold, 297, 3)
    assert has(found, "3 of these steps had NaN or infinite values")
    assert clip_rate(broken, 1.0).nonfinite == 3
    assert clip_rate(broken, 1.0).rate == np.mean(np.delete(norms, [10, 50, 200]) > 1)


def test_few_norms_are_warned_of_and_fewer_refused():
    norms = norms_of(np.random.default_rng(8), 40)
    found = suggest_clip(norms)
    assert has(found, "40 norms are few for a rate of 5 %")
    assert found.ci()[1] == math.inf
    assert 0 < found.stderr < math.inf
    with pytest.raises(ValueError, match="norms: expected at least 20 finite ones, got 19"):
        suggest_clip(norms[:19])
    with pytest.raises(ValueError, match="norms: expected at least 100 finite ones, got 40"):
        suggest_clip(norms, rate=0.01)
    with pytest.raises(ValueError, match="norms: expected at least 20 finite ones, got 0"):
        suggest_clip([])
    with pytest.raises(ValueError, match="norms: expected at least 2 finite ones, got 1"):
        clip_rate([1.0, math.nan], 1.0)


def test_clipped_norms_are_noticed():
    norms = np.minimum(norms_of(np.random.default_rng(9), 300), 1.0)
    assert has(suggest_clip(norms), "were they taken after clipping?")


def test_equal_and_zero_norms():
    for value in (0.0, 2.5):
        found = suggest_clip(np.full(100, value))
        assert found.threshold == value
        assert found.ci()[0] == value
        str(found)


@given(exponent=st.integers(-300, 300), seed=st.integers(0, 20))
def test_threshold_scales_with_the_norms(exponent, seed):
    norms = norms_of(np.random.default_rng(seed), 120, 0.3)
    one, other = suggest_clip(norms), suggest_clip(np.ldexp(norms, exponent))
    assert math.ldexp(one.threshold, exponent) == other.threshold
    assert (one.n, one.n_effective, one.rate_ci()) == (other.n, other.n_effective, other.rate_ci())


def test_correlation_time():
    rng = np.random.default_rng(10)
    for memory in (0.0, 0.5, 0.8):
        times = [correlation_time(np.log(norms_of(rng, 4000, memory))) for _ in range(20)]
        assert np.mean(times) == pytest.approx((1 + memory) / (1 - memory), rel=0.15, abs=0.15)
    assert correlation_time(np.ones(50)) == 1
    assert np.array_equal(ranks([3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0])


def test_stream_suggests_from_its_record():
    stream, rng = GradientStream(history=64), np.random.default_rng(11)
    for step in range(200):  # the record thins out
        stream.update({"a": rng.lognormal() * np.ones(4)}, step)
    found, record = stream.suggest_clip(), stream.history
    assert len(record) < 200
    assert found.threshold == suggest_clip(record.norm, steps=record.steps).threshold
    assert found.last_step == record.steps[-1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"norms": [[1.0]]}, ValueError, "norms: expected one number a step, got shape"),
        ({"norms": ["a"]}, TypeError, "norms: expected an array of real numbers"),
        ({"norms": -np.ones(30)}, ValueError, "norms: expected numbers of at least 0, got -1"),
        ({"rate": 0.7}, ValueError, "rate: expected a number above 0 and at most 0.5, got 0.7"),
        ({"rate": True}, TypeError, "rate: expected a number"),
        ({"steps": [1, 2]}, ValueError, r"steps: expected shape \(30,\), got \(2,\)"),
        ({"steps": np.ones(30)}, TypeError, "steps: expected an array of ints, got dtype float64"),
        ({"last": 0}, ValueError, "last: expected a positive int, got 0"),
        ({"last": 1.5}, TypeError, "last: expected a positive int, got 1.5"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        suggest_clip(**{"norms": np.ones(30), **arguments})
    with pytest.raises(ValueError, match="max_norm: expected a positive number, got 0"):
        clip_rate(np.ones(30), 0)
    with pytest.raises(TypeError, match="max_norm: expected a positive number"):
        clip_rate(np.ones(30), "1")
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        suggest_clip(np.ones(30)).ci(2)
