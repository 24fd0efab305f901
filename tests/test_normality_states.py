"""Tests of normality on states: moments, tracks and histograms."""

import math

import ml_dtypes
import numpy as np
import pytest
from scipy import special
from small_streams import filled

from gradtail import GradientStream, Summary, summarize
from gradtail.estimators.normality import (
    dagostino,
    distance,
    histogram,
    jarque_bera,
    ks_normal,
    pearson_chi2,
)
from gradtail.estimators.normality.cut import CutNormal
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.magnitudes import edges_for
from gradtail.states.track_ring import Tracks

MOMENTS = pytest.mark.parametrize("test", [dagostino, jarque_bera])
SHAPES = pytest.mark.parametrize("test", [pearson_chi2, ks_normal])
TESTS = pytest.mark.parametrize("test", [dagostino, jarque_bera, pearson_chi2, ks_normal])
BITS = pytest.mark.parametrize("bits", [0, 2, 4, 7, 10])


# Moments


@MOMENTS
@pytest.mark.parametrize("n", [8, 300, 50_000])
def test_moments_of_a_summary_serve_as_well_as_the_values(test, n, backend):
    x = np.random.default_rng(n).gamma(9, size=n).astype(np.float32)
    summary = summarize(x, backend=backend)
    expected = test(x)
    for found in (test(summary), test(summary.moments)):
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-5)
        assert (found.n, found.name, found.warnings) == (n, expected.name, expected.warnings)
        assert found.pvalue == pytest.approx(expected.pvalue, rel=1e-3)


@TESTS
def test_a_summary_says_what_it_has_left_out(test):
    x = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    found = test(summarize([x, np.array([np.nan, np.inf], np.float32)]))
    clean = test(summarize(x))
    assert found.n == 5000
    assert (found.statistic, found.pvalue) == (clean.statistic, clean.pvalue)
    assert clean.warnings == ()
    assert found.warnings == ("2 non-finite values are left out",)


@TESTS
def test_summaries_that_say_too_little_are_refused(test):
    rng = np.random.default_rng(2)
    few = 19 if test is pearson_chi2 else 7
    with pytest.raises(ValueError, match=f"at least {few + 1} finite values, got {few}$"):
        test(summarize(rng.normal(size=few)))
    with pytest.raises(ValueError, match=r"at least \d+ finite values, got 0$"):
        test(Summary())
    with pytest.raises(ValueError, match=r"^source: expected a mean within \d+ standard deviations of zero"):
        test(summarize(5000 + rng.normal(size=1000)))
    for x in (np.zeros(100), np.full(100, 2.0)):
        with pytest.raises(ValueError, match="source: expected values that are not all equal"):
            test(summarize(x))
    with pytest.raises(TypeError, match=r"^axis: expected None for a Summary, got 0$"):
        test(summarize(rng.normal(size=100)), axis=0)
    with pytest.raises(TypeError, match=r"^source: expected a Summary, .* got its Magnitudes alone$"):
        test(summarize(rng.normal(size=100)).magnitudes)


@SHAPES
def test_moments_alone_say_nothing_of_a_distribution_function(test):
    x = np.random.default_rng(3).normal(size=100)
    with pytest.raises(TypeError, match=r"^source: expected a Summary or the values for .*, got Moments$"):
        test(summarize(x).moments)
    with pytest.raises(
        TypeError, match=r"^source: expected values, not moments, for .*, got CoordinateMoments$"
    ):
        test(CoordinateMoments.empty())


@SHAPES
def test_histograms_that_say_too_little_are_refused(test):
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match=r"^source: expected .* in(to|) .*, got "):
        test(summarize(700 + rng.normal(size=1000), bits=2))
    with pytest.raises(ValueError, match=r"^source: expected values within float32, got 1 beyond it$"):
        test(summarize(np.append(rng.normal(size=1000) * 1e36, 4e38)))


# Single coordinates


@MOMENTS
def test_coordinate_moments_are_rows(test, backend):
    rng = np.random.default_rng(5)
    scale = 10.0 ** rng.uniform(-2, 2, 300)
    steps = (rng.gamma(9, size=(64, 300)) * scale).astype(np.float32)
    steps[:, 7] = 0
    stream = GradientStream(coordinates="dense", tracks=0, sketch=128, window=2, history=2, backend=backend)
    for step, x in enumerate(steps):
        stream.update({"w": x}, step)
    found, expected = test(stream.coordinates("w")), test(steps, axis=0)
    assert found.pvalue.shape == (300,)
    assert (found.skipped_constant, found.skipped_few, found.skipped_unknown) == (1, 0, 0)
    assert found.n.tolist() == expected.n.tolist()
    kept = np.arange(300) != 7
    assert np.isnan(found.pvalue[7])
    assert found.pvalue[kept] == pytest.approx(expected.pvalue[kept], rel=1e-3, abs=1e-5)
    assert found.statistic[kept] == pytest.approx(expected.statistic[kept], rel=1e-3, abs=1e-4)
    assert found.warnings == expected.warnings


@MOMENTS
def test_coordinates_without_a_test_are_counted_by_reason(test):
    x = np.random.default_rng(6).normal(size=(50, 4))
    d = x - x.mean(axis=0)
    sums = np.array([x.mean(axis=0), *((d**p).sum(axis=0) for p in (2, 3, 4))])
    count = np.full(4, 50)
    sums[1:, 1], count[2] = 0, 7
    sums[1:, 3] *= 2.0 ** -np.array([80, 120, 160])
    found = test(CoordinateMoments(np.arange(4), count, 0, sums))
    assert found.statistic[0] == pytest.approx(test(x[:, 0]).statistic, rel=1e-9)
    assert np.isnan(found.pvalue).tolist() == [False, True, True, True]
    assert (found.skipped_constant, found.skipped_few, found.skipped_unknown) == (1, 1, 1)
    assert "1 whose moments are lost to rounding" in str(found.rate())
    assert test(CoordinateMoments.empty()).tested == 0


@TESTS
def test_tracks_are_columns_with_gaps(test):
    rng = np.random.default_rng(7)
    x = rng.gamma(4, size=(120, 9)).astype(np.float32)
    observed = rng.random(x.shape) < 0.7
    x[3, 2], x[:, 5], observed[6:, 8] = np.nan, 2.5, False
    tracks = Tracks(np.arange(120), np.array(["w"] * 9), np.arange(9), x, observed)
    found, expected = test(tracks), test(np.where(observed, x, np.nan), axis=0)
    assert np.array_equal(found.pvalue, expected.pvalue, equal_nan=True)
    assert np.array_equal(found.n, (observed & ~np.isnan(x)).sum(axis=0))
    assert (found.skipped_constant, found.skipped_few) == (1, 1)
    with pytest.raises(TypeError, match=r"^axis: expected None for a Tracks, got 0$"):
        test(tracks, axis=0)


@TESTS
def test_tracks_of_a_stream_are_tested(test, backend):
    stream = filled(backend, range(40), window=40)
    found = test(stream.tracks())
    assert found.pvalue.shape == (len(stream.tracks().index),)
    late = stream.tracks().names == "late"
    assert set(found.n[late].tolist()) == {33}
    assert found.tested > 40


# Histograms


@BITS
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_counts_below_are_those_of_the_values_before_they_were_rounded(bits, dtype, scale, backend):
    rng = np.random.default_rng(8)
    x = (rng.standard_t(2, size=4000) * scale).astype(np.float32)
    x[:50] = 0
    points, below = histogram.counts_below(summarize(x.astype(dtype), bits=bits, backend=backend).magnitudes)
    assert np.all(np.diff(points) >= 0)
    assert np.array_equal(points, -points[::-1])
    tied = np.isin(points, x)  # halfway, rounded to the even side; an edge belongs to the bin above it
    assert np.count_nonzero(~tied) > 0.9 * points.size
    assert np.array_equal(below[~tied], np.searchsorted(np.sort(x), points[~tied]))
    assert (below[0], below[-1]) == (0, 4000)


def test_an_exact_histogram_has_its_points_halfway():
    x = np.array([1.0, 1.5, 2.0, -1.0], np.float16)
    for bits in (10, 4, 1):
        points, below = histogram.counts_below(summarize(x, bits=bits).magnitudes)
        assert np.isin([1 - 2.0**-12, 1.5 - 2.0**-11, 2 - 2.0**-11], points).all()
        assert below[np.searchsorted(points, [-2, 0, 1, 1.5, 2, 1e30])].tolist() == [0, 1, 2, 3, 4, 4]


@BITS
def test_the_cells_of_a_histogram_end_at_its_bins(bits):
    x = np.random.default_rng(9).normal(0.3, 2, size=3000).astype(np.float32)
    summary = summarize(x, bits=bits)
    found = pearson_chi2(summary, cells=6 if bits == 0 else None)
    edges = edges_for(bits)
    ends = np.concatenate([-edges[np.isfinite(edges)][::-1], edges[np.isfinite(edges)]])
    level = special.ndtr((ends - summary.mean) / summary.variance**0.5)
    c = 6 if bits == 0 else math.ceil(2 * 3000**0.4)
    chosen = {int(np.abs(level - k / c).argmin()) for k in range(1, c)}
    chosen = sorted(i for i in chosen if 0.5 / c < level[i] < 1 - 0.5 / c)
    expected = 3000 * np.diff(level[chosen], prepend=0, append=1)
    counts = np.diff(np.searchsorted(np.sort(x), ends[chosen]), prepend=0, append=3000)
    assert found.statistic == pytest.approx(((counts - expected) ** 2 / expected).sum(), rel=1e-6)
    assert bool(found.warnings) == (len(chosen) + 1 <= c // 2)
    assert found.pvalue > 1e-3


def test_fine_bins_give_the_distance_of_the_values_nearly():
    x = np.random.default_rng(10).gamma(30, size=20_000).astype(np.float32)
    fine, values = ks_normal(summarize(x, bits=10)), ks_normal(x)
    assert fine.statistic <= values.statistic
    assert fine.statistic == pytest.approx(values.statistic, abs=2 / 256 * 0.05)
    assert fine.pvalue == 1 / 5000


def test_draws_at_points_have_durbins_covariance():
    z = np.array([-3.0, -1.2, -0.1, -1e-9, 1e-9, 0.4, 2.0])
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    level = special.ndtr(z)
    expected = np.minimum.outer(level, level) - np.outer(level, level)
    expected -= np.outer(density, density) + np.outer(z * density, z * density) / 2
    found = distance.limit_draws(CutNormal(z), 400_000, np.random.default_rng(11))
    assert np.cov(found.T) == pytest.approx(expected, abs=6e-4)
    assert found.mean(axis=0) == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_an_atom_at_zero_is_seen(share):
    x = np.random.default_rng(12).normal(size=50_000).astype(np.float32)
    x[: int(share * x.size)] = 0
    found = ks_normal(summarize(x))
    assert found.statistic > 0.4 * share
    assert found.rejected
    assert pearson_chi2(summarize(x)).rejected


@SHAPES
def test_values_rounded_to_bfloat16_are_still_normal(test, torch):
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1))
    for bits in (4, 7, 10):
        assert test(summarize(x.bfloat16(), bits=bits)).pvalue > 0.01
        assert test(summarize(x, bits=bits)).pvalue > 0.01


def test_values_that_vanish_in_float32_are_around_zero():
    x = np.array([-2.0, -1e-60, 1e-50, 1e-300, 0.0, 3.0])
    points, below = histogram.counts_below(summarize(x).magnitudes)
    middle = points.size // 2
    assert below[[0, middle - 1, middle, -1]].tolist() == [0, 1, 5, 6]
    assert points[middle] == -points[middle - 1] < 1e-38


@SHAPES
@pytest.mark.parametrize(("bits", "mean"), [(0, 0.9), (4, 2.0), (4, 0.1), (7, 5.0)])
def test_a_histogram_and_its_mirror_image_are_alike(test, bits, mean):
    x = np.random.default_rng(13).normal(mean, 0.6, size=5000).astype(np.float32)
    options = {"cells": 10} if test is pearson_chi2 and bits == 0 else {}
    found, mirrored = (test(summarize(sign * x, bits=bits), **options) for sign in (1, -1))
    assert mirrored.statistic == pytest.approx(found.statistic, rel=1e-9)
    assert mirrored.pvalue == pytest.approx(found.pvalue, abs=0.02)  # other draws, of the same law
    assert mirrored.warnings == found.warnings


def test_points_are_spread_over_the_whole_law_and_not_crowded():
    x = np.random.default_rng(14).normal(size=5000).astype(np.float32)
    law, _ = distance.at_points(histogram.bins_of(summarize(x, bits=10)))
    probability = np.sort(law.probability)
    assert probability[0] < 1e-30  # between the two points about 0
    assert probability[1] > 0.9 / 1024
    assert probability[-1] < 1.2 / 256
    assert law.z.size > 200
