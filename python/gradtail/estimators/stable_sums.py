"""The stable index from sums of blocks of neighbours that a pass has taken: of gradients, or of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.log_sums import LogSums, from_log_means
from gradtail.estimators.stable.result import LABELS
from gradtail.states.log_sums import BLOCK_SIZES, UNIT
from gradtail.states.magnitudes import FloatArray, edges_for
from gradtail.states.packed import PackedTable
from gradtail.states.summary import Summary

ENOUGH_BLOCKS = 100
"""Blocks from which a size is taken by default: the largest that has so many."""

FEWEST_PARTS = 3
"""Blocks of steps from which their spread is an error bar."""

_FLOOR = math.log(np.finfo(np.float64).eps)  # what the published code reads for the logarithm of zero
_SHORTEST = 2.0  # values of a block that zeros are left out of
_WHOLE = 0.99  # share of the values in whole blocks below which it is said
_ZEROS_WORTH_A_WORD = 1e-3


@dataclass(frozen=True)
class BlockAlpha:
    """The estimate from blocks of one size.

    Attributes
    ----------
    block : int
        Values of a block, K1.
    alpha, stderr : float
        As in :class:`StreamAlpha`.
    blocks : int
        Blocks with a sum that is not zero, K2.
    """

    block: int
    alpha: float
    stderr: float
    blocks: int


@dataclass(frozen=True)
class StreamAlpha:
    """The stable index that sums of neighbouring values of a stream grow with.

    One number for values that need be neither independent nor of one scale: below 2 it alone says nothing
    about a variance. Of raw gradients it is called gradient alpha; noise alpha is that of a stream of noise.

    Attributes
    ----------
    alpha : float
        1 / alpha = (mean log abs(Y) - mean log abs(X)) / log K1, zeros left out; not cut off at 2.
    stderr : float
        As :attr:`spread` says.
    block : int
        Values of a block, K1.
    blocks : int
        Blocks with a sum that is not zero, K2.
    coverage : float
        Share of the values that lie in whole blocks. The others are not in Y; of the tensors that have whole
        blocks they are in X.
    zeros : float
        Share of exact zeros.
    alpha_with_zeros : float
        The same with zeros taken for the smallest number of the published code, 2.2e-16.
    sizes : tuple of BlockAlpha
        Every size that has two blocks.
    warnings : tuple of str
    spread : {"iid", "blocks"}
        Whether ``stderr`` is alpha**2 sqrt(v (1 / K2 + 1 / N)) / log K1 of N values that are not zero, with
        v = (pi**2 / 6) (1 / alpha**2 + 1/2), as at alpha = 2 above that, which holds for independent values
        of a stable law, or comes from the spread between blocks of steps.
    parts : int or None
        Number of blocks of steps.
    kind : {"gradient", "noise"}
        Of what it is.
    layers : mapping of str to StreamAlpha
        Of every parameter, where they were asked for and have enough values.
    """

    alpha: float
    stderr: float
    block: int
    blocks: int
    coverage: float
    zeros: float
    alpha_with_zeros: float
    sizes: tuple[BlockAlpha, ...]
    warnings: tuple[str, ...] = ()
    spread: Literal["iid", "blocks"] = "iid"
    parts: int | None = None
    kind: Literal["gradient", "noise"] = "gradient"
    layers: Mapping[str, StreamAlpha] = field(default_factory=dict)

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval for alpha, even on 1 / alpha; Student's where it rests on blocks of steps.

        Raises
        ------
        ValueError
            ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        p = (1 + level) / 2
        q = float(special.ndtri(p) if self.parts is None else special.stdtrit(self.parts - 1, p))
        xi, half = 1 / self.alpha, q * self.stderr / self.alpha**2
        low, high = xi - half, xi + half
        return (1 / high if high > 0 else 0.0), (1 / low if low > 0 else math.inf)

    def __str__(self) -> str:
        low, high = self.ci()
        basis = "iid" if self.parts is None else f"{self.parts} blocks of steps"
        head = (
            f"{LABELS[self.kind]} {self.alpha:.3g} (95 % {low:.3g} to {high:.3g}) from {self.blocks} sums "
            f"of {self.block} neighbours, {basis}"
        )
        return "\n".join([head, *(f"  warning: {w}" for w in self.warnings)])


@dataclass(frozen=True)
class LogMeans:
    """Means of log abs(X) and block sums of some sets of values, all arrays of shape (m,) but ``logs``.

    Attributes
    ----------
    mean : ndarray of float64
        Mean of the natural logarithm of the nonzero values in the bins; NaN without any. Inside a bin values
        are taken to be spread evenly in their logarithm. That is wrong by the slope of their density there,
        which is zero on average over a density that is smooth: with 16 bins a binade by 1e-5 or less.
    nonzero, zeros, odd, nonfinite : ndarray of int64
        Values in the bins, zeros, finite values in no bin, and others.
    logs : ndarray of LOG_SUMS, shape (m, 4)
    """

    mean: FloatArray
    nonzero: npt.NDArray[np.int64]
    zeros: npt.NDArray[np.int64]
    odd: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]
    logs: npt.NDArray[np.void]

    @classmethod
    def of_table(cls, table: PackedTable, rows: Sequence[int]) -> LogMeans:
        """Read some rows of a table; those that it does not have are left out.

        Raises
        ------
        ValueError
            It has no block sums.
        """
        if table.logs is None:
            raise ValueError("block sums: expected a table that has them, got one without")
        kept = [row for row in rows if row < len(table.records)]
        records = table.records[kept]
        counts = table.counts[kept].sum(axis=1, dtype=np.int64)
        first = table.ends[kept].sum(axis=1).astype(np.int64) - records["zeros"]
        mids = [_middles(table.bits, int(m)) for m in records["mantissa"]]
        low, high = table.low, table.low + counts.shape[1]
        total = np.array(
            [float(c @ m[low:high]) + f * m[0] for c, f, m in zip(counts, first, mids, strict=True)]
        ).reshape(-1)
        nonzero = counts.sum(axis=1) + first
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(nonzero > 0, total / nonzero, np.nan)
        bad = records["nan"] + records["posinf"] + records["neginf"]
        odd = records["overflowed"] + records["vanished"]
        return cls(mean, nonzero, records["zeros"], odd, bad, table.logs[kept])

    @classmethod
    def of_summary(cls, summary: Summary) -> LogMeans:
        """Read a summary; ValueError if it has no block sums."""
        return cls.of_table(PackedTable.pack(summary.table), [0])

    @classmethod
    def joined(cls, parts: Sequence[LogMeans]) -> LogMeans:
        """Put disjoint sets side by side."""
        names = ("mean", "nonzero", "zeros", "odd", "nonfinite", "logs")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def blocks(self, column: int) -> int:
        """Count the blocks of a size whose sum is not zero, where a mean of log abs(X) is known."""
        return int((self.logs["blocks"] - self.logs["zeros"])[self.nonzero > 0, column].sum())


def stable_sums(parts: Sequence[LogMeans], block: int | None = None) -> StreamAlpha:
    """Estimate the stable index from block sums.

    Parameters
    ----------
    parts : sequence of LogMeans
        One for each block of steps. Sets of values within one, say tensors, count by their number of blocks,
        each against its own mean of log abs(X).
    block : {None, 64, 256, 1024, 4096}
        None: the largest with at least 100 sums that are not zero, else 64.

    Returns
    -------
    StreamAlpha
        From three blocks of steps on, 1 / alpha is the mean of theirs, with an error from their spread; else
        all are taken together, as independent values.

    Raises
    ------
    TypeError, ValueError
        No such block, or fewer than two sums that are not zero.

    Notes
    -----
    Mohammadi, Mohammadpour and Ogata (2015), corollary 2.4, with the block sums of Simsekli, Sagun and
    Gurbuzbalaban (2019). Left-out zeros make blocks shorter: K1 is the mean number of nonzero values in the
    blocks whose sum is not zero. O(rows * 2**bits).
    """
    everything = LogMeans.joined(parts)
    column = _column(everything, block)
    k2 = everything.blocks(column)
    if k2 < 2:
        raise ValueError(
            f"block: expected at least 2 sums of {BLOCK_SIZES[column]} values that are not zero, got {k2}"
        )
    sizes = tuple(_alpha(everything, i) for i in range(len(BLOCK_SIZES)) if everything.blocks(i) >= 2)
    chosen = next(one for one in sizes if one.block == BLOCK_SIZES[column])
    alpha, stderr = chosen.alpha, chosen.stderr
    warnings = _warnings(everything, column, sizes)
    some = [part for part in parts if part.blocks(column) >= 2]
    spread: Literal["iid", "blocks"] = "iid"
    number = None
    if len(some) >= FEWEST_PARTS:
        xi = np.array([_index(part, column).inverse for part in some])
        mean, error = float(xi.mean()), float(xi.std(ddof=1)) / math.sqrt(len(xi))
        if mean > 0:
            alpha, stderr, spread, number = 1 / mean, error / mean**2, "blocks", len(some)
        else:
            alpha, stderr = math.inf, math.nan
    elif len(parts) > 1:
        warnings.append(
            f"{len(some)} blocks of steps are too few for their spread ({FEWEST_PARTS} needed): iid error"
        )
    total = int((everything.nonzero + everything.zeros + everything.odd + everything.nonfinite).sum())
    covered = int(everything.logs["blocks"][:, column].sum()) * BLOCK_SIZES[column]
    finite = max(int((everything.nonzero + everything.zeros + everything.odd).sum()), 1)
    return StreamAlpha(
        alpha, stderr, BLOCK_SIZES[column], k2, covered / max(total, 1),
        int(everything.zeros.sum()) / finite, _with_zeros(everything, column), sizes, tuple(warnings),
        spread, number,
    )  # fmt: skip


def check_block(block: object) -> int | None:
    """Return a size of blocks, or raise in the library's voice."""
    if block is None:
        return None
    expected = f"block: expected one of {', '.join(map(str, BLOCK_SIZES))} or None"
    if isinstance(block, bool) or not isinstance(block, (int, np.integer)):
        raise TypeError(f"{expected}, got {block!r}")
    if block not in BLOCK_SIZES:
        raise ValueError(f"{expected}, got {block}")
    return int(block)


def _middles(bits: int, mantissa: int) -> FloatArray:
    """Mean of log x of each magnitude bin whose values have so many mantissa bits."""
    edges = edges_for(bits)
    low, high = edges[:-1], np.minimum(edges[1:], 2.0**128)
    low = np.minimum(low, high)
    if mantissa <= bits:
        middles: FloatArray = np.log(low)
    else:  # rounded to nearest, so that a value stands for half a unit below and above itself
        half = (high - low) / 2.0 ** (mantissa - bits + 1)
        half[0] = 0
        middles = (np.log(low - half) + np.log(high - half)) / 2
    return middles


def _column(means: LogMeans, block: int | None) -> int:
    block = check_block(block)
    if block is not None:
        return BLOCK_SIZES.index(block)
    enough = [i for i in range(len(BLOCK_SIZES)) if means.blocks(i) >= ENOUGH_BLOCKS]
    return max(enough, default=0)


def _index(means: LogMeans, column: int) -> LogSums:
    """Estimate the index, each row weighed by its number of sums."""
    logs = means.logs[:, column]
    sums = logs["blocks"] - logs["zeros"]
    used = (sums > 0) & (means.nonzero > 0)
    n, k2 = sums[used], int(sums[used].sum())
    log_sum = float(logs["sum"][used].sum()) * UNIT * math.log(2) / k2
    log_value = float((n * means.mean[used]).sum()) / k2
    nonzero = means.nonzero[used] / (means.nonzero[used] + means.zeros[used])
    length = np.maximum(BLOCK_SIZES[column] * nonzero / (n / logs["blocks"][used]), _SHORTEST)
    k1 = math.exp(float((n * np.log(length)).sum()) / k2)
    return from_log_means(log_value, int(means.nonzero[used].sum()), log_sum, k1, k2)


def _alpha(means: LogMeans, column: int) -> BlockAlpha:
    found = _index(means, column)
    return BlockAlpha(BLOCK_SIZES[column], found.alpha, found.stderr, means.blocks(column))


def _with_zeros(means: LogMeans, column: int) -> float:
    """Return alpha as the published code has it, which reads the logarithm of zero as that of 2.2e-16."""
    logs = means.logs[:, column]
    used = (logs["blocks"] > 0) & (means.nonzero > 0)
    logs, blocks = logs[used], logs["blocks"][used]
    k2 = int(blocks.sum())
    log_sum = (float(logs["sum"].sum()) * UNIT * math.log(2) + int(logs["zeros"].sum()) * _FLOOR) / k2
    values = means.nonzero[used] + means.zeros[used]
    share = means.zeros[used] / values
    log_value = float((blocks * ((1 - share) * means.mean[used] + share * _FLOOR)).sum()) / k2
    return from_log_means(log_value, int(values.sum()), log_sum, BLOCK_SIZES[column], k2).alpha


def _warnings(means: LogMeans, column: int, sizes: tuple[BlockAlpha, ...]) -> list[str]:
    warnings = []
    total = int((means.nonzero + means.zeros + means.odd + means.nonfinite).sum())
    block, logs = BLOCK_SIZES[column], means.logs[:, column]
    left_out, overflowed = int(logs["nonfinite"].sum()), int(logs["overflowed"].sum())
    covered = (int(logs["blocks"].sum()) + left_out + overflowed) * block / max(total, 1)
    if left_out:
        warnings.append(f"{left_out} blocks with non-finite values are left out")
    if overflowed:
        warnings.append(f"{overflowed} blocks whose sum overflows are left out")
    if covered < _WHOLE:
        warnings.append(f"{covered:.1%} of the values lie in whole blocks of {block}")
    zeros = int(means.zeros.sum()) / max(int((means.nonzero + means.zeros).sum()), 1)
    if zeros > _ZEROS_WORTH_A_WORD:
        there = _with_zeros(means, column)
        warnings.append(f"{zeros:.1%} exact zeros are left out: with them alpha would read {there:.3g}")
    if int(means.odd.sum()):
        warnings.append(
            f"{int(means.odd.sum())} values beyond the range of float32 are not in the mean of logs"
        )
    if means.blocks(column) < ENOUGH_BLOCKS:
        warnings.append(f"{means.blocks(column)} sums are few")
    first, last = (
        sizes[0],
        max((one for one in sizes if one.blocks >= ENOUGH_BLOCKS), default=sizes[0], key=_size),
    )
    if abs(1 / first.alpha - 1 / last.alpha) > 4 * math.hypot(
        first.stderr / first.alpha**2, last.stderr / last.alpha**2
    ):
        warnings.append(
            f"alpha is {first.alpha:.3g} in sums of {first.block}, {last.alpha:.3g} in sums of {last.block}: "
            "no independent values of one stable law (unequal scales, related neighbours or finite variance)"
        )
    return warnings


def _size(one: BlockAlpha) -> int:
    return one.block
