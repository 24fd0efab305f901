"""Many long vectors, orthonormal: the rows of a matrix that grows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ROWS = 64  # added at a time
_COLUMNS = 4096  # rotated at a time
_TWICE = 0.7071  # of its length left, a vector has lost too many digits for one pass (Daniel et al. 1976)


class Basis:
    """Rows of length n, orthonormal up to rounding.

    Parameters
    ----------
    n : int
    dtype : torch.dtype
    device : torch.device

    Notes
    -----
    Rows are added in pieces, so that only what is used takes memory and nothing is copied as they grow.
    Every projection is a product of a matrix and a vector, O(n) a row.
    """

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.dtype, self.device = n, dtype, device
        self._pieces: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Tensor:
        return self._pieces[i // _ROWS][i % _ROWS]

    def append(self, row: Tensor) -> None:
        """Add a row."""
        if self._count == len(self._pieces) * _ROWS:
            self._pieces.append(torch.empty(_ROWS, self.n, dtype=self.dtype, device=self.device))
        self._count += 1
        self[self._count - 1].copy_(row)

    def shorten(self, count: int) -> None:
        """Forget the rows from ``count`` on."""
        self._count = count
        del self._pieces[-(-count // _ROWS) :]

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Go through rows in pieces, each with the number of its first."""
        end = self._count if end is None else end
        for i in range(begin // _ROWS, -(-end // _ROWS)):
            first = max(begin, i * _ROWS)
            yield first, self._pieces[i][first - i * _ROWS : end - i * _ROWS]

    def remove_from(self, w: Tensor, count: int = 0) -> npt.NDArray[np.float64]:
        """Take off a vector, in place, its part in the rows; returns that in the first ``count``.

        A second pass follows where the first has cancelled digits.
        """
        removed = np.zeros(count)
        before = float(torch.linalg.vector_norm(w))
        for _ in range(3):
            found = [(first, piece, piece @ w) for first, piece in self.pieces()]
            for first, piece, along in found:
                torch.addmv(w, piece.T, along, alpha=-1, out=w)
                if first < count:
                    removed[first : first + len(piece)] += along[: count - first].double().cpu().numpy()
            after = float(torch.linalg.vector_norm(w))
            if after >= _TWICE * before:
                break
            before = after
        return removed

    def random(self, generator: torch.Generator, about: Tensor | None = None) -> Tensor | None:
        """Draw a unit vector at right angles to all rows; None where there is none.

        One drawn about a vector is the sum of both, equally long.
        """
        if self._count >= self.n:
            return None
        w = torch.randn(self.n, generator=generator, dtype=torch.float64).to(self.device, self.dtype)
        w /= torch.linalg.vector_norm(w)
        if about is not None:
            w += about / torch.linalg.vector_norm(about)
        for _ in range(2):
            self.remove_from(w)
            w /= torch.linalg.vector_norm(w)
        return w

    def combine(self, begin: int, weights: npt.NDArray[np.float64]) -> Tensor:
        """Return combinations of the rows from ``begin`` on: weights (rows, k) to a tensor (k, n)."""
        along = torch.from_numpy(weights.T.copy()).to(self.device, self.dtype)
        result = torch.zeros(weights.shape[1], self.n, dtype=self.dtype, device=self.device)
        for first, piece in self.pieces(begin, begin + len(weights)):
            result.addmm_(along[:, first - begin : first - begin + len(piece)], piece)
        return result

    def rotate(self, begin: int, weights: npt.NDArray[np.float64]) -> None:
        """Put combinations of the rows from ``begin`` on in the place of the first of them."""
        along = torch.from_numpy(weights.T.copy()).to(self.device, self.dtype)
        for left in range(0, self.n, _COLUMNS):
            span = slice(left, left + _COLUMNS)
            parts = self.pieces(begin, begin + len(weights))
            turned = along @ torch.cat([piece[:, span] for _, piece in parts])
            for first, piece in self.pieces(begin, begin + weights.shape[1]):
                piece[:, span] = turned[first - begin : first - begin + len(piece)]
