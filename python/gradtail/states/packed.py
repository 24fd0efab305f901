"""Summaries at rest: many groups without the bins that none of them uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.log_sums import BLOCK_SIZES, LOG_SUMS, add_logs, check_logs, empty_logs, join_logs
from gradtail.states.summary import Summary
from gradtail.states.table import EMPTY_RECORD, RECORD, SummaryTable, bins_for, join_records, merge_records


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
    logs : ndarray of LOG_SUMS, shape (rows, 4), or None
    """

    records: npt.NDArray[np.void]
    low: int
    counts: npt.NDArray[Any]
    ends: npt.NDArray[np.uint64]
    bits: int
    logs: npt.NDArray[np.void] | None = None

    @classmethod
    def pack(cls, table: SummaryTable) -> PackedTable:
        """Copy the bins in use."""
        signs = table.counts.reshape(len(table.records), 2, bins_for(table.bits) // 2)
        low, high = _span([table.records])
        logs = None if table.logs is None else table.logs.copy()
        return cls(
            table.records.copy(), low, _narrow(signs[:, :, low:high]), signs[:, :, 0].copy(), table.bits, logs
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
        logs = None
        if self.logs is not None and other.logs is not None:
            logs = other.logs.copy()
            add_logs(logs[:n], self.logs)
        return PackedTable(records, low, _narrow(counts), ends, self.bits, logs)

    def place(self, index: npt.NDArray[np.intp], rows: int) -> PackedTable:
        """Return the same in a table of ``rows`` rows, of which row ``index[i]`` is row i of this one."""
        records, ends = np.full(rows, EMPTY_RECORD), np.zeros((rows, 2), np.uint64)
        counts = np.zeros((rows, *self.counts.shape[1:]), self.counts.dtype)
        records[index], ends[index], counts[index] = self.records, self.ends, self.counts
        logs = None
        if self.logs is not None:
            logs = empty_logs(rows)
            logs[index] = self.logs
        return PackedTable(records, self.low, counts, ends, self.bits, logs)

    def without_logs(self) -> PackedTable:
        """Return the same without block sums."""
        return replace(self, logs=None)

    def unpack(self) -> SummaryTable:
        """Return a table that the pass can write to."""
        table = SummaryTable.empty(len(self.records), self.bits, self.logs is not None)
        signs = table.counts.reshape(len(self.records), 2, bins_for(self.bits) // 2)
        signs[:, :, self.low : self.low + self.counts.shape[2]] = self.counts
        signs[:, :, 0] += self.ends
        table.records[...] = self.records
        if table.logs is not None:
            table.logs[...] = self.logs
        return table

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        logs = 0 if self.logs is None else self.logs.nbytes
        return self.records.nbytes + self.counts.nbytes + self.ends.nbytes + logs

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as arrays of ints and floats."""
        state = {
            "records": self.records.view(np.int64).reshape(len(self.records), RECORD.itemsize // 8),
            "low": self.low,
            "counts": self.counts.view(np.int32 if self.counts.dtype == np.uint32 else np.int64),
            "ends": self.ends.view(np.int64),
        }
        if self.logs is not None:
            state["logs"] = self.logs.view(np.int64).reshape(
                len(self.logs), len(BLOCK_SIZES) * LOG_SUMS.itemsize // 8
            )
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], bits: int) -> PackedTable:
        """Rebuild a table; ValueError where records and bins do not fit together.

        Native code takes the range of bins in use from the records, so that they are checked one by one.
        """
        words = np.ascontiguousarray(state["records"], np.int64)
        counts = np.ascontiguousarray(state["counts"])
        ends = np.ascontiguousarray(state["ends"], np.int64).view(np.uint64)
        low = int(state["low"])
        half = bins_for(bits) // 2
        if (
            words.ndim != 2
            or words.shape[1] * 8 != RECORD.itemsize
            or counts.dtype not in (np.int32, np.int64)
        ):
            raise ValueError(
                f"state: expected records of {RECORD.itemsize // 8} words, got shape {words.shape}"
            )
        fits = counts.ndim == 3 and counts.shape[:2] == (len(words), 2) and ends.shape == (len(words), 2)
        if not fits or low < 1 or low + counts.shape[2] > half:
            raise ValueError(
                f"state: expected counts of {len(words)} rows within {half} bins, "
                f"got shape {counts.shape} from {low}"
            )
        counts = counts.view(np.uint32 if counts.dtype == np.int32 else np.uint64)
        logs = (
            None if "logs" not in state else _logs(np.ascontiguousarray(state["logs"], np.int64), len(words))
        )
        new = cls(words.view(RECORD).reshape(-1), low, counts, ends, bits, logs)
        _check_ranges(new)
        return new

    def summary(self, rows: Sequence[int], *, backend: str | None = None) -> Summary:
        """Join some rows; those that do not exist are empty."""
        return join_rows(
            self.records, self.counts, self.low, self.ends,
            [row for row in rows if row < len(self.records)], self.bits, backend, self.logs,
        )  # fmt: skip


def table_summary(table: SummaryTable, rows: Sequence[int], *, backend: str | None = None) -> Summary:
    """Join some rows of a table."""
    signs = table.counts.reshape(len(table.records), 2, bins_for(table.bits) // 2)
    low, high = _span([table.records[list(rows)]])
    return join_rows(
        table.records, signs[:, :, low:high], low, signs[:, :, 0], list(rows), table.bits, backend, table.logs
    )


def join_rows(
    records: npt.NDArray[np.void],
    counts: npt.NDArray[Any],
    low: int,
    ends: npt.NDArray[np.uint64],
    rows: list[int],
    bits: int,
    backend: str | None,
    logs: npt.NDArray[np.void] | None = None,
) -> Summary:
    """Join rows of counts of shape (rows, 2, width) that begin at magnitude bin ``low``."""
    total = np.zeros((2, bins_for(bits) // 2), np.uint64)
    if rows:
        total[:, low : low + counts.shape[2]] = counts[rows].sum(axis=0, dtype=np.uint64)
        total[:, 0] += ends[rows].sum(axis=0, dtype=np.uint64)
    joined = None if logs is None else join_logs(logs[rows])
    return Summary.from_parts(join_records(records[rows]), total.ravel(), bits, backend=backend, logs=joined)


def _logs(words: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.void]:
    expected = (rows, len(BLOCK_SIZES) * LOG_SUMS.itemsize // 8)
    if words.shape != expected:
        raise ValueError(f"state: expected block sums of shape {expected}, got {words.shape}")
    logs: npt.NDArray[np.void] = words.view(LOG_SUMS).reshape(rows, len(BLOCK_SIZES))
    check_logs(logs)
    return logs


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


def _check_ranges(table: PackedTable) -> None:
    records, used = table.records, table.counts.sum(axis=1, dtype=np.uint64) > 0
    outside = records["overflowed"] + records["vanished"]
    binned = table.counts.sum(axis=(1, 2), dtype=np.uint64) + table.ends.sum(axis=1, dtype=np.uint64)
    if np.any(binned.astype(np.int64) != records["count"] - outside):
        raise ValueError("state: expected as many values in bins as records count, got others")
    if used.shape[1] == 0:
        used = np.zeros((len(records), 1), bool)
    some = used.any(axis=1)
    low = table.low + used.argmax(axis=1)
    high = table.low + used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    # Bin 0 may be in use by small nonzero values; what lies above it must be inside the range.
    wrong = some & ((records["low_bin"] > low) | (records["high_bin"] < high))
    top = bins_for(table.bits) // 2
    wrong |= (records["low_bin"] <= records["high_bin"]) & (
        (records["low_bin"] < 0) | (records["high_bin"] >= top)
    )
    if np.any(wrong):
        raise ValueError("state: expected records that name the bins in use, got others")
