"""A bounded log of scalars a step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class RecordLog:
    """One row a step; when full, every second row is dropped and from then on only every second kept.

    Parameters
    ----------
    most : int
        Rows kept at most, 2 or more.

    Attributes
    ----------
    stride : int
        One row is kept of so many steps.
    """

    def __init__(self, most: int) -> None:
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"history: expected an int of at least 2, got {most!r}")
        if most < 2:
            raise ValueError(f"history: expected an int of at least 2, got {most}")
        self._most = most
        self.stride = 1
        self._seen = 0
        self._steps: list[int] = []
        self._norms: list[npt.NDArray[np.float32]] = []
        self._norm: list[float] = []
        self._nonfinite: list[int] = []

    def add(self, step: int, norms: npt.NDArray[np.float64], norm: float, nonfinite: int) -> None:
        """Log one step: the norm of each group, of all together, and the non-finite values."""
        self._seen += 1
        if (self._seen - 1) % self.stride:
            return
        if len(self._steps) == self._most:
            for column in (self._steps, self._norms, self._norm, self._nonfinite):
                del column[1::2]
            self.stride *= 2
            if (self._seen - 1) % self.stride:
                return
        self._steps.append(step)
        with np.errstate(over="ignore", under="ignore"):
            self._norms.append(norms.astype(np.float32))
        self._norm.append(norm)
        self._nonfinite.append(nonfinite)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def nbytes(self) -> int:
        """Memory of the rows kept, in bytes."""
        return sum(norms.nbytes for norms in self._norms) + 24 * len(self)

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Step numbers, shape (m,)."""
        return np.array(self._steps, np.int64)

    @property
    def norm(self) -> npt.NDArray[np.float64]:
        """Norm of everything, shape (m,); NaN where any value was not finite."""
        return np.array(self._norm, np.float64)

    @property
    def nonfinite(self) -> npt.NDArray[np.int64]:
        """Non-finite values, shape (m,)."""
        return np.array(self._nonfinite, np.int64)

    def norms(self, groups: int) -> npt.NDArray[np.float32]:
        """Norm of each of ``groups`` groups, shape (m, groups); NaN where unobserved or not finite."""
        table = np.full((len(self), groups), np.nan, np.float32)
        for row, values in zip(table, self._norms, strict=True):
            row[: values.size] = values
        return table
