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
    optimizers : sequence of torch.optim.Optimizer
        End a step too, though they hold none of the parameters.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        self._parameters = list(parameters)
        self._ids = {id(p) for p in parameters}
        self._optimizers = weakref.WeakSet(optimizers)
        self._seen: tuple[weakref.ref[Tensor], int, int] | None = None
        me = weakref.ref(self)

        def stepped(stepping: torch.optim.Optimizer, *_: Any) -> None:
            if (turn := me()) is not None and turn._is_ours(stepping):
                turn._seen = None

        # Torch calls these after every optimizer's step in the process: cheap, and no need to be told.
        weakref.finalize(self, register_optimizer_step_post_hook(stepped).remove)

    def take(self, method: str) -> None:
        """Begin an observation; RuntimeError if the gradients are those of the last one."""
        now = self._now()
        if self._is_seen(now):
            raise RuntimeError(
                f"{method}: expected one call a step, got a second one for the same gradients; "
                "clip_ observes as step does, so call one of the two"
            )
        self._see(now)

    def is_taken(self) -> bool:
        """Whether the gradients are those of the last observation."""
        return self._seen is not None and self._is_seen(self._now())

    def seen(self) -> None:
        """Take the gradients as they are now for seen."""
        self._see(self._now())

    def _is_seen(self, now: tuple[Tensor | None, int, int]) -> bool:
        if self._seen is None or now[0] is None:
            return False
        first, count, versions = self._seen
        return first() is now[0] and (count, versions) == now[1:]

    def _see(self, now: tuple[Tensor | None, int, int]) -> None:
        first, count, versions = now
        self._seen = None if first is None else (weakref.ref(first), count, versions)

    def _now(self) -> tuple[Tensor | None, int, int]:
        """Tell gradients apart: the first of them, their number, and how often they were written to."""
        gradients = [g for p in self._parameters if (g := p.grad) is not None]
        first = gradients[0] if gradients else None
        return first, len(gradients), sum(g._version for g in gradients)

    def _is_ours(self, optimizer: torch.optim.Optimizer) -> bool:
        if optimizer in self._optimizers:
            return True
        return any(id(p) in self._ids for group in optimizer.param_groups for p in group["params"])
