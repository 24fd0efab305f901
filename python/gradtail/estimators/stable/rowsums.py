"""Block sums row by row: of gradients at fixed parameters, whose rows are batches and independent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gradtail.estimators.log_sums import LogSums, from_log_means
from gradtail.states.magnitudes import FloatArray


@dataclass
class RowSums:
    """Means of logs over blocks that do not cross rows, as rows come.

    Parameters
    ----------
    k1 : int
        Values a block.
    floor : float
        Added to each magnitude; without one, values must not be 0.
    """

    k1: int
    floor: float = 0.0
    zero_sums: int = 0
    dropped: int = 0
    _rows: list[tuple[int, float, float]] = field(default_factory=list)

    def add(self, values: FloatArray) -> None:
        """Take one row: shape (m,), what fills no block is dropped."""
        blocks = values.size // self.k1
        part = values[: blocks * self.k1]
        self.dropped += values.size - part.size
        part = part.reshape(blocks, self.k1)
        self.add_blocks(part.sum(axis=1), np.log(np.abs(part) + self.floor).sum(axis=1))

    def add_blocks(self, sums: FloatArray, logs: FloatArray) -> None:
        """Take one row as the sums of its blocks and the sums of their log magnitudes, shape (k2,)."""
        with np.errstate(divide="ignore"):
            logs_y = np.log(np.abs(sums) + self.floor)
        known = np.isfinite(logs_y)
        k2 = int(np.count_nonzero(known))
        if k2 < sums.size:
            self.zero_sums += sums.size - k2
            logs, logs_y = logs[known], logs_y[known]
        self._rows.append((k2, float(logs.sum()) / self.k1, float(logs_y.sum())))

    @property
    def k2(self) -> int:
        """Blocks so far."""
        return sum(k2 for k2, _, _ in self._rows)

    @property
    def n(self) -> int:
        """Values in blocks."""
        return self.k1 * self.k2

    @property
    def rows(self) -> int:
        """Rows with a block."""
        return sum(k2 > 0 for k2, _, _ in self._rows)

    def index(self) -> LogSums:
        """Return the estimate; NaN without a block."""
        k2 = self.k2
        if not k2:
            return LogSums(math.nan, math.nan)
        logs_x, logs_y = (math.fsum(row[i] for row in self._rows) / k2 for i in (1, 2))
        return from_log_means(logs_x, k2 * self.k1, logs_y, self.k1, k2)

    def observed_stderr(self) -> float:
        """Return the standard error of 1 / alpha from the spread between rows; NaN of fewer than two."""
        rows = self.rows
        if rows < 2:
            return math.nan
        return math.sqrt(float(self._residuals() @ self._residuals()) * rows / (rows - 1)) / self.k2

    def paired_stderr(self, other: RowSums) -> float:
        """Return the standard error of the difference between two 1 / alpha of the same rows."""
        rows = min(self.rows, other.rows)
        if rows < 2 or len(self._rows) != len(other._rows):
            return math.nan
        apart = self._residuals() / self.k2 - other._residuals() / other.k2
        return math.sqrt(float(apart @ apart) * rows / (rows - 1))

    def _residuals(self) -> FloatArray:
        """Return what each row has beyond its share, in units of 1 / alpha times blocks."""
        k2, logs_x, logs_y = np.array(self._rows).T
        return np.asarray((logs_y - logs_x) / math.log(self.k1) - k2 * self.index().inverse)
