"""The memory of a set of summaries: one record and one row of bin counts each.

The pass writes here, whichever backend runs it; ``csrc/core/record.hpp`` mirrors
the record field by field and a test compares the two layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.log_sums import empty_logs

NO_INDEX = np.iinfo(np.int64).max
"""``first_nonfinite`` of a set without non-finite values: the neutral element of ``min``."""

NO_BIN = np.iinfo(np.int64).max
"""``low_bin`` of a set without points: the neutral element of ``min``."""

RECORD = np.dtype(
    [
        ("count", np.int64),  # finite values
        ("zeros", np.int64),  # exact zeros, of either sign
        ("nan", np.int64),
        ("posinf", np.int64),
        ("neginf", np.int64),
        ("first_nonfinite", np.int64),  # element index, NO_INDEX if none
        ("overflowed", np.int64),  # finite float64 beyond the float32 range: not in the bins
        ("vanished", np.int64),  # nonzero float64 that rounds to a float32 zero: not in the bins
        ("mantissa", np.int64),  # most mantissa bits of any input: 7, 10 or 23; 0 if no input
        ("low_bin", np.int64),  # bins of nonzero magnitudes lie in [low_bin, high_bin], sign removed;
        ("high_bin", np.int64),  # bin 0, which also holds the zeros, may be in use besides
        ("max_abs", np.float64),  # largest finite |x|
        ("sum1", np.float64),  # sum over x of (x / 2**e)**p, where 2**(e-1) <= max_abs < 2**e
        ("sum2", np.float64),
        ("sum3", np.float64),
        ("sum4", np.float64),
    ]
)

ADDED_FIELDS = ("count", "zeros", "nan", "posinf", "neginf", "overflowed", "vanished")
"""Fields of a record that add when sets are joined; of others the smallest or largest remains."""
SMALLEST_FIELDS = ("first_nonfinite", "low_bin")
LARGEST_FIELDS = ("mantissa", "high_bin")


def _empty_record() -> Any:
    record = np.zeros((), RECORD)
    record["first_nonfinite"], record["low_bin"], record["high_bin"] = NO_INDEX, NO_BIN, -1
    return record


EMPTY_RECORD = _empty_record()

MAX_BITS = 10
"""Most mantissa bits a table can keep: enough for float16 to be exact; 4 MiB a row."""


def bins_for(bits: int) -> int:
    """Return the number of bins: sign, eight exponent bits and ``bits`` mantissa bits."""
    return 2 << (8 + bits)


def check_bits(bits: object) -> int:
    """Return ``bits`` as an int in 0..10, or raise in the library's voice."""
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"bits: expected an int from 0 to {MAX_BITS}, got {bits!r}")
    if not 0 <= int(bits) <= MAX_BITS:
        raise ValueError(f"bits: expected an int from 0 to {MAX_BITS}, got {bits}")
    return int(bits)


@dataclass(frozen=True)
class SummaryTable:
    """``rows`` summaries side by side.

    Attributes
    ----------
    records : ndarray of RECORD, shape (rows,)
    counts : ndarray of uint64, shape (rows, 2 ** (9 + bits))
        Column ``pattern >> (23 - bits)`` of the float32 pattern: the upper half of the columns
        are the negative values.
    bits : int
    logs : ndarray of LOG_SUMS, shape (rows, 4), or None
        Of block sums, where they are wanted.
    """

    records: npt.NDArray[np.void]
    counts: npt.NDArray[np.uint64]
    bits: int
    logs: npt.NDArray[np.void] | None = None

    @classmethod
    def empty(cls, rows: int, bits: int, stable: bool = False) -> SummaryTable:
        """Make ``rows`` empty summaries, with block sums or without; untouched counts are address space."""
        counts = np.zeros((rows, bins_for(bits)), np.uint64)
        return cls(np.full(rows, EMPTY_RECORD), counts, bits, empty_logs(rows) if stable else None)

    def copy_to(self, larger: SummaryTable) -> None:
        """Copy all rows to the first rows of another table, which has block sums if this one has."""
        n = len(self.records)
        larger.records[:n], larger.counts[:n] = self.records, self.counts
        if self.logs is not None and larger.logs is not None:
            larger.logs[:n] = self.logs


def merge_records(into: npt.NDArray[np.void], records: npt.NDArray[np.void]) -> None:
    """Add disjoint sets of values, row by row and in place; both of shape (n,)."""
    old, own = np.frexp(into["max_abs"])[1], np.frexp(records["max_abs"])[1]
    into["max_abs"] = np.maximum(into["max_abs"], records["max_abs"])
    now = np.frexp(into["max_abs"])[1]
    for p in (1, 2, 3, 4):
        field = f"sum{p}"
        into[field] = np.ldexp(into[field], p * (old - now)) + np.ldexp(records[field], p * (own - now))
    for field in ADDED_FIELDS:
        into[field] += records[field]
    for field in SMALLEST_FIELDS:
        into[field] = np.minimum(into[field], records[field])
    for field in LARGEST_FIELDS:
        into[field] = np.maximum(into[field], records[field])


def join_records(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Join any number of records into one, shape (1,)."""
    joined = np.full(1, EMPTY_RECORD)
    if len(records) == 0:
        return joined
    joined["max_abs"] = records["max_abs"].max()
    shift = np.frexp(records["max_abs"])[1] - np.frexp(joined["max_abs"])[1]
    for p in (1, 2, 3, 4):
        joined[f"sum{p}"] = np.ldexp(records[f"sum{p}"], p * shift).sum()
    for field in ADDED_FIELDS:
        joined[field] = records[field].sum()
    for field in SMALLEST_FIELDS:
        joined[field] = records[field].min()
    for field in LARGEST_FIELDS:
        joined[field] = records[field].max()
    return joined
