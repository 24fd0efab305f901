"""The part of a stream that lies on a CUDA device: updates are enqueued, and moved here when somebody reads.

On the device are the steps that nobody has asked about yet: their summaries, added up in the block of steps
that is open and in the newest step, and rings of their sketches, tracks and norms. :meth:`DeviceSide.settle`
waits for them, adds them to the states on the host, and empties the device. So merging, saving and estimating
know nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradtail import native as extension
from gradtail.backends import cuda
from gradtail.backends.device import CONTROL, TRACK
from gradtail.buffers import Views
from gradtail.states.budget import FOLD, GROUP_WINDOW, LOG_SLOTS
from gradtail.states.device_moments import DevicePiece
from gradtail.states.places import Place
from gradtail.states.table import NO_INDEX, RECORD, SummaryTable, bins_for
from gradtail.stream.arrangement import Arrangement

if TYPE_CHECKING:
    from gradtail.stream.state import State

FloatArray = npt.NDArray[np.float64]

LEAST_PACE = 4
"""Steps of a block, at least: while a closed block is on its way to the host, the next one fills up."""


class DeviceNorm:
    """The norm of the newest step, in the memory of the device; see the CUDA array interface, version 3."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine  # whose memory this is
        self.__cuda_array_interface__ = {
            "shape": (),
            "typestr": "<f8",
            "data": (int(engine.norm_address), True),
            "version": 3,
        }


class DeviceSide:
    """The steps of a stream that have not been read, on the device where its arrays lie.

    Parameters
    ----------
    state : State
        Of the stream.
    device : int
        Number of the CUDA device.
    """

    def __init__(self, state: State, device: int) -> None:
        self._state, self._device = state, device
        state.timeline.pace = max(state.timeline.pace, LEAST_PACE)
        self._engine: Any = None
        self._rows = 0
        self._wide = False
        self._tracks = 0
        self._plans: dict[int, tuple[Arrangement, int]] = {}  # by id of the arrangement
        self._stream = 0  # of the newest update
        self._pending: list[int] = []  # steps that the device has, rising
        self._sources: dict[int, Arrangement] = {}  # by sequence number of their update
        self._sequence = 0  # of the newest update
        self._block: int | None = None  # first step of the open block
        self._fresh = False  # whether the open block begins with the newest step
        self._replayed: Arrangement | None = None  # that a CUDA graph observes
        self._settled = 0  # steps that the engine had made when it was emptied
        self._staged: tuple[int, int] | None = None  # steps of a closed block that is on its way

    @property
    def is_pending(self) -> bool:
        """Whether the device has steps that the host has not."""
        return bool(self._pending) or self.is_captured

    @property
    def is_captured(self) -> bool:
        """Whether an update is part of a CUDA graph, which may be replayed without a word to the host."""
        return self._engine is not None and bool(self._engine.captured)

    @property
    def nbytes(self) -> int:
        """Memory on the device, in bytes, without that of CoordinateMoments."""
        return 0 if self._engine is None else int(self._engine.nbytes)

    def norm(self) -> DeviceNorm | None:
        """Return the norm of the newest step; None before the first."""
        return None if self._engine is None else DeviceNorm(self._engine)

    def wait(self) -> None:
        """Wait for what was enqueued."""
        if self._engine is not None:
            self._engine.wait(self._stream)

    def make_piece(self, place: Place, key: int, cell: int) -> DevicePiece:
        """Make the memory of CoordinateMoments for a block."""
        assert extension.engine is not None
        memory = extension.engine.Memory
        return DevicePiece(place, key, cell, lambda size: memory(self._device, size))

    def catch_up(self) -> None:
        """Hear of the steps that replays of a CUDA graph have made; waits for them."""
        if self.is_captured and not self._engine.is_capturing(self._stream):
            self.settle()

    def update(self, arrangement: Arrangement, views: Views, step: int) -> bool:
        """Enqueue a step, or more of the newest one; False if it becomes part of a CUDA graph.

        Replays of the graph are steps, which the device numbers by itself.
        """
        stream = cuda.current_stream(views)
        if extension.engine is not None and extension.engine.Engine.is_capturing(stream):
            self._capture(arrangement, views, stream)
            return False
        plan = self._plan(arrangement, views)
        begin = not self._pending or self._pending[-1] != step
        closing = begin and self._block is not None and not self._state.timeline.together(self._block, step)
        if len(self._pending) >= LOG_SLOTS // 2 and begin:
            self.settle()
            closing = False
        if closing:
            self._absorb()  # what was staged before
        self._engine.update(plan, views.table, step, begin, False, False, stream)
        self._stream = stream
        self._sequence += 1
        self._sources[self._sequence] = arrangement
        while len(self._sources) > LOG_SLOTS:
            del self._sources[next(iter(self._sources))]
        if not begin:
            return True
        self._fresh = False
        if closing:
            assert self._block is not None
            self._engine.stage_open(stream)
            self._staged = (self._block, self._pending[-1])
            self._block, self._fresh = step, True
        if self._block is None:
            self._block = step
        self._pending.append(step)
        return True

    def _capture(self, arrangement: Arrangement, views: Views, stream: int) -> None:
        known = self._plans.get(id(arrangement))
        if known is None or known[0] is not arrangement:
            raise RuntimeError(
                "arrays: expected, while a CUDA graph is captured, those of an update before, got new ones; "
                "update once with the same arrays before capturing"
            )
        self._engine.update(known[1], views.table, -1, True, False, True, stream)
        self._stream, self._replayed = stream, arrangement

    def latest(self) -> dict[str, Any] | None:
        """Return the newest step that has ended, as the device told it; does not wait."""
        found: dict[str, Any] | None = None if self._engine is None else self._engine.latest()
        return found if found is not None and found["sequence"] else None

    def elapsed_seconds(self) -> float:
        """Return what updates took on the device that have ended since the last question."""
        return 0.0 if self._engine is None else float(self._engine.elapsed_seconds())

    def settle(self) -> None:
        """Wait, and move everything to the host."""
        if self._engine is None or not self.is_pending:
            return
        engine, state = self._engine, self._state
        engine.wait(self._stream)
        control = engine.read("control").view(CONTROL)[0]
        self._count_replays(control)
        if not self._pending:
            return
        newest = self._pending[-1]
        if state.newest_step is not None and state.newest_step != self._pending[0]:
            state.close_newest()
        continued = state.newest_step is not None
        self._absorb()
        before = self._pending[:-1] if not self._fresh else []
        if before and self._block is not None:
            if continued:  # what the host has of the first of these steps belongs to the same block
                state.close_newest()
                continued = False
            first = max(self._block, before[0])
            state.add_block(first, before[-1], self._table("open_records", "open_counts", np.uint64))
        table = self._newest(control)
        rows = len(state.rows)
        present = engine.read(f"present{int(control['parity'])}").view(np.int32)[:rows] > 0
        self._store_rings(control, continued)
        state.backend.fold(state.newest, table)
        state.present |= present
        state.newest_step = newest
        self._store_log(control)
        engine.empty(self._stream)
        self._pending.clear()
        self._block, self._fresh = None, False

    def forget_plans(self) -> None:
        """Give up what was prepared for sets of arrays."""
        for _, number in self._plans.values():
            self._engine.forget(number)
        self._plans.clear()

    # ---- preparation

    def _plan(self, arrangement: Arrangement, views: Views) -> int:
        """Return the number of a plan, once the engine has room for its rows and tracks."""
        state = self._state
        wide = cuda.wide(views, len(state.rows))
        if (
            self._engine is None
            or len(state.rows) > self._rows
            or state.tracks.columns != self._tracks
            or (wide and not self._wide)
        ):
            self._rebuild(wide)
        known = self._plans.get(id(arrangement))
        if known is not None and known[0] is arrangement:
            return known[1]
        number: int = self._engine.prepare(
            views.table, self._track_plan(arrangement), arrangement.pieces_of_views
        )
        self._plans[id(arrangement)] = arrangement, number
        return number

    def _rebuild(self, wide: bool) -> None:
        """Make an engine with room for more; what the device has goes to the host first."""
        assert extension.engine is not None
        state, settings = self._state, self._state.settings
        if self.is_captured:
            raise RuntimeError(
                "arrays: expected those of the steps before, for a CUDA graph holds their memory, got new "
                "ones; update once with all arrays before capturing"
            )
        self.settle()
        expected = len(state.expected_groups())
        window = settings.window if settings.sketch else 0
        # The old one stays until there is a new one: if there is no memory, nothing has changed.
        engine = extension.engine.Engine(
            device=self._device,
            rows=max(len(state.rows), expected),
            bits=settings.bits,
            buckets=settings.sketch,
            window=window,
            row_window=min(window, GROUP_WINDOW),
            log_slots=LOG_SLOTS,
            tracks=state.tracks.columns,
            track_window=settings.window if settings.tracks else 0,
            wide_counts=wide or self._wide,
        )
        self._engine, self._plans, self._sources, self._sequence = engine, {}, {}, 0
        self._settled = 0
        self._rows, self._wide = max(len(state.rows), expected), wide or self._wide
        self._tracks = state.tracks.columns

    def _track_plan(self, arrangement: Arrangement) -> npt.NDArray[np.void]:
        plan = np.zeros(self._tracks, TRACK)
        plan["view"] = -1
        tracks = arrangement.out.tracks
        if tracks is not None:
            plan["offset"][arrangement.columns] = tracks.offset
            plan["view"][arrangement.columns] = np.repeat(
                np.arange(len(tracks.first) - 1), np.diff(tracks.first)
            )
        return plan

    # ---- what comes back

    def _count_replays(self, control: np.void) -> None:
        """Enter the steps that replays of a graph have made."""
        missed = int(control["steps"]) - self._settled - len(self._pending) if self.is_captured else 0
        if missed <= 0:
            return
        state = self._state
        arrangement = self._replayed
        for step in range(int(control["step"]) - missed + 1, int(control["step"]) + 1):
            if state.last_step is not None and step <= state.last_step:
                continue
            self._pending.append(step)
            state.counted.add(step)
            if arrangement is not None:
                state.ledger.add(arrangement.pieces, step)
                self._sequence += 1
                self._sources[self._sequence] = arrangement
        self._block = self._pending[0] if self._block is None and self._pending else self._block

    def _absorb(self) -> None:
        """Take over a closed block; waits for its copy if need be."""
        if self._staged is None:
            return
        (first, last), self._staged = self._staged, None
        records, counts = self._engine.staged()
        state = self._state
        rows = len(state.newest.records)
        table = SummaryTable(
            records.view(RECORD)[:rows],
            counts.view(np.uint64).reshape(self._rows, bins_for(state.settings.bits))[:rows],
            state.settings.bits,
        )
        if state.newest_step is not None:
            state.close_newest()
        state.add_block(first, last, table)

    def _table(self, records: str, counts: str, dtype: Any) -> SummaryTable:
        rows, bits = len(self._state.newest.records), self._state.settings.bits
        return SummaryTable(
            self._engine.read(records).view(RECORD)[:rows],
            self._engine.read(counts)
            .view(dtype)
            .astype(np.uint64)
            .reshape(self._rows, bins_for(bits))[:rows],
            bits,
        )

    def _newest(self, control: np.void) -> SummaryTable:
        parity = int(control["parity"])
        width = np.uint64 if self._wide else np.uint32
        return self._table(f"newest_records{parity}", f"newest_counts{parity}", width)

    def _slots(self, control: np.void, window: int) -> list[tuple[int, int]]:
        """Return (step, slot) of the pending steps that a ring still has."""
        steps = int(control["steps"])
        kept = self._pending[-window:] if window else []
        first = steps - len(kept)
        return [(step, (first + i) % window) for i, step in enumerate(kept)]

    def _norms(self, control: np.void) -> dict[int, FloatArray]:
        rows = len(self._state.newest.records)
        norms = self._engine.read("row_norms").view(np.float64).reshape(LOG_SLOTS, self._rows)
        return {step: norms[slot, :rows] for step, slot in self._slots(control, LOG_SLOTS)}

    def _store_rings(self, control: np.void, continued: bool) -> None:
        """Store sketches and tracks. ``continued``: the host has a part of the first pending step."""
        state, engine = self._state, self._engine
        norms, rows = self._norms(control), len(state.newest.records)
        if state.settings.sketch and state.ring.window:
            r = state.settings.sketch
            ring = engine.read("ring").view(np.float32).reshape(-1, 1, r)
            exponents = engine.read("ring_exponents").view(np.int32)
            wide = engine.read("row_ring").view(np.float32).reshape(-1, self._rows, FOLD)
            row_exponents = engine.read("row_ring_exponents").view(np.int32).reshape(-1, self._rows)
            for step, slot in self._slots(control, state.ring.window):
                whole = np.array([_joint(norms[step])]) if step in norms else np.array([np.nan])
                if continued and step == self._pending[0]:
                    earlier = np.array([np.inf if state.nonfinite() else state.norm()])
                    vector = state.sketch + np.ldexp(ring[slot, 0].astype(np.float64), exponents[slot])
                    state.ring.store(step, vector[None], np.hypot(earlier, whole))
                else:
                    state.ring.store_scaled(step, ring[slot], exponents[slot : slot + 1], whole)
            for step, slot in self._slots(control, state.group_ring.window):
                own = norms.get(step, np.full(rows, np.nan))
                if continued and step == self._pending[0]:
                    vectors = state.row_sketches + np.ldexp(
                        wide[slot, :rows].astype(np.float64), row_exponents[slot, :rows, None]
                    )
                    state.group_ring.store(step, vectors, _added(state.group_norms(), own))
                else:
                    state.group_ring.store_scaled(step, wide[slot, :rows], row_exponents[slot, :rows], own)
            newest = engine.read("sketch").view(np.float64)
            own_sketches = engine.read("row_sketches").view(np.float64).reshape(self._rows, FOLD)[:rows]
            if continued and len(self._pending) == 1:
                state.sketch += newest
                state.row_sketches += own_sketches
            else:
                state.sketch[...], state.row_sketches[...] = newest, own_sketches
        if self._tracks:
            values = engine.read("track_values").view(np.float32).reshape(-1, self._tracks)
            observed = engine.read("track_observed").view(np.bool_).reshape(-1, self._tracks)
            for step, slot in self._slots(control, state.settings.window):
                columns = np.flatnonzero(observed[slot])
                state.tracks.store(step, columns, values[slot, columns])

    def _store_log(self, control: np.void) -> None:
        """Log the norms of pending steps, of the newest one from its summaries."""
        state = self._state
        results = {}
        for sequence in range(max(1, int(control["sequence"]) - LOG_SLOTS + 1), int(control["sequence"]) + 1):
            found = self._engine.result(sequence)
            if found["sequence"]:
                results[int(found["step"])] = found
                if found["first_view"] >= 0:
                    self._note_nonfinite(sequence, found)
        for step, norms in self._norms(control).items():
            if step == self._pending[-1]:
                state.log.add(step, state.group_norms(), state.norm(), state.nonfinite())
            elif step in results:
                state.log.add(step, norms, results[step]["finite_norm"], results[step]["nonfinite"])
            else:
                finite = norms[np.isfinite(norms)]
                state.log.add(step, norms, float(np.linalg.norm(finite)), int(np.isinf(norms).sum()))
        self._settled = int(control["steps"])

    def _note_nonfinite(self, sequence: int, found: dict[str, Any]) -> None:
        state, step = self._state, int(found["step"])
        arrangement = self._sources.get(sequence)
        if state.first_nonfinite is not None or arrangement is None or step not in self._pending:
            return
        if found["first_nonfinite"] != NO_INDEX:
            name = arrangement.names[arrangement.source[int(found["first_view"])]]
            state.note_nonfinite(step, name, int(found["first_nonfinite"]))


def _joint(norms: FloatArray) -> float:
    """Joint norm of the rows that are there; inf if one is not finite."""
    there = norms[~np.isnan(norms)]
    largest = there.max(initial=0.0)
    if not np.isfinite(largest) or largest == 0:
        return float(largest)
    return float(largest * np.sqrt(np.sum((there / largest) ** 2)))


def _added(a: FloatArray, b: FloatArray) -> FloatArray:
    both: FloatArray = np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.hypot(a, b)))
    return both
