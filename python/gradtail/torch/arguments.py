"""Checks of what users give to a monitor, before anything happens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from gradtail.states.batch_log import IntArray, as_ids
from gradtail.stream import GradientStream
from gradtail.torch.guard import warn
from gradtail.torch.hints import listed
from gradtail.torch.parameters import Named

Optimizers = Optimizer | Sequence[Optimizer]


def as_every(every: object) -> int:
    """Return a cadence as an int; TypeError or ValueError if it is no positive one."""
    number = _number(every, Integral)
    if number is None:
        raise TypeError(f"every: expected a positive int, got {every!r}")
    if number < 1:
        raise ValueError(f"every: expected a positive int, got {every}")
    return int(number)


def as_max_overhead(max_overhead: object) -> float | None:
    """Return a share of the time as a float, or None; TypeError or ValueError if it is neither."""
    if max_overhead is None:
        return None
    number = _number(max_overhead, Real)
    if number is None:
        raise TypeError(f"max_overhead: expected None or a number between 0 and 1, got {max_overhead!r}")
    if not 0 < number < 1:
        raise ValueError(f"max_overhead: expected None or a number between 0 and 1, got {max_overhead}")
    return float(number)


def as_max_norm(max_norm: object) -> float:
    """Return ``max_norm`` as a float; TypeError or ValueError if it is no positive number."""
    number = _number(max_norm, Real)
    if number is None:
        raise TypeError(f"max_norm: expected a positive number, got {max_norm!r}")
    if not number > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    return float(number)


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


def check_optimizer(optimizer: object) -> None:
    """Refuse what is no optimizer of torch; TypeError."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")


def as_step(step: object) -> int | None:
    """Return the number of a step as an int, None if it is left out; TypeError if it is anything else."""
    if step is None:
        return None
    number = _number(step, Integral)
    if number is None:
        raise TypeError(f"step: expected an int, got {step!r}")
    return int(number)


def as_batch(batch: object) -> IntArray | None:
    """Return the indices of the examples of a batch, None if they are left out.

    Raises
    ------
    TypeError, ValueError
        No indices, or a tensor that is on a device.
    """
    if batch is None:
        return None
    if isinstance(batch, Tensor):
        if batch.device.type != "cpu":
            raise ValueError(
                f"batch: expected indices in host memory, got a tensor on {batch.device}, which would have "
                "to be waited for; give those of the loader"
            )
        batch = batch.numpy()
    return as_ids(batch)


def _number(value: object, kind: type) -> Any:
    """Return a number of Python, NumPy or a 0-dim tensor or array as Python's; None if it is none."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def check_steps_without_closure(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose gradients come to be within its step, where no hook sees them."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer: expected one whose step() needs no closure, got {type(optimizer).__name__}, which "
            "computes gradients within its step, after the hook; leave when= out and call step() in the "
            "closure, after backward()"
        )


def check_loss(loss: object, method: str) -> None:
    """Refuse an optimizer in the place of the loss; what else is no loss is left out, with a warning."""
    if isinstance(loss, Optimizer):
        how = "clip_(max_norm, into=optimizer)" if method == "clip_" else "Monitor(model, optimizer)"
        raise TypeError(f"loss: expected a number or a tensor of one, got an optimizer; give it as {how}")


def check_options(options: Mapping[str, Any], own: Sequence[str]) -> None:
    """Refuse options that neither the monitor nor its stream has."""
    known = [*own, *(name for name in inspect.signature(GradientStream).parameters)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise TypeError(
                f"{name}: expected one of {', '.join(known)}, got an option that Monitor has not{hint}"
            )


def check_groups(groups: object, names: Sequence[str]) -> None:
    """Warn of patterns that match no parameter; ValueError if none matches any."""
    if not isinstance(groups, Mapping) or not groups or not names:
        return
    import re

    idle = [group for group, pattern in groups.items() if not any(re.search(pattern, name) for name in names)]
    shown = ", ".join(f"{group}={groups[group]!r}" for group in idle)
    if len(idle) == len(groups):
        raise ValueError(f"groups: expected patterns found in names such as {names[0]!r}, got {shown}")
    if idle:
        warn(f"groups: found in the name of no watched parameter: {shown}")


def check_parameters(parameters: Sequence[Named]) -> None:
    """Refuse parameters without memory, and warn if there is nothing to watch."""
    for name, p in parameters:
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"model: expected parameters with a shape, got {name} uninitialized; pass a batch first"
            )
        if p.is_meta:
            raise ValueError(
                f"model: expected parameters with memory, got {name} on the meta device; make the monitor "
                "after to_empty() and the loading of weights, which replace the parameters"
            )
    if not parameters:
        warn("model: expected parameters to watch, got a module without any: nothing will be observed")
    elif not any(p.requires_grad for _, p in parameters):
        names = listed([name for name, _ in parameters])
        warn(f"model: expected watched parameters that require a gradient, got none that does ({names})")
