"""Fits of power laws to histograms: as good as to the values, at a cost that bins set."""

import math

import numpy as np
import pytest
from scipy import optimize
from tails import LAWS, as_bfloat16, has

from gradtail import powerlaw, summarize


@pytest.mark.parametrize("law", ["pareto(1.5)", "pareto(2)", "t(3)", "cauchy", "exponential", "normal"])
@pytest.mark.parametrize("n", [10_000, 1_000_000])
def test_bins_agree_with_values(law, n):
    for share in (0.1, 0.01, 0.001):
        if share * n < 300:
            continue
        gaps = []
        for seed in range(3):
            x = LAWS[law](np.random.default_rng(seed), n).astype(np.float32)  # as the bins have them
            binned = summarize(x)
            edges = binned.magnitudes.edges
            xmin = edges[np.searchsorted(edges, np.quantile(np.abs(x), 1 - share))]
            raw, bins = powerlaw.fit(x, xmin=xmin), powerlaw.fit(binned, xmin=xmin)
            assert bins.form == "bins"
            assert bins.warnings == raw.warnings
            assert (bins.xmin, bins.n_tail, bins.n) == (raw.xmin, raw.n_tail, raw.n)
            # not known to the bins: where in them the values lie, uniformly over log(2) / 16 or so
            chance = raw.alpha**2 * math.log(2) / 16 / math.sqrt(12 * raw.n_tail) / raw.exponent
            wanted = 0.01 if law == "normal" and share == 0.001 else 0.005
            assert bins.exponent == pytest.approx(raw.exponent, rel=max(wanted, 3.5 * chance))
            gaps.append(abs(bins.ks - raw.ks))
        assert np.mean(gaps) < (0.003 if raw.n_tail >= 1e5 else 0.6 / math.sqrt(raw.n_tail))


@pytest.mark.parametrize("law", ["pareto(1.5)", "pareto(2)", "t(3)", "cauchy"])
def test_searched_bins_agree_with_values(law):
    for seed in range(5):
        x = LAWS[law](np.random.default_rng(seed), 200_000)
        raw, bins = powerlaw.fit(x), powerlaw.fit(summarize(x))
        assert abs(bins.exponent - raw.exponent) < 2 * math.hypot(raw.stderr, bins.stderr)
        assert bins.search == "exact"


@pytest.mark.parametrize("bits", [0, 2, 4, 7, 10])
def test_likelihood_of_bins_is_at_its_maximum(bits):
    x = np.random.default_rng(9).pareto(1.8, 3000) + 1
    found = powerlaw.fit(summarize(x, bits=bits), xmin=2.0)
    sample = found._data.sample(found._at)

    def loss(alpha):
        return -np.sum(sample.count * np.log(np.exp(-alpha * sample.low) - np.exp(-alpha * sample.high)))

    plain = optimize.minimize_scalar(loss, bounds=(0.1, 10), options={"xatol": 1e-11})
    assert found.alpha == pytest.approx(plain.x, rel=1e-6)
    h = 1e-3
    curvature = (loss(plain.x + h) - 2 * loss(plain.x) + loss(plain.x - h)) / h**2
    assert found.stderr == pytest.approx(curvature**-0.5, rel=1e-3)


def test_cost_of_bins_does_not_depend_on_how_much_they_hold():
    """Counts beyond any array: a trillion values."""
    one = summarize(np.random.default_rng(10).pareto(2.0, 100_000) + 1)
    many = one
    for _ in range(23):
        many = many.merge(many)
    few, all_ = powerlaw.fit(one, xmin=1), powerlaw.fit(many, xmin=1)
    assert all_.n_tail == few.n_tail << 23
    assert all_.exponent == pytest.approx(few.exponent, rel=1e-12)
    assert all_.stderr == pytest.approx(few.stderr / math.sqrt(2**23), rel=1e-9)
    assert all_.pvalue(20) == 0.0  # a trillion of them: bins of 1e5 values are no smooth law


def test_rounded_values_are_intervals_about_points():
    """bfloat16 has 128 values a binade; as points their ties would rule out every law at 1e6 values."""
    x = (np.random.default_rng(11).pareto(1.5, 1_000_000) + 1).astype(np.float32)
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    import ml_dtypes

    binned = summarize(rounded.astype(ml_dtypes.bfloat16), bits=7)
    assert binned.magnitudes.exact
    found = powerlaw.fit(binned, xmin=4.0)
    assert found.exponent == pytest.approx(2.5, abs=4 * found.stderr)
    assert found.xmin == pytest.approx(4.0, rel=2**-7)
    assert found.n_tail == np.count_nonzero(rounded >= 4)
    assert found.pvalue(400) > 0.01
    coarse = powerlaw.fit(summarize(rounded.astype(ml_dtypes.bfloat16)), xmin=4.0)
    assert not summarize(rounded.astype(ml_dtypes.bfloat16)).magnitudes.exact
    assert (coarse.xmin, coarse.n_tail) == (found.xmin, found.n_tail)  # from halfway below 4
    assert coarse.exponent == pytest.approx(found.exponent, abs=found.stderr)
    wide = powerlaw.fit(summarize(rounded.astype(ml_dtypes.bfloat16), bits=9), xmin=4.0)
    assert (wide.exponent, wide.n_tail) == (pytest.approx(found.exponent, rel=1e-12), found.n_tail)
    tied = powerlaw.fit(as_bfloat16(x), xmin=4.0)
    assert has(tied, "ties: ")
    assert tied.pvalue() < 1e-3  # which is why


@pytest.mark.parametrize("bits", [4, 10])
def test_float16_below_its_normal_range_is_evenly_spaced(bits):
    """Values of 2**-24 to 2**-14: bins between two of them can hold none, and are no gaps in the law."""
    x = (2.0**-21 * (np.random.default_rng(19).pareto(1.5, 100_000) + 1)).astype(np.float16)
    binned = summarize(x, bits=bits)
    assert binned.magnitudes.mantissa == 10
    for xmin in (2.0**-20, 2.0**-14):
        found = powerlaw.fit(binned, xmin=xmin)
        assert found.n_tail == np.count_nonzero(x >= xmin)
        assert found.exponent == pytest.approx(2.5, abs=4 * found.stderr)
        assert found.pvalue(200) > 0.01
    assert powerlaw.fit(binned).pvalue(50) >= 0


def test_values_beyond_float32_count_as_the_tail():
    x = np.concatenate([np.random.default_rng(12).pareto(0.05, 3000) + 1, [1e39, 1e50]])
    found = powerlaw.fit(summarize(x), xmin=1.0)
    raw = powerlaw.fit(x, xmin=1.0)
    assert found.n_tail == raw.n_tail == x.size
    assert found.exponent == pytest.approx(raw.exponent, abs=raw.stderr)
    tiny = summarize(np.append(x, 1e-60))
    assert powerlaw.fit(tiny, xmin=1.0).n == x.size + 1


def test_rank_of_bins_is_the_nearest_edge():
    x = np.random.default_rng(13).pareto(2.0, 100_000) + 1
    found = powerlaw.fit(summarize(x), top=1000)
    assert found.n_tail == np.count_nonzero(x >= found.xmin)
    assert abs(found.n_tail - 1000) < 80
    assert found.cutoff == "rank"
    assert powerlaw.fit(x, xmin=found.xmin).exponent == pytest.approx(found.exponent, rel=5e-3)


def test_refusals_of_histograms():
    binned = summarize(np.array([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="source: expected an array of whole numbers, got Summary"):
        powerlaw.fit(binned, discrete=True)
    with pytest.raises(ValueError, match="top: expected an int from 3 to 3, got 4"):
        powerlaw.fit(binned, top=4)
    with pytest.raises(ValueError, match=r"xmin: expected at most 2\*\*128"):
        powerlaw.fit(binned, xmin=1e39)
    with pytest.raises(ValueError, match="at least 2 distinct nonzero values"):
        powerlaw.fit(summarize(np.ones(5)))
    with pytest.raises(ValueError, match="at least 2 distinct nonzero values"):
        powerlaw.fit(binned, xmin=3.0)
    with pytest.raises(ValueError, match="tail: expected"):
        powerlaw.fit(binned, tail="left")


def test_a_rank_within_the_last_bin_is_said_to_be_missed():
    found = powerlaw.fit(summarize(np.array([1.0] * 1000 + [100.0] * 3)), top=10)
    assert found.n_tail == 1003
    assert has(found, "top: 1003 values and not 10 lie above the nearest edge of a bin")
