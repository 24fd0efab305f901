"""The stable index of averaged iterates: of layers of weights, and of runs."""

import math

import numpy as np
import pytest
from scipy import stats
from stable_samples import stable

from gradtail import stable_index_iterates


def test_a_layer_of_stable_weights_at_any_scale():
    rng = np.random.default_rng(11)
    layer = 3e-4 * stable(1.5, (1000, 1000), rng) + 0.02
    found = stable_index_iterates(layer, [2, 5, 10, 20, 50, 100, 500, 1000])
    assert found.alphas == pytest.approx(1.5, abs=0.05)
    assert found.alpha == np.median(found.alphas)
    assert found.stderrs[-1] == pytest.approx(0.0128, rel=0.12)  # predicted for K1 = 1000
    assert found.stderrs.argmin() in (1, 2, 3)
    assert found.findings == ()


def test_pruned_weights_are_zeros():
    rng = np.random.default_rng(19)
    layer = rng.standard_normal((200, 200)) + 0.5
    whole = stable_index_iterates(layer)
    layer = np.where(np.arange(400) % 2, np.repeat(layer, 2, axis=1), 0)  # every other one
    found = stable_index_iterates(layer)
    assert (found.zeros, found.findings) == (40_000, ("zeros",))
    assert found.alpha == pytest.approx(whole.alpha, rel=1e-12)


def test_a_layer_of_two_scales_is_said():
    rng = np.random.default_rng(12)
    found = stable_index_iterates(
        rng.standard_normal((400, 500)) * np.where(np.arange(400) < 200, 1, 20)[:, None]
    )
    assert "scale mixture" in found.findings
    assert str(found).startswith("no stable index (")


def test_small_layers_are_too_few_to_tell():
    for n in (640, 3000):
        rng = np.random.default_rng(n)
        found = [
            stable_index_iterates(np.exp(rng.standard_normal(n)) * rng.standard_normal(n)) for _ in "123"
        ]
        assert all(one.alpha + 2 * one.stderr < 2 for one in found)
        for one in found:
            assert not one.told
            assert str(one).startswith(("too few values to tell: alpha", "no stable index ("))
    rng = np.random.default_rng(1)
    for x in (rng.standard_t(3, 10**5), np.exp(rng.standard_normal(10**5)) * rng.standard_normal(10**5)):
        assert stable_index_iterates(x).findings
    found = stable_index_iterates(stable(1.5, 10**5, rng))
    assert (found.told, found.findings) == (True, ())
    assert str(found).startswith("nothing seen against a stable law: alpha 1.")


def test_vectors_of_runs():
    rng = np.random.default_rng(13)
    runs = np.sqrt(1 / rng.gamma(0.5, size=4000))[:, None] * rng.standard_normal((4000, 5))  # Cauchy
    found = stable_index_iterates(runs, [2, 5, 10, 20, 50, 100, 40], vectors=True, centre=False)
    assert found.alpha == pytest.approx(1, abs=0.1)
    assert found.k1.tolist() == [2, 5, 10, 20, 50, 100, 40]


def test_remainder_and_sizes_that_do_not_fit():
    x = stats.norm.rvs(size=1009, random_state=14)
    found = stable_index_iterates(x)
    assert found.skipped == (500, 1000)
    centred = x - x.mean()
    cut = centred[:1000]
    expected = math.log(10) / (
        np.log(np.abs(cut.reshape(-1, 10).sum(axis=1))).mean() - np.log(np.abs(cut)).mean()
    )
    assert found.alphas[found.k1 == 10] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("average", "more", "error", "words"),
    [
        (np.ones(50), {}, ValueError, "average: expected at least 100 values that are not zero"),
        (np.full(500, np.inf), {}, ValueError, "average: expected finite values"),
        (np.arange(500.0), {"blocks": []}, ValueError, "blocks: expected at least one size"),
        (np.arange(500.0), {"blocks": [1]}, ValueError, "blocks: expected ints of at least 2, got 1"),
        (np.arange(500.0), {"blocks": [2.5]}, TypeError, "blocks: expected ints of at least 2, got float"),
        (np.arange(500.0), {"blocks": 5}, TypeError, "blocks: expected ints of at least 2, got int"),
        (np.arange(500.0), {"blocks": [100]}, ValueError, "blocks: expected a size of at most 49"),
        (np.arange(500.0), {"vectors": True}, ValueError, r"average: expected shape \(N, p\)"),
        (np.arange(500.0), {"centre": 0}, TypeError, "centre: expected a bool, got int"),
    ],
)
def test_iterates_refused(average, more, error, words):
    with pytest.raises(error, match=words):
        stable_index_iterates(average, **more)
