"""The largest eigenvalues of a symmetric matrix that is known by its products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradtail.torch.basis import Basis
from gradtail.torch.krylov import Krylov

Floats: TypeAlias = npt.NDArray[np.float64]

CHECK_ROWS = 64
"""Most products of a search for eigenvalues that were missed, before it has found one."""

_CHANCE = 1e-3  # that such a search overlooks one
_SHIFT = (
    0.05  # of the last eigenvalue: one missed that is so little above it would shift the last ranks alone
)
_OF_LARGEST = 0.01  # below this part of the largest, eigenvalues are as exact as those at it
_ROUNDING = 20.0  # times that of a product: all that can be asked for
_ERRORS = 4.0  # the same: what a pair has at least
_KEPT = 0.5  # of the residual that a pair may have: what kept ones may add to it
_OFTEN = 32  # convergence is looked at after so many parts of the products so far


def least_rows(n: int, top: int) -> int:
    """Return the vectors without which ``top`` eigenvalues cannot be found."""
    return min(n, 2 * top + 16 + CHECK_ROWS)


@dataclass(frozen=True)
class Pairs:
    """What was found.

    Attributes
    ----------
    eigenvalues, residuals : ndarray of float64, shape (k,)
        From the largest down.
    converged : int
        Pairs from the largest down that are as exact as was asked.
    unseen : float
        Nothing above this was missed, but for a chance of one in a thousand; infinite if not looked for.
    """

    eigenvalues: Floats
    residuals: Floats
    converged: int
    unseen: float


class Lanczos:
    """Lanczos' method with full reorthogonalisation and thick restarts.

    Parameters
    ----------
    product : callable
        Takes a tensor of shape (n,) and returns the product with it.
    n, top : int
        Size of the matrix, and eigenvalues wanted.
    tol : float
        Residuals are to be at most ``tol`` times the eigenvalue, or times 1 % of the largest magnitude where
        that is more, but never less than 20 times the rounding.
    noise : float
        Relative rounding error of a product.
    rows : int
        Most vectors of length n that are kept; see :func:`least_rows`.
    dtype, device, seed
        Of the vectors, and of the first one.

    Notes
    -----
    Lanczos (1950); thick restarts as Wu and Simon (2000, SIAM J. Matrix Anal. Appl. 22, 602). A vector is
    orthogonalised against all others, a second time where the first has cancelled digits. While ``rows``
    allow there is no restart, so that no space of so many products holds better approximations.

    One start sees one vector of each eigenspace. After convergence another one is drawn at right angles to
    all vectors, and its own space built, until the bound of Kuczynski and Wozniakowski (1992, SIAM J. Matrix
    Anal. Appl. 13, 1094) says that what is left has no eigenvalue more than 5 % above the last that was
    found (a nearer one would shift the last ranks by less): with probability 1 - d, d = 1 / 1000, the largest
    eigenvalue is above the largest Ritz value of p products by less than the share
    (log(1.648 sqrt(n) / d) / (2 p - 1))**2 of the width of the spectrum. Where one shows that was missed,
    its space is built until it has converged, and one more start follows. After a space that closes (a
    residual of zero) there is another start as well.

    Where products turn out to err by more than ``noise`` says, residuals are held against what they do err
    by, which is kept in ``inexact``, relative to the largest magnitude.

    Time is that of the products, and O(n j) for the j-th; memory is ``rows`` vectors.
    """

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        n: int,
        top: int,
        *,
        tol: float,
        noise: float,
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        self._product, self.n, self.top, self._tol, self._noise = product, n, top, tol, noise
        self._rows = min(rows, n)
        self._generator = torch.Generator().manual_seed(seed)
        self.basis = Basis(n, self._rows, dtype, device)
        self.spaces: list[Krylov] = []
        self.products = 0
        self.unseen = math.inf
        self._next = 0
        self._headway = -1
        self.inexact = 0.0

    def run(self, more: Callable[[int, int], bool]) -> bool:
        """Go on until all pairs have converged; True if they have.

        Parameters
        ----------
        more : callable
            Takes the numbers of products and of converged pairs, before each product; False ends it.
        """
        converged = 0
        while True:
            if not self.spaces or self.spaces[-1].closed:
                if self._mixed():
                    self._begin_again()
                elif len(self.spaces) > 1 and not self._found_more():
                    return True
                elif not self._start():
                    if sum(space.length for space in self.spaces) == self.n:
                        self.unseen = -math.inf
                        return True
                    self._condense(np.ones(self.top, bool))  # residuals are directions not seen yet
                    continue
            if not more(self.products, converged):
                return False
            self._step()
            space = self.spaces[-1]
            if space.closed or space.length >= self._next or self._full(space):
                converged = self._look(space)

    def _mixed(self) -> bool:
        """Whether pairs of spaces that are closed have not converged: they lean on each other."""
        values, residuals, _ = self._ritz()
        return self._converged(values, residuals) < min(self.top, len(values))

    def _found_more(self) -> bool:
        """Whether the newest space has shown that others have missed something, and may have more."""
        values, _, origin = self._ritz()
        last = len(self.spaces) - 1
        others, own = values[origin < last], values[origin == last]
        if len(others) < self.top:
            return True
        return bool(own[0] > others[self.top - 1] + self._allowed(others[self.top - 1 : self.top])[0])

    def _start(self, about: Tensor | None = None) -> bool:
        """Open a space with a random vector at right angles to all; False where there is none."""
        if len(self.basis) + min(CHECK_ROWS, self.n - len(self.basis)) > self._rows and self.spaces:
            self._condense(np.ones(self.top, bool))
        first = self.basis.random(self._generator, about)
        if first is None:
            return False
        self.spaces.append(Krylov(len(self.basis)))
        self.basis.append(first)
        self._next = 1
        return True

    def _condense(self, kept: npt.NDArray[np.bool_]) -> None:
        """Keep of all spaces, which are to be closed, some of the largest pairs alone, to have room."""
        values, residuals, _ = self._ritz()
        which = np.flatnonzero(kept[: len(values)])
        self.basis.rotate(0, self.weights(len(values))[:, which])
        self.basis.shorten(len(which))
        self.spaces = [Krylov.of_pairs(values[which], residuals[which])] if len(which) else []

    def _stuck(self, space: Krylov, residuals: Floats) -> bool:
        """Whether a pair that is wanted leans on rows before its space, so that it cannot converge in it."""
        values, leaks = space.ritz(self.top)[0][: len(residuals)], space.leaks(self.top)[: len(residuals)]
        return bool(((leaks > self._allowed(values)) & (leaks > 0.9 * residuals)).any())

    def _begin_again(self) -> None:
        """Start once more from the pairs that would not converge, as they lie between spaces.

        What is kept leaks on what is new by its own residuals. Where the last start made no headway, only so
        many are kept, from the smallest residual up, as together leak less than any wanted pair may. If all
        were of these, it is the products that err by more than was assumed.
        """
        values, residuals, _ = self._ritz()
        values, residuals = values[: self.top], residuals[: self.top]
        allowed = self._allowed(values)
        good = residuals <= allowed
        converged = int(good.sum())
        if converged <= self._headway:
            order = np.argsort(residuals, kind="stable")
            together = np.sqrt(np.cumsum(residuals[order] ** 2))
            released = order[together > _KEPT * allowed.min()]
            if not good[released].any():
                self.inexact = max(self.inexact, float(residuals[~good].max()) / self.scale)
                self._noise = max(self._noise, self.inexact)
            good[released] = False
        self._headway = converged
        mixed = self.weights(self.top)[:, ~good].sum(axis=1, keepdims=True)
        about = self.basis.combine(0, mixed)[0]
        self._condense(good)
        self._start(about)

    def _step(self) -> None:
        """Take one product into the newest space."""
        space = self.spaces[-1]
        at = space.begin + space.length
        v = self.basis[at]
        w = self._product(v)
        if not bool(w.isfinite().all()):
            raise ValueError("data: expected finite derivatives of the loss, got NaN or infinity")
        self.products += 1
        alpha = float(torch.dot(w, v))
        w.add_(v, alpha=-alpha)
        if space.length:
            w.add_(self.basis[at - 1], alpha=-space.beta)
        leak = self.basis.remove_from(w, space.begin)
        beta = float(torch.linalg.vector_norm(w))
        space.add(alpha, beta, leak)
        if beta <= self.rounding or len(self.basis) >= self.n:
            space.close()
        else:
            self.basis.append(w.div_(beta))

    def _full(self, space: Krylov) -> bool:
        if self._rows >= self.n:
            return False
        reserve = CHECK_ROWS if len(self.spaces) == 1 else 0
        return len(self.basis) >= self._rows - reserve

    def _look(self, space: Krylov) -> int:
        """See what has converged, and end the newest space, or shorten it where there is no more room."""
        values, residuals, origin = self._ritz()
        converged, last = self._converged(values, residuals), len(self.spaces) - 1
        if last:
            self._bound(space)
        if converged >= self.top and not space.closed:
            if last == 0 or self.clear() or self._found_more() or space.length >= CHECK_ROWS:
                space.close()
                self.basis.shorten(space.begin + space.length)  # later ones may need its residual
        elif not space.closed and self._stuck(space, residuals[: self.top][origin[: self.top] == last]):
            self._begin_again()
            return converged
        if not space.closed and self._full(space):
            self._shorten(space, int(np.count_nonzero(origin[: self.top] == last)))
        far = not last and converged < self.top // 2
        self._next = max(
            space.length + max(space.length // (10 if far else _OFTEN), 1), 1 if last else self.top
        )
        return converged

    def _bound(self, space: Krylov) -> None:
        """Bound the largest eigenvalue outside of all spaces but the newest."""
        own, _ = space.ritz()
        if space.closed:
            self.unseen = float(own[0])
            return
        share = (math.log(1.648 * math.sqrt(self.n) / _CHANCE) / (2 * space.length - 1)) ** 2
        width = float(own[0] - own[-1])  # whose ends are both short by the share
        self.unseen = float(own[0]) + share * width / (1 - 2 * share) if share < 0.5 else math.inf

    def _shorten(self, space: Krylov, wanted: int) -> None:
        """Restart with the largest Ritz vectors and the residual."""
        length = space.length
        keep = max(min(wanted + (length - wanted) * 2 // 5, length - 2), 1)
        residual = self.basis[space.begin + length].clone()
        self.basis.rotate(space.begin, space.shorten(keep))
        self.basis.shorten(space.begin + keep)
        self.basis.append(residual)

    def _ritz(self) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Return the largest Ritz values of all spaces, their residuals, and the spaces they are of."""
        found = [space.ritz(self.top) for space in self.used]
        if not found:
            return np.empty(0), np.empty(0), np.empty(0, np.int64)
        values, residuals = (np.concatenate(parts) for parts in zip(*found, strict=True))
        origin = np.repeat(np.arange(len(found)), [len(own) for own, _ in found])
        order = np.argsort(-values, kind="stable")
        return values[order], residuals[order], origin[order]

    def _allowed(self, values: Floats) -> Floats:
        """Return the largest residuals that are good enough."""
        return np.maximum(self._tol * np.maximum(np.abs(values), _OF_LARGEST * self.scale), self.rounding)

    @property
    def scale(self) -> float:
        """Largest magnitude seen."""
        return max((space.scale for space in self.spaces), default=0.0)

    @property
    def used(self) -> list[Krylov]:
        """Spaces with at least one product."""
        return [space for space in self.spaces if space.length]

    def _converged(self, values: Floats, residuals: Floats) -> int:
        good = (residuals <= self._allowed(values))[: self.top]
        return int(good.size if good.all() else np.argmin(good))

    def clear(self) -> bool:
        """Whether nothing was missed that would change an eigenvalue by over 5 % of the last one."""
        values, _, _ = self._ritz()
        floor = values[self.top - 1 : self.top]
        if not floor.size:
            return False
        return bool(self.unseen <= floor[0] + max(self._allowed(floor)[0], _SHIFT * abs(floor[0])))

    @property
    def rounding(self) -> float:
        """Residual that cannot be told from none."""
        return _ROUNDING * self._noise * self.scale

    def weights(self, count: int) -> Floats:
        """Return the largest Ritz vectors as combinations of the rows of the basis, shape (rows, count)."""
        every = np.zeros((len(self.basis), sum(min(self.top, space.length) for space in self.used)))
        column = 0
        for space in self.used:
            found = space.vectors(self.top)
            every[space.begin : space.begin + space.length, column : column + found.shape[1]] = found
            column += found.shape[1]
        own = np.concatenate([space.ritz(self.top)[0] for space in self.used])
        return every[:, np.argsort(-own, kind="stable")[:count]]

    def pairs(self) -> Pairs:
        """Return the largest pairs that there are, but no vectors."""
        values, residuals, _ = self._ritz()
        converged = self._converged(values, residuals)
        residuals = np.hypot(residuals, _ERRORS * self._noise * self.scale)  # rounding does not show in them
        return Pairs(values[: self.top], residuals[: self.top], converged, self.unseen)

    def vectors(self, count: int) -> Tensor:
        """Return the vectors of the largest, shape (count, n)."""
        return self.basis.combine(0, self.weights(count))

    def check(self, count: int) -> tuple[float, float]:
        """Take one product to see whether the residuals are what they are said to be.

        Returns
        -------
        tuple of float
            |A x - sum c l u| of a combination x = sum c u of the largest pairs with c = +-1 / sqrt(count),
            and what it is to be: the root mean square of their residuals.
        """
        values, residuals, _ = self._ritz()
        signs = torch.randint(0, 2, (count,), generator=self._generator).numpy() * 2.0 - 1
        both = np.stack([signs, signs * values[:count]], axis=1) / math.sqrt(count)
        x, expected = self.basis.combine(0, self.weights(count) @ both)
        self.products += 1
        found = float(torch.linalg.vector_norm(self._product(x) - expected))
        return found, float(np.sqrt(np.mean(residuals[:count] ** 2)))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that it takes to go on."""
        return {
            "basis": [piece.cpu() for _, piece in self.basis.pieces()],
            "spaces": [space.state_dict() for space in self.spaces],
            "products": self.products, "unseen": self.unseen, "next": self._next,
            "headway": self._headway, "inexact": self.inexact, "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        rows = [row for piece in state["basis"] for row in piece]
        own = self.basis
        self.basis = Basis(self.n, max(self._rows, len(rows)), own.dtype, own.device)
        for row in rows:
            self.basis.append(row)
        self.spaces = [Krylov.from_state_dict(own) for own in state["spaces"]]
        self.products, self.unseen, self._next = state["products"], state["unseen"], state["next"]
        self._headway, self.inexact = state.get("headway", -1), state.get("inexact", 0.0)
        self._noise = max(self._noise, self.inexact)
        self._generator.set_state(state["generator"])
