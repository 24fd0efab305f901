"""Memory of the engine on the simulated device: none leaks, no edge is crossed, and it may run out."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import values
from device import ARRAYS, DEVICE_PIECE, SimulatedEngine, check, compare, expected_of, views
from test_engine_stream import counted

LIVE = ("live_allocations", "live_bytes", "live_pinned_bytes")


@pytest.fixture
def device(simulated):
    gc.collect()
    simulated.reset()
    yield simulated
    simulated.reset()


def arrays_of(seed, sizes=(3001, 9, 500)):
    return [values.make("float32", n, "shifted", 10 * seed + i) for i, n in enumerate(sizes)]


def engine_of(device, number=0):
    return SimulatedEngine(device, rows=3, buckets=1024, window=4, row_window=2, log_slots=8, device=number)


def test_an_engine_gives_back_all_it_took(device):
    before = counted(device, *LIVE)
    engine = engine_of(device)
    assert engine.engine.nbytes == device.counters()["live_bytes"] - before["live_bytes"]
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    assert engine.engine.nbytes == device.counters()["live_bytes"] - before["live_bytes"]
    engine.update(plan, described)
    engine.engine.stage_open(engine.stream)
    engine.engine.staged()
    del engine
    gc.collect()
    assert counted(device, *LIVE) == before


def test_what_a_graph_writes_to_outlives_the_engine(device):
    others = device.counters()["live_bytes"]  # what graphs of other tests write to
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    engine.update(plan, described)
    device.begin_capture(engine.stream)
    engine.update(plan, described, step=-1)
    graph, stream, nbytes = device.end_capture(engine.stream), engine.stream, engine.engine.nbytes
    assert nbytes == device.counters()["live_bytes"] - others
    del engine
    gc.collect()
    kept = device.counters()["live_bytes"] - others
    assert 0 < kept < nbytes  # the plan of the update that was no part of it is gone
    device.replay(graph, stream)
    device.synchronize(stream)
    device.check_redzones()


def test_forgetting_a_plan_releases_its_memory(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    engine.engine.forget(engine.prepare(described))  # partials and staging stay
    before, nbytes = counted(device, *LIVE), engine.engine.nbytes
    plans = [engine.prepare(described) for _ in range(5)]
    assert len(set(plans)) == 5
    assert engine.engine.nbytes > nbytes
    for plan in plans:
        engine.update(plan, described)
    for plan in plans:
        engine.engine.forget(plan)
    assert counted(device, *LIVE) == before
    assert engine.engine.nbytes == nbytes
    assert engine.prepare(described) in plans, "numbers are given again"


@pytest.mark.parametrize("number", [-1, 1, 7, 2**30])
def test_a_number_that_no_plan_has_is_refused(device, number):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    engine.prepare(described)
    state = engine.bytes()
    with pytest.raises(IndexError):
        engine.update(number, described)
    with pytest.raises(IndexError):
        engine.engine.forget(number)
    assert device.pending(engine.stream) == 0
    assert engine.bytes() == state


def test_a_forgotten_plan_is_refused(device):
    engine = engine_of(device)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    engine.engine.forget(plan)
    with pytest.raises(IndexError, match="plan: expected one that was prepared"):
        engine.update(plan, described)


def test_a_name_that_no_array_has_is_refused(device):
    engine = engine_of(device)
    with pytest.raises(IndexError, match="name: expected that of an array of the state, got newest"):
        engine.engine.read("newest")
    assert all(isinstance(engine.engine.read(name), np.ndarray) for name in ARRAYS)


class TestTooLittle:
    @pytest.mark.parametrize("room", [0, 10_000, 200_000])
    def test_for_an_engine(self, device, room):
        before = counted(device, *LIVE)
        device.set_memory_limit(device.counters()["live_bytes"] + room)
        with pytest.raises(
            device.CudaError, match="allocate: expected CUDA to go on, got out of memory"
        ) as caught:
            engine_of(device)
        assert isinstance(caught.value, RuntimeError)
        del caught
        gc.collect()
        assert counted(device, *LIVE) == before
        device.set_memory_limit(2**40)
        check(engine_of(device), arrays_of(0))

    @pytest.mark.parametrize("room", [0, 300, 5000, 20_000])
    def test_for_a_plan(self, device, room):
        engine = engine_of(device)
        small, large = engine.views(arrays_of(0)), engine.views(arrays_of(1, (90_000, 5, 60_000)))
        plan = engine.prepare(small)
        engine.update(plan, small)
        engine.wait()
        state = engine.bytes()
        before = counted(device, *LIVE)
        device.set_memory_limit(device.counters()["live_bytes"] + room)
        with pytest.raises(device.CudaError, match="out of memory"):
            engine.prepare(large)
        assert counted(device, *LIVE) == before
        assert engine.bytes() == state
        engine.update(plan, small)
        engine.wait()
        compare(engine, engine.read(), expected_of(small, engine), small)
        device.set_memory_limit(2**40)
        check(engine, arrays_of(1, (90_000, 5, 60_000)))

    def test_for_another_dtype(self, device):
        engine = engine_of(device)
        arrays = arrays_of(0)
        small = engine.views(arrays)
        large = engine.views([a.astype(np.float64) for a in arrays])  # partials are twice as large
        plan = engine.prepare(small)
        device.set_memory_limit(device.counters()["live_bytes"] + 100)
        with pytest.raises(device.CudaError, match="out of memory"):
            engine.update(plan, large)
        assert device.pending(engine.stream) == 0
        engine.step = -1
        engine.update(plan, small)
        engine.wait()
        compare(engine, engine.read(), expected_of(small, engine), small)

    def test_for_moments_of_coordinates(self, device):
        before = counted(device, *LIVE)
        device.set_memory_limit(device.counters()["live_bytes"] + 100)
        with pytest.raises(device.CudaError, match="out of memory"):
            device.Memory(0, 1000)
        assert counted(device, *LIVE) == before


class TestDevices:
    def test_two_in_one_process(self, device):
        engines = [engine_of(device, number) for number in (0, 1)]
        both = [engine.views(arrays_of(i)) for i, engine in enumerate(engines)]
        plans = [engine.prepare(described) for engine, described in zip(engines, both, strict=True)]
        for step in range(3):
            for engine, plan, described in zip(engines, plans, both, strict=True):
                engine.update(plan, described, step=step)
        for engine, described in zip(engines, both, strict=True):
            engine.wait()
            compare(engine, engine.read(), expected_of(described, engine), described)
            assert engine.engine.latest()["step"] == 2

    def test_that_is_not_there(self, device):
        before = counted(device, *LIVE)
        with pytest.raises(device.CudaError, match="invalid device ordinal"):
            device.Engine(device=7, rows=1, bits=4)
        gc.collect()
        assert counted(device, *LIVE) == before

    def test_a_stream_of_another_device_is_refused(self, device):
        """And the engine goes on afterwards."""
        engine = engine_of(device)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        state = engine.bytes()
        other = device.create_stream(1)
        with pytest.raises(device.CudaError):
            engine.update(plan, described, stream=other)
        assert engine.bytes() == state
        engine.step = -1
        engine.update(plan, described)
        engine.wait()
        compare(engine, engine.read(), expected_of(described, engine), described)


class TestEdges:
    """Poison and red zones around everything: all that is read was written, and nothing else."""

    @pytest.mark.parametrize("rows", [1, 5])
    @pytest.mark.parametrize("buckets", [0, 128, 4096])
    def test_of_every_array(self, device, rows, buckets):
        engine = SimulatedEngine(
            device,
            rows=rows,
            buckets=buckets,
            window=3,
            row_window=3 if buckets else 0,
            log_slots=3,
            tracks=0,
        )
        for step in range(4):
            arrays = arrays_of(step, (5000, 1, 77, 8192, 3))
            described = views(arrays, sorted(i % rows for i in range(5)))
            plan = engine.prepare(described)
            engine.update(plan, described)
            engine.wait()
            device.check_redzones()
            compare(engine, engine.read(), expected_of(described, engine), described)
        assert device.failure() == ""

    def test_of_the_values(self, device):
        """Buffers end where an allocation does; their neighbours are never read as values."""
        engine = SimulatedEngine(device, rows=1, buckets=1024)
        for size in (1, 7, 9, 1000, 8191, 8193):
            room = np.full(size + 32, np.nan, np.float32)
            for offset in (0, 1, 4, 16):
                x = room[offset : offset + size]
                x[:] = 1
                found = check(engine, [x])
                assert found.records["nan"].tolist() == [0]
                room[:] = np.nan

    def test_of_moments_of_coordinates(self, device):
        engine = SimulatedEngine(device, rows=1)
        described = engine.views([np.ones(100, np.float32)])
        own = [device.Memory(0, n) for n in (128 * 13, 4 * 13, 4)]
        pieces = np.zeros(1, DEVICE_PIECE)
        pieces[0] = (*(m.address for m in own), 13, 100, 0, 1, 0)
        engine.update(engine.prepare(described, None, pieces), described)
        engine.wait()
        device.check_redzones()
        assert device.failure() == ""
