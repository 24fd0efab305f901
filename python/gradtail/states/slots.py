"""Places in a ring for the newest steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.intp]


class Slots:
    """Gives each step a slot; when all are in use the oldest step loses its own.

    Parameters
    ----------
    window : int
        Slots; 0 gives none.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._steps = np.zeros(window, np.int64)
        self._used = np.zeros(window, bool)
        self._next = 0

    @classmethod
    def of(cls, window: int, steps: npt.NDArray[np.int64]) -> Slots:
        """Give the first slots to rising ``steps``, at most ``window`` of them."""
        new = cls(window)
        n = len(steps)
        new._steps[:n], new._used[:n], new._next = steps, True, n % window if window else 0
        return new

    def take(self, step: int) -> tuple[int, bool]:
        """Return the slot of the newest step, and whether it is a new one."""
        newest = (self._next - 1) % self.window
        if self._used[newest] and self._steps[newest] == step:
            return newest, False
        slot, self._next = self._next, (self._next + 1) % self.window
        self._steps[slot], self._used[slot] = step, True
        return slot, True

    def __len__(self) -> int:
        return int(self._used.sum())

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return 9 * self.window

    def order(self) -> IndexArray:
        """Return the slots in use, oldest step first."""
        slots = np.flatnonzero(self._used)
        order: IndexArray = slots[np.argsort(self._steps[slots])]
        return order

    def steps(self, slots: IndexArray) -> npt.NDArray[np.int64]:
        """Return the steps of slots."""
        steps: npt.NDArray[np.int64] = self._steps[slots]
        return steps

    def by_step(self) -> dict[int, int]:
        """Return the slot of each step."""
        return {int(self._steps[slot]): int(slot) for slot in self.order()}

    def cut(self, last: int) -> None:
        """Give up the steps after ``last``."""
        if not self.window:
            return
        self._used &= self._steps <= last
        kept = self.order()
        self._next = (int(kept[-1]) + 1) % self.window if kept.size else 0


def joined_steps(a: Slots, b: Slots, window: int) -> list[int]:
    """Return the newest ``window`` steps of either, rising."""
    steps = sorted({*a.by_step(), *b.by_step()})
    return steps[-window:] if window else []
