"""One observation a step: tells a second look at the same gradients from a look at new ones."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class Turn:
    """Refuses to look twice at the same gradients before an optimizer has stepped.

    A step that the loop skips (a bad loss, an overflow) is no offence: what comes next are other
    gradients, or the same ones accumulated further, which their version counters tell.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
    optimizer : torch.optim.Optimizer, optional
        Ends a step too, though it hold none of the parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer | None) -> None:
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
        self._parameters = list(parameters)
        self._ids = {id(p) for p in parameters}
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        self._seen: tuple[weakref.ref[Tensor], int] | None = None
        me = weakref.ref(self)

        def stepped(stepping: torch.optim.Optimizer, *_: Any) -> None:
            if (turn := me()) is not None and turn._is_ours(stepping):
                turn._seen = None

        # Torch calls these after every optimizer's step in the process: cheap, and no need to be told.
        weakref.finalize(self, register_optimizer_step_post_hook(stepped).remove)

    def take(self, method: str) -> None:
        """Begin an observation; RuntimeError if the gradients are those of the last one."""
        first = self._first()
        if first is not None and self._seen is not None:
            gradient, version = self._seen
            if gradient() is first and version == first._version:
                raise RuntimeError(
                    f"{method}: expected one call a step, got a second one for the same gradients; "
                    "clip_ observes as step does, so call one of the two"
                )
        self.clipped()

    def clipped(self) -> None:
        """Take the gradients as they are now for seen."""
        first = self._first()
        self._seen = None if first is None else (weakref.ref(first), first._version)

    def _first(self) -> Tensor | None:
        return next((p.grad for p in self._parameters if p.grad is not None), None)

    def _is_ours(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._optimizer is not None and self._optimizer() is optimizer:
            return True
        return any(id(p) in self._ids for group in optimizer.param_groups for p in group["params"])
