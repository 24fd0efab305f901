"""The time line: summaries of every group over blocks of consecutive steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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

    def join(self, other: PackedBlock) -> PackedBlock:
        """Join two blocks; the rows of both mean the same groups."""
        a, b = sorted((self.table, other.table), key=lambda table: len(table.records))
        first = min(self.first_step, other.first_step)
        return PackedBlock(first, max(self.last_step, other.last_step), a.join(b))


class Timeline:
    """At most ``most`` blocks and one that is still open; when they are as many, neighbours are joined.

    Parameters
    ----------
    bits : int
    most : int
        An even number.
    backend : module
        Who folds tables.
    """

    def __init__(self, bits: int, most: int, backend: ModuleType) -> None:
        self._bits, self._backend = bits, backend
        self.most = most
        self._open = SummaryTable.empty(0, bits)
        self._open_range: tuple[int, int] | None = None
        self._open_steps = 0
        self.pace = 1
        self._blocks: list[PackedBlock] = []

    @property
    def nbytes(self) -> int:
        """Memory of blocks, in bytes; the open table is left to the stream, whose newest one is alike."""
        return sum(block.table.nbytes for block in self._blocks)

    @property
    def is_open(self) -> bool:
        """Whether the newest block is not full yet."""
        return self._open_range is not None

    @property
    def just_closed(self) -> bool:
        """Whether the last step filled a block."""
        return self._open_range is None

    def grow(self, rows: int) -> None:
        """Make room for more groups."""
        grown = SummaryTable.empty(rows, self._bits)
        held = len(self._open.records)
        grown.records[:held], grown.counts[:held] = self._open.records, self._open.counts
        self._open = grown

    def add(self, step: int, table: SummaryTable) -> None:
        """Add the summaries of a step later than all others; at their boundaries blocks are closed."""
        self._backend.fold(self._open, table)
        self._open_range = (step if self._open_range is None else self._open_range[0], step)
        self._open_steps += 1
        if self._open_steps >= self.pace:
            self._close()

    def shrink(self) -> bool:
        """Join neighbours, to free memory; False if that cannot be."""
        if len(self._blocks) < 2:
            return False
        self._join_neighbours()
        return True

    def summaries(self, rows: Sequence[int]) -> Iterable[Summary]:
        """Return summaries that together hold everything of some groups."""
        for block in self._blocks:
            yield block.table.summary(rows, backend=self._backend.name)
        if self._open_range is not None:
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
        if self._open_range is not None:
            summary = table_summary(self._open, rows, backend=self._backend.name)
            found.append(Block(*self._open_range, self._open_steps, summary))
        return found

    def packed(self) -> list[PackedBlock]:
        """Return all blocks, the open one too."""
        blocks = list(self._blocks)
        if self._open_range is not None:
            blocks.append(PackedBlock(*self._open_range, PackedTable.pack(self._open)))
        return blocks

    def set(self, blocks: Sequence[PackedBlock], rows: int, counted: StepSet) -> None:
        """Become the union of blocks with ``rows`` groups each, of which those that overlap are joined."""
        self._blocks = []
        for block in sorted(blocks, key=lambda block: (block.first_step, block.last_step)):
            if self._blocks and block.first_step <= self._blocks[-1].last_step:
                self._blocks[-1] = self._blocks[-1].join(block)
            else:
                self._blocks.append(block)
        while len(self._blocks) >= self.most:
            self._join_neighbours()
        self._open, self._open_range, self._open_steps = SummaryTable.empty(rows, self._bits), None, 0
        if self._blocks:
            newest = self._blocks[-1]
            steps = counted.count(newest.first_step, newest.last_step)
            if steps < self.pace:
                self._reopen(steps)

    def _reopen(self, steps: int) -> None:
        """Make the newest block, of so many steps, the open one."""
        block = self._blocks.pop()
        held = block.table.unpack()
        n = len(held.records)
        self._open.records[:n], self._open.counts[:n] = held.records, held.counts
        self._open_range, self._open_steps = (block.first_step, block.last_step), steps

    def cut(self, last: int) -> int | None:
        """Drop the blocks that reach beyond ``last``; return the first step dropped though not beyond it."""
        lost: list[int] = []
        kept = []
        for block in self._blocks:
            if block.last_step <= last:
                kept.append(block)
            else:
                lost.append(block.first_step)
        self._blocks = kept
        if self._open_range is not None and self._open_range[1] > last:
            lost.append(self._open_range[0])
            self._backend.clear(self._open)
            self._open_range, self._open_steps = None, 0
        first = min(lost, default=last + 1)
        return first if first <= last else None

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays."""
        state: dict[str, Any] = {
            "most": self.most,
            "pace": self.pace,
            "open_steps": self._open_steps,
        }
        packed = self.packed()
        state["open"] = int(self._open_range is not None)
        state["ranges"] = np.array([(b.first_step, b.last_step) for b in packed], np.int64).reshape(-1, 2)
        for i, block in enumerate(packed):
            state.update({f"blocks/{i}/{key}": value for key, value in block.table.state_dict().items()})
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], bits: int, rows: int, backend: ModuleType) -> Timeline:
        """Rebuild a time line of ``rows`` groups."""
        new = cls(bits, int(state["most"]), backend)
        new.pace, open_steps = int(state["pace"]), int(state["open_steps"])
        ranges = np.asarray(state["ranges"], np.int64).reshape(-1, 2).tolist()
        for i, (first, last) in enumerate(ranges):
            keys = ("records", "low", "counts", "ends")
            table = PackedTable.from_state_dict({key: state[f"blocks/{i}/{key}"] for key in keys}, bits)
            if len(table.records) > rows:
                raise ValueError(f"state: expected at most {rows} rows a block, got {len(table.records)}")
            new._blocks.append(PackedBlock(first, last, table))
        new.grow(rows)
        if int(state["open"]):
            new._reopen(open_steps)
        return new

    def _close(self) -> None:
        assert self._open_range is not None
        self._blocks.append(PackedBlock(*self._open_range, PackedTable.pack(self._open)))
        self._backend.clear(self._open)
        self._open_range, self._open_steps = None, 0
        if len(self._blocks) >= self.most:
            self._join_neighbours()
            self.pace *= 2

    def _join_neighbours(self) -> None:
        pairs = [self._blocks[i : i + 2] for i in range(0, len(self._blocks), 2)]
        self._blocks = [pair[0].join(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]


def placed(blocks: Iterable[PackedBlock], index: IndexArray, rows: int) -> list[PackedBlock]:
    """Return blocks whose row i is row ``index[i]`` of ``rows``."""
    return [
        PackedBlock(
            block.first_step, block.last_step, block.table.place(index[: len(block.table.records)], rows)
        )
        for block in blocks
    ]
