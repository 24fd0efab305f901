"""What comes out does not depend on who did what, or when, or where the values lie: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import RECORD, TRACK, SimulatedEngine, compare, expected_of, views
from test_kernels_coordinates import Followed

SIZES = (70_001, 0, 1, 8191, 8192, 33_333, 5)
DTYPES = ("float32", "bfloat16", "float16")
ORDERS = [("ascending", 0), ("descending", 0), *(("shuffled", seed) for seed in range(5))]


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


KINDS = ("normal", "patterns", "bad", "shifted", "channel", "spike", "normal")
PLAIN = ("normal", "normal", "zeros", "shifted", "signs", "normal", "constant")


def arrays_of(step=0, *, wide=False, offset=0, kinds=KINDS):
    """Three steps of arrays, of all narrow dtypes or of float64 too, whose buffers begin at an offset."""
    made = []
    for i, (size, kind) in enumerate(zip(SIZES, kinds, strict=True)):
        x = values.make("float64" if wide and i % 3 == 0 else DTYPES[i % 3], size, kind, 10 * step + i)
        room = np.zeros(size + 64 // x.itemsize + 8, x.dtype)
        first = -room.ctypes.data % 64 // x.itemsize + offset
        room[first : first + size] = x
        made.append(room[first : first + size])
    return made


def run(device, *, wide=False, offset=0, lanes=128, blocks=4, r=1024, kinds=KINDS):
    """Make three steps, the second in two updates, and return everything the engine then has."""
    windows = {"window": 4, "row_window": 4, "log_slots": 4, "tracks": 3, "track_window": 4}
    engine = SimulatedEngine(device, rows=4, buckets=r, lanes=lanes, blocks=blocks, **windows)
    rows = [0, 0, 1, 1, 2, 3, 3]
    tracks = np.array([(4, 0, 0), (0, -1, 0), (33_332, 5, 0)], TRACK)
    followed = None
    for step in range(3):
        described = views(arrays_of(step, wide=wide, offset=offset, kinds=kinds), rows)
        followed = followed or Followed(device, described, cell=2)
        plan = engine.prepare(described, tracks, followed.pieces)
        engine.update(plan, described, fresh=step == 2)
        if step == 1:
            engine.update(plan, described, begin=False)
        engine.wait()
        engine.engine.forget(plan)
    device.check_redzones()
    result = engine.engine.latest()
    return engine, {**engine.bytes(), "result": str(result), "coordinates": followed.bytes()}


@pytest.fixture(scope="module")
def usual(simulated):
    simulated.reset()
    return {wide: run(simulated, wide=wide)[1] for wide in (False, True)}


def assert_same(found, wanted):
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("wide", [False, True])
class TestBits:
    @pytest.mark.parametrize("blocks", [1, 2, 7, 16])
    def test_of_any_grid(self, device, usual, wide, blocks):
        assert_same(run(device, wide=wide, blocks=blocks)[1], usual[wide])

    @pytest.mark.parametrize(("kind", "seed"), ORDERS)
    def test_in_any_order_of_threads_and_blocks(self, device, usual, wide, kind, seed):
        device.set_order(kind, seed)
        assert_same(run(device, wide=wide)[1], usual[wide])

    @pytest.mark.parametrize("blocks", ["descending", "shuffled"])
    def test_in_any_order_of_blocks_alone(self, device, usual, wide, blocks):
        device.set_order("ascending", 3, blocks)
        assert_same(run(device, wide=wide, blocks=7)[1], usual[wide])

    @pytest.mark.parametrize("offset", range(1, 8))
    def test_at_any_alignment(self, device, wide, offset):
        kinds = KINDS if wide else PLAIN
        wanted = run(device, wide=wide, kinds=kinds)[1]
        assert_same(run(device, wide=wide, offset=offset, kinds=kinds)[1], wanted)

    @pytest.mark.parametrize("poison", [False, True])
    def test_whatever_was_in_shared_memory(self, device, usual, wide, poison):
        device.set_poison(poison)
        for _ in range(2):
            assert_same(run(device, wide=wide)[1], usual[wide])


@pytest.mark.parametrize("offset", [1, 4])
def test_all_but_power_sums_at_any_alignment(device, usual, offset):
    """Groups with unusual values are added after their octet where that is aligned, else in their turn."""
    found = run(device, offset=offset)[1]
    assert {name for name in found if found[name] != usual[False][name]} <= {"open_records", "sketch", "ring"}


@pytest.mark.parametrize("r", [128, 4096])
@pytest.mark.parametrize(("kind", "seed"), ORDERS[1:4])
def test_other_sketches_in_any_order(device, r, kind, seed):
    wanted = run(device, r=r)[1]
    device.set_order(kind, seed)
    assert_same(run(device, r=r, blocks=3)[1], wanted)


@pytest.mark.parametrize(("kind", "seed"), ORDERS[1:4])
def test_large_teams_in_any_order(device, kind, seed):
    wanted = run(device, lanes=512, r=4096)[1]
    device.set_order(kind, seed)
    assert_same(run(device, lanes=512, r=4096, blocks=2)[1], wanted)


@pytest.mark.parametrize("wide", [False, True])
def test_teams_of_any_size_agree(device, wide):
    """Counts to the bit, sums within their bounds."""
    small, _ = run(device, wide=wide)
    large, _ = run(device, wide=wide, lanes=512)
    a, b = small.read(), large.read()
    np.testing.assert_array_equal(a.counts, b.counts)
    for field in (*values.INTEGERS, "max_abs"):
        np.testing.assert_array_equal(a.records[field], b.records[field], field)
    for name in ("open_counts", "track_values", "track_observed"):
        np.testing.assert_array_equal(small.engine.read(name), large.engine.read(name))
    old, new = (engine.get("open_records", RECORD) for engine in (small, large))
    for field in (*values.INTEGERS, "max_abs"):
        np.testing.assert_array_equal(old[field], new[field])
    described = views(arrays_of(2, wide=wide), [0, 0, 1, 1, 2, 3, 3])
    wanted = expected_of(described, small)
    for engine, found in ((small, a), (large, b)):
        compare(engine, found, wanted, described)


def test_a_later_update_does_not_depend_on_how_the_earlier_one_ran(device, usual):
    """Nothing stays behind in shared memory, in partials or in the queue."""
    device.set_order("shuffled", 9)
    engine = SimulatedEngine(device, rows=4, buckets=1024, blocks=5)
    first = views(arrays_of(1), [0, 0, 1, 1, 2, 3, 3])
    second = views([values.make("float32", 555, "normal", 3)], [2])
    for _ in range(2):
        engine.observe_views(first)
        found = engine.observe_views(second)
        compare(engine, found, expected_of(second, engine), second)
        assert not found.row_sketches[[0, 1, 3]].any()
