"""What the host keeps of steps, starting anew, and the cadence on the device."""

from __future__ import annotations

import numpy as np
import pytest
from device import RECORD, TRACK, views
from test_engine_steps import TRACKS, Model, arrays_of, engine_of, take

from gradtail.states.table import EMPTY_RECORD


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


class TestResults:
    def test_the_host_keeps_the_newest(self, device):
        engine = engine_of(device)
        assert engine.engine.latest()["sequence"] == 0
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        slots, total = 64, 64 + 7
        for _ in range(total):
            engine.update(plan, described)
        engine.wait()
        assert engine.engine.latest()["sequence"] == total
        for sequence in range(1, total + 1):
            result = engine.engine.result(sequence)
            if sequence <= total - slots:
                assert result["sequence"] == 0
            else:
                assert (result["sequence"], result["step"], result["steps"]) == (
                    sequence,
                    sequence - 1,
                    sequence,
                )
        for sequence in (-1, 0, total + 1, total + 64, 2**40):
            assert engine.engine.result(sequence)["sequence"] == 0

    def test_a_long_log_keeps_as_many_results(self, device):
        engine = engine_of(device, log_slots=80)
        described = views([np.ones(3, np.float32)], [0])
        plan = engine.prepare(described, np.array([(0, -1, 0)] * 4, TRACK))
        for _ in range(85):
            engine.update(plan, described)
        engine.wait()
        assert [engine.engine.result(s)["sequence"] for s in (5, 6, 85)] == [0, 6, 85]


class TestEmpty:
    def test_counts_and_records_start_anew(self, device):
        engine = engine_of(device)
        model = Model(engine)
        for step in range(3):
            take(engine, model, arrays_of(step), [0, 1, 3])
        engine.engine.empty(engine.stream)
        engine.wait()
        for parity in (0, 1):
            assert not engine.counts_of(f"newest_counts{parity}").any()
            assert (engine.get(f"newest_records{parity}", RECORD) == EMPTY_RECORD).all()
            assert not engine.get(f"present{parity}", np.int32).any()
        assert not engine.counts_of("open_counts").any()
        assert (engine.get("open_records", RECORD) == EMPTY_RECORD).all()
        for table in (model.newest, model.open):
            table.records[:], table.counts[:] = EMPTY_RECORD, 0
        take(engine, model, arrays_of(7), [0, 1, 3])
        model.check()
        take(engine, model, arrays_of(8), [0, 1, 3])
        model.check()


class TestCadence:
    def test_leaves_updates_out(self, device):
        """One in ``every``, counted from the first; what is left out still counts as a step."""
        engine = engine_of(device)
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        engine.engine.set_every(3, engine.stream)
        for call in range(8):
            before = engine.bytes()
            engine.update(plan, described, cadence=True, step=-1)
            engine.wait()
            control, after = engine.control(), engine.bytes()
            assert int(control["calls"]) == call + 1
            assert int(control["step"]) == call
            assert int(control["sequence"]) == int(control["steps"]) == call // 3 + 1
            assert int(control["queue"]) == int(control["finished"]) == 0
            changed = {name for name in after if after[name] != before[name]}
            if call % 3:
                assert changed == {"control"}
            else:
                assert "row_norms" in changed
        assert engine.engine.latest()["step"] == 6

    def test_has_a_say_only_if_asked(self, device):
        engine = engine_of(device)
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        engine.engine.set_every(3, engine.stream)
        for _ in range(4):
            engine.update(plan, described)
        engine.wait()
        assert int(engine.control()["sequence"]) == 4

    def test_takes_steps_as_a_whole(self, device):
        """All updates of a step are made, or none."""
        engine = engine_of(device)
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        engine.engine.set_every(3, engine.stream)
        seen = []
        for step in range(7):
            for update in range(2):
                engine.update(plan, described, begin=update == 0, cadence=True, step=-1)
                engine.wait()
                control = engine.control()
                seen.append(int(control["sequence"]))
                assert (int(control["step"]), int(control["calls"])) == (step, step + 1)
                assert int(control["steps"]) == step // 3 + 1
        assert seen == [1, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 5, 6]

    def test_may_change(self, device):
        engine = engine_of(device)
        described = views(arrays_of(0), [0, 1, 3])
        plan = engine.prepare(described, TRACKS)
        seen = []
        for call in range(9):
            engine.engine.set_every(1 if call < 3 else 4, engine.stream)
            engine.update(plan, described, cadence=True, step=-1)
            engine.wait()
            seen.append(int(engine.control()["sequence"]))
        assert seen == [1, 2, 3, 3, 4, 4, 4, 4, 5]
