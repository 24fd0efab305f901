"""What a stream has counted: which block of which parameter in which steps, so that nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradtail.states.places import Place
from gradtail.states.steps import Run, StepSet

Piece = tuple[str, Place]
Pieces = tuple[Piece, ...]

MOST_COHORTS = 256
"""Cohorts remembered one by one; beyond that the oldest are archived, with less detail."""

_MOST_LOOKED_THROUGH = 100_000


class Ledger:
    """Cohorts, which are blocks that were observed in the same steps, each with these steps.

    Where cohorts change all the time (a few of many experts a step) the oldest go to an archive, which knows
    of each block only the range of steps: two streams may then be refused that do not overlap. How often
    each name was observed is exact all the same.
    """

    def __init__(self) -> None:
        self._done: dict[Pieces, StepSet] = {}
        self._archive: dict[Piece, Run] = {}
        self._archived: dict[str, int] = {}  # steps of each name that are in the archive alone
        self._newest: tuple[Pieces, StepSet] | None = None  # spares the hash of a long tuple at every step
        self._step: int | None = None  # the newest one, whose blocks may come one by one
        self._parts: list[Pieces] = []  # all of it
        self._open = 0  # parts of it that are in the cohorts
        self._places: dict[str, list[Place]] = {}  # of the first so many parts
        self._placed = 0

    def add(self, pieces: Pieces, step: int) -> None:
        """Note blocks that were counted in a step, the newest one. All blocks of a step are one cohort."""
        if step != self._step:
            self._close()
            self._begin(step)
        self._parts.append(pieces)

    def observed(self, names: Iterable[str]) -> dict[str, int]:
        """Count the steps in which some block of each name was there."""
        found: dict[str, list[StepSet]] = {name: [] for name in names}
        for pieces, steps in self._cohorts.items():
            for name in found.keys() & {name for name, _ in pieces}:
                found[name].append(steps)
        return {
            name: len(sets[0] if len(sets) == 1 else union(sets)) + self._archived.get(name, 0)
            for name, sets in found.items()
        }

    def overlap(self, other: Ledger) -> str | None:
        """Say in words what both have counted; None if nothing."""
        for pieces, steps in self._all():
            for more, later in other._all():
                if steps.meets(later) and (found := _overlap(pieces, more)):
                    return f"{found} in {_common(steps, later)}"
        return None

    def counted(self, pieces: Pieces, step: int) -> str | None:
        """Name the block among ``pieces`` that has been counted in the newest step; None if there is none."""
        if step != self._step:
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
        """Return what either has counted; the two do not overlap."""
        new = Ledger()
        new._done = {pieces: steps.copy() for pieces, steps in self._cohorts.items()}
        for pieces, steps in other._cohorts.items():
            mine = new._done.get(pieces)
            new._done[pieces] = steps.copy() if mine is None else mine.union(steps)
        for ledger in (self, other):
            for piece, run in ledger._archive.items():
                new._file(piece, run)
        for name in {*self._archived, *other._archived}:
            mine_, theirs = self._archived.get(name, 0), other._archived.get(name, 0)
            # Shards of one name are in the same steps, other streams in other ones.
            shards = mine_ and theirs and self._range(name).meets(other._range(name))
            new._archived[name] = max(mine_, theirs) if shards else mine_ + theirs
        new._shrink()
        new._resume()
        return new

    def cut(self, last: int) -> None:
        """Forget the steps after ``last``."""
        cut = {pieces: steps.cut(last) for pieces, steps in self._cohorts.items()}
        self._done = {pieces: steps for pieces, steps in cut.items() if len(steps)}
        self._archive = {
            piece: Run(run.first, min(run.last, last), 1)
            for piece, run in self._archive.items()
            if run.first <= last
        }
        self._newest = None
        self._begin(None)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes, about."""
        members = sum(len(pieces) for pieces in self._done) + len(self._archive)
        return 16 * members + sum(steps.nbytes for steps in self._done.values())

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as arrays."""
        pieces = [piece for cohort in self._cohorts for piece in cohort]
        distinct = list(dict.fromkeys([*pieces, *self._archive]))
        number = {piece: i for i, piece in enumerate(distinct)}
        runs = [steps.to_array() for steps in self._cohorts.values()]
        return {
            "names": np.array([name for name, _ in distinct], np.str_),
            "axes": np.array([len(place.shape) for _, place in distinct], np.int64),
            "places": np.array([n for _, place in distinct for n in place.numbers()], np.int64),
            "members": np.array([number[piece] for piece in pieces], np.int64),
            "cohorts": np.array([len(cohort) for cohort in self._cohorts], np.int64),
            "runs": np.concatenate(runs) if runs else np.zeros((0, 3), np.int64),
            "run_counts": np.array([len(run) for run in runs], np.int64),
            "archive": np.array(
                [(number[piece], run.first, run.last) for piece, run in self._archive.items()], np.int64
            ).reshape(-1, 3),
            "archived_names": np.array(list(self._archived), np.str_),
            "archived": np.array(list(self._archived.values()), np.int64),
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
        members = np.asarray(state["members"], np.int64)
        archive = np.asarray(state["archive"], np.int64).reshape(-1, 3)
        runs = np.asarray(state["runs"], np.int64).reshape(-1, 3)
        cohorts, counts = (np.asarray(state[key], np.int64).tolist() for key in ("cohorts", "run_counts"))
        used = np.concatenate([members, archive[:, 0]])
        if sum(cohorts) != len(members) or sum(counts) != len(runs) or len(cohorts) != len(counts):
            raise ValueError(
                "state: expected cohorts with their members and steps, got lists that do not fit"
            )
        if used.size and not (used.min() >= 0 and used.max() < len(distinct)):
            raise ValueError(f"state: expected members among {len(distinct)} blocks, got {used.max()}")
        begin = 0
        for size, count in zip(cohorts, counts, strict=True):
            pieces = tuple(distinct[i] for i in members[begin : begin + size])
            new._done[pieces] = StepSet.from_array(runs[:count])
            begin, runs = begin + size, runs[count:]
        for i, first, last in archive.tolist():
            new._file(distinct[i], Run(first, last, 1))
        names = [str(name) for name in np.asarray(state["archived_names"]).tolist()]
        new._archived = dict(zip(names, np.asarray(state["archived"], np.int64).tolist(), strict=True))
        new._resume()
        return new

    @property
    def _cohorts(self) -> dict[Pieces, StepSet]:
        """Cohorts, the newest step among them."""
        self._close()
        return self._done

    def _all(self) -> Iterable[tuple[Pieces, StepSet]]:
        yield from self._cohorts.items()
        by_range: dict[Run, list[Piece]] = {}
        for piece, run in self._archive.items():
            by_range.setdefault(run, []).append(piece)
        for run, pieces in by_range.items():
            yield tuple(pieces), StepSet.of(run)

    def _begin(self, step: int | None) -> None:
        self._step, self._parts, self._open = step, [], 0
        self._places, self._placed = {}, 0

    def _resume(self) -> None:
        """Be ready for more blocks of the newest step."""
        newest = max((steps.last or 0 for steps in self._done.values()), default=None)
        self._begin(newest)
        if newest is not None:
            self._parts = [pieces for pieces, steps in self._done.items() if steps.last == newest]
            self._open = len(self._parts)

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
            steps = self._done.setdefault(pieces, StepSet())
        steps.add(self._step)
        self._newest = pieces, steps
        self._shrink()

    def _shrink(self) -> None:
        """Archive the older half of the cohorts if they are too many."""
        if len(self._done) <= MOST_COHORTS:
            return
        oldest = sorted(self._done, key=lambda pieces: self._done[pieces].last or 0)[: MOST_COHORTS // 2]
        by_name: dict[str, list[StepSet]] = {}
        for pieces in oldest:
            steps = self._done.pop(pieces)
            assert steps.first is not None
            assert steps.last is not None
            for piece in pieces:
                self._file(piece, Run(steps.first, steps.last, 1))
            for name in {name for name, _ in pieces}:
                by_name.setdefault(name, []).append(steps)
        for name, sets in by_name.items():
            self._archived[name] = self._archived.get(name, 0) + len(union(sets))
        if self._newest is not None and self._newest[0] not in self._done:
            self._newest = None

    def _file(self, piece: Piece, run: Run) -> None:
        known = self._archive.get(piece, run)
        self._archive[piece] = Run(min(known.first, run.first), max(known.last, run.last), 1)

    def _range(self, name: str) -> Run:
        runs = [run for (own, _), run in self._archive.items() if own == name]
        return Run(min(run.first for run in runs), max(run.last for run in runs), 1)


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
    """Name a step in both, if that is quickly found."""
    small, large = sorted((a, b), key=len)
    if len(small) > _MOST_LOOKED_THROUGH:
        return f"steps {max(a.first or 0, b.first or 0)} to {min(a.last or 0, b.last or 0)}"
    return f"step {next(step for step in small if step in large)}"
