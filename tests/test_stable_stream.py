"""Gradient alpha of a stream: laws of merging, and what it reads where the answer is known."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from small_streams import assert_equal_states

from gradtail import GradientStream, Summary, summarize
from gradtail.estimators.stable_sums import StreamAlpha
from gradtail.states.log_sums import BLOCK_SIZES

SHAPES = {"a.weight": (96, 128), "a.bias": (70,), "b.weight": (5000,)}


def stable(rng: np.random.Generator, alpha: float, size: Any) -> np.ndarray:
    """Chambers, Mallows and Stuck (1976), symmetric."""
    u, w = rng.uniform(-np.pi / 2, np.pi / 2, size), rng.exponential(1.0, size)
    return np.asarray(
        np.sin(alpha * u) / np.cos(u) ** (1 / alpha) * (np.cos((1 - alpha) * u) / w) ** ((1 - alpha) / alpha)
    )


def gradient(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([step, 3])
    found = {
        n: (stable(rng, 1.5, shape) * 10.0 ** rng.integers(-4, 4)).astype(np.float32)
        for n, shape in SHAPES.items()
    }
    if step == 2:
        found["b.weight"][[77, 4999]] = np.nan, np.inf
    return found


def stream(backend: str, **settings: Any) -> GradientStream:
    small: dict[str, Any] = {"sketch": 256, "tracks": 50, "window": 5, "history": 8, "coordinates": 2}
    return GradientStream(backend=backend, **{**small, **settings})


def filled(backend: str, steps: range, **settings: Any) -> GradientStream:
    found = stream(backend, **settings)
    for step in steps:
        found.update(gradient(step), step)
    return found


def logs(found: GradientStream, group: str | None = None, steps: Any = "all") -> Any:
    return found.summary(group, steps).block_logs


def test_counts_of_a_stream(backend: str) -> None:
    found = filled(backend, range(4))
    sizes = {one.block: one for one in logs(found)}
    assert list(sizes) == list(BLOCK_SIZES)
    for block, one in sizes.items():
        whole = sum(math.prod(shape) // block for shape in SHAPES.values())
        bad = len({77 // block} | ({4999 // block} if 4999 // block < 5000 // block else set()))
        assert (one.count, one.nonfinite, one.overflowed) == (4 * whole - bad, bad, 0)
    assert [one.count for one in logs(found, "a.bias")] == [4, 0, 0, 0]
    assert math.isnan(logs(found, "a.bias")[1].mean)
    x = gradient(3)["a.weight"].ravel().reshape(-1, 256).astype(np.float64).sum(axis=1)
    one = logs(found, "a.weight", "newest")[1]
    assert one.mean == pytest.approx(np.log(np.abs(x)).mean(), abs=2e-4)
    assert one.variance == pytest.approx(np.log(np.abs(x)).var(), rel=2e-2)


def test_steps_and_shards_merge_to_the_whole(backend: str) -> None:
    expected = filled(backend, range(12))
    steps = [filled(backend, r) for r in (range(4, 7), range(4), range(7, 12))]
    shards = []
    for low, high in pairwise([0, 32, 64, 96]):  # rows of 128: multiples of 4096 elements
        part = stream(backend)
        for step in range(12):
            arrays = gradient(step)
            some, places = (
                {"a.weight": arrays["a.weight"][low:high]},
                {"a.weight": (SHAPES["a.weight"], (low, 0))},
            )
            part.update({**arrays, **some} if low == 0 else some, step, places)
        shards.append(part)
    for found in (
        steps[0].merge(steps[1]).merge(steps[2]),
        steps[2].merge(steps[1].merge(steps[0])),
        shards[2].merge(shards[0]).merge(shards[1]),
        shards[1].merge(shards[0].merge(shards[2])),
    ):
        for group in (None, *SHAPES):
            assert logs(found, group) == logs(expected, group)
            assert logs(found, group, "newest") == logs(expected, group, "newest")
        assert found.stable_index().alpha == expected.stable_index().alpha
        assert found.stable_curve("b", 256) == expected.stable_curve("b", 256)


def test_a_stream_is_saved_and_goes_on(backend: str, tmp_path: Any) -> None:
    found = filled(backend, range(9))
    found.save(tmp_path / "stream.npz")
    again = GradientStream.load(tmp_path / "stream.npz", backend=backend)
    assert_equal_states(again, found)
    twin = copy.deepcopy(again)
    for one in (found, again, twin):
        one.update(gradient(9), 9)
        assert logs(one) == logs(filled(backend, range(10)))
        assert logs(one, "b.weight", "newest") == logs(filled(backend, range(9, 10)), "b.weight")
    summary = found.summary()
    assert Summary.from_state_dict(summary.state_dict()) == summary
    assert summary.merge(summary).block_logs[0].count == 2 * summary.block_logs[0].count  # type: ignore[index]


def test_states_without_block_sums(backend: str, tmp_path: Any) -> None:
    bare, full = filled(backend, range(3), stable=False), filled(backend, range(3, 6))
    assert logs(bare) is None
    assert summarize(np.ones(5000), backend=backend).block_logs is None
    for both in (bare.merge(full), full.merge(bare)):
        assert logs(both) is None
        assert both.summary().count == bare.summary().count + full.summary().count
        assert both.settings["stable"] is False
        with pytest.raises(ValueError, match="expected a stream that takes block sums, got stable=False"):
            both.stable_index()
    state = {
        k: v for k, v in full.state_dict().items() if k != "settings/stable"
    }  # as older versions wrote it
    older = GradientStream.from_state_dict(state, backend=backend)
    older.update(gradient(6), 6)
    assert logs(older) is None
    broken = {**full.state_dict(), "newest/logs": -np.ones((3, 24), np.int64)}
    with pytest.raises(ValueError, match="state: expected counts and sums of blocks"):
        GradientStream.from_state_dict(broken)
    with pytest.raises(TypeError, match="stable: expected a bool, got 1"):
        stream(backend, stable=1)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_stable_samples_give_their_index(backend: str, alpha: float) -> None:
    rng = np.random.default_rng(5)
    found = stream(backend)
    x = stable(rng, alpha, 1 << 19).astype(np.float32) * 1e-30
    found.update({"w": x})
    for block in BLOCK_SIZES:
        one = found.stable_index(block=block)
        assert abs(one.alpha - alpha) < 4 * one.stderr
        v = math.pi**2 / 6 * (1 / min(one.alpha, 2) ** 2 + 0.5)
        predicted = one.alpha**2 * math.sqrt(v * (1 / one.blocks + 1 / x.size)) / math.log(block)
        assert one.stderr == pytest.approx(predicted)
        assert (one.block, one.blocks, one.coverage, one.spread) == (block, (1 << 19) // block, 1.0, "iid")
    chosen = found.stable_index()
    assert chosen.block == 4096
    assert not chosen.warnings
    assert [one.block for one in chosen.sizes] == list(BLOCK_SIZES)


def test_the_error_holds_over_repeats() -> None:
    """Estimates over standard errors have a spread of one, and intervals hold as often as they say."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(200):
        s = GradientStream(sketch=0, tracks=0, coordinates=None)
        s.update({"w": stable(rng, 1.5, 1 << 15).astype(np.float32)})
        found.append(s.stable_index(block=64))
    z = np.array([(1 / one.alpha - 1 / 1.5) / (one.stderr / one.alpha**2) for one in found])
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert 0.85 < z.std() < 1.15  # sd of the sd: 0.05
    inside = np.mean([low <= 1.5 <= high for low, high in (one.ci() for one in found)])
    assert 0.9 <= inside <= 0.99


def test_blocks_of_steps_give_the_error(backend: str) -> None:
    found = stream(backend)
    for step in range(8):
        found.update({"w": stable(np.random.default_rng(step), 1.5, 1 << 15).astype(np.float32)})
    one = found.stable_index("w", 256)
    assert (one.spread, one.parts) == ("blocks", 8)
    curve = found.stable_curve("w", 256)
    assert [(first, last) for first, last, _ in curve] == [(i, i) for i in range(8)]
    xi = np.array([1 / alpha for _, _, alpha in curve])
    assert one.alpha == pytest.approx(1 / xi.mean())
    assert one.stderr == pytest.approx(xi.std(ddof=1) / math.sqrt(8) * one.alpha**2)
    low, high = one.ci()
    assert low < 1.5 < high
    newest = found.stable_index("w", 256, steps="newest")
    assert newest.alpha == pytest.approx(curve[-1][2])


def test_groups_of_unequal_scale_are_held_against_their_own(backend: str) -> None:
    rng = np.random.default_rng(2)
    arrays = {f"l{i}.w": (rng.standard_normal(1 << 15) * 10.0**i).astype(np.float32) for i in range(6)}
    apart, together = stream(backend), stream(backend, groups={"all": "l"})
    for one in (apart, together):
        one.update(arrays)
    found = apart.stable_index(block=64)
    assert abs(found.alpha - 2) < 4 * found.stderr
    # within one group they are a mixture between blocks, and mean log |X| is that of all just the same
    assert abs(together.stable_index(block=64).alpha - 2) < 4 * found.stderr
    mixed = stream(backend)
    scales = np.exp(rng.standard_normal(1 << 19))
    mixed.update({"w": (rng.standard_normal(1 << 19) * scales).astype(np.float32)})
    of_mixture = mixed.stable_index(block=1024)
    assert of_mixture.alpha == pytest.approx(1 / (1 / 2 + 1 / math.log(1024)), abs=0.1)
    assert any("no independent values of one stable law" in warning for warning in of_mixture.warnings)


@pytest.mark.parametrize("whole_rows", [False, True])
def test_zeros_are_left_out_and_said(backend: str, whole_rows: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((512, 1024)).astype(np.float32)
    if whole_rows:  # of neurons that are dead
        x[rng.random(512) < 0.3] = 0
    else:
        x[rng.random(x.shape) < 0.3] = 0
    found = stream(backend)
    found.update({"w": x})
    one = found.stable_index(block=1024)
    assert abs(one.alpha - 2) < 4 * one.stderr
    assert one.zeros == pytest.approx(np.mean(x == 0))
    y, xs = x.astype(np.float64).sum(axis=1), x.astype(np.float64).ravel()
    eps = np.finfo(np.float64).eps
    published = np.log(1024) / (np.log(np.abs(y) + eps).mean() - np.log(np.abs(xs) + eps).mean())
    if published > 0:
        assert one.alpha_with_zeros == pytest.approx(published, rel=0.01)
    assert any("exact zeros are left out" in warning for warning in one.warnings)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_mean_of_logarithms_from_bins(dtype: str) -> None:
    """Bins cost nothing next to rounding: exact values of as many normal numbers differ by less than 1e-4."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from gradtail.estimators.stable_sums import LogMeans

    x = np.random.default_rng(1).standard_normal(1 << 21) * 1e-3
    rounded = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    s = GradientStream(sketch=0, tracks=0, coordinates=None)
    s.update({"w": rounded})
    values = np.abs(rounded.astype(np.float64))
    exact = np.log(values[values > 0]).mean()
    assert float(LogMeans.of_summary(s.summary()).mean[0]) == pytest.approx(exact, abs=1e-4)


def test_refusals_and_words(backend: str) -> None:
    found = stream(backend)
    with pytest.raises(ValueError, match="expected a stream with a step"):
        found.stable_index()
    found.update({"w": np.ones(130, np.float32), "tiny": np.ones(3, np.float32)})
    one = found.stable_index("w")
    assert isinstance(one, StreamAlpha)
    assert one.alpha == pytest.approx(1.0, abs=0.01)  # all in one bin
    assert str(one).startswith("gradient alpha 1.01 (95 % ")
    assert "98.5% of the values lie in whole blocks of 64" in str(one)
    with pytest.raises(
        ValueError, match="block: expected at least 2 sums of 64 values that are not zero, got 0"
    ):
        found.stable_index("tiny")
    with pytest.raises(ValueError, match="block: expected one of 64, 256, 1024, 4096 or None, got 65"):
        found.stable_index("w", 65)
    with pytest.raises(TypeError, match="block: expected one of"):
        found.stable_index("w", "64")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps: expected 'all' or 'newest', got 'some'"):
        found.stable_index("w", steps="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 1"):
        one.ci(1)
