"""What a look at a model's curvature is given, checked; and what it says of itself afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from gradtail.build import build_info
from gradtail.states.budget import format_bytes
from gradtail.torch.batches import Batch, batch_bytes, held_batches
from gradtail.torch.curvature import Curvature
from gradtail.torch.frozen import Mode, mode_of
from gradtail.torch.parameters import Filter, watched_parameters
from gradtail.torch.products import Operator, Problem

Loss = Callable[[Any, Any], Tensor]

BATCH = 512
"""Examples that a model is given at once, unless said otherwise."""

_SPARE = 4  # vectors that a product and its accumulation take


def problem_of(
    model: nn.Module, loss: Loss, params: Filter | None, operator: Operator, mode: Mode | None, seed: int
) -> Problem:
    """Check a model, a loss and what is asked of them.

    Raises
    ------
    TypeError, ValueError
        Arguments that are none of these.
    """
    named = [(name, p) for name, p in watched_parameters(model, params) if p.requires_grad and p.numel()]
    if not named:
        raise ValueError("model: expected parameters that require a gradient, got none")
    for name, p in named:
        if not p.dtype.is_floating_point:
            raise TypeError(f"model: expected parameters of a real floating dtype, got {p.dtype} for {name}")
    devices = sorted({str(p.device) for _, p in named})
    if len(devices) > 1:
        raise ValueError(f"model: expected all parameters on one device, got {' and '.join(devices)}")
    if not callable(loss):
        raise TypeError(f"loss: expected a callable, got {type(loss).__name__}")
    if operator not in get_args(Operator):
        expected = ", ".join(map(repr, get_args(Operator)))
        raise ValueError(f"operator: expected one of {expected}, got {operator!r}")
    if mode not in (None, "train", "eval"):
        raise ValueError(f"mode: expected None, 'train' or 'eval', got {mode!r}")
    checked_int("seed", seed, 0)
    return Problem(model, loss, [name for name, _ in named], [p for _, p in named], named[0][1].device, seed)


def batches_of_all(data: Any, batch_size: int | None, most: int | None = None) -> tuple[list[Batch], int]:
    """Return all of the data in batches, and the memory that holding them takes, at most ``most`` bytes."""
    batches = held_batches(data, batch_size, BATCH, most)
    shared = isinstance(data, (tuple, list)) and all(isinstance(part, (Tensor, np.ndarray)) for part in data)
    return batches, 0 if shared else batch_bytes(batches)


def checked_int(name: str, value: Any, least: int) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def element_bytes(problem: Problem) -> int:
    """Return the bytes of an element of the vectors."""
    return max(4, *(p.element_size() for p in problem.parameters))


def check_memory(memory: int, rows: int, what: str, problem: Problem, graph: int, held: int) -> int:
    """Return the memory that is left after what cannot be done without.

    Parameters
    ----------
    memory : int
        Bytes allowed.
    rows : int
        Vectors of the parameters' size that are needed.
    what : str
        What they are needed for, with the argument that sets their number.
    graph, held : int
        Bytes of the graph of one batch, and of data.

    Raises
    ------
    ValueError
        It is not enough.
    """
    elements = sum(p.numel() for p in problem.parameters)
    vectors = (rows + _SPARE) * elements * element_bytes(problem)
    needed = vectors + graph + held
    if needed > memory:
        parts = [f"{format_bytes(vectors)} for {rows + _SPARE} vectors of {elements} elements"]
        parts += [f"{format_bytes(graph)} for the graph of a batch"] if graph else []
        parts += [f"{format_bytes(held)} for the data"] if held else []
        raise ValueError(
            f"memory: expected at least {format_bytes(needed)} ({', '.join(parts)}; {what}), got "
            f"{format_bytes(memory)}; fewer params or smaller batches need less"
        )
    return memory - needed


def provenance_of(
    problem: Problem, curvature: Curvature, operator: Operator, batches: list[Batch]
) -> dict[str, Any]:
    """Return what all numbers of a curvature depend on."""
    return {
        "operator": operator, "examples": curvature.examples, "batches": len(batches),
        "batch_size": max(batch.size for batch in batches),
        "mode": mode_of(problem.model), "seed": problem.seed,
        "parameters": curvature.n, "names": len(problem.names),
        "dtype": sorted({str(p.dtype).removeprefix("torch.") for p in problem.parameters}),
        "precision": str(curvature.dtype).removeprefix("torch."), "device": str(problem.device),
        "products_by": curvature.products_by, "model": type(problem.model).__name__,
        "loss": getattr(problem.loss, "__name__", type(problem.loss).__name__),
        "torch": torch.__version__, "numpy": np.__version__, "gradtail": build_info()["version"],
    }  # fmt: skip
