"""The stable index of noise matrices: what of it is a tail, and what is not."""

import math

import numpy as np
import pytest
from stable_samples import stable

from gradtail import stable_index_noise
from gradtail.estimators.stable.result import Control, StableEstimate
from gradtail.estimators.stable.rowsums import RowSums
from gradtail.estimators.stable.signs import Across, rivals_sign
from gradtail.estimators.stable.typical import typical_sizes

P, M = 40, 8000


def scales(rng, tau=1.0):
    return np.exp(tau * rng.standard_normal(M))


def test_rows_are_never_joined():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 100))
    found = stable_index_noise(x, block=9)
    logs_y = [math.log(abs(row[9 * i : 9 * i + 9].sum())) for row in x for i in range(11)]
    logs_x = np.log(np.abs(x[:, :99])).mean()
    assert found.alpha == pytest.approx(math.log(9) / (np.mean(logs_y) - logs_x), rel=1e-12)
    assert (found.k1, found.k2, found.dropped, found.n) == (9, 77, 7, 700)


def test_block_size_fits_into_rows():
    found = stable_index_noise(np.random.default_rng(1).standard_normal((500, 80)))
    assert found.k1 == 10  # not sqrt(40000) = 200
    assert stable_index_noise(np.random.default_rng(1).standard_normal((4, 10_000))).k1 == 200


def test_normal_noise():
    found = stable_index_noise(np.random.default_rng(2).standard_normal((P, M)))
    assert found.findings == ()
    for control in found.controls.values():
        assert abs(control.alpha - 2) < 5 * control.stderr
    assert found.kind == "noise"
    assert found.verdict.startswith("normal values not excluded: noise alpha")


@pytest.mark.parametrize("tau", [0.7, 1.0, 1.5])
def test_scales_of_coordinates_are_found_out(tau):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = stable_index_noise(1e-5 * scales(rng, tau) * rng.standard_normal((P, M)))
        expected = 1 / (0.5 + tau**2 / math.log(found.k1))
        assert found.alpha == pytest.approx(expected, abs=0.2)
        assert "scale mixture" in found.findings
        assert any("mixed scales explain" in w for w in found.warnings)
        for own in ("standardised", "standardised_shuffled"):
            # a typical size is known to sqrt(v / P) in log, of which a mixture stays
            left = 1 / (0.5 + math.pi**2 / 8 / P / math.log(found.k1))
            assert abs(found.controls[own].alpha - left) < 4.5 * found.controls[own].stderr
        for same in ("gaussian", "gaussian_typical"):
            assert found.controls[same].alpha == pytest.approx(found.alpha, abs=0.25)


def test_stable_noise_is_no_mixture():
    """No word of scales or zeros on pure stable noise; the control by typical size is normal, not stable."""
    said = 0
    for seed in range(20):
        found = stable_index_noise(stable(1.5, (P, 2000), np.random.default_rng(seed)))
        said += bool(found.findings)
        assert "scale mixture" not in found.findings
        assert abs(found.alpha - 1.5) < 4.5 * found.stderr
        assert abs(found.controls["standardised"].alpha - 1.5) < 5 * found.stderr
        assert found.controls["gaussian_typical"].alpha > 1.75
    assert said <= 1


@pytest.mark.parametrize(
    ("alpha", "batches", "kept"), [(1.2, 8, 8), (1.5, 20, 20), (1.5, 51, 51), (1.5, 100, 100), (1.5, 72, 50)]
)
def test_stable_noise_whose_mean_was_taken_off_is_no_mixture(alpha, batches, kept):
    """An outlier moves all of its column by a part of itself, which is no size of that coordinate."""
    for seed in range(5):
        x = stable(alpha, (batches, 4000), np.random.default_rng(seed))
        x -= x.mean(axis=0)
        found = stable_index_noise(x[:kept], epoch=batches)
        assert found.findings == ()
        left = math.pi**2 / 6 * (1 / alpha**2 + 0.5) / kept / math.log(found.k1)  # sizes are not known surely
        own = found.controls["standardised"]
        assert 1 / own.alpha - 1 / alpha < left + 4 * own.stderr / own.alpha**2
        assert 1 / alpha - 1 / own.alpha < 0.015 + 4 * own.stderr / own.alpha**2
    mixed = np.exp(np.random.default_rng(0).standard_normal(4000)) * x
    assert "scale mixture" in stable_index_noise(mixed[:kept], epoch=batches).findings


def test_typical_sizes_by_hand():
    rng = np.random.default_rng(17)
    x = rng.standard_normal((9, 40)) + 3
    x[rng.random((9, 40)) < 0.2] = 0
    x[:, 7] = np.where(np.arange(9) < 7, -1.0, 5.0)  # most of it one value: about 0
    x[:, 8] = 0
    for centred in (False, True):
        sizes = typical_sizes(x, np.arange(9), 0, centred)
        for j in range(40):
            here = np.sort(x[:, j][x[:, j] != 0])
            middle = here[len(here) // 4 : len(here) - len(here) // 4]
            centre = middle.mean() if centred and j not in (7, 8) else 0.0
            logs = np.log(np.abs(here - centre))
            assert sizes.centre[j] == pytest.approx(centre)
            assert sizes.logs[j] == pytest.approx(logs.sum())
            if x[2, j] and len(here) >= 5:
                others = logs.sum() - math.log(abs(x[2, j] - centre))
                expected = (x[2, j] - centre) / math.exp(others / (len(here) - 1))
                assert sizes.standardised(x[2])[j] == pytest.approx(expected)
        assert sizes.seen[8] == sizes.of_normal()[8] == sizes.standardised(x[2])[8] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e307])
def test_noise_of_any_size(size):
    x = np.random.default_rng(18).standard_normal((20, 500))
    x /= np.abs(x).max()
    plain, found = stable_index_noise(x), stable_index_noise(size * x)
    assert found.alpha == pytest.approx(plain.alpha, rel=1e-9)
    for name, control in plain.controls.items():
        assert found.controls[name].alpha == pytest.approx(control.alpha, rel=1e-6), name


def test_stable_noise_of_mixed_scales_keeps_its_index_once_standardised():
    rng = np.random.default_rng(3)
    found = stable_index_noise(scales(rng) * stable(1.5, (P, M), rng))
    assert found.alpha < 1.4
    assert "scale mixture" in found.findings
    assert found.controls["standardised"].alpha == pytest.approx(1.5, abs=0.07)
    explained = next(w for w in found.warnings if "mixed scales explain" in w)
    assert 15 < float(explained.split("explain ")[1].split(" %")[0]) < 65


def test_dead_coordinates():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((P, M))
    x[:, rng.random(M) < 0.1] = 0
    found = stable_index_noise(x)
    assert found.findings == ("zeros",)
    assert found.zeros == np.count_nonzero(x == 0)
    # log epsilon in the place of each, against E log |Z| = -0.635 and the smaller variance of sums
    share = found.zeros / found.n
    inverse = 0.5 + (share * (math.log(2**52) - 0.635) + math.log(1 - share) / 2) / math.log(found.k1)
    assert found.controls["zeros_kept"].alpha == pytest.approx(1 / inverse, abs=0.06)
    assert abs(found.alpha - 2) < 4.5 * found.stderr
    assert abs(found.controls["gaussian"].alpha - 2) < 5 * found.controls["gaussian"].stderr


def test_neighbours_that_go_together():
    rng = np.random.default_rng(5)
    runs = np.repeat(rng.standard_normal((P, M // 100)), 100, axis=1)
    found = stable_index_noise(rng.standard_normal((P, M)) + 0.5 * runs)
    assert "dependence" in found.findings
    assert any("in another order" in w for w in found.warnings)
    assert found.controls["shuffled"].alpha > found.alpha + 0.2


def test_batches_with_a_part_in_common():
    rng = np.random.default_rng(6)
    found = stable_index_noise(rng.standard_normal((P, M)) + 0.2 * rng.standard_normal((P, 1)))
    assert any("coordinates of one batch have a part in common" in w for w in found.warnings)
    assert found.observed_stderr > 2 * found.stderr
    assert found.ci()[1] - found.ci()[0] > 6 * found.stderr


def test_layers():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((P, M))
    x[:, : M // 2] *= 10
    layers = {"first": slice(0, M // 2), "second": slice(M // 2, M), "bias": slice(0, 5)}
    found = stable_index_noise(x, layers)
    assert list(found.layers) == ["first", "second"]
    for layer in found.layers.values():
        assert abs(layer.alpha - 2) < 4.5 * layer.stderr
        assert layer.findings == ()
    assert any("too few nonzero coordinates for an index: bias" in w for w in found.warnings)
    assert found.findings == ("scale mixture", "not stable")  # the whole has two scales, in runs
    assert any("scale mixture: in another order, standardised" in w for w in found.warnings)
    assert "\n  first: " in str(found)


def test_broken_batches_are_left_out():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((P, M)).astype(np.float32)
    clean = stable_index_noise(np.delete(x, 3, axis=0))
    x[3, 17] = np.nan
    found = stable_index_noise(x)
    assert (found.nonfinite, found.alpha) == (1, clean.alpha)
    assert any("1 batches with non-finite values" in w for w in found.warnings)


def test_batches_of_heavy_tailed_scales_are_said():
    """Sums over the coordinates of one batch are normal, whatever its scale is; heavy tails lie between."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        factors = np.abs(stable(1.2, (100, 1), rng))
        rows = rng.standard_normal((100, 10, 2000))
        regression = np.einsum("pb,pbd->pd", stable(1.5, (100, 10), rng), rows)
        for x in (factors * rng.standard_normal((100, 2000)), regression - regression.mean(axis=0)):
            found = stable_index_noise(x)
            assert abs(found.alpha - 2) < 0.1
            assert found.controls["across_batches"].alpha < 1.8
            assert "batch scales" in found.findings
            assert any("sums over coordinates hide it" in w for w in found.warnings)
            assert found.verdict.startswith("no stable index (")
        lighter = stable_index_noise(rng.standard_t(3, (100, 2000)))  # not of its batches
        assert "batch scales" not in lighter.findings
        modest = np.exp(0.1 * rng.standard_normal((100, 1))) * rng.standard_normal((100, 2000))
        assert stable_index_noise(modest).findings == ()


def test_coordinates_over_batches_alone():
    """Where pooled quantiles do not see it: heavy tails over batches in a share of the coordinates."""
    pooled = StableEstimate(0.5, 0.01, 0.01, 99, 100, 5000, 500_000)
    near, far = (Control(a, e, 500_000, "") for a, e in ((1.9, 0.1), (1.1, 0.07)))
    assert rivals_sign(pooled, {}, Across(near, 9)) == []
    ((word, text),) = rivals_sign(pooled, {}, Across(far, 9))
    assert (word, "each coordinate by itself over batches 1.1 +- 0.07" in text) == ("not stable", True)
    assert rivals_sign(pooled, {}, Across(far, 9), 0.1)[0][0] == "batch scales"
    assert rivals_sign(pooled, {}, Across(far, 2)) == []  # an error from three blocks


def test_gradients_grow_over_batches_by_their_mean():
    rng = np.random.default_rng(20)
    x = rng.standard_normal((100, 2000)) + 2 * rng.standard_normal(2000)
    found = stable_index_noise(x, kind="gradient")
    assert found.controls["across_batches"].alpha < 1.3
    assert not any("by itself over batches" in w for w in found.warnings)


def test_few_batches():
    found = stable_index_noise(np.random.default_rng(9).standard_normal((3, M)))
    assert "standardised" not in found.controls
    assert any("scales are not known" in w for w in found.warnings)
    rng = np.random.default_rng(9)
    one = stable_index_noise(np.exp(rng.standard_normal(3000)) * rng.standard_normal((1, 3000)))
    assert one.alpha < 1.7
    assert one.verdict.startswith("scales not checked: noise alpha")
    assert stable_index_noise(np.random.default_rng(9).standard_normal((1, M))).observed_stderr != 0


@pytest.mark.parametrize(
    ("matrix", "more", "error", "words"),
    [
        (np.ones(100), {}, ValueError, r"matrix: expected shape \(batches, coordinates\)"),
        (np.ones((5, 8)), {}, ValueError, "matrix: expected rows of at least 16 nonzero values"),
        (np.zeros((5, 800)), {}, ValueError, "and 100 in all, got 0 and 0 in 5 finite rows"),
        (np.full((5, 800), np.nan), {}, ValueError, "in 0 finite rows"),
        (np.ones((5, 80)), {"block": 81}, ValueError, "block: expected an int from 2 to 80"),
        (np.ones((5, 80)), {"block": 3.0}, TypeError, "block: expected an int of at least 2, got float"),
        (np.ones((5, 80)), {"epoch": 0}, ValueError, "epoch: expected a positive int, got 0"),
        (np.ones((5, 80)), {"epoch": 2.5}, TypeError, "epoch: expected a positive int, got float"),
        (np.ones((5, 80)), {"kind": "x"}, ValueError, "kind: expected one of"),
        (np.ones((5, 80)), {"layers": ["a"]}, TypeError, "layers: expected a mapping of names to slices"),
        (
            np.ones((5, 80)),
            {"layers": {"a": 3}},
            TypeError,
            "layers: expected slices of coordinates, got int",
        ),
        (np.ones((5, 80)), {"layers": {"a": slice(90, 99)}}, ValueError, "expected coordinates below 80"),
        (np.ones((5, 80)), {"seed": -1}, ValueError, "seed: expected an int of at least 0, got -1"),
        (np.ones((5, 80)), {"seed": 1.5}, TypeError, "seed: expected an int of at least 0, got float"),
        ("abc", {}, TypeError, "matrix: expected an array of real numbers"),
    ],
)
def test_refused(matrix, more, error, words):
    with pytest.raises(error, match=words):
        stable_index_noise(matrix, **more)


def test_spread_between_rows():
    """The delete-one-row jackknife, and for independent values the error of the law."""
    rng = np.random.default_rng(10)
    x = [rng.standard_t(2, int(m)) for m in rng.integers(500, 3000, 60)]
    sums, other = RowSums(20), RowSums(20)
    for row in x:
        sums.add(row)
        other.add(row[::-1])
    without = []
    for i in range(len(x)):
        rest = RowSums(20)
        for row in x[:i] + x[i + 1 :]:
            rest.add(row)
        without.append(rest.index().inverse)
    jackknife = math.sqrt(len(x) - 1) * np.std(without)
    assert sums.observed_stderr() == pytest.approx(jackknife, rel=0.05)
    assert sums.observed_stderr() == pytest.approx(sums.index().inverse_stderr, rel=0.35)
    assert sums.paired_stderr(sums) == 0
    assert 0 < sums.paired_stderr(other) < 1.6 * sums.observed_stderr()


def test_each_coordinate_by_itself():
    """Neither scales nor neighbours nor common parts have a say in sums over batches."""
    rng = np.random.default_rng(15)
    normal = scales(rng, 2.0) * (np.repeat(rng.standard_normal((100, M // 100)), 100, axis=1) + 1e-3)
    assert stable_index_noise(normal).controls["across_batches"].alpha == pytest.approx(2, abs=0.25)
    heavy = scales(rng, 2.0) * stable(1.3, (100, M), rng)
    heavy[:, 5] = 0
    found = stable_index_noise(heavy)
    control = found.controls["across_batches"]
    assert abs(control.alpha - 1.3) < 4 * control.stderr
    assert control.n == 100 * (M - 1)
    assert found.alpha < 0.9
    blocks = heavy.reshape(10, 10, M)[:, :, np.arange(M) != 5]
    apart = np.log(np.abs(blocks.sum(axis=1))).mean() - np.log(np.abs(blocks)).mean()
    assert control.alpha == pytest.approx(math.log(10) / apart, rel=1e-12)


def test_epochs_make_sums_over_batches_smaller():
    x = np.random.default_rng(16).standard_normal((100, M))
    x -= x.mean(axis=0)
    control = stable_index_noise(x).controls["across_batches"]
    assert stable_index_noise(x, epoch=100).controls["across_batches"] == control
    assert "across_batches" not in stable_index_noise(x, epoch=10).controls
    fewer = stable_index_noise(x, epoch=25).controls["across_batches"]
    assert fewer.n == 100 * M  # in blocks of 5, which divide 100
    expected = 1 / (0.5 + math.log(1 - 9 / 99) / 2 / math.log(10))
    assert abs(control.alpha - expected) < 4 * control.stderr
