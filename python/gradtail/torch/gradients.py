"""The gradients of the watched parameters, as they lie: local parts, places, and their norm."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradtail.torch.parameters import Named
from gradtail.torch.sharding import Block, block_of, is_sharded, local_part, norm_by_torch, sum_over

Place = tuple[tuple[int, ...], tuple[int, ...]]
Mark = tuple[weakref.ref[Tensor], int]
"""A gradient and its version: tells whether it is another tensor, or has been written to."""


class Gradients:
    """Finds the gradients of a fixed list of parameters, step after step.

    Parameters
    ----------
    parameters : sequence of (name, parameter)

    Attributes
    ----------
    sharded : bool
        Whether any parameter is a DTensor: norms are then sums over ranks.
    """

    def __init__(self, parameters: Sequence[Named]) -> None:
        self._plain = [(name, p) for name, p in parameters if not is_sharded(p)]
        self._sharded: list[tuple[str, Any]] = [(name, p) for name, p in parameters if is_sharded(p)]
        self._meshes: list[Any] = []
        for _, p in self._sharded:
            if p.device_mesh not in self._meshes:
                self._meshes.append(p.device_mesh)
        self._blocks: dict[str, tuple[Any, Block]] = {}
        self.sharded = bool(self._sharded)

    def here(
        self, only: Callable[[str, Any], bool] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Place] | None]:
        """Return the local gradients that this rank counts, and where those that are blocks lie.

        Parameters
        ----------
        only : callable, optional
            Of name and parameter: whether to look at it.
        """
        chosen = self._plain if only is None else [pair for pair in self._plain if only(*pair)]
        found = {name: g for name, p in chosen if (g := p.grad) is not None}
        if not self._sharded:
            return found, None
        places: dict[str, Place] = {}
        for name, p in self._sharded:
            if only is None or only(name, p):
                self._add(name, p, found, places)
        return found, places or None

    def one(self, name: str, p: Any) -> tuple[dict[str, Tensor], dict[str, Place] | None]:
        """Return what :meth:`here` does, of one parameter."""
        if not is_sharded(p):
            return ({} if p.grad is None else {name: p.grad}), None
        found: dict[str, Tensor] = {}
        places: dict[str, Place] = {}
        self._add(name, p, found, places)
        return found, places or None

    def _add(self, name: str, p: Any, found: dict[str, Tensor], places: dict[str, Place]) -> None:
        """Add the local part of a sharded gradient, if there is one and it counts here."""
        if (gradient := p.grad) is None:
            return
        block = self.block(name, gradient)
        if block.owner:
            found[name] = local_part(gradient)
            if not block.is_whole:
                places[name] = block.full_shape, block.offset

    def block(self, name: str, tensor: Any) -> Block:
        """Return where the local part of a DTensor lies; worked out once for its placements."""
        known = self._blocks.get(name)
        if known is None or known[0] != tensor.placements:
            known = self._blocks[name] = tensor.placements, block_of(name, tensor)
        return known[1]

    def local(self) -> list[Tensor]:
        """Return the local part of every gradient, counted here or not: what clipping scales."""
        found = [g for _, p in self._plain if (g := p.grad) is not None]
        return found + [local_part(g) for _, p in self._sharded if (g := p.grad) is not None]

    def present(self) -> dict[str, Tensor]:
        """Return every gradient as ``.grad`` has it, by name."""
        pairs = (*self._plain, *self._sharded)
        return {name: g for name, p in pairs if (g := p.grad) is not None}

    def any(self) -> bool:
        """Whether any watched parameter has a gradient here."""
        return any(p.grad is not None for _, p in (*self._plain, *self._sharded))

    @property
    def device(self) -> torch.device:
        """Device of the first gradient; the CPU if there is none."""
        for _, p in (*self._plain, *self._sharded):
            if p.grad is not None:
                return torch.device(p.grad.device)
        return torch.device("cpu")

    def norm(self, known: float | None) -> float:
        """Return the joint norm, in float64; of sharded gradients a collective operation.

        Parameters
        ----------
        known : float, optional
            Norm of what :meth:`here` returned, NaN or infinite if any value was. Saves a pass unless
            parameters of several meshes are mixed.

        Notes
        -----
        One sum over ranks for each mesh, whether or not this rank has any gradient.
        """
        kinds = (1 if self._plain else 0) + len(self._meshes)
        if kinds <= 1 and known is not None:
            if not self._meshes:
                return known
            return _root(sum_over(self._meshes[0], known * known))
        own = _norm([g for _, p in self._plain if (g := p.grad) is not None])
        if not self._meshes:
            return own
        return _root(own * own + sum(self._square_over(mesh) for mesh in self._meshes))

    def first_nonfinite(self) -> tuple[str, int] | None:
        """Return the first parameter with a NaN or infinity here, and its index in the whole, in C order."""
        found, places = self.here()
        for name, gradient in found.items():
            bad = ~torch.isfinite(gradient)
            if bad.any():
                index = [int(i) for i in bad.nonzero()[0]]
                shape = tuple(gradient.shape)
                if places is not None and name in places:
                    shape, offset = places[name]
                    index = [i + o for i, o in zip(index, offset, strict=True)]
                flat = 0
                for i, n in zip(index, shape, strict=True):
                    flat = flat * n + i
                return name, flat
        return None

    def _square_over(self, mesh: Any) -> float:
        """Squared joint norm of the parameters of a mesh, by a pass of its own."""
        there = [(name, p) for name, p in self._sharded if p.device_mesh == mesh]
        pairs = [(name, g) for name, p in there if (g := p.grad) is not None]
        try:
            counted = [local_part(g) for name, g in pairs if self.block(name, g).owner]
        except TypeError:  # of placements that are no blocks; all ranks have the same
            return norm_by_torch([g for _, g in pairs]) ** 2
        return sum_over(mesh, _norm(counted) ** 2)


def mark_of(gradient: Tensor) -> Mark:
    """Mark a gradient as it is now, without keeping it alive."""
    return weakref.ref(gradient), gradient._version


def is_marked(gradient: Tensor, mark: Mark) -> bool:
    """Whether a gradient is the one that was marked, and unchanged."""
    return mark[0]() is gradient and mark[1] == gradient._version


@torch.no_grad()
def _norm(gradients: Sequence[Tensor]) -> float:
    """Take the norm as the pass would: in float64, whatever the dtypes and devices."""
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    dense = [torch.view_as_real(g.resolve_conj()) if g.is_complex() else g for g in dense]
    squares = [torch.linalg.vector_norm(g, dtype=torch.float64).square().cpu() for g in dense]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _root(square: float) -> float:
    return math.sqrt(square) if square >= 0 else square
