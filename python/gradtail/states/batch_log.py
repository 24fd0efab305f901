"""Which examples each step was given: hashes of batches, and some of the examples themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.hashing import mix64

IntArray = npt.NDArray[np.int64]
UIntArray = npt.NDArray[np.uint64]

_ROWS = 7
_NONE = -1, int(np.iinfo(np.int64).max)  # largest and smallest of no index

MOST_STEPS = 1 << 16
MOST_IDS = 1 << 18


def is_followed(ids: IntArray, halvings: int) -> npt.NDArray[np.bool_]:
    """Whether each example is one of those followed: a share 2**-halvings of all, by hash."""
    if not halvings:
        return np.ones(ids.shape, bool)
    return np.asarray(mix64(ids.view(np.uint64)) >> np.uint64(64 - halvings) == 0)


def as_ids(ids: Any, name: str = "batch") -> IntArray:
    """Return the examples of a batch as an array of int64; TypeError or ValueError if they are none."""
    try:
        found = np.asarray(ids)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected the indices of the examples as ints, got {type(ids).__name__}"
        ) from error
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected the indices of the examples as ints, got dtype {found.dtype}")
    if not found.size:
        raise ValueError(f"{name}: expected the indices of the examples, got none")
    if found.dtype == np.uint64 and found.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected indices below 2**63, got {found.max()}")
    return found.astype(np.int64).reshape(-1)


class BatchLog:
    """Hash and size of the batches of the newest steps, and the examples of them that are followed.

    At first all examples are followed; when there are too many occurrences, half of the examples (by a hash
    of their index) are left out, of all steps. An example that is followed is so at every step that is kept.

    Parameters
    ----------
    most_steps, most_ids : int
        Steps, and occurrences of examples, that are kept. Of more steps the older half is dropped.

    Attributes
    ----------
    steps : ndarray of int64, shape (T,)
        Numbers, rising.
    hashes : ndarray of uint64, shape (T,)
        Of the examples of each batch, in whatever order: equal for equal batches, and of unequal ones with a
        chance of 2**-64 a pair.
    sizes, repeated : ndarray of int64, shape (T,)
        Examples of each batch, and how many of them it has had before.
    counts : ndarray of int64, shape (T,)
        Examples of each that are followed.
    ids : ndarray of int64, shape (sum of counts,)
        These, step by step; each once a step.
    halvings : int
        Followed is a share 2**-halvings of all examples.
    largest, smallest : int
        Of all indices of the steps that are kept or were dropped; -1 and 2**63 - 1 of none.
    dropped : int
        Steps that are not kept any more.

    Examples
    --------
    >>> log = BatchLog()
    >>> log.add(0, [3, 1, 2])
    >>> log.add(1, [2, 3, 1])
    >>> bool(log.hashes[0] == log.hashes[1]), log.sizes.tolist()
    (True, [3, 3])
    """

    def __init__(self, most_steps: int = MOST_STEPS, most_ids: int = MOST_IDS) -> None:
        self._most_steps, self._most_ids = most_steps, most_ids
        self._table = np.zeros((_ROWS, 64), np.int64)
        self._ids = np.zeros(1024, np.int64)
        self._length = self._held = 0
        self.halvings = self.dropped = 0
        self._before = _NONE  # largest and smallest index of the steps that are dropped

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"BatchLog({len(self)} steps, {self._held} examples)"

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return self._table.nbytes + self._ids.nbytes

    @property
    def steps(self) -> IntArray:
        """Numbers of the steps."""
        return self._table[0, : self._length]

    @property
    def hashes(self) -> UIntArray:
        """Hash of each batch."""
        return self._table[1, : self._length].view(np.uint64)

    @property
    def sizes(self) -> IntArray:
        """Examples of each batch."""
        return self._table[2, : self._length]

    @property
    def repeated(self) -> IntArray:
        """Examples of each batch that it has had before."""
        return self._table[3, : self._length]

    @property
    def counts(self) -> IntArray:
        """Followed examples of each batch."""
        return self._table[4, : self._length]

    @property
    def ids(self) -> IntArray:
        """The followed examples, step by step."""
        return self._ids[: self._held]

    @property
    def largest(self) -> int:
        """Largest index."""
        return max(self._before[0], int(self._table[5, : self._length].max(initial=_NONE[0])))

    @property
    def smallest(self) -> int:
        """Smallest index."""
        return min(self._before[1], int(self._table[6, : self._length].min(initial=_NONE[1])))

    def add(self, step: int, batch: Any) -> None:
        """Note the batch of a step; that of the newest step again takes its place.

        Raises
        ------
        TypeError, ValueError
            No indices, or a step below the newest one.
        """
        given = np.sort(as_ids(batch))
        if self._length and step < self.steps[-1]:
            raise ValueError(f"step: expected a number of at least {self.steps[-1]}, got {step}")
        self.cut(step - 1)
        with np.errstate(over="ignore"):
            words = mix64(mix64(given.view(np.uint64)) + np.uint64(1))
            whole = words.sum(dtype=np.uint64).view(np.int64)
        first = np.append(True, given[1:] != given[:-1])
        single = given[first]
        single = single[is_followed(single, self.halvings)]
        self._make_room(len(single))
        end = self._held + len(single)
        self._ids[self._held : end] = single
        repeated = len(given) - int(np.count_nonzero(first))
        self._table[:, self._length] = (
            step, whole, len(given), repeated, len(single), given[-1], given[0]
        )  # fmt: skip
        self._length, self._held = self._length + 1, end
        while self._held > self._most_ids:
            self._halve()

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        self._length = int(np.searchsorted(self.steps, last, side="right"))
        self._held = int(self.counts.sum())

    def _make_room(self, more: int) -> None:
        if self._length == self._table.shape[1]:
            if self._length < self._most_steps:
                self._table = np.pad(
                    self._table, ((0, 0), (0, min(self._length, self._most_steps - self._length)))
                )
            else:
                self._drop(self._length // 2)
        if self._held + more > len(self._ids):
            self._ids = np.pad(self._ids, (0, max(len(self._ids), more)))

    def _drop(self, steps: int) -> None:
        """Forget the oldest steps."""
        gone = int(self.counts[:steps].sum())
        ends = self._table[5:, :steps]
        self._before = max(self._before[0], int(ends[0].max())), min(self._before[1], int(ends[1].min()))
        self._ids[: self._held - gone] = self.ids[gone:].copy()
        self._table[:, : self._length - steps] = self._table[:, steps : self._length].copy()
        self._length, self._held, self.dropped = self._length - steps, self._held - gone, self.dropped + steps

    def _halve(self) -> None:
        """Follow half as many examples."""
        self.halvings += 1
        kept = is_followed(self.ids, self.halvings)
        places = np.repeat(np.arange(self._length), self.counts)[kept]
        found = self.ids[kept]
        self._table[4, : self._length] = np.bincount(places, minlength=self._length)
        self._held = len(found)
        self._ids = np.zeros(max(1024, 2 * len(found)), np.int64)
        self._ids[: self._held] = found

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays."""
        return {
            "table": self._table[:, : self._length].copy(),
            "ids": self.ids.copy(),
            "numbers": [self.halvings, self.dropped, *self._before],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> BatchLog:
        """Rebuild a log; KeyError, TypeError or ValueError if it is none."""
        table, ids = np.asarray(state["table"], np.int64), np.asarray(state["ids"], np.int64)
        halvings, dropped, largest, smallest = (int(n) for n in state["numbers"])
        fits = table.ndim == 2 and len(table) == _ROWS and ids.ndim == 1 and 0 <= halvings < 64
        if not fits or np.any(np.diff(table[0]) <= 0) or np.any(table[4] < 0) or table[4].sum() != ids.size:
            raise ValueError(
                f"state: expected rising steps and their examples, got {table.shape} and {ids.shape}"
            )
        new = cls(max(MOST_STEPS, table.shape[1]))
        new._length, new._held = table.shape[1], ids.size
        new._table = np.pad(table, ((0, 0), (0, 64 - min(64, table.shape[1]))))
        new._ids = np.pad(ids, (0, max(0, 1024 - ids.size)))
        new.halvings, new.dropped, new._before = halvings, dropped, (largest, smallest)
        return new
