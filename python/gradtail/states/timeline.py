"""The time line: summaries of every group over blocks of consecutive steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.packed import PackedTable, table_summary
from gradtail.states.steps import StepSet
from gradtail.states.summary import Summary
from gradtail.states.table import SummaryTable

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """A run of consecutive observed steps and the summary of one group over them."""

    first_step: int
    last_step: int
    steps: int
    summary: Summary


@dataclass(frozen=True)
class PackedBlock:
    """A block of every group."""

    first_step: int
    last_step: int
    table: PackedTable

    def without_logs(self) -> PackedBlock:
        """Return the same without block sums."""
        return PackedBlock(self.first_step, self.last_step, self.table.without_logs())

    def join(self, other: PackedBlock) -> PackedBlock:
        """Join two blocks; the rows of both mean the same groups."""
        a, b = sorted((self.table, other.table), key=lambda table: len(table.records))
        first = min(self.first_step, other.first_step)
        return PackedBlock(first, max(self.last_step, other.last_step), a.join(b))


class Timeline:
    """Summaries of the steps m * pace, ..., (m + 1) * pace - 1 for each m: at most ``most`` such blocks.

    When they would be more, the pace is doubled and neighbours are joined. Which steps share a block depends
    on their numbers alone, so that the blocks of two time lines fit together.

    Parameters
    ----------
    bits : int
    most : int
        4 or more.
    backend : module
        Who folds tables.
    stable : bool
        Whether block sums are kept.
    """

    def __init__(self, bits: int, most: int, backend: ModuleType, stable: bool = False) -> None:
        self._bits, self._backend, self._stable = bits, backend, stable
        self.most = most
        self.pace = 1
        self._open = SummaryTable.empty(0, bits, stable)  # the newest block, ready to be added to
        self._range: tuple[int, int] | None = None
        self._blocks: list[PackedBlock] = []

    @property
    def nbytes(self) -> int:
        """Memory of blocks, in bytes; the open table is left to the stream, whose newest one is alike."""
        return sum(block.table.nbytes for block in self._blocks)

    def leave_out_block_sums(self) -> None:
        """Keep none from now on; there are none yet."""
        self._stable, self._open = False, replace(self._open, logs=None)

    def grow(self, rows: int) -> None:
        """Make room for more groups."""
        grown = SummaryTable.empty(rows, self._bits, self._stable)
        self._open.copy_to(grown)
        self._open = grown

    def add(self, step: int, table: SummaryTable) -> bool:
        """Add the summaries of a step later than all others; True if that has closed a block."""
        closed = self._range is not None and self._bucket(self._range[0]) != self._bucket(step)
        if closed:
            self._close()
        if (
            self._range is None
            and self._blocks
            and self._bucket(self._blocks[-1].first_step) == self._bucket(step)
        ):
            self._reopen()
        self._backend.fold(self._open, table)
        self._range = (step if self._range is None else self._range[0], step)
        return closed

    def add_block(self, first: int, last: int, table: SummaryTable) -> bool:
        """Add the summaries of the steps ``first`` to ``last``, later than all others; True if one closed.

        They share a block; if they do not at this pace, the pace slows down until they do.
        """
        closed = False
        if self._range is not None and self._bucket(self._range[0]) != self._bucket(first):
            self._close()
            closed = True
        if not self.together(self._range[0] if self._range else first, last):
            if self._range is not None:
                self._close()
            while not self.together(first, last):
                self._slow_down()
        if (
            self._range is None
            and self._blocks
            and self._bucket(self._blocks[-1].first_step) == self._bucket(first)
        ):
            self._reopen()
        self._backend.fold(self._open, table)
        self._range = (first if self._range is None else self._range[0], last)
        return closed

    def shrink(self) -> bool:
        """Join neighbours, to free memory; False if that cannot be."""
        if len(self._blocks) < 2:
            return False
        self._slow_down()
        return True

    def summaries(self, rows: Sequence[int]) -> Iterable[Summary]:
        """Return summaries that together hold everything of some groups."""
        for block in self._blocks:
            yield block.table.summary(rows, backend=self._backend.name)
        if self._range is not None:
            yield table_summary(self._open, rows, backend=self._backend.name)

    def blocks(self, rows: Sequence[int], counted: StepSet) -> list[Block]:
        """Return the blocks of some groups; ``counted`` are the steps observed."""
        found = [
            Block(
                block.first_step,
                block.last_step,
                counted.count(block.first_step, block.last_step),
                block.table.summary(rows, backend=self._backend.name),
            )
            for block in self._blocks
        ]
        if self._range is not None:
            summary = table_summary(self._open, rows, backend=self._backend.name)
            found.append(Block(*self._range, counted.count(*self._range), summary))
        return found

    def together(self, first: int, second: int) -> bool:
        """Whether two steps share a block."""
        return self._bucket(first) == self._bucket(second)

    def packed(self) -> list[PackedBlock]:
        """Return all blocks, the open one too."""
        blocks = list(self._blocks)
        if self._range is not None:
            blocks.append(PackedBlock(*self._range, PackedTable.pack(self._open)))
        return blocks

    def set(self, blocks: Sequence[PackedBlock], rows: int) -> None:
        """Become the union of blocks with ``rows`` groups each, made at this pace or a lower one."""
        self._blocks = sorted(
            (block if self._stable else block.without_logs() for block in blocks), key=lambda b: b.first_step
        )
        self._join()
        self._open, self._range = SummaryTable.empty(rows, self._bits, self._stable), None
        while len(self._blocks) > self.most - 2:
            self._slow_down()

    def cut(self, last: int) -> None:
        """Drop the blocks that reach beyond ``last``."""
        self._blocks = [block for block in self._blocks if block.last_step <= last]
        if self._range is not None and self._range[1] > last:
            self._backend.clear(self._open)
            self._range = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays."""
        packed = self.packed()
        state: dict[str, Any] = {
            "most": self.most,
            "pace": self.pace,
            "ranges": np.array([(b.first_step, b.last_step) for b in packed], np.int64).reshape(-1, 2),
        }
        for i, block in enumerate(packed):
            state.update({f"blocks/{i}/{key}": value for key, value in block.table.state_dict().items()})
        return state

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], bits: int, rows: int, backend: ModuleType, stable: bool = False
    ) -> Timeline:
        """Rebuild a time line of ``rows`` groups."""
        most, pace = int(state["most"]), int(state["pace"])
        if most < 4 or pace < 1 or pace & (pace - 1):
            raise ValueError(f"state: expected a time line of 4 blocks or more, got most={most}, pace={pace}")
        new = cls(bits, most, backend, stable)
        new.pace = pace
        ranges = np.asarray(state["ranges"], np.int64).reshape(-1, 2)
        if np.any(np.diff(ranges.ravel()) < 0):
            raise ValueError("state: expected blocks of rising steps, got others")
        for i, (first, last) in enumerate(ranges.tolist()):
            keys = ("records", "low", "counts", "ends", *(["logs"] if stable else []))
            table = PackedTable.from_state_dict({key: state[f"blocks/{i}/{key}"] for key in keys}, bits)
            if len(table.records) > rows:
                raise ValueError(f"state: expected at most {rows} rows a block, got {len(table.records)}")
            new._blocks.append(PackedBlock(first, last, table))
        new.grow(rows)
        return new

    def _bucket(self, step: int) -> int:
        return step // self.pace

    def _close(self) -> None:
        assert self._range is not None
        self._blocks.append(PackedBlock(*self._range, PackedTable.pack(self._open)))
        self._backend.clear(self._open)
        self._range = None
        while len(self._blocks) > self.most - 2:  # the open one and the newest step may make two more
            self._slow_down()

    def _reopen(self) -> None:
        """Make the newest block the open one."""
        block = self._blocks.pop()
        block.table.unpack().copy_to(self._open)
        self._range = (block.first_step, block.last_step)

    def _slow_down(self) -> None:
        self.pace *= 2
        self._join()

    def _join(self) -> None:
        """Join the blocks that belong together at this pace."""
        joined: list[PackedBlock] = []
        for block in self._blocks:
            if joined and self._bucket(joined[-1].first_step) == self._bucket(block.first_step):
                joined[-1] = joined[-1].join(block)
            else:
                joined.append(block)
        self._blocks = joined


def placed(blocks: Iterable[PackedBlock], index: IndexArray, rows: int) -> list[PackedBlock]:
    """Return blocks whose row i is row ``index[i]`` of ``rows``."""
    return [
        PackedBlock(
            block.first_step, block.last_step, block.table.place(index[: len(block.table.records)], rows)
        )
        for block in blocks
    ]
