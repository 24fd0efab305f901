"""Sharded gradients: which block of the whole parameter a rank holds, who counts it, and joint norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradtail.torch.scalar import moved

DTensor: Any
try:
    from torch.distributed.tensor import DTensor
except ImportError:  # torch built without distributed, or older than 2.5
    DTensor = None


@dataclass(frozen=True)
class Block:
    """Where the local part of a DTensor lies in the whole.

    Attributes
    ----------
    full_shape, offset, shape : tuple of int
        Of the whole, of the local part within it, and of the local part.
    owner : bool
        Whether this rank counts it: of replicas, the one at coordinate 0 of every replicated mesh axis does.
    placements : str
        As DTensor prints them.
    """

    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    owner: bool
    placements: str

    @property
    def is_whole(self) -> bool:
        """Whether the rank holds all there is."""
        return self.shape == self.full_shape


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is a DTensor."""
    return DTensor is not None and isinstance(tensor, DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: a view, without communication."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def block_of(name: str, tensor: Any) -> Block:
    """Say where the local part of a DTensor lies, as DTensor reports it.

    Raises
    ------
    TypeError
        A placement under which the local part is not a block of the gradient.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = tensor.device_mesh, tensor.placements
    for placement in placements:
        if placement.is_partial():
            raise TypeError(
                f"{name}: expected a gradient that is sharded or replicated, got placement {placement}: each "
                "rank holds a summand, and statistics of summands are not those of their sum; redistribute it"
            )
        if type(placement).__name__ == "_StridedShard":
            raise TypeError(
                f"{name}: expected a gradient whose shards are blocks, got placement {placement}: its shards "
                "are interleaved and have no offset; shard along different axes for the two mesh dimensions"
            )
        if not (placement.is_shard() or placement.is_replicate()):
            raise TypeError(f"{name}: expected placements Shard or Replicate, got {placement}")
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
    coordinate = mesh.get_coordinate()
    owner = coordinate is not None and all(
        coordinate[axis] == 0 for axis, placement in enumerate(placements) if placement.is_replicate()
    )
    # torch gives an empty shard an offset that may lie past the end
    full = tuple(tensor.shape)
    start = tuple(min(o, n - m) for o, n, m in zip(offset, full, shape, strict=True))
    return Block(full, start, tuple(shape), owner, str(tuple(placements)))


def sum_over(mesh: Any, value: float) -> float:
    """Add up a number over all ranks of a mesh; a collective operation that every rank must call.

    Notes
    -----
    One reduction an axis: all ranks get the same bits, as they do from a reduction of each group.
    """
    import torch.distributed as dist

    total = torch.tensor(value, dtype=torch.float64, device=mesh.device_type)
    for axis in range(mesh.ndim):
        if mesh.size(axis) > 1:
            dist.all_reduce(total, group=mesh.get_group(axis))
    return float(total)


def norm_by_torch(tensors: Sequence[Any], home: torch.device) -> Tensor:
    """Return the joint norm of DTensors of any placements, as torch finds it, on a device; collective."""
    norms: list[Tensor] = [torch.linalg.vector_norm(t).full_tensor().double() for t in tensors]
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=home)
    joint: Tensor = torch.linalg.vector_norm(torch.stack([moved(n, home) for n in norms]))
    return joint
