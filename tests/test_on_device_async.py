"""Nobody waits for the device, and nothing is read before its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pretend
import pytest
from pretend import Device, Pair
from streams import assert_same_stream

from gradtail.backends import cuda
from gradtail.stream import on_device, unread

SHAPES = {"a": (20, 9), "b": (33,)}


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield from pretend.lying_on(simulated, monkeypatch)


def gradient(step: int) -> dict[str, np.ndarray]:
    found = pretend.gradient(step, SHAPES)
    if step % 50 == 30:
        found["b"][step % 7] = np.inf
    return found


def test_a_steady_stream_waits_for_nothing(device: Device) -> None:
    """Blocks close on the way, and the newest finished step is asked for."""
    pair = Pair(device)
    for step in range(10):
        pair.update(gradient(step))
        device.advance()
    with device.waits_for_nothing():
        for step in range(10, 40):
            pair.update(gradient(step))
            assert pair.there.latest().step == step - 1
            assert pair.there.device_norm() is not None
            device.advance()
            assert pair.there.latest().step == step
    assert_same_stream(pair.there, pair.here)


def test_a_device_that_lags_behind_is_not_waited_for_within_a_block(device: Device) -> None:
    pair = Pair(device, window=8)
    for step in range(12):
        pair.update(gradient(step))
        device.advance()
    for step in range(12, 16):
        with device.waits_for_nothing():
            pair.update(gradient(step))
    assert pair.there.latest().step == 11
    assert_same_stream(pair.there, pair.here)


def test_memory_may_be_used_again_on_the_same_stream(device: Device) -> None:
    """A buffer is written to once the device has come so far, and not before it is read."""
    pair = Pair(device)
    buffers = gradient(0)
    for step in range(9):
        for name, array in gradient(step).items():
            buffers[name][...] = array
        pair.update(buffers)
        if step % 2:
            device.advance()
        else:
            pair.there.wait()
        for array in buffers.values():
            array[...] = np.nan
    assert_same_stream(pair.there, pair.here)


def test_values_are_those_of_the_time_when_the_device_comes_to_them(device: Device) -> None:
    pair = Pair(device)
    arrays = gradient(0)
    pair.there.update(arrays)
    arrays["a"][...] = 3
    pair.here_update(arrays)
    assert_same_stream(pair.there, pair.here)


@pytest.mark.parametrize("parts", [1, 2])
def test_hundreds_of_unread_steps_are_logged_without_waiting(
    device: Device, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """The device keeps the norms of so many steps; they are fetched of steps that have ended."""
    slots = 64
    for module in (on_device, unread):
        monkeypatch.setattr(module, "LOG_SLOTS", slots)
    monkeypatch.setattr(on_device, "DRAIN", slots // 4)
    pair = Pair(device, history=2048, window=24)
    training = device.stream

    def update(step: int) -> None:
        names = list(SHAPES)
        for part in range(parts):
            own = gradient(step) if parts == 1 else {names[part]: gradient(step)[names[part]]}
            pair.update(own, step)

    for step in range(9):
        update(step)
        device.advance()
    logged = 0
    for step in range(9, 300):
        pending = device.module.pending(training)
        update(step)
        assert device.module.pending(training) > pending  # not even the copy has made the device go on
        if step % 3 == 0:
            device.advance()
        now = len(pair.there._held.log)
        logged += now > 0
    assert_same_stream(pair.there, pair.here)
    np.testing.assert_array_equal(pair.there.history.steps, np.arange(300))
    assert len(pair.there._held.device._unread.steps) == 0


def test_of_unread_steps_no_more_is_kept_than_rings_have(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (on_device, unread):
        monkeypatch.setattr(module, "LOG_SLOTS", 64)
    monkeypatch.setattr(on_device, "DRAIN", 16)
    pair = Pair(device, window=10)
    for step in range(200):
        pair.update(gradient(step))
        device.advance()
        assert len(pair.there._held.device._unread.steps) <= 10 + 17
    assert_same_stream(pair.there, pair.here)


def test_a_host_far_ahead_waits_rather_than_lose_anything(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (on_device, unread):
        monkeypatch.setattr(module, "LOG_SLOTS", 16)
    monkeypatch.setattr(on_device, "DRAIN", 4)
    pair = Pair(device, history=128)
    pair.there._held.timeline.pace = 256  # blocks do not close, so only the log makes it wait
    for step in range(100):
        pair.update(gradient(step))
    assert_same_stream(pair.there, pair.here)
    assert pair.there.first_nonfinite == pair.here.first_nonfinite
    assert len(pair.there.history) == 100


def test_time_on_the_device(device: Device) -> None:
    pair = Pair(device)
    assert pair.there.extra_seconds() == 0
    for step in range(3):
        pair.update(gradient(step))
    device.advance()
    assert pair.there.extra_seconds() > 0
    assert pair.there.extra_seconds() == 0
    assert pair.here.extra_seconds() == 0


def test_updates_on_several_streams_and_readings_between(device: Device) -> None:
    pair = Pair(device)
    streams = [device.stream, device.module.create_stream(0)]
    for step in range(12):
        device.stream = streams[step % 2]
        pair.update(gradient(step))
        if step % 3 == 0:
            pair.there.summary()
    assert_same_stream(pair.there, pair.here)


def test_arrays_whose_framework_is_not_known_are_waited_for(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would keep their memory until it has been read."""
    monkeypatch.setattr(cuda, "framework_of", lambda views: "")
    pair = Pair(device)
    pair.update(gradient(0))
    assert pair.there.latest().step == 0  # though nobody has advanced the device
    assert_same_stream(pair.there, pair.here)
