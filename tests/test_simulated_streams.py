"""Streams, events, captures and memory of the simulated CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from simulated import build
from simulated.toys import launch, memory, words


@pytest.fixture(scope="module")
def compiled() -> ModuleType:
    return build.load()


@pytest.fixture
def device(compiled: ModuleType) -> Iterator[ModuleType]:
    compiled.reset()
    yield compiled
    compiled.reset()


class TestStreams:
    def test_nothing_is_done_before_somebody_waits(self, device):
        stream, other = device.create_stream(), device.create_stream()
        x, out, second = words(64), np.zeros(64, np.uint32), np.zeros(64, np.uint32)
        launch(device, "copy", 1, 32, x, out, n=64, stream=stream)
        launch(device, "copy", 1, 32, out, second, n=64, stream=stream)
        device.synchronize(other)
        assert device.pending(stream) == 2
        assert not out.any()
        x += 1  # seen: a launch reads memory when it runs
        assert device.advance(stream, 1) == 1
        assert (out == x).all()
        assert not second.any()
        device.synchronize(stream)
        assert (second == x).all()
        assert device.advance(stream) == 0
        device.destroy_stream(stream)
        with pytest.raises(RuntimeError, match="invalid resource handle"):
            device.synchronize(stream)
        device.destroy_stream(other)

    def test_event_is_done_when_what_came_before_is(self, device):
        event = device.create_event()
        out = np.zeros(64, np.uint32)
        assert device.is_done(event)
        launch(device, "copy", 1, 32, words(64), out, n=64)
        device.record(event, 0)
        launch(device, "copy", 1, 32, words(32), out, n=32)
        assert not device.is_done(event)
        assert device.advance(0, 1) == 1
        assert not device.is_done(event)
        device.wait(event)
        assert device.is_done(event)
        assert device.pending(0) == 1, "waiting for an event waits for no more"
        device.record(event, 0)
        assert not device.is_done(event)
        device.destroy_event(event)
        with pytest.raises(RuntimeError, match="handle"):
            device.wait(event)

    def test_stream_waits_for_another(self, device):
        first, second, event = device.create_stream(), device.create_stream(), device.create_event()
        x, between, out = words(64), np.zeros(64, np.uint32), np.zeros(64, np.uint32)
        launch(device, "copy", 1, 32, x, between, n=64, stream=first)
        device.record(event, first)
        device.stream_waits(second, event)
        launch(device, "copy", 1, 32, between, out, n=64, stream=second)
        assert device.advance(second) == 0
        device.synchronize(second)
        assert (out == x).all()

    def test_elapsed(self, device):
        events = [device.create_event(timing=True) for _ in range(2)]
        device.record(events[0], 0)
        launch(device, "where", 1, 32, None, np.zeros(64, np.uint32))
        device.record(events[1], 0)
        with pytest.raises(RuntimeError, match="not ready"):
            device.elapsed(*events)
        device.synchronize(0)
        assert device.elapsed(*events) > 0

    def test_waiting_is_counted(self, device):
        event, at = device.create_event(), device.allocate(64)
        waited = lambda: device.counters()["synchronizations"]
        device.fill(at, 0, 64, 0)
        device.record(event, 0)
        device.stream_waits(0, event)
        device.is_done(event)
        device.advance(0)
        assert waited() == 0
        device.wait(event)
        assert waited() == 1
        device.synchronize(0)
        assert waited() == 2
        device.fill(at, 0, 64, 0)
        device.release(at)  # waits for all that may still use it
        assert device.pending(0) == 0
        assert waited() == 3

    def test_capture_and_replay(self, device):
        stream = device.create_stream()
        at = device.allocate(16 * 4)
        x, out = words(16), np.zeros(17, np.uint32)
        device.begin_capture(stream)
        assert device.is_capturing(stream)
        assert not device.is_capturing(0)
        device.fill(at, 1, 8, stream)
        launch(device, "turns", 1, 4, None, out, stream=stream)
        device.toy("copy", 1, 32, x.ctypes.data, at + 8, 14, stream=stream)
        graph = device.end_capture(stream)
        assert not device.is_capturing(stream)
        device.synchronize(stream)
        assert (memory(at, 64) == 0xCD).all()
        assert not out.any(), "what was captured is not run"
        for times in (1, 2, 3):
            device.replay(graph, stream)
            assert out[0] == 4 * (times - 1)
            device.synchronize(stream)
            assert out[0] == 4 * times
        assert (memory(at, 64)[8:].view(np.uint32) == x[:14]).all()
        assert (memory(at, 8) == 1).all()
        device.release(at)

    def test_capture_of_two_streams(self, device):
        first, second = device.create_stream(), device.create_stream()
        fork, join = device.create_event(), device.create_event()
        x, between, out = words(64), np.zeros(64, np.uint32), np.zeros(64, np.uint32)
        device.begin_capture(first)
        launch(device, "copy", 1, 32, x, between, n=64, stream=first)
        device.record(fork, first)
        device.stream_waits(second, fork)
        assert device.is_capturing(second)
        launch(device, "copy", 1, 32, between, out, n=64, stream=second)
        device.record(join, second)
        device.stream_waits(first, join)
        graph = device.end_capture(first)
        assert not device.is_capturing(second)
        device.replay(graph, first)
        device.synchronize(first)
        assert (out == x).all()

    @pytest.mark.parametrize("what", ["allocate", "release", "synchronize", "wait", "is_done", "isolation"])
    def test_what_spoils_a_capture(self, device, what):
        stream, event, at = device.create_stream(), device.create_event(), device.allocate(64)
        device.record(event, 0)
        device.begin_capture(stream)
        if what == "is_done":
            assert not device.is_done(event)
        else:
            act = {
                "allocate": lambda: device.allocate(8),
                "release": lambda: device.release(at),
                "synchronize": lambda: device.synchronize(stream),
                "wait": lambda: device.wait(event),
                "isolation": lambda: device.stream_waits(stream, event),
            }[what]
            with pytest.raises(RuntimeError, match=r"not permitted when stream is|uncaptured work"):
                act()
        with pytest.raises(RuntimeError, match="previous error during capture"):
            device.end_capture(stream)
        device.release(at)

    def test_what_does_not_spoil_a_relaxed_capture(self, device):
        stream, other = device.create_stream(), device.create_stream()
        device.begin_capture(stream)
        at = device.allocate_relaxed(64)
        device.fill(at, 1, 64, other)
        device.synchronize_relaxed(other)
        assert (memory(at, 64) == 1).all()
        device.end_capture(stream)
        device.begin_capture(stream)
        with pytest.raises(RuntimeError, match="not permitted"):
            device.synchronize_relaxed(stream)
        with pytest.raises(RuntimeError, match="previous error during capture"):
            device.end_capture(stream)
        with pytest.raises(RuntimeError, match="not capturing"):
            device.end_capture(stream)
        device.release(at)


class TestMemory:
    def test_is_counted_and_poisoned(self, device):
        before = device.counters()
        at, (host, on_device) = device.allocate(1000), device.allocate_pinned(24)
        assert at % 256 == 0
        assert (memory(at, 1000) == 0xCD).all()
        assert (memory(host, 24) == 0xCD).all()
        assert host == on_device
        more = {key: value - before[key] for key, value in device.counters().items()}
        assert more["live_bytes"] == 1000
        assert more["live_pinned_bytes"] == 24
        assert more["allocations"] == more["live_allocations"] == 2
        device.release(at)
        device.release_pinned(host)
        after = device.counters()
        assert all(
            after[key] == before[key] for key in ("live_bytes", "live_pinned_bytes", "live_allocations")
        )
        with pytest.raises(RuntimeError, match="not allocated"):
            device.release(at)

    def test_limit(self, device):
        device.set_memory_limit(device.counters()["live_bytes"] + 1000)
        at = device.allocate(600)
        with pytest.raises(RuntimeError, match="out of memory"):
            device.allocate(401)
        host, _ = device.allocate_pinned(5000)
        rest = device.allocate(400)
        device.release(at)
        again = device.allocate(600)
        for address in (again, rest):
            device.release(address)
        device.release_pinned(host)

    @pytest.mark.parametrize(
        ("byte", "text"),
        [(-1, "before the beginning"), (-256, "before the"), (100, "past the end"), (355, "past")],
    )
    def test_red_zones(self, device, byte, text):
        at = device.allocate(100)
        memory(at, 100)[:] = 0
        device.check_redzones()
        memory(at + byte, 1)[0] = 0
        with pytest.raises(RuntimeError, match=f"write {text}.* an allocation of 100 bytes"):
            device.check_redzones()
        with pytest.raises(RuntimeError, match=f"write {text}"):
            device.release(at)
        with pytest.raises(RuntimeError, match=f"write {text}"):
            device.check_redzones()  # also after the release, which may have told nobody
        device.reset()
        device.check_redzones()

    def test_copies(self, device):
        at, (host, _) = device.allocate(64), device.allocate_pinned(64)
        memory(host, 64)[:] = np.arange(64)
        device.copy_to_device(at, host, 64, 0)
        device.advance(0)
        assert (memory(at, 64) == np.arange(64)).all()
        device.fill(at + 60, 7, 4, 0)
        device.copy_to_host(host, at + 32, 32, 0)
        memory(host, 64)[:] = 0
        device.synchronize(0)
        assert memory(host, 64).tolist() == [*range(32, 60), 7, 7, 7, 7, *[0] * 32]
        pageable = np.zeros(64, np.uint8)
        with pytest.raises(RuntimeError, match="not pinned"):
            device.copy_to_device(at, pageable.ctypes.data, 64, 0)
        with pytest.raises(RuntimeError, match="past the end"):
            device.copy_to_device(at + 1, host, 64, 0)
        with pytest.raises(RuntimeError, match="past the end"):
            device.copy_to_host(host, at + 1, 64, 0)
        with pytest.raises(RuntimeError, match="past the end"):
            device.fill(at - 1, 0, 1, 0)
        device.release(at)
        device.release_pinned(host)
