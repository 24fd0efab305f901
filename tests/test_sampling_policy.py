"""Three ways of drawing batches told apart: exact sizes, power, sketches, phases, what else there may be."""

import numpy as np
import pytest
from epoch_noise import POLICIES, batches, examples
from scipy import stats
from tails import has
from test_autocorrelation import rot8

from gradtail import GradientStream, sampling_policy

CASES = [  # slope of the spectrum, elements, period, epochs, batch, buckets of a sketch, phase known
    (1.0, 600, 20, 3, 3, None, True),
    (1.5, 300, 12, 4, 4, None, False),
    (1.0, 6000, 16, 3, 2, 4096, True),
]


def outcomes(case, repeats, seed):
    """Results under each truth, and how near their participation ratios are to those of the examples."""
    slope, size, period, epochs, batch, buckets, known = case
    rng = np.random.default_rng(seed)
    found, ratios = ({truth: [] for truth in POLICIES} for _ in range(2))
    for i in range(repeats):
        for truth in POLICIES:
            noise = examples(rng, period * batch, size, slope)
            skipped = 0 if known else int(rng.integers(period))
            x = batches(rng, noise, period, epochs, truth, skipped)
            x = x if buckets is None else rot8(i, x, buckets)
            phase = (-skipped) % period if known else None
            one = sampling_policy(x, period=period, phase=phase, permutations=199, seed=i)
            found[truth].append(one)
            spread = np.linalg.eigvalsh(noise @ noise.T)
            ratios[truth].append(one.participation_ratio / (spread.sum() ** 2 / np.sum(spread**2)))
    return found, ratios


@pytest.mark.parametrize("repeats", [12, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_told_apart_at_size_5_percent(case, repeats):
    """Power at least 0.9 for each pair; the truth is rejected as often as said."""
    found, ratios = outcomes(case, repeats, 1)
    for truth in POLICIES:
        for other in POLICIES:
            rejected = np.mean([one.pvalues[other] <= 0.05 for one in found[truth]])
            if other == truth:
                assert rejected <= stats.binom.ppf(0.995, repeats, 0.05) / repeats
            else:
                assert rejected >= 0.9, (truth, other)
        assert np.mean([one.verdict == truth for one in found[truth]]) >= 0.8
        assert np.median([one.least_power for one in found[truth]]) >= 0.9
        # batches of one epoch share no example: their products show the law that the examples are from
        assert 0.5 < np.median(ratios[truth]) < 3


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_size_of_both_permutation_tests(repeats):
    """Few directions, few steps, heavy tails, an unknown phase: p-values are uniform all the same."""
    rng, level = np.random.default_rng(4), np.array([0.01, 0.05, 0.2, 0.5])
    for truth in ("replacement", "reshuffle"):
        p = []
        for i in range(repeats):
            noise = examples(rng, 24, 5, 2.0) ** 3
            noise -= noise.mean(axis=0)
            x = batches(rng, noise, 6, 3, truth, skipped=int(rng.integers(6)))
            p.append(sampling_policy(x, period=6, permutations=99, seed=i).pvalues[truth])
        counts = (np.array(p)[:, None] <= level).sum(axis=0)
        assert np.all(counts <= stats.binom.ppf(0.998, repeats, level)), counts
        if truth == "reshuffle":  # not merely conservative; the other is, a little, where its three parts tie
            assert np.all(counts[1:] >= stats.binom.ppf(0.002, repeats, level)[1:]), counts


def test_remainder_and_repetition():
    rng = np.random.default_rng(3)
    noise = examples(rng, 60, 400, 0.5)
    x = batches(rng, noise, 20, 4, "reshuffle")
    found = sampling_policy(x, period=20, phase=0)
    assert found.remainder < 1e-20
    assert abs(found.repetition) < 0.1
    assert (found.epochs, found.steps, found.phase, found.verdict) == (4, 80, 0, "reshuffle")
    sums = [x[20 * e : 20 * (e + 1)].sum(axis=0) for e in range(4)]
    white = batches(rng, noise, 20, 4, "replacement")
    found = sampling_policy(white, period=20, phase=0)
    sums = [white[20 * e : 20 * (e + 1)].sum(axis=0) for e in range(4)]
    assert found.remainder == pytest.approx(np.sum(np.square(sums)) / np.sum(white**2), rel=1e-9)
    pairs = np.einsum("tm,tm->", white[:-20], white[20:])
    both = (np.sum(white[:-20] ** 2) + np.sum(white[20:] ** 2)) / 2
    assert found.repetition == pytest.approx(pairs / both, rel=1e-9)
    assert found.correlation[7] == pytest.approx(
        np.einsum("tm,tm->t", white[:-7], white[7:]).mean() / np.mean(np.sum(white**2, axis=1)), rel=1e-9
    )
    fixed = sampling_policy(batches(rng, noise, 20, 4, "fixed", 7), period=20)
    assert fixed.repetition == pytest.approx(1.0)
    assert fixed.verdict == "fixed"


def test_phase_is_found():
    rng = np.random.default_rng(4)
    for skipped in (0, 1, 9):
        x = batches(rng, examples(rng, 30, 100, 1.0), 10, 2, "reshuffle", skipped)
        assert sampling_policy(x, period=10).phase == (-skipped) % 10


def test_leaks_of_the_full_gradient():
    """Examples left over by the last batch, and noise that is not of the choice of examples."""
    rng = np.random.default_rng(5)
    noise = examples(rng, 63, 300, 0.5)  # 3 examples of 63 are left over
    rows = [noise[rng.permutation(63)[:60]].reshape(15, 4, -1).mean(axis=1) for _ in range(4)]
    found = sampling_policy(np.concatenate(rows), period=15, phase=0)
    assert 0.02 < found.remainder < 0.1
    assert found.verdict == "reshuffle"
    x = batches(rng, examples(rng, 60, 300, 0.5), 15, 4, "reshuffle")
    dropout = rng.standard_normal(x.shape) * np.sqrt(np.mean(x**2))
    assert sampling_policy(x + 0.2 * dropout, period=15).verdict == "reshuffle"
    half = sampling_policy(x + dropout, period=15)
    assert half.verdict is None
    assert half.accepted == ()
    assert "none of the three ways" in str(half)
    assert sampling_policy(x + dropout, period=15, leak=0.7).verdict == "reshuffle"


def test_sorted_epochs_are_none_of_the_three():
    """Batches of like examples side by side: nothing is left over epochs, but the order is not random."""
    rng = np.random.default_rng(6)
    rows = []
    for _ in range(4):
        drift = np.sin(2 * np.pi * (np.arange(16) + rng.integers(16)) / 16)[:, None] * np.ones(200)
        one = drift + rng.standard_normal((16, 200))
        rows.append(one - one.mean(axis=0))
    found = sampling_policy(np.concatenate(rows), period=16, phase=0)
    assert found.remainder < 1e-20
    assert found.pvalues["reshuffle"] <= 0.01
    assert found.verdict is None


def test_too_few_directions_are_told():
    rng = np.random.default_rng(7)
    x = batches(rng, examples(rng, 40, 2, 4.0), 20, 2, "replacement")
    found = sampling_policy(x, period=20)
    assert found.participation_ratio < 2
    assert found.least_power < 0.9
    assert has(found, "40 steps are few for noise worth 1.36 series")
    rich = sampling_policy(batches(rng, examples(rng, 80, 500, 0.3), 20, 4, "replacement"), period=20)
    assert rich.least_power > 0.99
    assert rich.warnings == ()
    for wrong in ("white", "replacement"):
        with pytest.raises(ValueError, match="truth: expected"):
            rich.power("replacement", wrong)


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_power_is_as_said(repeats):
    """White noise of few directions, whose sums over epochs are small by chance now and then."""
    rng, kept, said = np.random.default_rng(8), [], []
    for i in range(repeats):
        x = batches(rng, examples(rng, 24, 3, 1.0), 12, 2, "replacement")
        found = sampling_policy(x, period=12, phase=0, permutations=99, seed=i)
        kept.append(found.pvalues["reshuffle"] == 0)
        said.append(found.power("reshuffle", "replacement"))
    share = np.mean(said)
    assert np.mean(kept) == pytest.approx(share, abs=0.02 + 2.5 * np.sqrt(share * (1 - share) / repeats))


def test_of_a_stream_and_in_words():
    rng = np.random.default_rng(9)
    stream = GradientStream(sketch=512)
    for row in batches(rng, examples(rng, 48, 3000, 0.5), 16, 3, "reshuffle"):
        stream.update({"w": row})
    ring = stream.ring()
    found = sampling_policy(ring.vectors, period=16, steps=ring.steps, level=0.01)
    assert found.verdict == "reshuffle"
    assert str(found).startswith("order of batches: epochs that are shuffled anew; 48 steps, epochs of 16")
    assert len(repr(found)) < 100
    assert sampling_policy(ring.vectors, period=16, level=0.01).pvalues == found.pvalues


REFUSED = [
    ({"period": 11}, ValueError, "period: expected an int from 2 to 10, half of the 20 steps, got 11"),
    ({"period": 5.0}, TypeError, "period: expected an int from 2 to 10"),
    ({"phase": 5}, ValueError, "phase: expected an int from 0 to 4, below the period, got 5"),
    (
        {"period": 10, "phase": 1},
        ValueError,
        "vectors: expected two whole epochs of 10 from step 1, got 20 steps",
    ),
    ({"steps": 2 * np.arange(20)}, ValueError, "steps: expected consecutive steps"),
    ({"level": 1.0}, ValueError, "level: expected a number between 0 and 1, got 1"),
    ({"leak": 1.0}, ValueError, "leak: expected a number from 0 to below 1, got 1"),
    ({"permutations": 10}, ValueError, "permutations: expected an int from 99, got 10"),
    ({"vectors": np.zeros((20, 3))}, ValueError, "vectors: expected some noise, got zeros"),
    ({"vectors": np.full((20, 3), np.nan)}, ValueError, "vectors: expected at least 2 steps with finite"),
    ({"vectors": np.where(np.arange(20) == 3, np.nan, 1.0)[:, None]}, ValueError, "got 1 rows with NaN"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refused(changed, error, message):
    settings = {"vectors": np.random.default_rng(0).standard_normal((20, 3)), "period": 5} | changed
    with pytest.raises(error, match=message):
        sampling_policy(settings.pop("vectors"), **settings)
