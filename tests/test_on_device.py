"""Streams of arrays on a device that is simulated find what streams on the host find in the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pretend
import pytest
from pretend import Device, Pair
from streams import assert_same_stream, assert_same_summary

import gradtail
from gradtail.states import summary
from gradtail.stream import arrangement, observation

SHAPES = {"a.weight": (40, 9), "a.bias": (9,), "b.weight": (3, 3, 5), "late": (100,), "none": (0, 4)}


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield from pretend.lying_on(simulated, monkeypatch)


def gradient(step: int) -> dict[str, np.ndarray]:
    """Names come and go; some values are not finite, and scales change."""
    found = pretend.gradient(step, SHAPES)
    found["a.weight"] *= np.float32(10.0) ** -step
    if step == 3:
        found["b.weight"][1, 2, 3] = np.inf
    if step == 4:
        found["b.weight"][0, 0, 0] = np.nan
    if step < 7:
        del found["late"]
    if step in (5, 9):
        del found["a.bias"], found["none"]
    return found


def agree(pair: Pair) -> None:
    assert_same_stream(pair.there, pair.here)
    there, here = pair.there, pair.here
    assert there.latest().step == here.latest().step
    assert there.latest().norm == pytest.approx(here.latest().norm, rel=2e-6, nan_ok=True)
    assert there.latest().nonfinite == here.latest().nonfinite


SETTINGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "bits 3": {"bits": 3},
    "bits 7": {"bits": 7},
    "no sketch": {"sketch": 0},
    "no tracks": {"tracks": 0},
    "no window": {"window": 0},
    "no coordinates": {"coordinates": None},
    "dense": {"coordinates": "dense"},
    "wide": {"sketch": 8192, "window": 3, "tracks": 4000},
    "groups": {"groups": {"first": r"a\.", "second": r"b"}},
    "seed": {"seed": 5},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting(device: Device, name: str) -> None:
    pair = Pair(device, **SETTINGS[name])
    for step in range(13):
        pair.update(gradient(step))
    agree(pair)
    assert pair.there.first_nonfinite == gradtail.stream.NonFinite(3, "b.weight", 28)


def test_every_backend(device: Device, backend: str) -> None:
    """What the device has found is joined by a backend of the host."""
    pair = Pair(device, backend=backend)
    for step in range(9):
        pair.update(gradient(step))
        if step == 4:
            agree(pair)
    agree(pair)


def test_what_is_estimated_from_rings_and_norms(device: Device) -> None:
    pair = Pair(device, window=64, history=64)
    for step in range(70):
        pair.update(pretend.gradient(step, {"a": (300,), "b": (20,)}))
    for group in (None, "a"):
        found, wanted = pair.call(lambda stream, group=group: stream.spectrum(group))
        np.testing.assert_allclose(found.eigenvalues, wanted.eigenvalues, rtol=1e-4, atol=1e-6)
        assert found.participation_ratio == pytest.approx(wanted.participation_ratio, rel=1e-4)
    found, wanted = pair.call(lambda stream: stream.suggest_clip(0.05))
    assert found.threshold == pytest.approx(wanted.threshold, rel=1e-5)


def test_declared_arrays_and_several_updates_of_a_step(device: Device) -> None:
    """As where the optimizer runs within backward."""
    pair = Pair(device)
    pair.call(lambda stream: stream.declare({name: int(np.prod(shape)) for name, shape in SHAPES.items()}))
    for step in range(11):
        for name, array in reversed(gradient(step).items()):
            pair.update({name: array}, step)
    agree(pair)


def test_several_updates_of_a_step_with_arrays_that_nobody_has_heard_of(device: Device) -> None:
    """Each makes the device begin anew with more room, in the middle of the step."""
    pair = Pair(device)
    for step in range(6):
        for name, array in gradient(step).items():
            pair.update({name: array}, step)
    agree(pair)


def test_places(device: Device) -> None:
    """Columns and rows of parameters, several runs each; nothing of some."""
    pair = Pair(device)
    for step in range(7):
        whole = pretend.gradient(step, {"w": (12, 30), "v": (50,), "e": (6, 3)})
        left, right = np.ascontiguousarray(whole["w"][:, :13]), np.ascontiguousarray(whole["w"][5:, 13:])
        arrays = {"w": left, "v": whole["v"][7:20], "e": whole["e"][:0]}
        places = {"w": ((12, 30), (0, 0)), "v": ((50,), (7,)), "e": ((6, 3), (6, 0))}
        pair.update(arrays, step, places)
        pair.update({"w": right}, step, {"w": ((12, 30), (5, 13))})
    agree(pair)


def test_dtypes_that_change_between_steps(device: Device) -> None:
    pair = Pair(device)
    dtypes = (np.float32, np.float16, np.float64, np.float64, np.float32, np.float16)
    for step, dtype in enumerate(dtypes):
        found = pretend.gradient(step, {"a": (3000,), "b": (7,)})
        found["a"] = found["a"].astype(dtype)
        if dtype is np.float64:
            found["a"][5] = 1e100
        pair.update(found)
    agree(pair)


def test_arrays_without_any_value(device: Device) -> None:
    pair = Pair(device)
    for step in range(5):
        arrays = pretend.gradient(step, {"a": (0,), "b": (0, 3)})
        if step > 2:
            arrays["c"] = np.ones(4, np.float32)
        pair.update(arrays)
    agree(pair)


def test_arrays_in_axis_orders_of_their_own(device: Device) -> None:
    pair = Pair(device)
    for step in range(3):
        found = pretend.gradient(step, {"a": (8, 5, 3)})["a"]
        pair.update({"a": found.transpose(2, 0, 1), "f": np.asfortranarray(found[0])})
    agree(pair)


@pytest.mark.parametrize("steps", [40, 133])
def test_long_runs_close_blocks(device: Device, steps: int) -> None:
    """More steps than any window has, and blocks that are joined as they become many."""
    pair = Pair(device, history=64)
    for step in range(steps):
        pair.update(pretend.gradient(step, {"a": (30,), "b": (3, 2)}), 3 * step)
        device.advance()
    agree(pair)
    blocks = pair.there.blocks("a")
    assert len(blocks) > 8
    assert [block.summary.count for block in blocks] == [30 * block.steps for block in blocks]
    for block in blocks:
        assert pair.there.counted.count(block.first_step, block.last_step) == block.steps


def test_sets_of_names_without_end_take_no_memory_without_end(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was prepared for a set that is forgotten is released, on the device too."""
    monkeypatch.setattr(observation, "_MOST_ARRANGEMENTS", 1)
    pair = Pair(device, coordinates=None)
    pair.call(lambda stream: stream.declare({f"n{i}": 40 for i in range(8)}))
    pair.update(pretend.gradient(0, {f"n{i}": (40,) for i in range(8)}))
    sets, live = [(i, j) for i in range(8) for j in range(i)], []
    for step, chosen in enumerate(sets):
        pair.update(pretend.gradient(step % 7, {f"n{i}": (40,) for i in chosen}))
        if step % 7 == 6:
            live.append(device.module.counters()["live_allocations"])
    assert len(set(live[1:])) == 1
    agree(pair)


def test_an_array_alone(device: Device) -> None:
    """``summarize`` and ``sketch`` wait for their numbers, and count nothing."""
    pair = Pair(device)
    arrays = gradient(8)
    pair.update(arrays)
    before = pair.there.summary().count
    other = pretend.gradient(1, {"a.weight": (40, 9), "new": (33,)})
    found, wanted = pair.call(lambda stream: stream.sketch(other))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.linalg.norm(wanted))
    assert np.any(found)
    assert pair.there.summary().count == before
    agree(pair)


def test_summarize(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = list(gradient(4).values())
    wanted = gradtail.summarize(arrays)
    monkeypatch.setattr(summary, "views_of", arrangement.views_of)
    found = gradtail.summarize(arrays)
    assert_same_summary(found, wanted)
    assert device.counters()[0] > 0
