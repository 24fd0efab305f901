"""What a stream has counted: which block of which parameter in which steps, so that nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradtail.states.places import Place
from gradtail.states.steps import StepSet

Piece = tuple[str, Place]
Pieces = tuple[Piece, ...]

MOST_COHORTS = 256
"""Cohorts remembered one by one; beyond that the oldest are joined, with less detail."""


class Ledger:
    """Cohorts, which are blocks that were observed together, each with its steps.

    Where cohorts change all the time (a few of many experts a step) the oldest are joined, and their steps
    are taken for all between the first and the last: two streams may then be refused that do not overlap.
    """

    def __init__(self) -> None:
        self._done: dict[Pieces, StepSet] = {}
        self._newest: tuple[Pieces, StepSet] | None = None  # spares the hash of a long tuple at every step
        self._step: int | None = None  # the newest one, whose blocks may come one by one
        self._parts: list[Pieces] = []  # all of it
        self._open = 0  # parts of it that are in the cohorts
        self._places: dict[str, list[Place]] = {}  # of the first so many parts
        self._placed = 0

    @property
    def _cohorts(self) -> dict[Pieces, StepSet]:
        """Cohorts, the newest step among them."""
        self._close()
        return self._done

    def add(self, pieces: Pieces, step: int) -> None:
        """Note blocks that were counted in a step, the newest one. All blocks of a step are one cohort."""
        if step != self._step:
            self._close()
            self._step, self._parts, self._open = step, [], 0
            self._places, self._placed = {}, 0
        self._parts.append(pieces)

    def _close(self) -> None:
        """Put what is new of the newest step into a cohort."""
        parts, self._open = self._parts[self._open :], len(self._parts)
        if not parts:
            return
        assert self._step is not None
        pieces = parts[0] if len(parts) == 1 else tuple(piece for part in parts for piece in part)
        if self._newest is not None and self._newest[0] is pieces:
            self._newest[1].add(self._step)
            return
        steps = self._done.get(pieces)
        if steps is None:
            if len(self._done) >= MOST_COHORTS:
                self._join_oldest()
            steps = self._done.setdefault(pieces, StepSet())
        steps.add(self._step)
        self._newest = pieces, steps

    @property
    def steps(self) -> StepSet:
        """Steps in which anything was counted."""
        return union(self._cohorts.values())

    def observed(self, names: Iterable[str]) -> dict[str, int]:
        """Count the steps in which some block of each name was there."""
        found: dict[str, list[StepSet]] = {name: [] for name in names}
        for pieces, steps in self._cohorts.items():
            for name in {name for name, _ in pieces}:
                found[name].append(steps)
        return {name: len(sets[0] if len(sets) == 1 else union(sets)) for name, sets in found.items()}

    def overlap(self, other: Ledger) -> str | None:
        """Say in words what both have counted; None if nothing."""
        for pieces, steps in self._cohorts.items():
            for more, later in other._cohorts.items():
                if steps.meets(later) and (found := _overlap(pieces, more)):
                    return f"{found} in {_common(steps, later)}"
        return None

    def counted(self, pieces: Pieces, step: int) -> str | None:
        """Name the block among ``pieces`` that has been counted in ``step``; None if there is none."""
        if step != self._step:
            for known, steps in self._cohorts.items():
                if step in steps and (found := _overlap(known, pieces)):
                    return found
            return None
        for part in self._parts[self._placed :]:
            for name, place in part:
                self._places.setdefault(name, []).append(place)
        self._placed = len(self._parts)
        for name, place in pieces:
            if any(known.overlaps(place) for known in self._places.get(name, ())):
                return _named(name, place)
        return None

    def merge(self, other: Ledger) -> Ledger:
        """Return what either has counted."""
        new = Ledger()
        new._done = {pieces: steps.copy() for pieces, steps in self._cohorts.items()}
        for pieces, steps in other._cohorts.items():
            mine = new._done.get(pieces)
            new._done[pieces] = steps.copy() if mine is None else mine.union(steps)
        while len(new._done) > MOST_COHORTS:
            new._join_oldest()
        return new

    def cut(self, last: int) -> None:
        """Forget the steps after ``last``."""
        cut = {pieces: steps.cut(last) for pieces, steps in self._cohorts.items()}
        self._done = {pieces: steps for pieces, steps in cut.items() if len(steps)}
        self._newest = None
        self._step, self._parts, self._open = None, [], 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as arrays."""
        pieces = [piece for cohort in self._cohorts for piece in cohort]
        distinct = list(dict.fromkeys(pieces))
        number = {piece: i for i, piece in enumerate(distinct)}
        runs = [steps.to_array() for steps in self._cohorts.values()]
        return {
            "names": np.array([name for name, _ in distinct], np.str_),
            "axes": np.array([len(place.shape) for _, place in distinct], np.int64),
            "places": np.array(
                [
                    n
                    for _, place in distinct
                    for part in (place.full_shape, place.offset, place.shape)
                    for n in part
                ],
                np.int64,
            ),
            "members": np.array([number[piece] for piece in pieces], np.int64),
            "cohorts": np.array([len(cohort) for cohort in self._cohorts], np.int64),
            "runs": np.concatenate(runs) if runs else np.zeros((0, 3), np.int64),
            "run_counts": np.array([len(run) for run in runs], np.int64),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Ledger:
        """Rebuild a ledger."""
        numbers = np.asarray(state["places"], np.int64).tolist()
        distinct: list[Piece] = []
        for name, axes in zip(
            np.asarray(state["names"]).tolist(), np.asarray(state["axes"]).tolist(), strict=True
        ):
            place, numbers = Place.from_numbers(numbers, axes)
            distinct.append((str(name), place))
        new = cls()
        members = np.asarray(state["members"], np.int64).tolist()
        runs = np.asarray(state["runs"], np.int64).reshape(-1, 3)
        cohorts, counts = (np.asarray(state[key], np.int64).tolist() for key in ("cohorts", "run_counts"))
        if sum(cohorts) != len(members) or sum(counts) != len(runs) or len(cohorts) != len(counts):
            raise ValueError(
                "state: expected cohorts with their members and steps, got lists that do not fit"
            )
        for size, count in zip(cohorts, counts, strict=True):
            pieces = tuple(distinct[i] for i in members[:size])
            new._done[pieces] = StepSet.from_array(runs[:count])
            members, runs = members[size:], runs[count:]
        return new

    def _join_oldest(self) -> None:
        """Join the two cohorts whose newest step is oldest."""
        oldest = sorted(self._done, key=lambda pieces: self._done[pieces].last or 0)[:2]
        steps = union(self._done.pop(pieces) for pieces in oldest)
        joined = tuple(dict.fromkeys(piece for pieces in oldest for piece in pieces))
        self._newest = None
        self._done[joined] = steps.covered().union(self._done.get(joined, StepSet()))


def union(sets: Iterable[StepSet]) -> StepSet:
    """Return the steps of any."""
    total = StepSet()
    for steps in sets:
        total = total.union(steps)
    return total


def _overlap(pieces: Sequence[Piece], more: Sequence[Piece]) -> str | None:
    if pieces is more or pieces == more:
        return next((_named(*piece) for piece in pieces if piece[1].size), None)
    by_name: dict[str, list[Place]] = {}
    for name, place in pieces:
        by_name.setdefault(name, []).append(place)
    for name, place in more:
        for known in by_name.get(name, ()):
            if known.overlaps(place):
                return _named(name, place)
    return None


def _named(name: str, place: Place) -> str:
    if place.is_whole:
        return repr(name)
    ranges = ", ".join(f"{o}:{o + n}" for o, n in zip(place.offset, place.shape, strict=True))
    return f"{name!r}[{ranges}]"


def _common(a: StepSet, b: StepSet) -> str:
    """Name the first step in both."""
    small, large = sorted((a, b), key=len)
    return f"step {next(step for step in small if step in large)}"
