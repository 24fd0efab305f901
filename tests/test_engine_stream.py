"""Updates on the simulated device are enqueued and nothing more: no waiting, no allocation, two launches."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import values
from device import TRACK, SimulatedEngine, compare, expected_of, no_tracks, views
from test_engine_steps import engine_of


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


QUIET = ("synchronizations", "allocations", "live_allocations", "live_bytes", "live_pinned_bytes")


def counted(device, *names):
    counters = device.counters()
    return {name: counters[name] for name in names or QUIET}


def arrays_of(seed, sizes=(3001, 9, 500)):
    return [values.make("float32", n, "shifted", 10 * seed + i) for i, n in enumerate(sizes)]


def moved(described, arrays):
    """The same views elsewhere."""
    found = type(described)(described.table.copy(), arrays)
    found.table["data"] = [a.ctypes.data for a in arrays]
    return found


class TestLaziness:
    def test_nothing_happens_before_somebody_waits(self, device):
        engine = SimulatedEngine(device, rows=1, buckets=256)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        before = device.counters()["launches"]
        engine.update(plan, described)
        assert device.pending(engine.stream) > 0
        assert device.counters()["launches"] == before
        assert engine.engine.latest()["sequence"] == 0
        assert not engine.engine.is_done()
        device.advance(engine.stream)
        assert device.counters()["launches"] == before + 2
        assert engine.engine.is_done()
        assert engine.engine.latest()["sequence"] == 1

    def test_values_are_read_when_the_stream_comes_to_them(self, device):
        """And may be rewritten by what is enqueued behind."""
        engine = SimulatedEngine(device, rows=1, buckets=256)
        arrays = arrays_of(0)
        described = engine.views(arrays)
        plan = engine.prepare(described)
        engine.update(plan, described)
        for a in arrays:
            a *= 2
        wanted = expected_of(described, engine)
        for a in arrays:
            device.fill(a.ctypes.data, 0, a.nbytes, engine.stream)
        engine.update(plan, described, step=1)
        device.advance(engine.stream, 5)  # timing event, two launches, timing event, event
        found = engine.engine.latest()
        assert found["sequence"] == 1
        assert found["finite_norm"] == pytest.approx(
            np.sqrt(wanted.records["sum2"][0]) * 2.0 ** np.frexp(wanted.records["max_abs"][0])[1]
        )
        engine.wait()
        assert engine.engine.latest()["norm"] == 0

    def test_every_way_to_wait(self, device):
        described = views(arrays_of(0), [0, 0, 0])
        for wait in (
            lambda engine: engine.engine.wait(engine.stream),
            lambda engine: engine.control(),
            lambda engine: device.synchronize(engine.stream),
        ):
            engine = SimulatedEngine(device, rows=1)
            engine.update(engine.prepare(described), described)
            assert not engine.engine.is_done()
            wait(engine)
            assert engine.engine.is_done()
            assert engine.engine.latest()["sequence"] == 1


class TestSteadyState:
    def test_a_hundred_updates_wait_for_nothing_and_allocate_nothing(self, device):
        engine = engine_of(device)
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, np.zeros(4, TRACK))
        for _ in range(2):
            engine.update(plan, described)
        engine.wait()
        before = counted(device)
        for _ in range(100):
            engine.update(plan, described)
        assert counted(device) == before
        engine.engine.latest()
        engine.engine.is_done()
        assert counted(device) == before
        engine.wait()
        assert engine.engine.latest()["sequence"] == 102

    def test_nor_do_pointers_that_change(self, device):
        """As long as what was enqueued before keeps up."""
        engine = SimulatedEngine(device, rows=3, buckets=256)
        places = [arrays_of(0), arrays_of(1)]
        described = engine.views(places[0])
        plan = engine.prepare(described)
        found = [moved(described, arrays) for arrays in places]
        before = counted(device)
        for step in range(100):
            engine.update(plan, found[step % 2])
            device.advance(engine.stream)
        assert counted(device) == before
        wanted = expected_of(found[1], engine)
        compare(engine, engine.read(), wanted, found[1])

    @pytest.mark.parametrize("buckets", [0, 1024])
    def test_two_launches_for_many_tensors(self, device, buckets):
        engine = SimulatedEngine(device, rows=10, buckets=buckets)
        described = engine.views([np.full(1 + i % 20, 0.5, np.float32) for i in range(300)])
        plan = engine.prepare(described)
        before, made = device.counters()["launches"], engine.engine.launches
        engine.update(plan, described)
        engine.wait()
        assert device.counters()["launches"] == before + 2
        assert engine.engine.launches == made + 2
        compare(engine, engine.read(), expected_of(described, engine), described)

    def test_two_launches_for_ten_thousand_tensors(self, device):
        engine = SimulatedEngine(device, rows=4)
        described = engine.views([np.ones(1 + i % 3, np.float32) for i in range(10_000)])
        plan = engine.prepare(described)
        before = device.counters()["launches"]
        engine.update(plan, described)
        engine.wait()
        assert device.counters()["launches"] == before + 2
        records = engine.read().records
        sizes = [sum(1 + i % 3 for i in range(10_000) if i * 4 // 10_000 == row) for row in range(4)]
        assert records["count"].tolist() == sizes
        assert records["sum1"].tolist() == [n / 2 for n in sizes]


class TestUploads:
    @pytest.mark.parametrize("updates", [3, 16, 17, 40])
    def test_more_of_them_than_there_are_slots(self, device, updates):
        """Then alone an update waits, for the oldest; every update has the values of its own addresses."""
        engine = SimulatedEngine(device, rows=1, log_slots=64)
        places = [[np.full(100, float(step + 1), np.float32)] for step in range(updates + 1)]
        described = engine.views(places[0])
        plan = engine.prepare(described)
        before = device.counters()["synchronizations"]
        for step in range(1, updates + 1):
            engine.update(plan, moved(described, places[step]))
        waited = device.counters()["synchronizations"] - before
        assert (waited > 0) == (updates > 16)
        assert waited <= updates
        engine.wait()
        norms = engine.get("row_norms", np.float64)[:updates]
        np.testing.assert_allclose(norms, 10 * (np.arange(updates) + 2.0), rtol=1e-6)

    def test_none_where_nothing_has_moved(self, device):
        engine = SimulatedEngine(device, rows=1)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        engine.update(plan, described)
        engine.wait()
        engine.update(plan, described)
        usual = device.pending(engine.stream)
        engine.wait()
        engine.update(plan, described)
        assert device.pending(engine.stream) == usual
        engine.wait()
        engine.update(plan, moved(described, arrays_of(1)))
        assert device.pending(engine.stream) == usual + 2  # the copy and its event
        engine.wait()

    def test_other_dtypes_take_another_plan(self, device):
        engine = SimulatedEngine(device, rows=3, buckets=256)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        for dtype in ("float32", "float64", "bfloat16", "float32"):
            other = engine.views([a.astype(values.DTYPES[dtype]) for a in arrays_of(1)])
            for step in range(2):
                engine.update(plan, other)
                before = counted(device)
                if step:
                    assert counted(device) == before
            engine.wait()
            compare(engine, engine.read(), expected_of(other, engine), other)


class TestStreams:
    def test_updates_on_several_streams_keep_their_order(self, device):
        engine = SimulatedEngine(device, rows=1, log_slots=8)
        other = device.create_stream(0)
        places = [[np.full(100, float(step + 1), np.float32)] for step in range(6)]
        described = engine.views(places[0])
        plan = engine.prepare(described)
        for step in range(6):
            engine.update(plan, moved(described, places[step]), stream=(engine.stream, other)[step % 2])
        device.synchronize(other)
        device.synchronize(engine.stream)
        np.testing.assert_allclose(
            engine.get("row_norms", np.float64)[:6], 10 * (np.arange(6) + 1.0), rtol=1e-6
        )
        assert engine.engine.latest()["step"] == 5

    def test_new_addresses_do_not_reach_an_update_that_has_not_run(self, device):
        """The later stream goes as far as it can; the earlier one has not begun."""
        engine = SimulatedEngine(device, rows=1, log_slots=8)
        other = device.create_stream(0)
        first, second = [np.full(100, 1.0, np.float32)], [np.full(100, 2.0, np.float32)]
        described = engine.views(first)
        plan = engine.prepare(described)
        engine.update(plan, described)
        engine.update(plan, moved(described, second), stream=other)
        device.advance(other)
        device.synchronize(engine.stream)
        device.synchronize(other)
        np.testing.assert_allclose(engine.get("row_norms", np.float64)[:2], [10.0, 20.0], rtol=1e-6)

    def test_the_default_stream(self, device):
        engine = SimulatedEngine(device, rows=1)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        engine.update(plan, described, stream=0)
        engine.engine.wait(0)
        compare(engine, engine.read(), expected_of(described, engine), described)

    def test_empty_and_cadence_have_their_place_in_the_stream(self, device):
        engine = SimulatedEngine(device, rows=1)
        described = engine.views(arrays_of(0))
        plan = engine.prepare(described)
        engine.update(plan, described)
        engine.engine.empty(engine.stream)
        engine.update(plan, described)
        engine.wait()
        control = engine.control()
        assert int(control["sequence"]) == 2
        counts = engine.counts_of(f"newest_counts{int(control['parity'])}")
        np.testing.assert_array_equal(counts, expected_of(described, engine).counts)
        assert not engine.counts_of("open_counts").any()


class TestOpenBlock:
    def test_is_staged_without_waiting(self, device):
        """What it held goes to the host; the next step begins it anew."""
        engine = engine_of(device)
        described = [views(arrays_of(step), [0, 1, 3]) for step in range(5)]
        plans = [engine.prepare(one, np.array([(0, -1, 0)] * 4, TRACK)) for one in described]
        wanted = [expected_of(one, engine).counts for one in described]
        engine.update(plans[0], described[0])
        engine.engine.stage_open(engine.stream)
        engine.wait()
        engine.engine.staged()
        for step in (1, 2):
            engine.update(plans[step], described[step])
        before = counted(device)
        engine.engine.stage_open(engine.stream)
        assert counted(device) == before
        for step in (3, 4):
            engine.update(plans[step], described[step])
        _, counts, _ = engine.engine.staged()
        np.testing.assert_array_equal(counts.view(np.uint64).reshape(wanted[0].shape), wanted[0] + wanted[1])
        engine.wait()
        np.testing.assert_array_equal(engine.counts_of("open_counts"), wanted[2] + wanted[3])
        np.testing.assert_array_equal(engine.read().counts, wanted[4])


def test_elapsed_time_is_asked_for_once(device):
    engine = SimulatedEngine(device, rows=1)
    described = engine.views(arrays_of(0))
    plan = engine.prepare(described)
    for _ in range(70):
        engine.update(plan, described)
    assert engine.engine.elapsed_seconds() == 0
    engine.wait()
    assert engine.engine.elapsed_seconds() > 0
    assert engine.engine.elapsed_seconds() == 0


def test_the_norm_is_where_the_device_finds_it(device):
    engine = SimulatedEngine(device, rows=1)
    described = engine.views([np.full(16, 0.5, np.float32)])
    engine.update(engine.prepare(described), described)
    engine.wait()
    assert ctypes.c_double.from_address(engine.engine.norm_address).value == 2.0


def test_an_engine_may_go_before_its_updates_have_run(device):
    engine = SimulatedEngine(device, rows=1)
    described = engine.views(arrays_of(0))
    engine.update(engine.prepare(described, no_tracks()), described)
    stream = engine.stream
    del engine
    device.synchronize(stream)
    assert device.failure() == ""
    device.check_redzones()
