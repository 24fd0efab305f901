"""Quantiles over blocks of steps: which value, which error, and where there is none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tails import has, merged

from gradtail import Summary, summarize
from gradtail.estimators import quantile_blocks


def blocks_of(rng, blocks=16, size=1500, spread=0.2, bits=4):
    """Half-normal values, each block of a scale of its own."""
    scales = np.exp(spread * rng.standard_normal(blocks))
    return [summarize(scale * rng.standard_normal(size), bits=bits) for scale in scales]


@pytest.mark.parametrize("q", [0.1, 0.5, 0.99])
def test_intervals_cover(q):
    rng, truth, repeats = np.random.default_rng(1), stats.halfnorm.ppf(q), 200
    held = 0
    for _ in range(repeats):
        low, high = quantile_blocks(blocks_of(rng, blocks=12), q).ci()
        held += low <= truth <= high
    assert 0.91 <= held / repeats <= 0.99


@pytest.mark.parametrize("q", [0.0, 0.3, 0.9])
def test_value_is_the_geometric_mean(q):
    states = blocks_of(np.random.default_rng(2))
    found = quantile_blocks(states, q)
    logs = np.log([state.quantile(q) for state in states])
    assert found.value == pytest.approx(math.exp(logs.mean()))
    sampling = logs.std(ddof=1) / math.sqrt(16)
    assert found.stderr == pytest.approx(found.value * math.hypot(sampling, found.bin_stderr / found.value))
    half = math.hypot(
        stats.t.ppf(0.975, 15) * sampling, stats.norm.ppf(0.975) * found.bin_stderr / found.value
    )
    low, high = found.ci()
    assert np.log([low, high]) == pytest.approx([logs.mean() - half, logs.mean() + half])
    assert (found.q, found.n, found.blocks) == (q, 16 * 1500, 16)


@given(exponent=st.integers(-60, 60), seed=st.integers(0, 10))
def test_scaling_and_order(exponent, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(50) for _ in range(5)]
    one = quantile_blocks([summarize(a) for a in arrays], 0.7)
    other = quantile_blocks([summarize(np.ldexp(a, exponent)) for a in arrays[::-1]], 0.7)
    assert other.value == pytest.approx(math.ldexp(one.value, exponent), rel=1e-9)
    assert other.stderr == pytest.approx(math.ldexp(one.stderr, exponent), rel=1e-6)


def test_bin_width_is_in_the_error():
    """Equal blocks differ by nothing: what is left is where in its bin the quantile lies."""
    x = np.random.default_rng(3).standard_normal(200_000)
    exact = np.quantile(np.abs(x), 0.99)
    for bits in (0, 2, 4):
        found = quantile_blocks([summarize(x, bits=bits)] * 5, 0.99)
        assert found.stderr == pytest.approx(found.bin_stderr)
        assert abs(math.log(found.value / exact)) <= 3 * found.stderr / found.value
    points = x[:1000].astype(np.float16)
    found = quantile_blocks([summarize(points, bits=10)] * 5, 0.99)
    assert found.stderr == found.bin_stderr == 0


def test_other_scales_are_told():
    rng = np.random.default_rng(4)
    states = [summarize(scale * rng.standard_normal(1000)) for scale in np.geomspace(1, 1e4, 12)]
    found = quantile_blocks(states, 0.9)
    together = merged(states).quantile(0.9)
    assert has(found, f"scales differ between blocks of steps: all values together would read {together:.3g}")
    assert not quantile_blocks(blocks_of(rng), 0.9).warnings


def test_zeros():
    sparse = [summarize(np.append(np.zeros(900), np.ones(100) * (i + 1))) for i in range(6)]
    found = quantile_blocks(sparse, 0.5)
    assert (found.value, found.stderr, found.ci()) == (0.0, 0.0, (0.0, 0.0))
    assert quantile_blocks(sparse, 0.95).ci()[0] > 0
    mixed = [*sparse, summarize(np.ones(1000))]
    found = quantile_blocks(mixed, 0.5)
    assert has(found, "in 6 of 7 blocks the quantile is zero")
    assert math.isnan(found.stderr)
    assert np.isnan(found.ci()).all()


def test_few_blocks():
    states = blocks_of(np.random.default_rng(5), blocks=2)
    found = quantile_blocks([*states, Summary()], 0.5)
    assert has(found, "2 blocks with values are too few for an error (3 needed)")
    assert found.value == merged(states).quantile(0.5)
    assert math.isnan(found.stderr)
    assert has(quantile_blocks(blocks_of(np.random.default_rng(6), blocks=4), 0.5), "4 blocks are few")
    str(found)


def test_nonfinite_values_are_told():
    x = np.append(np.ones(10), np.nan)
    assert has(quantile_blocks([summarize(x)] * 3, 0.5), "3 non-finite values are left out")


def test_refused():
    state = summarize(np.ones(3))
    for q in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="q: expected a number from 0 to below 1"):
            quantile_blocks([state], q)
    with pytest.raises(TypeError, match="q: expected a number"):
        quantile_blocks([state], [0.5])
    with pytest.raises(TypeError, match="blocks: expected a sequence of summaries"):
        quantile_blocks(state, 0.5)
    with pytest.raises(ValueError, match="blocks: expected at least one finite value"):
        quantile_blocks([Summary()], 0.5)
    with pytest.raises(ValueError, match="blocks: expected one number of bits"):
        quantile_blocks([state, summarize(np.ones(3), bits=2)], 0.5)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        quantile_blocks([state] * 3, 0.5).ci(0)
