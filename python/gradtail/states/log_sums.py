"""Sums of blocks of neighbours, and what is kept of their logarithms, for the stable index.

Blocks are the runs of 64, 256, 1024 and 4096 elements that begin at a multiple of their length, counted from
the first element of the whole parameter. So shards whose borders are such multiples have all the blocks of
the whole, and others all but those that a border cuts.

The sum of a block is that of its halves, in float32 down to single values. That names its bits: they are
those of every backend, thread and grid. It is off by at most ``log2(K) * 2**-24`` times the sum of
magnitudes. Its logarithm to base 2 is a whole number of units of 2**-16, made by integers alone (within
1.5e-5, 5e-7 on average), so that sums of it are exact in any order until they reach 2**53 units, and right
to 1e-15 after that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_SIZES = (64, 256, 1024, 4096)
"""Values of a block, K1: one column of the table each."""

LOG_SUMS = np.dtype(
    [
        ("blocks", np.int64),  # whole blocks with a finite sum
        ("zeros", np.int64),  # of them, those whose sum is zero
        ("nonfinite", np.int64),  # whole blocks with a value that is not finite as float32
        ("overflowed", np.int64),  # other whole blocks, whose sum is not finite
        ("sum", np.float64),  # of log2 |Y| over the sums Y that are not zero, in units of 2**-16
        ("squares", np.float64),  # of their squares, in units of 2**-8, of log2 |Y| rounded to 2**-4
    ]
)

UNIT, SQUARED_UNIT = 2.0**-16, 2.0**-8


@dataclass(frozen=True)
class BlockLogs:
    """What is known of the sums Y of all whole blocks of one size.

    Attributes
    ----------
    block : int
        Values of a block.
    count : int
        Blocks with a finite sum.
    zeros : int
        Of them, those with a sum of zero, which has no logarithm.
    nonfinite : int
        Blocks with a value that is not finite as float32: counted here alone.
    overflowed : int
        Blocks of finite values whose sum is not finite: counted here alone.
    mean : float
        Mean of the natural logarithm of abs(Y) over sums that are not zero; NaN if there is none.
    variance : float
        Its variance (ddof = 0), to about 1e-3; NaN if there is none.
    """

    block: int
    count: int
    zeros: int
    nonfinite: int
    overflowed: int
    mean: float
    variance: float

    @classmethod
    def from_record(cls, block: int, record: Any) -> BlockLogs:
        """Read one element of a table."""
        counts = (int(record[field]) for field in ("blocks", "zeros", "nonfinite", "overflowed"))
        count, zeros, nonfinite, overflowed = counts
        n, mean, variance = count - zeros, math.nan, math.nan
        if n:
            octaves = float(record["sum"]) * UNIT / n
            square = float(record["squares"]) * SQUARED_UNIT / n - ROUNDING
            mean = octaves * math.log(2)
            variance = max(square - octaves**2, 0.0) * math.log(2) ** 2
        return cls(block, count, zeros, nonfinite, overflowed, mean, variance)


ROUNDING = 2.0**-8 / 12
"""Mean square of what rounding to 2**-4 adds: Sheppard's correction."""

# log2(1 + (i + t) / 16) is C0[i] + t * (C1[i] + t * C2[i]) in units of 2**-18, through ends and middle.
C0 = np.array(
    [0, 22928, 44545, 64993, 84392, 102844, 120437, 137249, 153344, 168783, 183616, 197889, 211643, 224915,
     237736, 250137], np.int32,
)  # fmt: skip
C1 = np.array(
    [23623, 22235, 21001, 19896, 18902, 18003, 17185, 16438, 15754, 15124, 14542, 14004, 13504, 13039, 12604,
     12198], np.int32,
)  # fmt: skip
C2 = np.array(
    [-695, -618, -553, -497, -450, -409, -374, -342, -315, -291, -269, -250, -233, -217, -203, -191],
    np.int32,
)  # fmt: skip


def empty_logs(rows: int) -> npt.NDArray[np.void]:
    """Return nothing counted yet, shape (rows, 4)."""
    return np.zeros((rows, len(BLOCK_SIZES)), LOG_SUMS)


def add_logs(into: npt.NDArray[np.void], logs: npt.NDArray[np.void]) -> None:
    """Add disjoint sets of blocks in place; both of shape (n, 4)."""
    for field in LOG_SUMS.names or ():
        into[field] += logs[field]


def join_logs(logs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Join any number of rows into one, shape (1, 4)."""
    joined = empty_logs(1)
    for field in LOG_SUMS.names or ():
        joined[field] = logs[field].sum(axis=0)
    return joined


def of_tallies(memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Return what a device has counted, whose sums are integers of 64 bits; shape (rows, 4)."""
    names = LOG_SUMS.names or ()
    tallies = memory.view(np.int64).reshape(-1, len(BLOCK_SIZES), len(names))
    logs = empty_logs(len(tallies))
    for i, field in enumerate(names):
        logs[field] = tallies[:, :, i]
    return logs


def check_logs(logs: npt.NDArray[np.void]) -> None:
    """Raise ValueError where these are numbers that no blocks have."""
    counts = [logs[field] for field in ("blocks", "zeros", "nonfinite", "overflowed")]
    numbers = np.isfinite(logs["sum"]) & (logs["squares"] >= 0) & np.isfinite(logs["squares"])
    if any(np.any(count < 0) for count in counts) or np.any(counts[1] > counts[0]) or not np.all(numbers):
        raise ValueError("state: expected counts and sums of blocks, got numbers that no blocks have")


def log2_units(sums: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return log2 of positive finite float32, in units of 2**-16, shape of ``sums``."""
    pattern = sums.view(np.uint32)
    small = pattern < 0x00800000  # subnormal: as many units of 2**-149
    pattern = np.where(small, pattern.astype(np.float32).view(np.uint32), pattern)
    i = (pattern >> np.uint32(19)).astype(np.int32) & 15
    t = (pattern >> np.uint32(4)).astype(np.int32) & 0x7FFF
    slope = C1[i] + ((C2[i] * t) >> 15)
    part = (C0[i] + ((slope * t + (1 << 14)) >> 15) + 2) >> 2
    exponent = (pattern >> np.uint32(23)).astype(np.int64) - 127 - np.where(small, 149, 0)
    units: npt.NDArray[np.int64] = (exponent << 16) + part
    return units


def count_blocks(
    sums: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], into: npt.NDArray[np.void]
) -> None:
    """Take in the sums of blocks of one size.

    Parameters
    ----------
    sums : ndarray of float32, shape (m,)
    bad : ndarray of bool, shape (m,)
        Blocks with a value that is not finite.
    into : ndarray of LOG_SUMS, shape (1,)
    """
    finite = ~bad & ((sums.view(np.uint32) & np.uint32(0x7FFFFFFF)) < 0x7F800000)
    magnitude = (sums[finite].view(np.uint32) & np.uint32(0x7FFFFFFF)).view(np.float32)
    nonzero = magnitude.view(np.uint32) != 0  # by integers: no subnormal may be taken for zero
    units = log2_units(magnitude[nonzero])
    rounded = (units + (1 << 11)) >> 12
    into["blocks"] += magnitude.size
    into["zeros"] += magnitude.size - np.count_nonzero(nonzero)
    into["nonfinite"] += np.count_nonzero(bad)
    into["overflowed"] += np.count_nonzero(~finite & ~bad)
    into["sum"] += float(units.sum())
    into["squares"] += float((rounded * rounded).sum())


def count_run(x: npt.NDArray[np.float32], start: int, into: npt.NDArray[np.void]) -> None:
    """Take in all whole blocks of a run of values.

    Parameters
    ----------
    x : ndarray of float32, shape (n,)
    start : int
        Index of its first element in the whole parameter.
    into : ndarray of LOG_SUMS, shape (4,)
    """
    inside, first = whole_blocks(start, x.size)
    x = x[inside]
    bad = np.asarray(~np.isfinite(x).reshape(-1, BLOCK_SIZES[0]).all(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):
        count_sums(halved(x, BLOCK_SIZES[0]), bad, first, into)


def whole_blocks(start: int, size: int) -> tuple[slice, int]:
    """Return which values of a run lie in whole blocks of 64, and the number of the first such block."""
    least = BLOCK_SIZES[0]
    first, last = -(-start // least), (start + size) // least
    last = max(last, first)
    return slice(first * least - start, last * least - start), first


def count_sums(
    sums: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], first: int, into: npt.NDArray[np.void]
) -> None:
    """Take in consecutive sums of 64 values, and the larger blocks that are made of them.

    Parameters
    ----------
    sums : ndarray of float32, shape (m,)
    bad : ndarray of bool, shape (m,)
        Blocks with a value that is not finite.
    first : int
        Number of the first block in the whole parameter.
    into : ndarray of LOG_SUMS, shape (4,)
    """
    last = first + sums.size
    count_blocks(sums, bad, into[:1])
    for column in range(1, len(BLOCK_SIZES)):
        begin, end = -(-first // 4), last // 4
        if end <= begin:
            return
        inner = slice(4 * begin - first, 4 * end - first)
        with np.errstate(over="ignore", invalid="ignore"):
            sums, bad = halved(sums[inner], 4), np.asarray(bad[inner].reshape(-1, 4).any(axis=1))
        first, last = begin, end
        count_blocks(sums, bad, into[column : column + 1])


def halved(x: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Return the sums of runs of ``block`` values, a power of two, each the sum of its halves."""
    while block > 1:
        x = x[0::2] + x[1::2]
        block //= 2
    return x
