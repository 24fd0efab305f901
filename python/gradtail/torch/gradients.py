"""The gradients of the watched parameters, as they lie: local parts, places, and their norm."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradtail.torch.parameters import Named
from gradtail.torch.scalar import Norm, moved, norm_there, total_there, values_of
from gradtail.torch.sharding import Block, block_of, is_sharded, local_part, norm_by_torch, sum_over

T = TypeVar("T")
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
        """Device of the first gradient; of the first parameter if there is none, the CPU without any."""
        pairs = (*self._plain, *self._sharded)
        for _, p in pairs:
            if p.grad is not None:
                return torch.device(p.grad.device)
        return torch.device(pairs[0][1].device) if pairs else torch.device("cpu")

    def norm(self, known: Norm | None, *, there: bool = False) -> Norm:
        """Return the joint norm, in float64; of sharded gradients a collective operation.

        Parameters
        ----------
        known : float or 0-dim tensor, optional
            Norm of what :meth:`here` returned, NaN or infinite if any value was. Saves a pass unless
            parameters of several meshes are mixed.
        there : bool
            Whether the norm is to stay where the gradients are, and nobody waits for it.

        Returns
        -------
        float or Tensor
            A tensor, 0-dim float64, where it stays on the device.

        Notes
        -----
        One sum over ranks for each mesh, whether or not this rank has any gradient.
        """
        if there or isinstance(known, Tensor):
            return self._norm_there(known)
        kinds = (1 if self._plain else 0) + len(self._meshes)
        if kinds <= 1 and known is not None:
            if not self._meshes:
                return known
            return _root(sum_over(self._meshes[0], known * known))
        own = _norm([g for _, p in self._plain if (g := p.grad) is not None])
        if not self._meshes:
            return own
        return _root(own * own + sum(self._square_over(mesh) for mesh in self._meshes))

    @torch.no_grad()
    def _norm_there(self, known: Norm | None) -> Tensor:
        """Take the joint norm as :meth:`norm` does, in tensors."""
        home = known.device if isinstance(known, Tensor) else self.device
        if (1 if self._plain else 0) + len(self._meshes) <= 1 and known is not None:
            if not isinstance(known, Tensor):
                known = torch.full((), known, dtype=torch.float64, device=home)
            return total_there(self._meshes[0], known.square()).sqrt() if self._meshes else known
        own = norm_there([g for _, p in self._plain if (g := p.grad) is not None], home)
        if not self._meshes:
            return own
        square = own.square()
        for mesh in self._meshes:
            counted = self._counted(mesh)
            if counted is None:
                part = norm_by_torch(self._of(mesh), home).square()
            else:
                part = total_there(mesh, norm_there(counted, home).square())
            square = square + moved(part, home)
        return square.sqrt()

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
        counted = self._counted(mesh)
        if counted is None:
            return float(norm_by_torch(self._of(mesh), torch.device("cpu"))) ** 2
        return sum_over(mesh, _norm(counted) ** 2)

    def _of(self, mesh: Any) -> list[Any]:
        """Gradients of the parameters of a mesh."""
        return [g for _, p in self._sharded if p.device_mesh == mesh and (g := p.grad) is not None]

    def _counted(self, mesh: Any) -> list[Tensor] | None:
        """Local parts that this rank counts; None of placements that are no blocks, alike on all ranks."""
        pairs = [(name, p.grad) for name, p in self._sharded if p.device_mesh == mesh and p.grad is not None]
        try:
            return [local_part(g) for name, g in pairs if self.block(name, g).owner]
        except TypeError:
            return None


def mark_of(gradient: Tensor) -> Mark:
    """Mark a gradient as it is now, without keeping it alive."""
    return weakref.ref(gradient), gradient._version


def is_marked(gradient: Tensor, mark: Mark) -> bool:
    """Whether a gradient is the one that was marked, and unchanged."""
    return mark[0]() is gradient and mark[1] == gradient._version


@torch.no_grad()
def _norm(gradients: Sequence[Tensor]) -> float:
    """Take the norm as the pass would: in float64, whatever the dtypes and devices."""
    squares = [torch.linalg.vector_norm(g, dtype=torch.float64).square().cpu() for g in values_of(gradients)]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _root(square: float) -> float:
    return math.sqrt(square) if square >= 0 else square


def reading(gradients: Mapping[str, Tensor], read: Callable[[], T]) -> T:
    """Have gradients read; of one that cannot be, say whose it is and how to leave it out."""
    try:
        return read()
    except TypeError as error:
        odd = [name for name, g in gradients.items() if g.layout != torch.strided or g.is_complex()]
        if not odd:
            raise
        first = gradients[odd[0]]
        what = f"layout {first.layout}" if first.layout != torch.strided else f"dtype {first.dtype}"
        others = f" ({len(odd) - 1} more like it)" if len(odd) > 1 else ""
        raise TypeError(
            f"{odd[0]}: expected a dense real gradient, got {what}{others}; to watch the rest, leave it out: "
            f"params=lambda name, p: name not in {odd}"
        ) from error
