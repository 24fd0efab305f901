"""What two processes do in the tests of sharded gradients; each writes what it found to a file."""

from __future__ import annotations

import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from monitor_models import batch, norm64
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.placement_types import _StridedShard

from gradtail.torch import Monitor

RANKS = 2


def uneven_model() -> nn.Module:
    """Shards of different sizes, and empty ones."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 1), nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 300), nn.Linear(300, 3))


def run(model: nn.Module, monitor: Monitor, steps: int = 4) -> dict[str, Any]:
    """Train; step() and clip_() in turn. Return norms, and how many collectives each call made."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    norms, calls = [], []
    for step in range(steps):
        optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        with CommDebugMode() as communication:
            if step % 2:
                monitor.clip_(0.05)
            else:
                monitor.step()
        calls.append(communication.get_total_counts())
        norms.append(float(monitor.grad_norm()))
        optimizer.step()
    return {"norms": norms, "calls": calls, "state": monitor.state_dict()}


def fully_sharded(rank: int) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (RANKS,))
    model, whole = uneven_model(), uneven_model()
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    monitor, reference = Monitor(model), Monitor(whole)
    found = {"sharded": run(model, monitor), "whole": run(whole, reference)}
    found["plan"] = [[row.name, row.scope, row.place] for row in monitor.plan().rows]
    found["scalars"] = sorted(monitor.scalars())
    found["pending"] = monitor.pending
    parameters = [p.full_tensor() for p in model.parameters()]
    found["apart"] = max(
        float((a - b).abs().max().detach()) for a, b in zip(parameters, whole.parameters(), strict=True)
    )
    return found


class Placed(nn.Module):
    """One parameter under given placements; its gradient is set by hand."""

    def __init__(self, value: torch.Tensor, mesh: Any, placements: list[Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(distribute_tensor(value, mesh, placements))


def placed(rank: int) -> dict[str, Any]:
    """Other placements than those of fully_shard, two-dimensional meshes, and several meshes."""
    found = {}
    line = init_device_mesh("cpu", (RANKS,))
    tall = init_device_mesh("cpu", (RANKS, 1))
    flat = init_device_mesh("cpu", (1, RANKS))
    value = torch.arange(35, dtype=torch.float32).reshape(5, 7) - 11
    cases = {
        "columns": (line, [Shard(1)]),
        "replica": (line, [Replicate()]),
        "hybrid": (flat, [Replicate(), Shard(0)]),
        "both": (tall, [Shard(0), Shard(1)]),
        "copies": (tall, [Replicate(), Shard(1)]),
    }
    for name, (mesh, placements) in cases.items():
        model = Placed(torch.zeros(5, 7), mesh, placements)
        model.weight.grad = distribute_tensor(value.clone(), mesh, placements)
        monitor = Monitor(model)
        norm = monitor.clip_(1.0)
        found[name] = {
            "norm": float(norm),
            "clipped": float(model.weight.grad.full_tensor().norm()),
            "state": monitor.state_dict(),
            "scope": monitor.plan().rows[0].scope,
        }
    model = nn.ModuleList([Placed(torch.zeros(5, 7), *case) for case in cases.values()])
    model.plain = nn.Linear(2, 2)
    for part, (mesh, placements) in zip(model, cases.values(), strict=False):
        part.weight.grad = distribute_tensor(value.clone(), mesh, placements)
    model.plain.weight.grad = torch.full((2, 2), 3.0)
    found["mixed"] = float(Monitor(model).clip_(1.0))
    found["mixed_clipped"] = float(model.plain.weight.grad[0, 0])
    return found


def refused(rank: int) -> dict[str, Any]:
    """Placements that are no blocks; gradients are clipped all the same."""
    line = init_device_mesh("cpu", (RANKS,))
    grid = init_device_mesh("cpu", (1, RANKS))
    found = {}
    for name, mesh, placements in (
        ("partial", line, [Partial()]),
        ("strided", grid, [_StridedShard(0, split_factor=RANKS), Shard(0)]),
    ):
        model = Placed(torch.zeros(4, 3), mesh, [Replicate()] * mesh.ndim)
        shape = (4, 3) if name == "partial" else (2, 3)
        gradient = DTensor.from_local(torch.ones(shape), mesh, placements, run_check=False)
        model.weight = nn.Parameter(torch.zeros_like(gradient)) if name == "strided" else model.weight
        model.weight.grad = gradient
        monitor = Monitor(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            norm = monitor.clip_(1.0)
        found[name] = {
            "warning": [str(w.message) for w in caught if "gradtail" in str(w.message)],
            "norm": float(norm),
            "local": float(gradient.to_local()[0, 0]),
            "enabled": monitor.enabled,
        }
    return found


def nonfinite(rank: int) -> dict[str, Any]:
    """A NaN on rank 1 alone: no rank clips, both skip."""
    mesh = init_device_mesh("cpu", (RANKS,))
    model = uneven_model()
    fully_shard(model, mesh=mesh)
    monitor = Monitor(model)
    model(batch(0)).square().mean().backward()
    gradient = model[3].weight.grad
    if rank == 1:
        gradient.to_local()[0, 2] = math.nan
    before = model[0].weight.grad.to_local().clone()
    norm = monitor.clip_(1e-6)
    first = monitor.stream.first_nonfinite
    later = Monitor(model)
    later.step()
    return {
        "norm": float(norm),
        "found_inf": float(later.found_inf),
        "same": torch.equal(before, model[0].weight.grad.to_local()),
        "first": None if first is None else [first.name, first.index],
    }


def folded(rank: int) -> dict[str, Any]:
    """The factor handed to a fused optimizer of sharded parameters."""
    mesh = init_device_mesh("cpu", (RANKS,))
    model, whole = uneven_model(), uneven_model()
    fully_shard(model, mesh=mesh)
    monitor = Monitor(model)
    optimizers = [torch.optim.AdamW(m.parameters(), 1e-2, fused=True) for m in (model, whole)]
    for step in range(3):
        for m, optimizer in zip((model, whole), optimizers, strict=True):
            optimizer.zero_grad()
            m(batch(step)).square().mean().backward()
        monitor.clip_(0.05, into=optimizers[0])
        torch.nn.utils.clip_grads_with_norm_(whole.parameters(), 0.05, torch.tensor(norm64(whole)))
        for optimizer in optimizers:
            optimizer.step()
    parameters = [p.full_tensor() for p in model.parameters()]
    return {
        "apart": max(
            float((a - b).abs().max().detach()) for a, b in zip(parameters, whole.parameters(), strict=True)
        )
    }


def split(rank: int) -> dict[str, Any]:
    """Each process watches the parameters that are its own; no communication at all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3))
    mine = Monitor(model, params=rf"^[{'0' if rank == 0 else '24'}]\.")
    everything = Monitor(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(12):
        optimizer.zero_grad()
        loss = model(batch(step)).square().mean()
        loss.backward()
        mine.step(loss)
        everything.step(loss)
        optimizer.step()
    return {"mine": mine.state_dict(), "everything": everything.state_dict()}


SCENES = (fully_sharded, placed, refused, nonfinite, folded, split)


def outcome(scene: Callable[[int], dict[str, Any]], rank: int) -> dict[str, Any]:
    """What a scene found, or how it failed: the others are still worth knowing."""
    try:
        return scene(rank)
    except Exception as error:
        return {"error": repr(error), "traceback": traceback.format_exc()}


def work(rank: int, folder: str) -> None:
    """Run every scene, and write what came of it to rank<n>.pt."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # torch and gloo log there  # noqa: SIM115
    store = dist.FileStore(str(Path(folder) / "meeting"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    found = {scene.__name__: outcome(scene, rank) for scene in SCENES}
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()
