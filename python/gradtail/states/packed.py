"""Summaries at rest: many groups without the bins that none of them uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.summary import Summary
from gradtail.states.table import SummaryTable, bins_for, join_records, merge_records


@dataclass(frozen=True)
class PackedTable:
    """What a table held, in a tenth of its memory.

    Attributes
    ----------
    records : ndarray of RECORD, shape (rows,)
    low : int
        Magnitude bin of the first column of ``counts``.
    counts : ndarray of uint32 or uint64, shape (rows, 2, width)
        Positive and negative values, bins low, ..., low + width - 1.
    ends : ndarray of uint64, shape (rows, 2)
        Bin 0 of either sign, where the zeros are.
    bits : int
    """

    records: npt.NDArray[np.void]
    low: int
    counts: npt.NDArray[Any]
    ends: npt.NDArray[np.uint64]
    bits: int

    @classmethod
    def pack(cls, table: SummaryTable) -> PackedTable:
        """Copy the bins in use."""
        signs = table.counts.reshape(len(table.records), 2, bins_for(table.bits) // 2)
        low, high = _span([table.records])
        return cls(
            table.records.copy(), low, _narrow(signs[:, :, low:high]), signs[:, :, 0].copy(), table.bits
        )

    def join(self, other: PackedTable) -> PackedTable:
        """Add row by row; the other may have more rows, whose groups appeared later."""
        low, high = _span([self.records, other.records])
        rows = len(other.records)
        counts = np.zeros((rows, 2, high - low), np.uint64)
        ends = other.ends.copy()
        records = other.records.copy()
        for part in (self, other):
            n, width, shift = len(part.records), part.counts.shape[2], part.low - low
            counts[:n, :, shift : shift + width] += part.counts
        n = len(self.records)
        ends[:n] += self.ends
        merge_records(records[:n], self.records)
        return PackedTable(records, low, _narrow(counts), ends, self.bits)

    def summary(self, rows: Sequence[int], *, backend: str | None = None) -> Summary:
        """Join some rows; those that do not exist are empty."""
        return join_rows(
            self.records, self.counts, self.low, self.ends,
            [row for row in rows if row < len(self.records)], self.bits, backend,
        )  # fmt: skip


def table_summary(table: SummaryTable, rows: Sequence[int], *, backend: str | None = None) -> Summary:
    """Join some rows of a table."""
    signs = table.counts.reshape(len(table.records), 2, bins_for(table.bits) // 2)
    low, high = _span([table.records[list(rows)]])
    return join_rows(
        table.records, signs[:, :, low:high], low, signs[:, :, 0], list(rows), table.bits, backend
    )


def join_rows(
    records: npt.NDArray[np.void],
    counts: npt.NDArray[Any],
    low: int,
    ends: npt.NDArray[np.uint64],
    rows: list[int],
    bits: int,
    backend: str | None,
) -> Summary:
    """Join rows of counts of shape (rows, 2, width) that begin at magnitude bin ``low``."""
    total = np.zeros((2, bins_for(bits) // 2), np.uint64)
    if rows:
        total[:, low : low + counts.shape[2]] = counts[rows].sum(axis=0, dtype=np.uint64)
        total[:, 0] += ends[rows].sum(axis=0, dtype=np.uint64)
    return Summary.from_parts(join_records(records[rows]), total.ravel(), bits, backend=backend)


def _span(records: Sequence[npt.NDArray[np.void]]) -> tuple[int, int]:
    """Return the range of bins in use by any row, bin 0 apart."""
    low, high = [], []
    for some in records:
        used = some[some["low_bin"] <= some["high_bin"]]
        if len(used):
            low.append(int(used["low_bin"].min()))
            high.append(int(used["high_bin"].max()) + 1)
    first = max(min(low, default=1), 1)
    return first, max(max(high, default=first), first)


def _narrow(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    fits = counts.size == 0 or int(counts.max()) < 2**32
    return counts.astype(np.uint32 if fits else np.uint64)
