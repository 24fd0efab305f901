"""Updates that become part of a CUDA graph: replays are steps, which the device counts by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pretend
import pytest
from pretend import Device, Pair
from streams import assert_same_stream, assert_same_summary

SHAPES = {"a": (20, 9), "b": (33,)}


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield from pretend.lying_on(simulated, monkeypatch)


def gradient(step: int) -> dict[str, np.ndarray]:
    found = pretend.gradient(step, SHAPES)
    if step == 5:
        found["b"][3] = np.inf
    return found


class Loop:
    """A loop of which the pass is captured: its arrays stay where they are."""

    def __init__(self, device: Device, **settings: Any) -> None:
        self.device = device
        self.pair = Pair(device, **{"history": 64, **settings})
        self.buffers = gradient(0)
        self.step = 0
        self.graph: list[int] = []

    def fill(self) -> None:
        self.device.advance()  # what reads the values of before
        for name, array in gradient(self.step).items():
            self.buffers[name][...] = array

    def eager(self, steps: int = 1) -> Loop:
        for _ in range(steps):
            self.fill()
            self.pair.there.update(self.buffers)
            self.count()
        return self

    def count(self, observed: bool = True) -> None:
        if observed:
            self.pair.here_update(gradient(self.step), self.step)
        self.step += 1

    def capture(self) -> Loop:
        with self.device.captured() as self.graph:
            self.pair.there.update(self.buffers)
        return self

    def replay(self, steps: int = 1, every: int = 1) -> Loop:
        for _ in range(steps):
            self.fill()
            self.device.replay(self.graph)
            self.count(self.step % every == 0)
        return self

    def agree(self) -> None:
        assert_same_stream(self.pair.there, self.pair.here)


def test_a_capture_is_no_step(device: Device) -> None:
    loop = Loop(device).eager(2).capture()
    loop.agree()
    assert loop.pair.there.steps == 2
    loop.eager().agree()


@pytest.mark.parametrize("read", [True, False])
def test_replays_are_steps_and_later_updates_go_on(device: Device, read: bool) -> None:
    loop = Loop(device).eager(3).capture().replay(4)
    if read:
        assert loop.pair.there.steps == loop.pair.there.last_step + 1 == 7
        assert loop.pair.there.observed == {"a": 7, "b": 7}
        loop.agree()
    loop.eager(2)
    assert loop.pair.there.last_step == 8
    loop.replay(6).agree()
    loop.replay().eager().agree()
    assert loop.pair.there.first_nonfinite == loop.pair.here.first_nonfinite
    assert len(loop.pair.there.history) == loop.step == 17


def test_replays_wait_for_nothing(device: Device) -> None:
    loop = Loop(device).eager(3).capture().replay()
    with device.waits_for_nothing():
        loop.replay(30)
        assert loop.pair.there.latest().step == 32
    assert loop.pair.there.wait().step == 33
    loop.agree()


def test_blocks_of_replays_hold_every_step(device: Device) -> None:
    loop = Loop(device).eager(2).capture().replay(50)
    blocks = loop.pair.there.blocks("a")
    assert [block.summary.count for block in blocks] == [180 * block.steps for block in blocks]
    assert sum(block.steps for block in blocks) == 52
    loop.agree()


def test_the_graph_reads_where_its_arrays_lay(device: Device) -> None:
    """Eager updates of other arrays of the same names in between change nothing of it."""
    loop = Loop(device).eager(2).capture().replay(2)
    loop.pair.update(gradient(loop.step), loop.step)
    loop.step += 1
    loop.replay(3).agree()


@pytest.mark.parametrize("every", [2, 3])
def test_a_cadence_of_replays(device: Device, every: int) -> None:
    """Observed are the steps whose number is a multiple, of eager ones all."""
    loop = Loop(device).eager(2)
    loop.pair.there.set_replay_cadence(every)
    loop.capture().replay(8, every)
    loop.agree()
    assert loop.pair.there.next_step == 10
    loop.eager(3).replay(7, every).agree()
    assert loop.pair.there.next_step == 20
    loop.pair.there.set_replay_cadence(1)
    loop.replay(4).agree()
    loop.pair.there.set_replay_cadence(4)
    loop.replay(9, 4).agree()


@pytest.mark.parametrize(("every", "error"), [(0, ValueError), (True, TypeError), (1.5, TypeError)])
def test_no_cadence(device: Device, every: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="every: expected an int"):
        Pair(device).there.set_replay_cadence(every)


def test_a_cadence_goes_by_numbers_though_eager_steps_come_in_parts(device: Device) -> None:
    loop = Loop(device).eager(2)
    loop.pair.there.set_replay_cadence(3)
    loop.capture().replay(3, 3)
    for _ in range(2):
        for name in SHAPES:
            loop.pair.update({name: gradient(loop.step)[name]}, loop.step)
        loop.step += 1
    loop.replay(8, 3).agree()


def test_going_back_takes_the_numbers_of_replays_back(device: Device) -> None:
    loop = Loop(device, coordinates=None).eager(2).capture().replay(6)
    assert loop.pair.call(lambda stream: stream.rollback(4)) == (4, 4)
    loop.step = 5
    loop.replay(4)
    assert loop.pair.there.last_step == 8
    assert loop.pair.call(lambda stream: stream.discard()) == (7, 7)
    loop.step = 8
    loop.replay(2)
    assert loop.pair.there.last_step == 9
    for read in (lambda s: s.history, lambda s: s.ring(), lambda s: s.tracks()):
        found, wanted = loop.pair.call(read)
        np.testing.assert_array_equal(found.steps, wanted.steps)
    found, wanted = loop.pair.call(lambda stream: stream.summary("a", "newest"))
    assert_same_summary(found, wanted)


def test_a_number_given_to_the_captured_update_is_that_of_the_first_replay(device: Device) -> None:
    loop = Loop(device).eager(2)
    with device.captured() as loop.graph:
        loop.pair.there.update(loop.buffers, 20)
    loop.step = 20
    loop.replay(3)
    assert loop.pair.there.last_step == 22
    loop.agree()


def test_more_replays_than_the_device_remembers(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted and summed; the newest are in the history."""
    from gradtail.stream import on_device, unread

    for module in (on_device, unread):
        monkeypatch.setattr(module, "LOG_SLOTS", 64)
    loop = Loop(device, history=1024).eager(2).capture().replay(150)
    there, here = loop.pair.there, loop.pair.here
    assert there.counted == here.counted
    assert there.summary().count == here.summary().count
    assert there.history.steps.tolist() == list(range(152 - 64, 152))
    np.testing.assert_array_equal(there.ring().steps, here.ring().steps)
    np.testing.assert_allclose(there.history.norm[-64:], here.history.norm[-64:], rtol=2e-6)


class TestRefusals:
    NEW = "while a CUDA graph is captured, .* update once with the same arrays before capturing"

    def test_new_arrays_while_capturing(self, device: Device) -> None:
        loop = Loop(device).eager(2)
        for arrays in ({**loop.buffers, "new": np.ones(3, np.float32)}, {"b": loop.buffers["b"]}):
            with device.captured() as graph, pytest.raises(RuntimeError, match=self.NEW):
                loop.pair.there.update(arrays)
            assert graph  # the capture was not spoilt
        assert loop.pair.there.names == ["a", "b"]
        loop.eager(2).agree()

    def test_the_first_update_while_capturing(self, device: Device) -> None:
        loop = Loop(device)
        with device.captured(), pytest.raises(RuntimeError, match=self.NEW):
            loop.pair.there.update(loop.buffers)
        assert loop.pair.there.names == []
        loop.eager(2).agree()

    def test_another_list_in_another_graph(self, device: Device) -> None:
        loop = Loop(device).eager(2)
        loop.pair.update({"b": gradient(2)["b"]}, 2)
        loop.step = 3
        loop.capture()
        with device.captured(), pytest.raises(RuntimeError, match="make a stream for each graph"):
            loop.pair.there.update({"b": loop.buffers["b"]})
        loop.replay(2).agree()

    def test_more_of_a_step_while_capturing(self, device: Device) -> None:
        loop = Loop(device).eager(2)
        for step, name in ((2, "a"), (3, "b")):
            loop.pair.update({name: gradient(step)[name]}, step)
        with device.captured(), pytest.raises(ValueError, match="expected a number above 3 while"):
            loop.pair.there.update({"a": loop.buffers["a"]}, 3)
        loop.agree()

    def test_new_arrays_that_need_room_which_a_graph_holds(self, device: Device) -> None:
        loop = Loop(device).eager(2).capture().replay(2)
        with pytest.raises(RuntimeError, match="a CUDA graph holds their memory, got new ones"):
            loop.pair.there.update({**gradient(4), "new": np.ones(300, np.float32)})
        assert loop.pair.there.names == ["a", "b"]
        loop.replay(2).eager().agree()
