"""The part of a stream that lies on a CUDA device: updates are enqueued, and moved here when somebody reads.

On the device are the steps that nobody has asked about yet: their summaries, added up in the block of steps
that is open and in the newest step, and rings of their sketches, tracks and norms. :meth:`DeviceSide.settle`
waits for them, adds them to the states on the host, and empties the device. So merging, saving and estimating
know nothing of it.

Where nobody reads, nobody waits either: a block that is closed is copied while the next one fills up, and
norms of steps that have ended are logged meanwhile.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradtail import native as extension
from gradtail.backends import cuda
from gradtail.backends.device import CONTROL, TRACK
from gradtail.buffers import Views
from gradtail.states.budget import GROUP_WINDOW, LOG_SLOTS
from gradtail.states.device_moments import DevicePiece
from gradtail.states.log_sums import of_tallies
from gradtail.states.places import Place
from gradtail.states.table import RECORD, SummaryTable, bins_for
from gradtail.stream.arrangement import Arrangement
from gradtail.stream.unread import Earlier, Unread

if TYPE_CHECKING:
    from gradtail.stream.state import State

LEAST_PACE = 4
"""Steps of a block, at least: while a closed block is on its way to the host, the next one fills up."""

DRAIN = LOG_SLOTS // 4
"""Updates after which the host logs those that have ended."""


class DeviceNorm:
    """The norm of the newest step, in the memory of the device; see the CUDA array interface, version 3."""

    def __init__(self, engine: Any, device: int) -> None:
        self._engine = engine  # whose memory this is
        self.device = device
        self.__cuda_array_interface__ = {
            "shape": (),
            "typestr": "<f8",
            "data": (int(engine.norm_address), False),  # torch refuses what is marked as read-only
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

    Notes
    -----
    Nothing waits for the device but reading, an update with arrays that are new or with a dtype that has
    changed, and, of a stream of which an update is part of a CUDA graph, every update that is not. Where the
    host is more than 1000 updates ahead of the device, or a block of steps, it waits for it too.

    Of replays of a graph that nobody has heard of for more than 1024 steps, the older ones have no row in the
    history, and a non-finite value among them is counted and not located. Of several arrays with non-finite
    values in one update, the first by group is named.
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
        self._framework = ""  # whose arrays it had
        self._unread = Unread(state)
        self._read = 0  # updates of the engine that the host has the numbers of
        self._block: int | None = None  # first step of the open block
        self._fresh = False  # whether the open block begins with the newest step
        self._replayed: Arrangement | None = None  # that a CUDA graph observes
        self.newest = -1  # number of the newest step, observed or left out by a replay, as far as known
        self._staged: tuple[int, int] | None = None  # steps of a closed block that is on its way

    @property
    def is_pending(self) -> bool:
        """Whether the device may have steps that the host has not."""
        return self.has_steps or self.is_captured

    @property
    def has_steps(self) -> bool:
        """Whether the device has steps that the host has heard of, and not read."""
        return bool(self._unread.steps)

    @property
    def is_captured(self) -> bool:
        """Whether an update is part of a CUDA graph, which may be replayed without a word to the host."""
        return self._engine is not None and bool(self._engine.captured)

    @property
    def nbytes(self) -> int:
        """Memory on the device, in bytes, without that of CoordinateMoments."""
        return 0 if self._engine is None else int(self._engine.nbytes)

    @property
    def earlier(self) -> Earlier | None:
        """What the host has read of the newest step already, of which the device has more."""
        earlier, steps = self._unread.earlier, self._unread.steps
        return earlier if earlier is not None and steps and steps[-1] == earlier.step else None

    def norm(self) -> DeviceNorm | None:
        """Return the norm of the newest step; None before the first, and of one that was read in parts."""
        return (
            None
            if self._engine is None or self.earlier is not None
            else DeviceNorm(self._engine, self._device)
        )

    def wait(self) -> None:
        """Wait for what was enqueued."""
        if self._engine is None:
            return
        self._engine.wait(self._stream)
        if self.is_captured:  # graphs are replayed on the stream that is current, not on that of the capture
            self._engine.wait(cuda.stream_now(self._device, self._framework))

    def make_piece(self, place: Place, key: int, cell: int) -> DevicePiece:
        """Make the memory of CoordinateMoments for a block."""
        assert extension.engine is not None
        memory = extension.engine.Memory
        return DevicePiece(place, key, cell, lambda size: cuda.with_room(partial(memory, self._device, size)))

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured on the stream of the newest update, or the current one."""
        if self._engine is None:
            return False
        streams = {cuda.stream_now(self._device, self._framework)}
        if self._framework == "torch":  # whose streams live as long as the process
            streams.add(self._stream)
        return any(self._engine.is_capturing(stream) for stream in streams)

    def catch_up(self) -> None:
        """Hear of the steps that replays of a CUDA graph have made; waits for them."""
        if self.is_captured and not self.is_capturing():
            self.settle()

    def go_back(self) -> None:
        """Have replays go on after the newest step that the host has kept."""
        last = self._state.last_step
        if self.is_captured and not self.is_capturing():
            self.newest = -1 if last is None else last
            self._engine.go_on(self.newest, self.newest + 1)

    def set_every(self, every: int) -> None:
        """Set which replays observe: those whose step is a multiple."""
        if self.is_captured:
            if not self.is_capturing():
                self.wait()  # both kernels of a replay must see one cadence
            self._engine.go_on(every=every)

    def leave_out(self, step: int) -> None:
        """Have replays go on after a step that is not observed."""
        if self.is_captured and not self.is_capturing():
            self.settle()
            self.newest = max(self.newest, step)
            self._engine.go_on(self.newest, self.newest + 1)

    def update(self, arrangement: Arrangement, views: Views, step: int) -> None:
        """Enqueue a step, or more of the newest one; or make it part of a CUDA graph that is being captured.

        Replays of the graph are steps, which the device numbers by itself.
        """
        stream = cuda.current_stream(views)
        if cuda.is_capturing(stream):
            self._capture(arrangement, views, stream, step)
            return
        plan = self._plan(arrangement, views)
        unread, state = self._unread, self._state
        begin = not unread.steps or unread.steps[-1] != step
        self._make_room()
        closing = begin and self._block is not None and not state.timeline.together(self._block, step)
        if closing:
            self._absorb()  # what was staged before
        earlier = Earlier.of(state) if not unread.steps and state.newest_step == step else None
        if self.is_captured:
            self._engine.go_on(step - begin, step)
        self._engine.update(plan, views.table, step, begin, False, False, stream)
        if not cuda.framework_of(views):  # whose memory may be used again once its capsule is gone
            self._engine.wait(stream)
        # Enqueued: from here on nothing may be refused.
        self._stream, self._framework = stream, cuda.framework_of(views)
        before = unread.steps[-1] if unread.steps else None
        unread.add(arrangement, step)
        unread.earlier = earlier or unread.earlier
        state.ledger.add(arrangement.pieces, step)
        state.counted.add(step)
        if not begin:
            return
        self._fresh = False
        if self._block is None:
            self._block = step
        if closing:
            assert before is not None
            self._engine.stage_open(stream)
            self._staged = self._block, before
            self._block, self._fresh = step, True

    def _capture(self, arrangement: Arrangement, views: Views, stream: int, step: int) -> None:
        known = self._plans.get(id(arrangement))
        if known is None or known[0] is not arrangement:
            raise RuntimeError(NOT_SEEN)
        if self._replayed is not None and self._replayed.pieces != arrangement.pieces:
            raise RuntimeError(
                "arrays: expected, for another CUDA graph of this stream, those of the first, got others; "
                "make a stream for each graph and merge them"
            )
        if step == self._state.last_step:
            raise ValueError(
                f"step: expected a number above {step} while a CUDA graph is captured, got {step} again"
            )
        newest = int(self._engine.peek("control").view(CONTROL)[0]["step"]) if self.is_captured else -1
        step = max(step, newest + 1)
        self._engine.go_on(step - 1, step, self._state.replay_cadence)
        self._engine.update(known[1], views.table, -1, True, False, True, stream)
        self._stream, self._framework, self._replayed = stream, cuda.framework_of(views), arrangement

    def _make_room(self) -> None:
        """Log steps that have ended before the device forgets them."""
        waiting = self._unread.waiting
        if waiting < DRAIN or (waiting % DRAIN and waiting < LOG_SLOTS - 1):
            return
        if waiting >= LOG_SLOTS - 1:
            self.wait()
        if (newest := self.latest()) is not None:
            self._unread.log(self._engine, newest, self._rows)

    def latest(self) -> dict[str, Any] | None:
        """Return the newest step that has ended and was not read, as the device told it; does not wait."""
        found: dict[str, Any] | None = None if self._engine is None else self._engine.latest()
        return found if found is not None and found["sequence"] > self._read else None

    def elapsed_seconds(self) -> float:
        """Return what updates took on the device that have ended since the last question."""
        if self._engine is None or self.is_capturing():  # events are not to be asked then
            return 0.0
        return float(self._engine.elapsed_seconds())

    def settle(self) -> None:
        """Wait, and move everything to the host."""
        if self._engine is None or not self.is_pending:
            return
        engine, state, unread = self._engine, self._state, self._unread
        self.wait()
        control = engine.read("control").view(CONTROL)[0]
        self.newest = max(self.newest, int(control["step"])) if self.is_captured else -1
        if unread.count_replays(engine, control, self._replayed) and self._block is None:
            self._block = unread.steps[0]
        if not unread.steps:
            return
        newest, joined = unread.steps[-1], self.earlier is not None
        if (found := self.latest()) is not None:
            unread.log(engine, found, self._rows)
        self._absorb()
        if state.newest_step is not None and not joined:
            state.close_newest()
        if len(unread.steps) > 1 and not self._fresh:
            assert self._block is not None
            state.add_block(
                self._block,
                unread.steps[-2],
                self._table("open_records", "open_counts", "open_logs", np.uint64),
            )
        parity = int(control["parity"])
        width = np.uint64 if self._wide else np.uint32
        names = (f"newest_records{parity}", f"newest_counts{parity}", f"newest_logs{parity}")
        table = self._table(*names, width)
        present = engine.read(f"present{parity}").view(np.int32)[: len(state.rows)] > 0
        unread.store_rings(engine, self._rows, self._tracks)
        state.backend.fold(state.newest, table)
        state.present |= present
        state.newest_step = newest
        state.log.add(newest, state.group_norms(), state.norm(), state.nonfinite())
        engine.empty_now()
        unread.clear()
        self._read = int(control["sequence"])
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
        tracks, pieces = self._track_plan(arrangement), arrangement.pieces_of_views
        number: int = cuda.with_room(lambda: self._engine.prepare(views.table, tracks, pieces))
        remembered = {id(one) for some in state.arrangements.values() for one in some}
        for key in self._plans.keys() - remembered:
            self._engine.forget(self._plans.pop(key)[1])
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
        rows = max(len(state.rows), len(state.expected_groups()))
        window = settings.window if settings.sketch else 0
        # The old one stays until there is a new one: if there is no memory, nothing has changed.
        make = partial(
            extension.engine.Engine,
            device=self._device,
            rows=rows,
            bits=settings.bits,
            buckets=settings.sketch,
            window=window,
            row_window=min(window, GROUP_WINDOW),
            log_slots=LOG_SLOTS,
            tracks=state.tracks.columns,
            track_window=settings.window if settings.tracks else 0,
            wide_counts=wide or self._wide,
            stable=bool(settings.stable),
        )
        engine: Any = cuda.with_room(make)
        self._engine, self._plans, self._read, self._unread = engine, {}, 0, Unread(state)
        self._rows, self._wide, self._tracks = rows, wide or self._wide, state.tracks.columns

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

    def _absorb(self) -> None:
        """Take over a closed block; waits for its copy if need be."""
        if self._staged is None:
            return
        (first, last), self._staged = self._staged, None
        records, counts, logs = self._engine.staged()
        if self._state.newest_step is not None:
            self._state.close_newest()
        self._state.add_block(first, last, self._as_table(records, counts.view(np.uint64), logs))

    def _table(self, records: str, counts: str, logs: str, dtype: Any) -> SummaryTable:
        read = self._engine.read
        return self._as_table(read(records), read(counts).view(dtype), read(logs))

    def _as_table(
        self, records: npt.NDArray[Any], counts: npt.NDArray[Any], logs: npt.NDArray[Any]
    ) -> SummaryTable:
        rows, bits = len(self._state.newest.records), self._state.settings.bits
        counts = counts.astype(np.uint64).reshape(self._rows, bins_for(bits))
        taken = of_tallies(logs)[:rows] if self._state.settings.takes_block_sums else None
        return SummaryTable(records.view(RECORD)[:rows], counts[:rows], bits, taken)


NOT_SEEN = (
    "arrays: expected, while a CUDA graph is captured, those of an update before, got new ones; update once "
    "with the same arrays before capturing"
)
