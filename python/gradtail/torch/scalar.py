"""Numbers that stay on the device of the gradients: nothing here waits for one.

The clip factor, the count of clipped steps and the flag of a bad step follow from the norm. Where the norm is
in the memory of a GPU, looking at it from the host would stop the loop until the GPU has caught up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Norm = float | Tensor
"""A norm on the host, or a 0-dim float64 tensor that nobody has waited for."""


def as_scalar(norm: Norm) -> Tensor:
    """Return a norm as a 0-dim float64 tensor."""
    return norm if isinstance(norm, Tensor) else torch.tensor(norm, dtype=torch.float64)


def taken(found: Any) -> Tensor:
    """Return a 0-dim float64 tensor of its own of what a stream gives, which its next step overwrites."""
    # without a device torch.as_tensor would copy it to the CPU, and wait
    home = found.device if isinstance(found, Tensor) else torch.device("cuda", int(found.device))
    return torch.as_tensor(found, device=home).detach().reshape(()).to(torch.float64, copy=True)


def is_bad(norm: Norm) -> bool | Tensor:
    """Whether a norm is NaN or infinite; where it is a tensor, a 0-dim tensor of bool."""
    return is_finite(norm).logical_not() if isinstance(norm, Tensor) else not math.isfinite(norm)


def is_finite(norm: Tensor) -> Tensor:
    """Whether a norm is neither NaN nor infinite, in one launch: it is not negative."""
    return norm < math.inf


def as_flag(bad: bool | Tensor, device: torch.device) -> Tensor:
    """Return 1 for a bad step and 0 for a good one as fused optimizers take it: 0-dim, float32."""
    if isinstance(bad, Tensor):
        return moved(bad.to(torch.float32), device)
    return torch.full((), float(bad), dtype=torch.float32, device=device)


def moved(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; only a copy to the CPU waits, for it would be read before it is there."""
    return value.to(device, non_blocking=device.type != "cpu")


def values_of(gradients: Iterable[Tensor]) -> list[Tensor]:
    """Return the values of gradients as real dense tensors: of sparse ones those that are there."""
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return [torch.view_as_real(g.resolve_conj()) if g.is_complex() else g for g in dense]


def norm_there(gradients: Sequence[Tensor], home: torch.device) -> Tensor:
    """Take the norm as the pass would, in float64 whatever the dtypes, a few launches a device and dtype."""
    norms: list[Tensor] = []
    for alike in by_kind(values_of(gradients)).values():
        found = torch._foreach_norm(alike, 2, dtype=torch.float64)
        one = torch.linalg.vector_norm(torch.stack(list(found)))
        norms.append(moved(one, home))
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=home)
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def total_there(mesh: Any, value: Tensor) -> Tensor:
    """Add up a 0-dim tensor over all ranks of a mesh; a collective operation that every rank must call."""
    import torch.distributed as dist

    home = value.device
    total = value.clone() if home.type == mesh.device_type else value.to(mesh.device_type)
    for axis in range(mesh.ndim):
        if mesh.size(axis) > 1:
            dist.all_reduce(total, group=mesh.get_group(axis))
    return moved(total, home)


def by_kind(tensors: Iterable[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[Tensor]]:
    """Sort tensors by device and dtype, which operations on lists want to be the same."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return kinds
