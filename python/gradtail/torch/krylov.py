"""The small matrix that Lanczos' method gives in the place of the large one."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg

Floats: TypeAlias = npt.NDArray[np.float64]


class Krylov:
    """A projected matrix: tridiagonal, but for Ritz values and their couplings after a restart.

    Parameters
    ----------
    begin : int
        Row of the basis that is the first of this space. The rows that follow belong to it, and after them
        comes the direction of the residual, unless the space is closed.

    Attributes
    ----------
    scale : float
        Largest magnitude that was seen.
    closed : bool
        Whether nothing is to be added.
    couplings : ndarray or None
        Of the Ritz values that a restart has kept with the vector after them.

    Notes
    -----
    Products of a space that begins later have parts along rows of those before, which it cannot hold: they
    are kept, as residuals have them too.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.closed = False
        self.couplings: Floats | None = None
        self.scale = 0.0
        self._diagonal: list[float] = []
        self._beside: list[float] = []  # what couples each to the next
        self._leaks = np.empty((begin, 0))
        self._known: tuple[int, int, Floats, Floats] | None = None

    @property
    def length(self) -> int:
        """Vectors whose products are in the matrix."""
        return len(self._diagonal)

    @property
    def beta(self) -> float:
        """Length of the residual."""
        return self._beside[-1]

    def add(self, alpha: float, beta: float, leak: Floats) -> None:
        """Add a vector: its Rayleigh quotient, the length of what is left of its product, the part before."""
        self._leaks = np.column_stack([self._leaks, leak])
        self._diagonal.append(alpha)
        self._beside.append(beta)
        self.scale = max(self.scale, abs(alpha), beta)

    @classmethod
    def of_pairs(cls, values: Floats, residuals: Floats) -> Krylov:
        """Make a closed space of eigenvectors, the first rows of a basis."""
        space = cls(0)
        space.couplings, space._diagonal = residuals, values.tolist()
        space._leaks = np.empty((0, len(values)))
        space._beside = [0.0] * len(values)
        space.scale, space.closed = float(np.abs(values).max()), True
        return space

    def close(self) -> None:
        """Add no more."""
        self.closed = True

    def _solve(self, count: int) -> tuple[Floats, Floats]:
        """Return the largest Ritz values and the vectors of the small matrix."""
        length = self.length
        count = min(count, length)
        if self._known is not None and self._known[:2] == (length, count):
            return self._known[2:]
        if self.couplings is None:
            values, rows = linalg.eigh_tridiagonal(self._diagonal, self._beside[:-1])  # all: the fastest
        else:
            values, rows = linalg.eigh(self._dense(), subset_by_index=(length - count, length - 1))
        values, rows = values[::-1][:count].copy(), rows[:, ::-1][:, :count].copy()
        self.scale = max(self.scale, abs(float(values[0])))
        self._known = (length, count, values, rows)
        return values, rows

    def _dense(self) -> Floats:
        matrix = np.diag(self._diagonal)
        beside = np.array(self._beside[:-1])
        if self.couplings is not None:
            kept = len(self.couplings)
            beside[:kept] = 0
            if self.length > kept:
                matrix[kept, :kept] = matrix[:kept, kept] = self.couplings
        return np.asarray(matrix + np.diag(beside, 1) + np.diag(beside, -1))

    def ritz(self, count: int | None = None) -> tuple[Floats, Floats]:
        """Return Ritz values from the largest down, and the residuals of their vectors."""
        values, rows = self._solve(self.length if count is None else count)
        after = self.beta * rows[-1]
        if self.couplings is not None and self.length == len(self.couplings):
            after = rows.T @ self.couplings
        return values, np.hypot(after, np.linalg.norm(self._leaks @ rows, axis=0))

    def leaks(self, count: int) -> Floats:
        """Return what of the residuals lies along rows before this space."""
        return np.asarray(np.linalg.norm(self._leaks @ self._solve(count)[1], axis=0))

    def vectors(self, count: int) -> Floats:
        """Return the vectors of the largest Ritz values, shape (length, count)."""
        return self._solve(count)[1]

    def shorten(self, keep: int) -> Floats:
        """Restart with the largest Ritz values; returns their vectors, shape (length, keep)."""
        values, rows = self._solve(keep)
        self.couplings = self.beta * rows[-1]
        self._leaks = self._leaks @ rows
        self._diagonal = values.tolist()
        self._beside = [0.0] * (keep - 1) + [float(np.linalg.norm(self.couplings))]
        self._known = None
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return what it consists of."""
        return {
            "begin": self.begin, "closed": self.closed, "scale": self.scale, "diagonal": self._diagonal,
            "beside": self._beside, "leaks": torch.from_numpy(self._leaks),
            "couplings": None if self.couplings is None else self.couplings.tolist(),
        }  # fmt: skip

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Krylov:
        """Make one again."""
        space = cls(state["begin"])
        space.closed, space.scale = state["closed"], state["scale"]
        space._diagonal, space._beside = list(state["diagonal"]), list(state["beside"])
        space._leaks = state["leaks"].numpy()
        if state["couplings"] is not None:
            space.couplings = np.array(state["couplings"])
        return space
