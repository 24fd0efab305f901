"""Steps that are on a device: which they are, their rows of the history, and their places in rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradtail.states.budget import FOLD, LOG_SLOTS
from gradtail.states.table import NO_INDEX
from gradtail.stream.arrangement import Arrangement

if TYPE_CHECKING:
    from gradtail.stream.state import State

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Earlier:
    """The part of a step that was read before the rest of it came."""

    step: int
    sketch: FloatArray
    row_sketches: FloatArray
    norms: FloatArray
    norm: float
    nonfinite: int

    @classmethod
    def of(cls, state: State) -> Earlier:
        """Copy what is known of the newest step."""
        assert state.newest_step is not None
        return cls(
            state.newest_step,
            state.sketch.copy(),
            state.row_sketches.copy(),
            state.group_norms(),
            state.norm(),
            state.nonfinite(),
        )

    def grown(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Return sketches and norms of so many groups, of which some may have come later."""
        more = rows - len(self.norms)
        sketches = np.pad(self.row_sketches, ((0, more), (0, 0)))
        return sketches, np.pad(self.norms, (0, more), constant_values=np.nan)


class Unread:
    """The steps of a stream that an engine has, since it was emptied.

    Parameters
    ----------
    state : State
        Of the stream.

    Attributes
    ----------
    steps : list of int
        Rising; of those that are logged, the newest alone, which rings still have.
    earlier : Earlier or None
        Of the first of them, what the host has had before.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.steps: list[int] = []
        self.earlier: Earlier | None = None
        self._begun = 0  # steps that the engine has begun
        self._sequence = 0  # updates that it was given
        self._seen = 0  # updates of which the results were seen
        self._sources: dict[int, Arrangement] = {}  # by number of an update that was not seen
        self._results: dict[int, dict[str, Any]] = {}  # by step, of those seen and not logged
        self._norms: dict[int, FloatArray] = {}  # of groups, of steps that are logged
        self._logged = -1  # the newest such step

    @property
    def waiting(self) -> int:
        """Updates whose results were not seen."""
        return self._sequence - self._seen

    def add(self, arrangement: Arrangement, step: int) -> None:
        """Note an update."""
        self._sequence += 1
        self._sources[self._sequence] = arrangement
        if not self.steps or self.steps[-1] != step:
            self._begun += 1
            self.steps.append(step)

    def clear(self) -> None:
        """Note that everything was read."""
        self.steps.clear()
        self.earlier = None
        for held in (self._sources, self._results, self._norms):
            held.clear()
        self._seen, self._logged = self._sequence, -1

    def count_replays(self, engine: Any, control: np.void, arrangement: Arrangement | None) -> int:
        """Enter the steps that replays of a graph have made, all of which have ended; return their number."""
        missed, newest = int(control["steps"]) - self._begun, int(control["sequence"])
        if missed <= 0 or arrangement is None:
            return 0
        state = self._state
        replays = range(self._sequence + 1, newest + 1)
        numbers = [
            int(found["step"]) for n in replays[-LOG_SLOTS:] if (found := engine.result(n))["sequence"]
        ]
        every = max(int(control["every"]), 1)
        while len(numbers) < missed:  # nobody knows; as if the cadence had been the same throughout
            numbers.insert(0, (numbers[0] if numbers else int(control["step"]) + every) - every)
        for n, step in zip(replays, numbers, strict=False):
            state.ledger.add(arrangement.pieces, step)
            state.counted.add(step)
            self._sources[n] = arrangement
            self.steps.append(step)
        self._begun, self._sequence = int(control["steps"]), newest
        return missed

    def log(self, engine: Any, newest: dict[str, Any], rows: int) -> None:
        """Log the steps that have ended before the newest that has; reads rows that nobody writes to now.

        Parameters
        ----------
        engine : Engine
            Of ``rows`` groups.
        newest : dict
            What the engine has told of the newest update that has ended.
        """
        last = int(newest["sequence"])
        for sequence in range(max(self._seen, last - LOG_SLOTS) + 1, last + 1):
            found = engine.result(sequence)
            if found["sequence"]:
                self._results[int(found["step"])] = found
                self._note_nonfinite(sequence, found)
        self._seen = last
        for sequence in [n for n in self._sources if n <= last]:
            del self._sources[sequence]
        ended = int(newest["step"])
        ready = [step for step in self.steps if self._logged < step < ended]
        if not ready:
            return
        for step, norms in self._rows_of(engine, rows, ready).items():
            self._norms[step] = norms
            self._add_row(step, norms)
        self._logged = ready[-1]
        self._trim()

    def _add_row(self, step: int, norms: FloatArray) -> None:
        found = self._results.pop(step, None)
        if found is None:  # many updates ago
            finite, bad = norms[np.isfinite(norms)], int(np.isinf(norms).sum())
            norm = float(np.linalg.norm(finite))
        else:
            norm, bad = float(found["finite_norm"]), int(found["nonfinite"])
        if self.earlier is not None and step == self.earlier.step:
            norms = _added(self.earlier.grown(len(norms))[1], norms)
            norm, bad = float(np.hypot(self.earlier.norm, norm)), bad + self.earlier.nonfinite
        self._state.log.add(step, norms, norm, bad)

    def _trim(self) -> None:
        """Forget the steps that are logged and no ring has any more."""
        surplus = len(self.steps) - max(self._state.settings.window, 2)
        while surplus > 0 and self.steps[0] <= self._logged:
            self._norms.pop(self.steps.pop(0), None)
            surplus -= 1

    def _rows_of(self, engine: Any, rows: int, steps: list[int]) -> dict[int, FloatArray]:
        """Read the norms of groups of some steps, as far as the engine has them."""
        held = len(self._state.newest.records)
        table = engine.peek("row_norms").view(np.float64).reshape(LOG_SLOTS, rows)
        slots = dict(self._slots(LOG_SLOTS))
        return {step: table[slots[step], :held].copy() for step in steps if step in slots}

    def _slots(self, window: int) -> list[tuple[int, int]]:
        """Return (step, slot) of the steps that a ring still has."""
        kept = self.steps[-window:] if window else []
        first = self._begun - len(kept)
        return [(step, (first + i) % window) for i, step in enumerate(kept)]

    def _note_nonfinite(self, sequence: int, found: dict[str, Any]) -> None:
        arrangement = self._sources.get(sequence)
        if found["first_view"] < 0 or found["first_nonfinite"] == NO_INDEX or arrangement is None:
            return
        name = arrangement.names[arrangement.source[int(found["first_view"])]]
        self._state.note_nonfinite(int(found["step"]), name, int(found["first_nonfinite"]))

    def store_rings(self, engine: Any, rows: int, tracks: int) -> None:
        """Store sketches and tracks, and the sketches of the newest step.

        Parameters
        ----------
        engine : Engine
            Of ``rows`` groups and ``tracks`` tracks.
        """
        state = self._state
        norms = {**self._norms, **self._rows_of(engine, rows, self.steps[-1:])}
        if state.settings.sketch and state.ring.window:
            self._store_whole(engine, norms)
            self._store_groups(engine, norms, rows)
        if state.settings.sketch:
            sketch = engine.read("sketch").view(np.float64)
            own = engine.read("row_sketches").view(np.float64).reshape(rows, FOLD)[: len(state.row_sketches)]
            # of a step that the host has a part of, that part is still there; else they are zero
            state.sketch += sketch
            state.row_sketches += own
        if state.tracks.total:
            values = engine.read("track_values").view(np.float32).reshape(-1, max(tracks, 1))
            observed = engine.read("track_observed").view(np.bool_).reshape(-1, max(tracks, 1))
            for step, slot in self._slots(state.settings.window):
                columns = np.flatnonzero(observed[slot]) if tracks else np.zeros(0, np.intp)
                state.tracks.store(
                    step, columns, values[slot, columns] if tracks else np.zeros(0, np.float32)
                )

    def _store_whole(self, engine: Any, norms: dict[int, FloatArray]) -> None:
        state, earlier = self._state, self.earlier
        ring = engine.read("ring").view(np.float32).reshape(-1, 1, state.settings.sketch)
        exponents = engine.read("ring_exponents").view(np.int32)
        for step, slot in self._slots(state.ring.window):
            whole = np.array([_joint(norms[step]) if step in norms else np.nan])
            if earlier is not None and step == earlier.step:
                vector = earlier.sketch + np.ldexp(ring[slot, 0].astype(np.float64), exponents[slot])
                before = np.inf if earlier.nonfinite else earlier.norm
                state.ring.store(step, vector[None], np.hypot(before, whole))
            else:
                state.ring.store_scaled(step, ring[slot], exponents[slot : slot + 1], whole)

    def _store_groups(self, engine: Any, norms: dict[int, FloatArray], rows: int) -> None:
        state, earlier = self._state, self.earlier
        held = len(state.newest.records)
        ring = engine.read("row_ring").view(np.float32).reshape(-1, rows, FOLD)
        exponents = engine.read("row_ring_exponents").view(np.int32).reshape(-1, rows)
        for step, slot in self._slots(state.group_ring.window):
            own = norms.get(step, np.full(held, np.nan))
            vectors, powers = ring[slot, :held], exponents[slot, :held]
            if earlier is not None and step == earlier.step:
                sketches, before = earlier.grown(held)
                sketches += np.ldexp(vectors.astype(np.float64), powers[:, None])
                state.group_ring.store(step, sketches, _added(before, own))
            else:
                state.group_ring.store_scaled(step, vectors, powers, own)


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
