"""Tracks: the values of a fixed set of coordinates over the newest steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.hashing import tensor_key
from gradtail.states.slots import Slots, joined_steps
from gradtail.states.tracks import tracked_indices

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Tracks:
    """Values of some coordinates over steps.

    Attributes
    ----------
    steps : ndarray of int64, shape (W,)
        Rising.
    names : ndarray of str, shape (m,)
        Parameter of each coordinate.
    index : ndarray of int64, shape (m,)
        Element index within the whole parameter.
    values : ndarray of float32, shape (W, m)
        NaN where not observed, and where the value was NaN.
    observed : ndarray of bool, shape (W, m)
        Whether the parameter was there.
    """

    steps: IntArray
    names: npt.NDArray[np.str_]
    index: IntArray
    values: npt.NDArray[np.float32]
    observed: npt.NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"Tracks({len(self.index)} coordinates, {len(self.steps)} steps)"


class TrackRing:
    """The newest ``window`` values of coordinates that hashes of (seed, name) have chosen.

    Parameters
    ----------
    window : int
        Steps kept.
    total : int
        Coordinates over all parameters expected, in proportion to their sizes, at least one each.
    seed : int
    """

    def __init__(self, window: int, total: int, seed: int) -> None:
        self.total = total if window else 0
        self._seed = seed
        self._share = 0.0
        self._index: dict[str, IntArray] = {}
        self._first: dict[str, int] = {}
        self._columns = 0
        self._slots = Slots(window)
        self._values = np.zeros((window, 0), np.float32)
        self._observed = np.zeros((window, 0), bool)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return self._values.nbytes + self._observed.nbytes + self._slots.nbytes + 8 * self._columns

    @property
    def columns(self) -> int:
        """Coordinates followed so far."""
        return self._columns

    def __len__(self) -> int:
        return len(self._slots)

    def expect(self, elements: int) -> None:
        """Set how many elements all parameters have together."""
        self._share = self.total / max(1, elements)

    def add(self, elements: Mapping[str, int]) -> None:
        """Choose coordinates of new parameters, given the number of elements of each whole."""
        if not self.total:
            return
        chosen = {
            name: tracked_indices(tensor_key(self._seed, name), n, max(1, round(self._share * n)))
            for name, n in elements.items()
        }
        self._add_columns(chosen)

    def index(self, name: str) -> tuple[int, IntArray]:
        """Return the first column of a parameter and the coordinates followed."""
        return self._first[name], self._index[name]

    def store(self, step: int, columns: npt.NDArray[np.intp], values: npt.NDArray[np.float32]) -> None:
        """Keep values of the newest step, which may come in parts."""
        if not self._slots.window:
            return
        slot, fresh = self._slots.take(step)
        if fresh:
            self._values[slot], self._observed[slot] = np.nan, False
        self._values[slot, columns] = values
        self._observed[slot, columns] = True

    def tracks(self, names: Sequence[str] | None = None) -> Tracks:
        """Return what is kept of some parameters; None is all."""
        names = list(self._index) if names is None else [name for name in names if name in self._index]
        slots = self._slots.order()
        columns = _joined([self._first[n] + np.arange(len(self._index[n])) for n in names])
        return Tracks(
            self._slots.steps(slots),
            np.repeat(np.array(names, np.str_), [len(self._index[n]) for n in names]),
            _joined([self._index[n] for n in names]),
            self._values[np.ix_(slots, columns)],
            self._observed[np.ix_(slots, columns)],
        )

    def merge(self, other: TrackRing) -> TrackRing:
        """Unite two rings of one seed.

        Values of equal steps are united; of a parameter that either follows at other coordinates those
        followed by both stay. The newest steps stay.
        """
        new = TrackRing(
            min(self._slots.window, other._slots.window), min(self.total, other.total), self._seed
        )
        new._share = min(filter(None, (self._share, other._share)), default=0.0)
        index = dict(self._index)
        for name, theirs in other._index.items():
            index[name] = np.intersect1d(index[name], theirs) if name in index else theirs
        new._add_columns(index)
        sources = [(ring, ring._slots.by_step(), *ring._columns_in(new)) for ring in (self, other)]
        for step in joined_steps(self._slots, other._slots, new._slots.window):
            for ring, slots, mine, there in sources:
                if step in slots:
                    seen = ring._observed[slots[step], mine]
                    new.store(step, there[seen], ring._values[slots[step], mine][seen])
        return new

    def cut(self, last: int) -> None:
        """Forget the steps after ``last``."""
        self._slots.cut(last)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays, oldest step first."""
        slots = self._slots.order()
        return {
            "window": self._slots.window,
            "total": self.total,
            "share": self._share,
            "names": np.array(list(self._index), np.str_),
            "counts": np.array([len(part) for part in self._index.values()], np.int64),
            "index": _joined(list(self._index.values())),
            "steps": self._slots.steps(slots),
            "values": self._values[slots],
            "observed": self._observed[slots],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], seed: int) -> TrackRing:
        """Rebuild a ring."""
        window, steps = int(state["window"]), np.asarray(state["steps"], np.int64)
        new = cls(window, int(state["total"]), seed)
        new._share = float(state["share"])
        counts = np.asarray(state["counts"], np.int64)
        index = np.asarray(state["index"], np.int64)
        values, observed = np.asarray(state["values"], np.float32), np.asarray(state["observed"], bool)
        shape = (len(steps), len(index))
        if values.shape != shape or observed.shape != shape or counts.sum() != len(index):
            raise ValueError(f"state: expected tracks of shape {shape}, got {values.shape}")
        if len(steps) > window or np.any(np.diff(steps) <= 0):
            raise ValueError(f"state: expected at most {window} rising steps of tracks, got {len(steps)}")
        if len(index) and index.min() < 0:
            raise ValueError(f"state: expected indices of at least 0, got {index.min()}")
        parts = np.split(index, np.cumsum(counts)[:-1]) if len(counts) else []
        names = np.asarray(state["names"]).tolist()
        new._add_columns(dict(zip(names, parts, strict=True)))
        new._slots = Slots.of(window, steps)
        new._values[: len(steps)], new._observed[: len(steps)] = values, observed
        return new

    def _add_columns(self, index: Mapping[str, IntArray]) -> None:
        more = ((0, 0), (0, sum(len(chosen) for chosen in index.values())))
        values = np.pad(self._values, more, constant_values=np.nan)
        self._values, self._observed = values, np.pad(self._observed, more)
        for name, chosen in index.items():
            self._index[name], self._first[name] = chosen, self._columns
            self._columns += len(chosen)

    def _columns_in(self, new: TrackRing) -> tuple[IntArray, IntArray]:
        """Columns here, and in ``new``, of the coordinates that both follow."""
        mine, there = [], []
        for name, index in self._index.items():
            _, a, b = np.intersect1d(index, new._index[name], assume_unique=True, return_indices=True)
            mine.append(self._first[name] + a)
            there.append(new._first[name] + b)
        return _joined(mine), _joined(there)


def _joined(parts: Sequence[npt.NDArray[Any]]) -> IntArray:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
