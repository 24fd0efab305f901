"""Steps of the engine on the simulated device: tables, logs, rings, tracks and what the host is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import values
from device import RECORD, TRACK, SimulatedEngine, expected_of, power_sums, views

from gradtail.states.table import EMPTY_RECORD, NO_INDEX, SummaryTable, bins_for, merge_records

ROWS = 4
TRACKS = np.array([(5, 0, 0), (7, 1, 0), (0, -1, 0), (0, 2, 0)], TRACK)


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


def engine_of(device, **settings):
    usual = {"window": 3, "row_window": 2, "log_slots": 5, "tracks": len(TRACKS), "track_window": 4}
    return SimulatedEngine(device, rows=ROWS, buckets=256, **{**usual, **settings})


class Model:
    """What an engine must have after updates, by the specification; sums in its order are not to the bit."""

    def __init__(self, engine):
        self.engine = engine
        self.newest, self.open = (SummaryTable.empty(ROWS, engine.bits) for _ in range(2))
        self.sketch, self.row_sketches = np.zeros(256), np.zeros((ROWS, 128))
        self.sizes, self.row_sizes = np.zeros(256), np.zeros((ROWS, 128))
        self.present = np.zeros(ROWS, np.int32)
        self.described = []  # of the newest step
        self.steps = self.updates = 0

    def update(self, described, *, begin=True, fresh=False):
        if begin:
            if fresh:
                self.open.records[:], self.open.counts[:] = EMPTY_RECORD, 0
            merge_records(self.open.records, self.newest.records)
            self.open.counts[:] += self.newest.counts
            self.newest.records[:], self.newest.counts[:] = EMPTY_RECORD, 0
            for total in (self.sketch, self.row_sketches, self.sizes, self.row_sizes, self.present):
                total[:] = 0
            self.described = []
            self.steps += 1
        found = expected_of(described, self.engine)
        merge_records(self.newest.records, found.records)
        self.newest.counts[:] += found.counts
        self.sketch += found.sketch
        self.row_sketches += found.row_sketches
        self.sizes += found.sizes
        self.row_sizes += found.row_sizes
        self.present[np.unique(described.table["row"])] = 1
        self.described.append(described)
        self.updates += 1

    def check(self, first_view=-1, first_nonfinite=NO_INDEX):
        engine, control = self.engine, self.engine.control()
        parity = int(control["parity"])
        for records, counts, wanted in (
            (f"newest_records{parity}", f"newest_counts{parity}", self.newest),
            ("open_records", "open_counts", self.open),
        ):
            found = engine.get(records, RECORD)
            for field in (*values.INTEGERS, "max_abs"):
                np.testing.assert_array_equal(found[field], wanted.records[field], f"{records} {field}")
            for p in (1, 2, 3, 4):
                scale = np.maximum(wanted.records["count"], 1)
                assert np.all(np.abs(found[f"sum{p}"] - wanted.records[f"sum{p}"]) <= 1e-6 * scale)
            np.testing.assert_array_equal(engine.counts_of(counts), wanted.counts)
        assert not engine.counts_of(f"newest_counts{1 - parity}").any(), "room for the next step"
        assert (engine.get(f"newest_records{1 - parity}", RECORD) == EMPTY_RECORD).all()
        np.testing.assert_array_equal(engine.get(f"present{parity}", np.int32), self.present)
        norms = self.row_norms()
        slots = engine.settings["log_slots"]
        logged = engine.get("row_norms", np.float64).reshape(slots, ROWS)[(self.steps - 1) % slots]
        np.testing.assert_allclose(logged, norms, rtol=1e-6)
        apart = np.abs(engine.get("sketch", np.float64) - self.sketch)
        assert np.all(apart <= 1e-6 * self.sizes)
        apart = np.abs(engine.get("row_sketches", np.float64).reshape(ROWS, 128) - self.row_sketches)
        assert np.all(apart <= 1e-6 * self.row_sizes)
        assert int(control["steps"]) == self.steps
        assert int(control["sequence"]) == self.updates
        assert int(control["calls"]) == self.steps
        assert int(control["step"]) == engine.step
        assert int(control["queue"]) == int(control["finished"]) == 0
        result = engine.engine.latest()
        assert result["sequence"] == self.updates
        assert (result["step"], result["steps"]) == (engine.step, self.steps)
        records = self.newest.records
        bad = records["nan"].sum() + records["posinf"].sum() + records["neginf"].sum()
        assert result["nonfinite"] == bad
        squares = [r["sum2"] * 4.0 ** np.frexp(r["max_abs"])[1] for r in records]
        finite = math.sqrt(math.fsum(squares))
        assert math.isclose(result["finite_norm"], finite, rel_tol=1e-6)
        wanted = math.nan if records["nan"].sum() else math.inf if bad else result["finite_norm"]
        for norm in (result["norm"], float(control["norm"])):
            assert norm == wanted or (math.isnan(norm) and math.isnan(wanted))
        assert (result["first_view"], result["first_nonfinite"]) == (first_view, first_nonfinite)
        engine.module.check_redzones()

    def row_norms(self):
        records = self.newest.records
        norms = np.sqrt(records["sum2"]) * 2.0 ** np.frexp(records["max_abs"])[1]
        bad = records["nan"] + records["posinf"] + records["neginf"] > 0
        return np.where(self.present == 0, np.nan, np.where(bad, np.inf, norms))


def arrays_of(seed, sizes=(3001, 9, 500), dtype="float32"):
    return [
        values.make(dtype, n, "shifted", 10 * seed + i).astype(values.DTYPES[dtype])
        for i, n in enumerate(sizes)
    ]


def take(engine, model, arrays, rows, tracks=TRACKS, **how):
    described = views(arrays, rows)
    plan = engine.prepare(described, tracks)
    engine.update(plan, described, **how)
    engine.wait()
    engine.engine.forget(plan)
    model.update(described, **how)
    return described


@pytest.mark.parametrize("wide_counts", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_of_one_update(device, dtype, wide_counts):
    engine = engine_of(device, wide_counts=wide_counts)
    model = Model(engine)
    for step in range(7):
        take(engine, model, arrays_of(step, dtype=dtype), [0, 1, 3], fresh=step == 4)
        model.check()


def test_steps_of_several_updates(device):
    """Rows in one of the updates, in several, and in none."""
    engine = engine_of(device)
    model = Model(engine)
    for step, updates in enumerate(
        [[[0, 1, 3]], [[0, 0, 1], [1, 2, 3]], [[2, 2, 2]], [[0, 1, 1], [0, 1, 2], [3, 3, 3]], [[0, 1, 3]]]
    ):
        for i, rows in enumerate(updates):
            take(engine, model, arrays_of(10 * step + i), rows, begin=i == 0, fresh=i == 0 and step == 3)
            model.check()
    assert model.open.records["count"].sum() > 0


def test_an_update_of_nothing_is_a_step(device):
    engine = engine_of(device)
    model = Model(engine)
    for step in range(4):
        if step % 2 == 0:
            take(engine, model, arrays_of(step), [0, 1, 3])
        else:
            nothing(engine, model)
        model.check()


def nothing(engine, model):
    """Make a step whose update has no views."""
    described = views([np.zeros(0, np.float32)], [0])
    empty = type(described)(described.table[:0], [])
    plan = engine.prepare(empty, np.array([(0, -1, 0)] * len(TRACKS), TRACK))
    engine.update(plan, empty)
    engine.wait()
    model.update(empty)


def test_numbers_of_steps(device):
    """Given ones are taken as they are; without one, it is one more than the newest."""
    engine = engine_of(device)
    described = views(arrays_of(0), [0, 1, 3])
    plan = engine.prepare(described, TRACKS)
    for given, begin, wanted in (
        (7, True, 7),
        (7, False, 7),
        (-1, True, 8),
        (-1, False, 8),
        (100, True, 100),
        (-1, True, 101),
    ):
        engine.update(plan, described, begin=begin, step=given)
        engine.wait()
        assert int(engine.control()["step"]) == engine.engine.latest()["step"] == wanted
    assert int(engine.control()["steps"]) == 4


class TestNonfinite:
    @pytest.mark.parametrize(("bad", "norm"), [(np.nan, math.nan), (np.inf, math.inf), (-np.inf, math.inf)])
    def test_norms_say_so_and_the_place_is_known(self, device, bad, norm):
        engine = engine_of(device)
        model = Model(engine)
        take(engine, model, arrays_of(0), [0, 1, 3])
        model.check()
        arrays = arrays_of(1)
        arrays[1][4], arrays[2][[3, 0]] = bad, np.inf
        take(engine, model, arrays, [0, 1, 3])
        model.check(1, 4)
        assert repr(engine.engine.latest()["norm"]) == repr(norm)
        assert engine.get("row_norms", np.float64).reshape(-1, ROWS)[1, [1, 3]].tolist() == [math.inf] * 2
        take(engine, model, arrays_of(2), [0, 1, 3])
        model.check()

    def test_of_an_earlier_update_of_the_step(self, device):
        """The norm stays that of the whole step; the place is that of the update."""
        engine = engine_of(device)
        model = Model(engine)
        arrays = arrays_of(0)
        arrays[0][2900] = np.nan
        take(engine, model, arrays, [0, 1, 3])
        model.check(0, 2900)
        take(engine, model, arrays_of(1), [0, 1, 3], begin=False)
        model.check()
        assert math.isnan(engine.engine.latest()["norm"])

    def test_everything_is_made_ready_for_the_next_update(self, device):
        """One plan, again and again: integers of rows and of views start anew."""
        engine = engine_of(device)
        model = Model(engine)
        arrays = arrays_of(0)
        described = views(arrays, [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        clean = arrays[2].copy()
        for step in range(6):
            arrays[2][:] = clean * 0.5**step
            if step % 2 == 0:
                arrays[2][step] = np.nan
            engine.update(plan, described)
            engine.wait()
            model.update(described)
            model.check(*((2, step) if step % 2 == 0 else ()))


class TestRings:
    def test_keep_the_newest_steps(self, device):
        engine = engine_of(device)
        model = Model(engine)
        sketches, row_sketches, norms = [], [], []
        for step in range(8):
            scale = 10.0 ** (5 * step - 20)
            take(engine, model, [(a * scale).astype(np.float32) for a in arrays_of(step)], [0, 1, 3])
            if step % 3 == 0:
                take(engine, model, arrays_of(50 + step), [0, 0, 2], begin=False)
            sketches.append(engine.get("sketch", np.float64))
            row_sketches.append(engine.get("row_sketches", np.float64).reshape(ROWS, 128))
            norms.append(model.row_norms())
            for rings, window, wanted in (
                (("ring", "ring_exponents"), 3, sketches),
                (("row_ring", "row_ring_exponents"), 2, row_sketches),
            ):
                shape = (window, *wanted[0].shape)
                ring = engine.get(rings[0], np.float32).reshape(shape)
                exponents = engine.get(rings[1], np.int32).reshape(shape[:-1])
                for kept in range(max(0, step + 1 - window), step + 1):
                    slot, exact = kept % window, wanted[kept]
                    exponent = np.frexp(np.abs(exact).max(axis=-1))[1]
                    np.testing.assert_array_equal(exponents[slot], exponent)
                    np.testing.assert_array_equal(
                        ring[slot], np.ldexp(exact, -exponent[..., None]).astype(np.float32)
                    )
            logged = engine.get("row_norms", np.float64).reshape(5, ROWS)
            for kept in range(max(0, step - 4), step + 1):
                np.testing.assert_allclose(logged[kept % 5], norms[kept], rtol=1e-6)

    def test_may_be_of_no_length(self, device):
        engine = engine_of(device, window=0, row_window=0)
        model = Model(engine)
        for step in range(3):
            take(engine, model, arrays_of(step), [0, 1, 3])
            model.check()


class TestTracks:
    def test_values_and_whether_they_were_there(self, device):
        engine = engine_of(device)
        model = Model(engine)
        wanted, there = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
        chosen = [TRACKS, np.array([(0, -1, 0), (8, 1, 0), (1, 2, 0), (3, 0, 0)], TRACK)]
        for step in range(6):
            arrays, tracks = arrays_of(step), chosen[step % 2]
            arrays[0][5] = np.nan
            take(engine, model, arrays, [0, 1, 3], tracks)
            for i, (offset, view, _) in enumerate(tracks.tolist()):
                there[step % 4, i] = view >= 0
                wanted[step % 4, i] = arrays[view][offset] if view >= 0 else 0
            self.compare(engine, wanted, there)

    def test_of_several_updates(self, device):
        """What one update of the step has seen, a later one that has it not leaves alone."""
        engine = engine_of(device)
        model = Model(engine)
        none = np.array([(0, -1, 0)] * 4, TRACK)
        arrays, more = arrays_of(0), arrays_of(1)
        take(engine, model, arrays, [0, 1, 3], TRACKS)
        take(engine, model, more, [0, 1, 3], none, begin=False)
        late = none.copy()
        late[2] = (9, 0, 0)
        take(engine, model, more, [0, 1, 3], late, begin=False)
        wanted, there = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
        wanted[0] = arrays[0][5], arrays[1][7], more[0][9], arrays[2][0]
        there[0] = True
        self.compare(engine, wanted, there)

    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_of_every_dtype(self, device, dtype):
        engine = engine_of(device)
        x = values.make(dtype, 3001, "patterns", 5)
        take(engine, Model(engine), [x, x[:9].copy(), x[9:].copy()], [0, 1, 3])
        with values.quiet(), np.errstate(over="ignore", under="ignore"):
            wanted = np.array([x[5], x[7], 0, x[9]]).astype(np.float32)
        found = engine.get("track_values", np.float32)[:4]
        np.testing.assert_array_equal(found[[0, 1, 3]], wanted[[0, 1, 3]])

    def test_more_than_a_block_has_threads(self, device):
        engine = engine_of(device, tracks=600)
        arrays = arrays_of(0)
        tracks = np.zeros(600, TRACK)
        tracks["offset"] = np.arange(600) * 5
        take(engine, Model(engine), arrays, [0, 1, 3], tracks)
        np.testing.assert_array_equal(engine.get("track_values", np.float32)[:600], arrays[0][:3000:5])
        assert engine.get("track_observed", np.uint8)[:600].all()

    @staticmethod
    def compare(engine, wanted, there):
        found = engine.get("track_values", np.float32).reshape(4, 4)
        np.testing.assert_array_equal(
            engine.get("track_observed", np.uint8).reshape(4, 4).astype(bool), there
        )
        np.testing.assert_array_equal(found[there], wanted[there])


def test_many_rows_and_more_items_than_threads(device):
    """A row with more items than the second kernel has threads, and rows beyond its blocks."""
    engine = SimulatedEngine(device, rows=40, buckets=0, blocks=3)
    arrays = [np.full(1 + i % 3, 1.0 + i % 7, np.float32) for i in range(400)]
    rows = [0] * 300 + [1 + i % 39 for i in sorted(range(100), key=lambda i: i % 39)]
    described = views(arrays, rows)
    found, wanted = engine.observe_views(described), expected_of(described, engine)
    np.testing.assert_array_equal(found.counts, wanted.counts)
    sums = power_sums(engine, wanted, described)
    np.testing.assert_allclose(found.records["sum2"], sums[:, 1], rtol=1e-6)
    assert bins_for(4) == found.counts.shape[1]
