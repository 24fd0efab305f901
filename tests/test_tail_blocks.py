"""Hill's estimator over blocks of steps: its error bars, its curve, and what it falls back to."""

import math

import numpy as np
import pytest
from tails import has, merged

from gradtail import Summary, summarize
from gradtail.estimators import hill, hill_blocks, hill_curve_blocks


def test_blocks_cover_what_iid_does_not():
    # alpha differs between blocks as between batches: the truth of the pooled values is that of
    # infinitely many blocks, a typical block has the median.
    rng, share, blocks, size = np.random.default_rng(14), 0.05, 20, 2000
    deviate, weight = np.polynomial.hermite_e.hermegauss(60)
    alphas, weight = 2 * np.exp(0.15 * deviate), weight / weight.sum()
    low, high = 1.0, 1e3
    for _ in range(100):
        u = math.sqrt(low * high)
        low, high = (u, high) if weight @ u**-alphas > share else (low, u)
    truth = share / (weight @ (u**-alphas / alphas))
    hits = np.zeros(2)
    for _ in range(300):
        own = 2 * np.exp(0.15 * rng.standard_normal(blocks))
        states = [summarize(rng.pareto(a, size) + 1) for a in own]
        found = hill_blocks(states, k=share)
        whole = hill(merged(states), k=share)
        intervals = (2.0, found.ci()), (truth, whole.ci())  # a typical block's alpha; that of all values
        hits += [low <= value <= high for value, (low, high) in intervals]
    assert found.spread == "blocks"
    assert found.blocks == blocks
    assert 0.90 <= hits[0] / 300 <= 0.985
    assert hits[1] / 300 < 0.85


@pytest.mark.parametrize("k", ["auto", 0.3])
def test_blocks_of_other_scales_are_no_mixture(k):
    rng = np.random.default_rng(16)
    scales = 10.0 ** np.linspace(-2, 0, 12)
    states = [summarize(scale * (rng.pareto(3.0, 20_000) + 1)) for scale in scales]
    found = hill_blocks(states, k)
    low, high = found.ci()
    assert low < 3 < high
    assert found.plateau is True
    if k != "auto":
        assert hill(merged(states), k).ci()[1] < 2
        assert any(w.startswith("scales differ between blocks of steps") for w in found.warnings)
    alike = hill_blocks([summarize(rng.pareto(3.0, 20_000) + 1) for _ in range(12)], k)
    assert not any("scales" in w for w in alike.warnings)


def test_curve_of_blocks_agrees_with_the_estimate():
    rng = np.random.default_rng(17)
    states = [summarize(rng.standard_t(3, 5000) * 10.0**i) for i in range(6)]
    curve = hill_curve_blocks(states)
    assert curve.blocks == 6
    assert np.all(np.diff(curve.k) > 0)
    for i in range(0, curve.k.size, 7):
        one = hill_blocks(states, int(curve.k[i]))
        if one.k == curve.k[i]:
            assert (curve.alpha[i], curve.stderr[i], curve.threshold[i]) == pytest.approx(
                (one.alpha, one.stderr, one.threshold), rel=1e-9
            )
            assert [float(end[i]) for end in curve.ci()] == pytest.approx(one.ci(), rel=1e-9)
    with pytest.raises(ValueError, match="blocks: expected at least 3 with values, got 2"):
        hill_curve_blocks(states[:2])
    with pytest.raises(ValueError, match="points: expected an int of at least 2, got 1"):
        hill_curve_blocks(states, points=1)


def test_log_alpha_of_a_block_is_unbiased():
    rng = np.random.default_rng(18)
    k = 5
    states = [summarize(rng.pareto(2.0, 100) + 1, bits=6) for _ in range(1000)]  # 256 KiB each
    found = hill_blocks(states, 1000 * k)
    assert found.k == 1000 * k
    # Var log(estimate) is trigamma(5) = 0.22: four standard errors of the mean over 1000 blocks
    assert math.log(found.alpha / 2) == pytest.approx(0, abs=4 * math.sqrt(0.2213 / 1000))


def test_few_blocks_fall_back_to_iid():
    rng = np.random.default_rng(21)
    states = [summarize(rng.pareto(2.0, 5000) + 1) for _ in range(2)]
    found, whole = hill_blocks([*states, Summary()], k=500), hill(merged(states), k=500)
    assert (found.spread, found.blocks, found.alpha, found.ci()) == ("iid", None, whole.alpha, whole.ci())
    assert has(found, "2 blocks with values are too few")


def test_blocks_of_iid_values_agree_with_the_iid_error():
    rng = np.random.default_rng(22)
    ratio = []
    for _ in range(60):
        states = [summarize(rng.pareto(2.0, 4000) + 1, bits=7).magnitudes for _ in range(25)]
        found = hill_blocks(states, k=0.02)
        ratio.append(found.stderr / (found.alpha / math.sqrt(found.k)))
    assert found.plateau is True
    assert np.sqrt(np.mean(np.square(ratio))) == pytest.approx(1.0, abs=0.1)
