"""Sums of blocks of consecutive values, and the means of logs that the stable index is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.log_sums import LogSums, from_log_means
from gradtail.states.magnitudes import FloatArray

FLOOR = float(np.spacing(1.0))
"""What the published code adds inside each logarithm."""

_CHUNK = 1 << 19  # values whose logs are taken at once
_FEWEST_BLOCKS = 50
_STEP = 4  # from one block size to the next


@dataclass(frozen=True)
class BlockSums:
    """Means of logs over blocks.

    Attributes
    ----------
    k1, k2 : int
        Values a block, and blocks whose sum is not 0.
    mean_log_x, mean_log_y : float
    spread : float
        Standard deviation over blocks of log |Y| less the block's own mean of log |X|.
    zero_sums : int
        Blocks that were left out as their sum is 0.
    """

    k1: int
    k2: int
    mean_log_x: float
    mean_log_y: float
    spread: float
    zero_sums: int

    def index(self, dimension: int = 1) -> LogSums:
        """Return the estimate."""
        return from_log_means(
            self.mean_log_x, self.k1 * self.k2, self.mean_log_y, self.k1, self.k2, dimension
        )

    @property
    def observed_stderr(self) -> float:
        """Standard error of 1 / alpha from the spread of the blocks; NaN of fewer than two."""
        return self.spread / math.sqrt(self.k2) / math.log(self.k1) if self.k2 > 1 else math.nan


def sizes(x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return magnitudes, or norms of rows, without squares that overflow or vanish."""
    if x.ndim == 1:
        return np.asarray(np.abs(x))
    return np.asarray(np.abs(np.hypot.reduce(x.astype(np.float64), axis=1)))  # of one component it may be < 0


def block_sums(x: npt.NDArray[np.floating], k1: int, floor: float = 0.0) -> BlockSums:
    """Sum blocks of ``k1`` consecutive values or rows, and take logs; the remainder is left out.

    Parameters
    ----------
    x : ndarray, shape (n,) or (n, p)
        Finite; not zero, unless there is a floor.
    k1 : int
    floor : float
        Added to each magnitude.
    """
    blocks = x.shape[0] // k1
    each = max(1, _CHUNK // (k1 * (x.size // max(x.shape[0], 1) or 1)))
    logs_x, logs_y = np.empty(blocks), np.empty(blocks)
    with np.errstate(divide="ignore"):
        for begin in range(0, blocks, each):
            end = min(begin + each, blocks)
            part = x[begin * k1 : end * k1].astype(np.float64)
            own = np.log(sizes(part) + floor)
            logs_x[begin:end] = own.reshape(end - begin, k1).mean(axis=1)
            total = part.reshape(end - begin, k1, *x.shape[1:]).sum(axis=1)
            logs_y[begin:end] = np.log(sizes(total) + floor)
    known = np.isfinite(logs_y)
    lost = blocks - int(np.count_nonzero(known))
    if lost:
        logs_x, logs_y = logs_x[known], logs_y[known]
    k2 = blocks - lost
    if not k2:
        return BlockSums(k1, 0, math.nan, math.nan, math.nan, lost)
    spread = float(np.std(logs_y - logs_x, ddof=1)) if k2 > 1 else math.nan
    return BlockSums(k1, k2, float(logs_x.mean()), float(logs_y.mean()), spread, lost)


@dataclass(frozen=True, eq=False)
class BlockCurve:
    """How sums grow with the number of values in them.

    Of a stable law the mean of log |Y| is a straight line in log K1, of slope 1 / alpha.

    Attributes
    ----------
    k1 : ndarray of int64, shape (m,)
        Block sizes 4, 16, ...
    alpha : ndarray of float64, shape (m,)
        The estimate with each.
    steps : ndarray of float64, shape (m,)
        1 / alpha between each size and the one before.
    pvalue : float
        Of Hotelling's test that the line is straight; 1 where there is nothing to test.
    """

    k1: npt.NDArray[np.int64]
    alpha: FloatArray
    steps: FloatArray
    pvalue: float


def block_curve(x: npt.NDArray[np.floating]) -> BlockCurve | None:
    """Sum blocks within blocks, by fours, and test whether their logs lie on a straight line.

    Each of the largest blocks gives one independent vector of mean logs; its second differences have
    mean 0 whatever the stable index. None of fewer than 50 blocks of 16 values.
    """
    n = x.shape[0]
    levels = int(math.log(max(n, 1)) / math.log(_STEP) / 2 + 1e-9)
    while levels > 1 and n // _STEP**levels < _FEWEST_BLOCKS:
        levels -= 1
    if levels < 2:
        return None
    largest = _STEP**levels
    blocks = n // largest
    means = np.empty((blocks, levels + 1))
    each = max(1, _CHUNK // (largest * (x.size // n)))
    with np.errstate(divide="ignore"):
        for begin in range(0, blocks, each):
            end = min(begin + each, blocks)
            part = x[begin * largest : end * largest].astype(np.float64)
            for level in range(levels + 1):
                if level:
                    part = part.reshape(-1, _STEP, *x.shape[1:]).sum(axis=1)
                means[begin:end, level] = np.log(sizes(part)).reshape(end - begin, -1).mean(axis=1)
    means = means[np.isfinite(means).all(axis=1)]
    if len(means) < _FEWEST_BLOCKS // 2:
        return None
    level_means = means.mean(axis=0)
    k1 = _STEP ** np.arange(1, levels + 1)
    with np.errstate(divide="ignore"):
        inverse = (level_means[1:] - level_means[0]) / np.log(k1)
        alpha = np.where(inverse > 0, 1 / inverse, np.inf)
    bends = np.diff(means, n=2, axis=1)
    return BlockCurve(k1, alpha, np.diff(level_means) / math.log(_STEP), _hotelling(bends))


def _hotelling(rows: FloatArray) -> float:
    """P-value of Hotelling's T^2 that the mean of the rows is 0."""
    n, q = rows.shape
    mean, cov = rows.mean(axis=0), np.atleast_2d(np.cov(rows.T))
    try:
        square = n * float(mean @ np.linalg.solve(cov, mean))
    except np.linalg.LinAlgError:
        return 1.0
    return float(special.fdtrc(q, n - q, max(square, 0.0) * (n - q) / (q * (n - 1))))
