"""Mistakes in the loop that nothing forbids: said once, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from gradtail.torch.guard import warn
from gradtail.torch.parameters import Named

_MOST = 3  # names in a message


class Hints:
    """Warnings that a monitor gives at most once each."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._unwatched: list[Named] = []
        self._optimizers: list[Optimizer] = []

    def expect(self, unwatched: Sequence[Named], optimizers: Sequence[Optimizer]) -> None:
        """Set what the model has besides the watched parameters, and whose clipping is at stake."""
        self._unwatched, self._optimizers = list(unwatched), list(optimizers)

    def once(self, key: str, message: str) -> None:
        """Warn, unless it has been said."""
        if key not in self._given:
            self._given.add(key)
            warn(message)

    def used(self, method: str) -> None:
        """Gradients that an optimizer has stepped with."""
        self.once(
            "used",
            f"{method}: expected gradients that no optimizer has used yet, got those of the step before; "
            f"call {method} between backward() and optimizer.step()",
        )

    def again(self, method: str) -> None:
        """Gradients that look like those of the call before, where no optimizer of torch has been seen."""
        self.once(
            "again",
            f"{method}: expected new gradients, or a step of a torch optimizer since the last call, got "
            "neither; it is counted as a new step all the same. Where another kind of optimizer steps, or a "
            "CUDA graph, give step=; else call one of step and clip_, once a step",
        )

    def abandoned(self, step: int) -> None:
        """Part of a step that was observed in backward and never closed."""
        self.once(
            "abandoned",
            f"observe: expected step() after backward, got the gradients of another one; what was observed "
            f"as step {step} (an error in backward, a batch left out, or no call of step) is left out",
        )

    def empty(self) -> None:
        """``clip_`` without a gradient."""
        self.once(
            "empty",
            "clip_: expected gradients, got none, and nothing was clipped; call clip_ after backward() and "
            "before zero_grad()",
        )

    def scaled(self) -> None:
        """Gradients that the optimizer divides by ``grad_scale`` after they were observed."""
        self.once(
            "scaled",
            "scaler: expected the GradScaler to be given, Monitor(..., optimizer, scaler=scaler), for the "
            "optimizer unscales gradients as it reads them, got none; all norms are of scaled gradients, and "
            "so is what clip_ clips",
        )

    def partial_clip(self) -> None:
        """``clip_`` of some parameters only, where ``clip_grad_norm_`` would have clipped all.

        Those that the optimizers given do not hold (the other network of an adversarial pair) are not missed.
        """
        held = {id(p) for one in self._optimizers for group in one.param_groups for p in group["params"]}
        left = [name for name, p in self._unwatched if p.requires_grad and (not held or id(p) in held)]
        self._unwatched, self._optimizers = [], []
        if left:
            self.once(
                "partial",
                "clip_: clips the watched parameters, by the norm of those alone, and leaves unclipped what "
                f"params= has left out: {listed(left)}",
            )


def listed(names: Sequence[str]) -> str:
    """Name some and count the others."""
    shown = ", ".join(names[:_MOST])
    return shown if len(names) <= _MOST else f"{shown} and {len(names) - _MOST} others"
