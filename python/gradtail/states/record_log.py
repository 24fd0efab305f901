"""A bounded log of scalars a step, which thins out as it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class RecordLog:
    """One row a step. When full, the log keeps the first observed step of every ``stride`` step numbers.

    Which rows are kept depends on step numbers alone, so that logs merge in any order.

    Parameters
    ----------
    most : int
        Rows kept at most, 2 or more.

    Attributes
    ----------
    stride : int
        A power of two: of the steps from m * stride to (m + 1) * stride - 1 the first is kept.
    """

    def __init__(self, most: int) -> None:
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"history: expected an int of at least 2, got {most!r}")
        if most < 2:
            raise ValueError(f"history: expected an int of at least 2, got {most}")
        self.most = most
        self.stride = 1
        self._steps: list[int] = []
        self._norms: list[npt.NDArray[np.float32]] = []  # inf: not finite; NaN: not observed
        self._norm: list[float] = []  # of the finite values
        self._nonfinite: list[int] = []

    def takes(self, step: int) -> bool:
        """Whether a row for this step, the newest, would be kept."""
        return (
            not self._steps or step == self._steps[-1] or step // self.stride > self._steps[-1] // self.stride
        )

    def add(self, step: int, norms: FloatArray, norm: float, nonfinite: int) -> None:
        """Log the newest step, or log it anew.

        Parameters
        ----------
        step : int
            Not below the last one.
        norms : ndarray of float64, shape (groups,)
            inf where any value is not finite, NaN where there is none.
        norm : float
            Of all finite values together.
        nonfinite : int
            Values that are not finite.
        """
        if not self.takes(step):
            return
        if self._steps and step == self._steps[-1]:
            self._drop(len(self) - 1)
        self._append(step, _narrow(norms), norm, nonfinite)
        while len(self) > self.most:
            self._thin()

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        span = f", steps {self._steps[0]} to {self._steps[-1]}" if self._steps else ""
        return f"RecordLog({len(self)} rows{span}, stride {self.stride})"

    @property
    def nbytes(self) -> int:
        """Memory of the rows kept, in bytes."""
        return sum(norms.nbytes for norms in self._norms) + 24 * len(self)

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Step numbers, shape (m,)."""
        return np.array(self._steps, np.int64)

    @property
    def norm(self) -> FloatArray:
        """Norm of everything, shape (m,); NaN where any value was not finite."""
        return np.where(self.nonfinite > 0, np.nan, np.array(self._norm, np.float64))

    @property
    def nonfinite(self) -> npt.NDArray[np.int64]:
        """Non-finite values, shape (m,)."""
        return np.array(self._nonfinite, np.int64)

    def norms(self, groups: int) -> npt.NDArray[np.float32]:
        """Norm of each of ``groups`` groups, shape (m, groups); NaN where unobserved or not finite."""
        table = self._table(groups)
        table[np.isinf(table)] = np.nan
        return table

    def merge(
        self,
        other: RecordLog,
        mine: npt.NDArray[np.intp],
        theirs: npt.NDArray[np.intp],
        groups: int,
    ) -> RecordLog:
        """Join the rows of two logs; norms of equal steps belong to disjoint values.

        Parameters
        ----------
        other : RecordLog
        mine, theirs : ndarray of int
            Where each group of either log goes among the ``groups`` of the result.
        """
        new = RecordLog(min(self.most, other.most))
        new.stride = max(self.stride, other.stride)
        rows: dict[int, tuple[FloatArray, float, int]] = {}
        for log, index in ((self, mine), (other, theirs)):
            table = log._table(len(index)).astype(np.float64)
            for i, step in enumerate(log._steps):
                norms = np.full(groups, np.nan)
                norms[index] = table[i]
                row = (norms, log._norm[i], log._nonfinite[i])
                rows[step] = _added(rows[step], row) if step in rows else row
        for step in sorted(rows):
            if new.takes(step):
                norms, norm, nonfinite = rows[step]
                new._append(step, _narrow(norms), norm, nonfinite)
        while len(new) > new.most:
            new._thin()
        return new

    def cut(self, last: int) -> None:
        """Forget the steps after ``last``."""
        while self._steps and self._steps[-1] > last:
            self._drop(len(self) - 1)

    def state_dict(self, groups: int) -> dict[str, Any]:
        """Return everything, as numbers and arrays."""
        return {
            "most": self.most,
            "stride": self.stride,
            "steps": self.steps,
            "norms": self._table(groups),
            "norm": np.array(self._norm, np.float64),
            "nonfinite": self.nonfinite,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> RecordLog:
        """Rebuild a log."""
        new = cls(int(state["most"]))
        new.stride = int(state["stride"])
        if new.stride < 1:
            raise ValueError(f"state: expected a stride of at least 1, got {new.stride}")
        new._steps = [int(step) for step in state["steps"]]
        new._norms = [row.copy() for row in np.asarray(state["norms"], np.float32)]
        new._norm = [float(norm) for norm in state["norm"]]
        new._nonfinite = [int(count) for count in state["nonfinite"]]
        columns: Sequence[Sequence[Any]] = (new._norms, new._norm, new._nonfinite)
        if any(len(column) != len(new) for column in columns) or np.any(np.diff(new.steps) <= 0):
            raise ValueError("state: expected one row of the log a step, rising, got columns that do not fit")
        return new

    def _append(self, step: int, norms: npt.NDArray[np.float32], norm: float, nonfinite: int) -> None:
        self._steps.append(step)
        self._norms.append(norms)
        self._norm.append(norm)
        self._nonfinite.append(nonfinite)

    def _drop(self, row: int) -> None:
        del self._steps[row], self._norms[row], self._norm[row], self._nonfinite[row]

    def _thin(self) -> None:
        self.stride *= 2
        buckets = self.steps // self.stride
        kept = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        self._steps = [self._steps[i] for i in kept]
        self._norms = [self._norms[i] for i in kept]
        self._norm = [self._norm[i] for i in kept]
        self._nonfinite = [self._nonfinite[i] for i in kept]

    def _table(self, groups: int) -> npt.NDArray[np.float32]:
        table = np.full((len(self), groups), np.nan, np.float32)
        for row, values in zip(table, self._norms, strict=True):
            row[: values.size] = values
        return table


def _narrow(norms: FloatArray) -> npt.NDArray[np.float32]:
    """Round to float32; what lies beyond its range becomes its largest or smallest number."""
    limits = np.finfo(np.float32)
    kept = np.where(norms > 0, np.clip(norms, float(limits.smallest_subnormal), float(limits.max)), norms)
    narrow: npt.NDArray[np.float32] = np.where(np.isinf(norms), np.inf, kept).astype(np.float32)
    return narrow


def _added(
    a: tuple[FloatArray, float, int], b: tuple[FloatArray, float, int]
) -> tuple[FloatArray, float, int]:
    norms = np.where(np.isnan(a[0]), b[0], np.where(np.isnan(b[0]), a[0], np.hypot(a[0], b[0])))
    return norms, float(np.hypot(a[1], b[1])), a[2] + b[2]
