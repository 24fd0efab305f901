"""The specification of the pass, in float64 NumPy, written to be read. Also the fallback."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.buffers import Views
from gradtail.states.table import EMPTY_RECORD, SummaryTable, merge_records

name = "numpy"

CHUNK = 1 << 16
"""Values widened to float64 at a time: bounds the memory of the pass."""


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``, reading each value once."""
    for (raw, dtype), view in zip(views.arrays(), views.table, strict=True):
        record, counts = table.records[view["row"]], table.counts[view["row"]]
        record["mantissa"] = max(record["mantissa"], dtype.mantissa)
        for begin in range(0, raw.size, CHUNK):
            values = dtype.widen(raw[begin : begin + CHUNK])
            _add_chunk(values, int(view["start"]) + begin, record, counts, table.bits)


def fold(into: SummaryTable, table: SummaryTable) -> None:
    """Add each row of ``table`` to the same row of ``into``."""
    into.counts[...] += table.counts
    merge_records(into.records, table.records)


def clear(table: SummaryTable) -> None:
    """Empty every row of ``table``."""
    table.counts[...] = 0
    table.records[...] = EMPTY_RECORD


def _add_chunk(x: npt.NDArray[Any], start: int, record: Any, counts: Any, bits: int) -> None:
    finite = np.isfinite(x)
    if not finite.all():
        record["nan"] += np.count_nonzero(np.isnan(x))
        record["posinf"] += np.count_nonzero(np.isposinf(x))
        record["neginf"] += np.count_nonzero(np.isneginf(x))
        record["first_nonfinite"] = min(record["first_nonfinite"], start + int(np.argmin(finite)))
        x = x[finite]
    record["count"] += x.size
    record["zeros"] += np.count_nonzero(x == 0)
    _add_power_sums(x.astype(np.float64), record)
    _add_bins(x, record, counts, bits)


def _add_power_sums(x: npt.NDArray[np.float64], record: Any) -> None:
    """Power sums of x / 2**e, with 2**e just above the largest |x| seen so far.

    Powers of two scale without rounding, so that neither 1e-30 nor 1e+30 has a fourth power
    outside the range of a double.
    """
    if x.size == 0:
        return
    old = np.frexp(record["max_abs"])[1]
    record["max_abs"] = max(record["max_abs"], np.max(np.abs(x)))
    exponent = np.frexp(record["max_abs"])[1]
    scaled = np.ldexp(x, -exponent)
    for p in (1, 2, 3, 4):
        before = np.ldexp(record[f"sum{p}"], p * (old - exponent))
        record[f"sum{p}"] = before + np.sum(scaled**p)


def _add_bins(x: npt.NDArray[Any], record: Any, counts: Any, bits: int) -> None:
    """Count the top ``9 + bits`` bits of each float32 pattern: sign, exponent, ``bits`` of mantissa."""
    with np.errstate(over="ignore", under="ignore"):
        single = x.astype(np.float32)
    overflowed = np.isinf(single)
    vanished = (single == 0) & (x != 0)
    record["overflowed"] += np.count_nonzero(overflowed)
    record["vanished"] += np.count_nonzero(vanished)
    single = single[~(overflowed | vanished)]
    bins = single.view(np.uint32) >> np.uint32(23 - bits)
    counts += np.bincount(bins, minlength=counts.size).astype(np.uint64)
    if np.any(single):
        magnitude = bins[single != 0] & np.uint32(counts.size // 2 - 1)
        record["low_bin"] = min(record["low_bin"], int(magnitude.min()))
        record["high_bin"] = max(record["high_bin"], int(magnitude.max()))
