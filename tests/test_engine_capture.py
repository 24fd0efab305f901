"""Updates that are captured once and replayed: on the simulated device, as a graph of CUDA would be."""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import DEVICE_PIECE, SimulatedEngine, compare, expected_of
from test_engine_stream import counted, moved


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


def arrays_of(seed, sizes=(3001, 9, 500), dtype="float32"):
    return [values.make(dtype, n, "shifted", 10 * seed + i) for i, n in enumerate(sizes)]


def engine_of(device, **settings):
    return SimulatedEngine(device, rows=3, buckets=256, window=4, log_slots=8, **settings)


def captured(device, engine, plan, described, updates=1, **how):
    device.begin_capture(engine.stream)
    for i in range(updates):
        engine.update(plan, described, begin=i == 0, step=-1, **how)
    return device.end_capture(engine.stream)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_replays_are_what_updates_are(device, dtype):
    """The same bits, steps numbered on the device."""
    eager, replayed = engine_of(device), engine_of(device)
    arrays = arrays_of(0, dtype=dtype)
    described = eager.views(arrays)
    graph = captured(device, replayed, replayed.prepare(described), described)
    assert replayed.engine.captured
    assert not eager.engine.captured
    plan = eager.prepare(described)
    for step in range(6):
        for i, new in enumerate(arrays_of(step, dtype=dtype)):
            arrays[i][:] = new
        eager.update(plan, described)
        device.replay(graph, replayed.stream)
        eager.wait()
        replayed.engine.wait(replayed.stream)
        assert replayed.bytes() == eager.bytes()
        assert replayed.engine.latest() == eager.engine.latest()
        assert replayed.engine.latest()["step"] == step


def test_a_capture_runs_nothing(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    before = device.counters()["launches"]
    captured(device, engine, plan, described)
    engine.wait()
    assert device.counters()["launches"] == before
    assert int(engine.control()["calls"]) == 0


def test_replays_wait_for_nothing_and_allocate_nothing(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    graph = captured(device, engine, engine.prepare(described), described)
    before = counted(device)
    for _ in range(70):
        device.replay(graph, engine.stream)
    assert counted(device) == before
    engine.engine.wait(engine.stream)
    assert engine.engine.latest()["sequence"] == 70


def test_addresses_are_those_of_the_capture(device):
    """Whatever the plan is used for afterwards, and even when it is forgotten."""
    engine = engine_of(device)
    arrays = arrays_of(0)
    described = engine.views(arrays)
    plan = engine.prepare(described)
    graph = captured(device, engine, plan, described)
    elsewhere = moved(described, arrays_of(1))
    engine.update(plan, elsewhere, step=-1)
    engine.wait()
    compare(engine, engine.read(), expected_of(elsewhere, engine), elsewhere)
    engine.engine.forget(plan)
    large = engine.views(
        arrays_of(2, (90_000, 40_000, 3))
    )  # takes more memory for partials, other plans' too
    engine.update(engine.prepare(large), large, step=-1)
    device.replay(graph, engine.stream)
    engine.engine.wait(engine.stream)
    compare(engine, engine.read(), expected_of(described, engine), described)
    device.check_redzones()
    assert engine.engine.latest()["step"] == 2


def test_addresses_may_be_new_in_the_capture(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    elsewhere = moved(described, arrays_of(1))
    graph = captured(device, engine, plan, elsewhere)
    device.replay(graph, engine.stream)
    engine.engine.wait(engine.stream)
    compare(engine, engine.read(), expected_of(elsewhere, engine), elsewhere)
    engine.update(plan, described, step=-1)
    engine.wait()
    compare(engine, engine.read(), expected_of(described, engine), described)


def test_several_updates_of_one_step(device):
    engine, eager = engine_of(device), engine_of(device)
    described = engine.views(arrays_of(0))
    graph = captured(device, engine, engine.prepare(described), described, updates=2)
    plan = eager.prepare(described)
    for _ in range(3):
        device.replay(graph, engine.stream)
        eager.update(plan, described)
        eager.update(plan, described, begin=False)
    engine.engine.wait(engine.stream)
    eager.wait()
    assert engine.bytes() == eager.bytes()


def test_the_cadence_is_asked_at_each_replay(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    graph = captured(device, engine, engine.prepare(described), described, cadence=True)
    seen = []
    for call in range(9):
        if call == 3:
            engine.engine.set_every(4, engine.stream)
        device.replay(graph, engine.stream)
        engine.engine.wait(engine.stream)
        seen.append(int(engine.control()["sequence"]))
    assert seen == [1, 2, 3, 3, 4, 4, 4, 4, 5]
    assert engine.engine.latest()["step"] == 8


def test_coordinates_go_on_in_replays(device):
    engine = engine_of(device)
    arrays = arrays_of(0)
    described = engine.views(arrays)
    pieces = np.zeros(3, DEVICE_PIECE)
    memory = []
    for v, x in enumerate(arrays):
        cells = -(-x.size // 8)
        own = [device.Memory(0, 128 * cells), device.Memory(0, 4 * cells), device.Memory(0, 16)]
        memory.append(own)
        pieces[v] = (*(m.address for m in own), cells, x.size, 0, 1, 0)
    graph = captured(device, engine, engine.prepare(described, None, pieces), described)
    for _ in range(5):
        device.replay(graph, engine.stream)
    engine.engine.wait(engine.stream)
    count = np.zeros(-(-3001 // 8), np.uint32)
    memory[0][1].read(count)
    assert (count == 5).all()


def test_a_capture_that_has_no_room_changes_nothing(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    engine.update(plan, described)
    engine.wait()
    state = engine.bytes()
    before = counted(device, "live_allocations", "live_bytes", "live_pinned_bytes")
    device.set_memory_limit(device.counters()["live_bytes"])
    device.begin_capture(engine.stream)
    with pytest.raises(device.CudaError, match="out of memory"):
        engine.update(plan, described, step=-1)
    device.end_capture(engine.stream)
    device.set_memory_limit(2**40)
    assert counted(device, "live_allocations", "live_bytes", "live_pinned_bytes") == before
    assert engine.bytes() == state
    assert not engine.engine.captured
    engine.step = 0
    engine.update(plan, described)
    engine.wait()
    compare(engine, engine.read(), expected_of(described, engine), described)
