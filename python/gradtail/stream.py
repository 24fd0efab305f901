"""GradientStream: the gradients of a training run, step after step, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradtail import backends
from gradtail.buffers import views_of
from gradtail.states.packed import PackedTable, table_summary
from gradtail.states.record_log import RecordLog
from gradtail.states.summary import Summary
from gradtail.states.table import SummaryTable, check_bits

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MOST_BLOCKS = 32
"""Blocks of steps kept; when there are as many, neighbours are joined and half of them remain."""


@dataclass(frozen=True)
class Block:
    """A run of consecutive observed steps and the summary of one group over them."""

    first_step: int
    last_step: int
    steps: int
    summary: Summary


@dataclass(frozen=True)
class NonFinite:
    """Where the first NaN or infinity of a run appeared."""

    step: int
    name: str
    index: int


@dataclass(frozen=True)
class _PackedBlock:
    """A block of every group."""

    first_step: int
    last_step: int
    steps: int
    table: PackedTable

    def join(self, later: _PackedBlock) -> _PackedBlock:
        return _PackedBlock(
            self.first_step, later.last_step, self.steps + later.steps, self.table.join(later.table)
        )


class GradientStream:
    """Summaries of many named arrays over the steps of a run.

    Every array name is a group of its own; groups that share a dotted prefix (a module) are
    joined when they are read. Kept are the newest step, at most 32 blocks of consecutive steps
    (the time line, and the spread that error bars over a window come from), and one row of
    scalars a step, thinned out as it grows.

    Parameters
    ----------
    bits : int, default 4
        Mantissa bits of the histograms.
    history : int, default 2048
        Rows of scalars kept at most; every second one is dropped when they are full.
    backend : {None, "native", "numpy"}

    Notes
    -----
    An update reads each array once. Memory (:attr:`nbytes`) depends on the number of arrays and on
    how many binades their values span, not on array sizes and steps.

    Examples
    --------
    >>> import numpy as np
    >>> stream = GradientStream()
    >>> for step in range(3):
    ...     stream.update({"a.w": np.full(4, 2.0 + step), "a.b": np.zeros(2)})
    >>> stream.summary("a").count, stream.summary("a.w", "newest").norm
    (18, 8.0)
    """

    def __init__(self, *, bits: int = 4, history: int = 2048, backend: str | None = None) -> None:
        self._backend = backends.resolve(backend)
        self._bits = check_bits(bits)
        self._rows: dict[str, int] = {}
        self._sizes: IntArray = np.zeros(0, np.int64)
        self._observed: IntArray = np.zeros(0, np.int64)
        self._newest = SummaryTable.empty(0, self._bits)
        self._open = SummaryTable.empty(0, self._bits)
        self._open_since: int | None = None
        self._open_steps = 0
        self._block_steps = 1
        self._blocks: list[_PackedBlock] = []
        self._log = RecordLog(history)
        self._steps = 0
        self._last_step: int | None = None
        self._first_nonfinite: NonFinite | None = None
        self._last_names: list[str] = []
        self._last_rows: IntArray = np.zeros(0, np.int64)

    def update(self, arrays: Mapping[str, Any] | Sequence[Any], step: int | None = None) -> None:
        """Observe one step.

        Parameters
        ----------
        arrays : mapping of str to array, or sequence of arrays
            What was observed; a name that is missing was not observed. A sequence is named
            "0", "1", ... in order.
        step : int, optional
            Number of the step, larger than the one before; default: one more.

        Raises
        ------
        TypeError, ValueError
            An array that :func:`gradtail.summarize` refuses, one whose size is not that of the
            first time, or a step that does not follow. The stream is left as it was.
        """
        arrays, step = _named(arrays), self._check_step(step)
        views = views_of(arrays, "arrays")
        views.table["start"] = 0
        rows = self._rows_for(list(arrays), views.table["size"])
        views.table["row"] = rows
        self._backend.clear(self._newest)
        self._backend.summarize(views, self._newest)
        self._backend.fold(self._open, self._newest)
        self._observed[rows] += 1
        self._steps += 1
        self._last_step = step
        if self._open_since is None:
            self._open_since = step
        self._open_steps += 1
        self._note_nonfinite(step)
        bad = self.nonfinite()
        self._log.add(step, self._norms_now(rows), np.nan if bad else self.norm(), bad)
        if self._open_steps == self._block_steps:
            self._close_block()

    @property
    def bits(self) -> int:
        """Mantissa bits of the histograms."""
        return self._bits

    @property
    def backend(self) -> str:
        """Name of the backend that does the pass."""
        return str(self._backend.name)

    @property
    def names(self) -> list[str]:
        """Names seen so far, in the order in which they came."""
        return list(self._rows)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each array."""
        return {name: int(self._sizes[row]) for name, row in self._rows.items()}

    @property
    def observed(self) -> dict[str, int]:
        """Steps in which each array was there."""
        return {name: int(self._observed[row]) for name, row in self._rows.items()}

    @property
    def steps(self) -> int:
        """Steps observed."""
        return self._steps

    @property
    def last_step(self) -> int | None:
        """Number of the newest step; None before the first."""
        return self._last_step

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where the first NaN or infinity appeared; None if there was none."""
        return self._first_nonfinite

    @property
    def history(self) -> RecordLog:
        """One row of scalars a step: norms of every group and of the whole, non-finite values."""
        return self._log

    @property
    def nbytes(self) -> int:
        """Memory that tables, blocks and log take at most, in bytes; bins never touched cost less."""
        tables = (self._newest, self._open)
        parts = [a for t in tables for a in (t.records, t.counts)]
        for block in self._blocks:
            parts += [block.table.records, block.table.counts, block.table.ends]
        return sum(part.nbytes for part in parts) + self._log.nbytes

    def norm(self) -> float:
        """Euclidean norm of the newest step, finite values only."""
        return _joint_norm(self._newest.records)

    def nonfinite(self) -> int:
        """Non-finite values in the newest step."""
        r = self._newest.records
        return int(r["nan"].sum() + r["posinf"].sum() + r["neginf"].sum())

    def summary(self, group: str | None = None, steps: Literal["all", "newest"] = "all") -> Summary:
        """Join the summaries of a group.

        Parameters
        ----------
        group : str, optional
            An array name, or a dotted prefix of several; None is everything.
        steps : {"all", "newest"}
            Over all steps, or the newest alone. In "all", values of different steps are different
            values: count is the sum over steps.

        Raises
        ------
        ValueError
            No such group.
        """
        rows = self._group_rows(group)
        if steps == "newest":
            return table_summary(self._newest, rows, backend=self.backend)
        if steps != "all":
            raise ValueError(f"steps: expected 'all' or 'newest', got {steps!r}")
        parts = [block.table.summary(rows, backend=self.backend) for block in self._blocks]
        total = table_summary(self._open, rows, backend=self.backend)
        for part in parts:
            total = total.merge(part)
        return total

    def blocks(self, group: str | None = None) -> list[Block]:
        """Return the time line of a group: its summaries over consecutive runs of steps.

        Every block but the last covers the same number of steps.
        """
        rows = self._group_rows(group)
        found = [
            Block(b.first_step, b.last_step, b.steps, b.table.summary(rows, backend=self.backend))
            for b in self._blocks
        ]
        if self._open_steps:
            assert self._open_since is not None
            assert self._last_step is not None
            newest = table_summary(self._open, rows, backend=self.backend)
            found.append(Block(self._open_since, self._last_step, self._open_steps, newest))
        return found

    def _norms_now(self, rows: IntArray) -> FloatArray:
        """Norm of each array; NaN if it is not there or not finite: a blown-up run must not look calm."""
        records = self._newest.records
        norms = np.full(len(records), np.nan)
        norms[rows] = _norms(records)[rows]
        norms[records["nan"] + records["posinf"] + records["neginf"] > 0] = np.nan
        return norms

    def _check_step(self, step: int | None) -> int:
        if step is None:
            return 0 if self._last_step is None else self._last_step + 1
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
            raise TypeError(f"step: expected an int, got {step!r}")
        if self._last_step is not None and step <= self._last_step:
            raise ValueError(f"step: expected a number above {self._last_step}, got {step}")
        return int(step)

    def _group_rows(self, group: str | None) -> list[int]:
        if group is None:
            return list(self._rows.values())
        if group in self._rows:
            return [self._rows[group]]
        rows = [row for name, row in self._rows.items() if name.startswith(f"{group}.")]
        if not rows:
            raise ValueError(f"group: expected an array name or a prefix of some, got {group!r}")
        return rows

    def _rows_for(self, names: list[str], sizes: IntArray) -> IntArray:
        """Row of each name; new names get new rows. Refuses a size that has changed."""
        if names != self._last_names:
            new = [name for name in names if name not in self._rows]
            known = [i for i, name in enumerate(names) if name in self._rows]
            self._check_sizes([names[i] for i in known], sizes[known])
            if new:
                by_name = dict(zip(names, sizes, strict=True))
                total = len(self._rows) + len(new)
                # All memory first: if there is none, the stream is left as it was.
                newest, grown = (SummaryTable.empty(total, self._bits) for _ in range(2))
                grown.records[: len(self._open.records)] = self._open.records
                grown.counts[: len(self._open.records)] = self._open.counts
                new_sizes = np.append(self._sizes, [by_name[name] for name in new])
                observed = np.append(self._observed, np.zeros(len(new), np.int64))
                self._newest, self._open = newest, grown
                self._sizes, self._observed = new_sizes, observed
                for name in new:
                    self._rows[name] = len(self._rows)
            self._last_names = names
            self._last_rows = np.array([self._rows[name] for name in names], np.int64)
        else:
            self._check_sizes(names, sizes)
        return self._last_rows

    def _check_sizes(self, names: list[str], sizes: IntArray) -> None:
        rows = self._last_rows if names == self._last_names else [self._rows[name] for name in names]
        expected = self._sizes[rows]
        if not np.array_equal(expected, sizes):
            i = int(np.argmax(expected != sizes))
            raise ValueError(
                f"arrays[{names[i]!r}]: expected {expected[i]} elements as before, got {sizes[i]}"
            )

    def _note_nonfinite(self, step: int) -> None:
        if self._first_nonfinite is None and self.nonfinite():
            first = self._newest.records["first_nonfinite"]
            row = int(np.argmax(first != np.iinfo(np.int64).max))
            self._first_nonfinite = NonFinite(step, self.names[row], int(first[row]))

    def _close_block(self) -> None:
        assert self._open_since is not None
        assert self._last_step is not None
        packed = PackedTable.pack(self._open)
        self._blocks.append(_PackedBlock(self._open_since, self._last_step, self._open_steps, packed))
        self._backend.clear(self._open)
        self._open_since, self._open_steps = None, 0
        if len(self._blocks) == MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [a.join(b) for a, b in pairs]
            self._block_steps *= 2


def _named(arrays: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and a sequence with its indices as names."""
    if isinstance(arrays, Mapping):
        for name in arrays:
            if not isinstance(name, str):
                raise TypeError(f"arrays: expected names of type str, got {name!r}")
        return arrays
    if isinstance(arrays, (list, tuple)):
        return {str(i): array for i, array in enumerate(arrays)}
    raise TypeError(f"arrays: expected a mapping or list of arrays, got {type(arrays).__name__}")


def _norms(records: npt.NDArray[np.void]) -> FloatArray:
    """Norm of each row's finite values."""
    exponent = np.frexp(records["max_abs"])[1]
    return np.asarray(np.ldexp(np.sqrt(records["sum2"]), exponent))


def _joint_norm(records: npt.NDArray[np.void]) -> float:
    """Norm of all rows together, without overflow on the way."""
    if len(records) == 0:
        return 0.0
    exponents = np.frexp(records["max_abs"])[1]
    top = int(np.frexp(records["max_abs"].max())[1])
    total = float(np.sum(np.ldexp(records["sum2"], 2 * (exponents - top))))
    return float(np.ldexp(np.sqrt(total), top))
