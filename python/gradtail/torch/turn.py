"""One observation a step: tells a second look at the same gradients from a look at new ones."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from gradtail.torch.hints import Hints


class Turn:
    """Refuses to look twice at the same gradients before an optimizer has stepped.

    A step that the loop skips (a bad loss, an overflow) is no offence: what comes next are other
    gradients, or the same ones accumulated further, which their version counters tell.

    Parameters
    ----------
    parameters : sequence of nn.Parameter
    optimizers : sequence of torch.optim.Optimizer
        End a step too, though they hold none of the parameters.
    hints : Hints, optional
        Told where an optimizer unscales gradients that were taken as they are.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        hints: Hints | None = None,
    ) -> None:
        self._parameters = list(parameters)
        self._ids = {id(p) for p in parameters}
        self._optimizers = weakref.WeakSet(optimizers)
        self._seen: tuple[weakref.ref[Tensor], int, int] | None = None
        self._used: list[tuple[weakref.ref[nn.Parameter], weakref.ref[Tensor], int]] = []
        self._signalled = False
        me = weakref.ref(self)

        def stepped(stepping: torch.optim.Optimizer, *_: Any) -> None:
            if (turn := me()) is not None and turn._is_ours(stepping):
                # that of a GradScaler: the one of Fold is gone by now, for its hook comes before this one
                if (
                    hints is not None
                    and turn._seen is not None
                    and vars(stepping).get("grad_scale") is not None
                ):
                    hints.scaled()
                turn._signalled |= turn._seen is not None
                turn._seen = None
                turn._use(stepping)

        # Torch calls these after every optimizer's step in the process: cheap, and no need to be told.
        weakref.finalize(self, register_optimizer_step_post_hook(stepped).remove)

    def take(self, method: str, *, numbered: bool = False) -> bool:
        """Begin an observation; False if nothing tells that it is a new one.

        Parameters
        ----------
        method : str
        numbered : bool
            Whether the loop has given the step a number of its own, which settles it.

        Raises
        ------
        RuntimeError
            The gradients are those of the last observation, and optimizers are known to end steps here.

        Notes
        -----
        Gradients in memory that is written without torch's notice (``.data``, CUDA graphs) and stepped with
        by what is no optimizer of torch look the same for ever.
        """
        now = self._now()
        again = not numbered and self._is_seen(now)
        if again and self._signalled:
            raise RuntimeError(
                f"{method}: expected one call a step, got a second one for the same gradients; "
                "clip_ observes as step does, so call one of the two"
            )
        self._see(now)
        return not again

    def give_back(self) -> None:
        """Undo :meth:`take`, after an observation that came to nothing."""
        self._seen = None

    def is_taken(self) -> bool:
        """Whether the gradients are those of the last observation."""
        return self._seen is not None and self._is_seen(self._now())

    def is_used(self) -> bool:
        """Whether an optimizer has stepped with the gradients as they are now.

        Notes
        -----
        Two gradients of the newest optimizer that stepped stand for all: looking at each would take time
        quadratic in the number of parameters where every parameter has an optimizer of its own.
        """
        for parameter, gradient, version in self._used:
            p, g = parameter(), gradient()
            if p is None or g is None or p.grad is not g or g._version != version:
                return False
        return bool(self._used)

    def seen(self) -> None:
        """Take the gradients as they are now for seen."""
        self._see(self._now())

    def _use(self, optimizer: torch.optim.Optimizer) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        self._used = []
        for order in (held, reversed(held)):
            for p in order:
                if id(p) in self._ids and (g := p.grad) is not None:
                    self._used.append((weakref.ref(p), weakref.ref(g), g._version))
                    break

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
