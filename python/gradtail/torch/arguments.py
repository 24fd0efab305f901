"""Checks of what users give to a monitor, before anything happens."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

Optimizers = Optimizer | Sequence[Optimizer]


def check_every(every: object) -> None:
    """Refuse a cadence that is not a positive int."""
    if isinstance(every, bool) or not isinstance(every, int):
        raise TypeError(f"every: expected a positive int, got {every!r}")
    if every < 1:
        raise ValueError(f"every: expected a positive int, got {every}")


def check_max_norm(max_norm: object) -> float:
    """Return ``max_norm`` as a float; TypeError or ValueError if it is no positive number."""
    if not isinstance(max_norm, (int, float)) or isinstance(max_norm, bool):
        raise TypeError(f"max_norm: expected a positive number, got {max_norm!r}")
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    return float(max_norm)


def as_optimizers(optimizer: Optimizers | None) -> list[Optimizer]:
    """Return one or more optimizers as a list; TypeError if there is anything else."""
    if optimizer is None:
        return []
    found = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(found, (list, tuple)):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    for one in found:
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer: expected torch.optim.Optimizers, got {type(one).__name__}")
    return list(found)


def check_step(step: object) -> None:
    """Refuse a number of a step that is neither an int nor left out."""
    if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
        raise TypeError(f"step: expected an int, got {step!r}")
