"""Readings between steps, and within one: each moves what the device has to the host, and nothing is lost."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pretend
import pytest
from pretend import Device, Pair
from streams import assert_same_stream

from gradtail import GradientStream

SHAPES = {"a.weight": (20, 9), "a.bias": (9,), "b": (33,)}


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield from pretend.lying_on(simulated, monkeypatch)


def gradient(step: int) -> dict[str, np.ndarray]:
    found = pretend.gradient(step, SHAPES)
    if step % 5 == 3:
        found["b"][step] = np.nan
    return found


def agree(pair: Pair) -> None:
    assert_same_stream(pair.there, pair.here)


def same_latest(pair: Pair) -> None:
    found, wanted = pair.call(lambda stream: stream.wait())
    assert (found.step, found.nonfinite) == (wanted.step, wanted.nonfinite)
    assert found.norm == pytest.approx(wanted.norm, rel=2e-6, nan_ok=True)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_between_steps(device: Device, every: int) -> None:
    pair = Pair(device)
    for step in range(15):
        pair.update(gradient(step))
        same_latest(pair)
        if step % every == 0:
            for read in (lambda s: s.summary("b").count, lambda s: s.nonfinite(), lambda s: s.steps):
                found, wanted = pair.call(read)
                assert found == wanted
    agree(pair)


def test_block_sums_are_not_taken_there_and_that_is_said(device: Device) -> None:
    pair = Pair(device, stable=None)
    pair.update(gradient(0))
    why = "expected a stream that takes block sums, got one on a device, where it needs stable=True"
    with pytest.raises(ValueError, match=why):
        pair.there.stable_index()
    assert pair.there.settings["stable"] is False
    assert pair.there.summary().block_logs is None
    assert pair.here.summary().block_logs is not None


@pytest.mark.parametrize("more", [0, 1, 2, 9])
def test_within_a_step(device: Device, more: int) -> None:
    """What was read of a step and what came afterwards belong together, in rings, records and norms."""
    pair = Pair(device)
    for step in range(6):
        pair.update(gradient(step))
    parts = list(gradient(8).items())
    for name, array in parts:
        pair.update({name: array}, 8)
        agree(pair)
        same_latest(pair)
    for step in range(9, 9 + more):
        pair.update(gradient(step))
        same_latest(pair)
    agree(pair)


@pytest.mark.parametrize("more", [1, 9])
def test_within_a_step_whose_rest_is_read_later(device: Device, more: int) -> None:
    pair = Pair(device)
    for step in range(3):
        first, *rest = gradient(step).items()
        pair.update(dict([first]), step)
        agree(pair)
        for name, array in rest:
            pair.update({name: array}, step)
        same_latest(pair)
    for step in range(3, 3 + more):
        pair.update(gradient(step))
    agree(pair)


def test_the_norm_on_the_device_is_not_told_of_half_a_step(device: Device) -> None:
    pair = Pair(device)
    (name, array), *rest = gradient(0).items()
    pair.update({name: array}, 0)
    assert pair.there.device_norm() is not None
    pair.there.summary()
    pair.update(dict(rest), 0)
    assert pair.there.device_norm() is None
    pair.update(gradient(1))
    assert pair.there.device_norm() is not None


def test_what_is_not_there_yet_is_not_told(device: Device) -> None:
    stream = GradientStream(sketch=128, tracks=8)
    assert stream.latest() is None
    stream.update(gradient(0))
    assert stream.latest() is None
    stream.update(gradient(1))
    device.advance()
    stream.update(gradient(2))
    assert stream.latest().step == 1
    assert stream.wait().step == 2
    stream.summary()
    stream.update(gradient(3))
    assert stream.latest().step == 2
    device.advance()
    assert stream.latest().step == 3
    assert math.isnan(stream.latest().norm)


@pytest.mark.parametrize("ways", ["state_dict", "file", "pickle", "copy"])
def test_saved_and_going_on(device: Device, ways: str, tmp_path: Path) -> None:
    """Elsewhere or on the device again; the stream that was saved goes on too."""
    pair = Pair(device)
    for step in range(7):
        pair.update(gradient(step))
    if ways == "state_dict":
        other = GradientStream.from_state_dict(pair.there.state_dict())
    elif ways == "file":
        pair.there.save(tmp_path / "s.npz")
        other = GradientStream.load(tmp_path / "s.npz")
    else:
        other = pickle.loads(pickle.dumps(pair.there)) if ways == "pickle" else copy.deepcopy(pair.there)
    assert_same_stream(other, pair.here)
    on_host = copy.deepcopy(other)
    for step in range(7, 13):
        pair.update(gradient(step))
        other.update(gradient(step))
        with device.host():
            on_host.update(gradient(step))
    for found in (other, on_host, pair.there):
        assert_same_stream(found, pair.here)


def test_merged_with_another_stream(device: Device) -> None:
    """Two of the device, and one of the device with one of the host; the merged one goes on on either."""
    whole = Pair(device)
    streams = {place: GradientStream(**SMALL) for place in ("one", "two", "host")}
    for step in range(9):
        arrays = gradient(step)
        whole.update(arrays)
        for place, name in zip(streams, arrays, strict=True):
            if place == "host":
                with device.host():
                    streams[place].update({name: arrays[name]}, step)
            else:
                streams[place].update({name: arrays[name]}, step)
    merged = streams["one"].merge(streams["two"]).merge(streams["host"])
    other = streams["host"].merge(streams["one"].merge(streams["two"]))
    for found in (merged, other):
        assert_same_stream(found, reference(whole))
    for step in range(9, 12):
        whole.update(gradient(step))
        merged.update(gradient(step))
        with device.host():
            other.update(gradient(step))
    for found in (merged, other):
        assert_same_stream(found, reference(whole))


SMALL: dict[str, Any] = {"sketch": 256, "window": 5, "history": 8, "coordinates": 2, "tracks": 0}


def reference(pair: Pair) -> GradientStream:
    """Return the stream of the host without tracks, which a stream shares out among the arrays it has."""
    held = GradientStream(**SMALL)
    state = {**held.state_dict(), **{k: v for k, v in pair.here.state_dict().items() if k[:6] != "tracks"}}
    return GradientStream.from_state_dict({**state, "settings/tracks": 0})


@pytest.mark.parametrize("read", [True, False])
def test_going_back(device: Device, read: bool) -> None:
    pair = Pair(device, window=16, history=64)
    for step in range(9):
        pair.update(gradient(step))
        if read:
            pair.there.summary()
    assert pair.call(lambda stream: stream.discard()) == (7, 7)
    assert pair.there.latest() is None
    for name in ("a.bias", None):
        found, wanted = pair.call(lambda stream, name=name: stream.ring(name))
        np.testing.assert_array_equal(found.steps, wanted.steps)
    with pytest.raises(ValueError, match="expected a number above 7, got 7"):
        pair.there.update(gradient(7), 7)
    assert pair.call(lambda stream: stream.rollback(3)) == (3, 3)
    for step in range(4, 8):
        pair.update(gradient(step + 20), step)
        same_latest(pair)
    found, wanted = pair.call(lambda stream: (list(stream.history.steps), list(stream.history.norm)))
    assert found[0] == wanted[0] == list(range(8))
    np.testing.assert_allclose(found[1], wanted[1], rtol=2e-6)
    found, wanted = pair.call(lambda stream: stream.ring())
    np.testing.assert_allclose(found.vectors, wanted.vectors, rtol=1e-5, atol=1e-4)
    found, wanted = pair.call(lambda stream: stream.coordinates("b").count.tolist())
    assert found == wanted
    found, wanted = pair.call(lambda stream: stream.summary("a.bias", "newest").count)
    assert found == wanted == 9


class TestRefusals:
    def test_a_broken_launch_leaves_the_stream_as_it_was(
        self, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = Pair(device)
        for step in range(5):
            pair.update(gradient(step))
        bare = extension_engine(pair.there)

        class Broken:
            def __getattr__(self, name: str) -> Any:
                return getattr(bare, name)

            def update(self, *_: Any) -> None:
                raise RuntimeError("launch: no device")

        with monkeypatch.context() as patch:
            patch.setattr(pair.there._held.device, "_engine", Broken())
            for arrays in (
                gradient(5),
                {"b": gradient(5)["b"]},
            ):  # a set that was there before, and a new one
                with pytest.raises(RuntimeError, match="no device"):
                    pair.there.update(arrays)
        agree(pair)
        for step in range(5, 9):
            pair.update(gradient(step))
        agree(pair)

    @pytest.mark.parametrize("room", [0, 1 << 12, 1 << 20, 1 << 22])
    @pytest.mark.parametrize("first", [True, False])
    def test_a_device_without_memory_for_more(self, device: Device, room: int, first: bool) -> None:
        """Arrays that are new need an engine with more room."""
        pair = Pair(device)
        for step in range(0 if first else 5):
            pair.update(gradient(step))
        if not first:
            pair.there.summary()  # which frees nothing that is asked for afterwards
        live = device.module.counters()["live_bytes"]
        device.module.set_memory_limit(live + room)
        more = {f"m{i}": np.ones(4, np.float32) for i in range(60)}
        before = pair.there.state_dict()
        with pytest.raises(RuntimeError, match="out of memory"):
            pair.there.update({**gradient(5), **more})
        device.module.set_memory_limit((1 << 64) - 1)
        after = pair.there.state_dict()
        assert before.keys() == after.keys()
        for key in before:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)
        for step in range(5, 9):
            pair.update(gradient(step), step)
        pair.update({**gradient(9), **more}, 9)
        agree(pair)

    def test_arrays_of_another_device(self, device: Device) -> None:
        pair = Pair(device)
        pair.update(gradient(0))
        device.number = 1
        with pytest.raises(ValueError, match=r"expected arrays on .*0 as before, got some on .*1"):
            pair.there.update(gradient(1))
        with device.host(), pytest.raises(ValueError, match="as before, got some on"):
            pair.there.update(gradient(1))
        device.number = 0
        pair.update(gradient(1))
        agree(pair)

    def test_values_that_were_counted(self, device: Device) -> None:
        pair = Pair(device)
        pair.update(gradient(0))
        with pytest.raises(ValueError, match="not counted in step 0 before"):
            pair.there.update({"b": gradient(0)["b"]}, 0)
        agree(pair)


def extension_engine(stream: GradientStream) -> Any:
    return stream._held.device._engine


def test_sketches_keep_what_they_need_on_the_device(device: Device) -> None:
    pair = Pair(device)
    pair.update(gradient(0))
    there, here = pair.call(lambda stream: stream.sketch(gradient(1)))
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)
    before = device.module.counters()["allocations"]
    for step in range(2, 5):
        arrays = gradient(step)
        there, here = pair.call(lambda stream: stream.sketch(arrays))  # noqa: B023
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)
    assert device.module.counters()["allocations"] == before
    assert pair.there.steps == 1
