"""Clipping without touching the gradients: a fused optimizer scales them as it reads them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradtail.torch.scalar import moved

Given = tuple[weakref.ref[Optimizer], Tensor, Tensor]


class Fold:
    """Hands ``grad_scale`` and ``found_inf`` to a fused optimizer, and takes them back after its step.

    The attributes are those by which ``torch.amp.GradScaler`` talks to fused optimizers: gradients
    are divided by ``grad_scale`` on the way in, and a step with ``found_inf`` of 1 does nothing.

    Parameters
    ----------
    watched : sequence of nn.Parameter
        Those whose norm is taken.
    """

    def __init__(self, watched: Sequence[nn.Parameter]) -> None:
        self._watched = list(watched)
        self._checked: tuple[weakref.ref[Optimizer], int] | None = None
        self._given: list[Given] = []
        self._handle: Any = None

    def check(self, optimizer: object) -> None:
        """Refuse an optimizer that would not read the factor, or whose parameters are others."""
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"into: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if (
            self._checked is not None
            and self._checked[0]() is optimizer
            and self._checked[1] == _held(optimizer)
        ):
            return
        reads = getattr(optimizer, "_step_supports_amp_scaling", False)
        if not reads or not all(group.get("fused", True) for group in optimizer.param_groups):
            raise ValueError(
                "into: expected an optimizer that reads grad_scale and found_inf (Adam, AdamW, SGD or "
                f"Adagrad with fused=True), got {type(optimizer).__name__} that does not; leave `into` out "
                "to scale the gradients themselves"
            )
        self._check_parameters(optimizer)
        self._checked = weakref.ref(optimizer), _held(optimizer)
        self._listen(optimizer)

    def give(self, optimizer: Optimizer, factor: float | Tensor, found_inf: Tensor) -> None:
        """Have the optimizer's next step multiply gradients by ``factor``, or do nothing.

        Parameters
        ----------
        optimizer : Optimizer
            One that :meth:`check` has passed.
        factor : float or 0-dim tensor
            In (0, 1].
        found_inf : Tensor
            0-dim float32: 1 to skip the step.
        """
        if isinstance(factor, Tensor):
            scale = moved(factor.reciprocal().to(torch.float32), found_inf.device)
        else:
            scale = torch.full((), 1 / factor, dtype=torch.float32, device=found_inf.device)
        vars(optimizer).update(grad_scale=scale, found_inf=found_inf)
        self._given[:] = [(weakref.ref(optimizer), scale, found_inf)]

    def release(self) -> None:
        """Take back what the optimizer has not used up."""
        _take_back(self._given)

    def _check_parameters(self, optimizer: Optimizer) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        watched = {id(p) for p in self._watched}
        if strangers := len(held - watched):
            raise ValueError(
                f"into: expected an optimizer of watched parameters only, got one with {strangers} others, "
                "which it would scale by a norm that leaves them out"
            )
        if missing := sum(p.requires_grad and id(p) not in held for p in self._watched):
            raise ValueError(
                f"into: expected an optimizer of all watched parameters, got one without {missing} of them, "
                "whose gradients nobody would clip"
            )

    def _listen(self, optimizer: Optimizer) -> None:
        """Take the factor back after each step; a factor outlives its fold until the step that it is for."""
        if self._handle is not None:
            self._handle.remove()
        me, given = weakref.ref(self), self._given
        handles: list[Any] = []

        def stepped(*_: Any) -> None:
            _take_back(given)
            if me() is None:
                handles[0].remove()

        self._handle = optimizer.register_step_post_hook(stepped)
        handles.append(self._handle)
        weakref.finalize(self, _remove_unless, given, self._handle)


def _take_back(given: list[Given]) -> None:
    if not given:
        return
    reference, scale, found_inf = given.pop()
    if (optimizer := reference()) is None:
        return
    attributes = vars(optimizer)
    if attributes.get("found_inf") is not found_inf:
        return  # a GradScaler has put its own there, and takes both away itself
    del attributes["found_inf"]
    if attributes.get("grad_scale") is scale:
        del attributes["grad_scale"]


def _remove_unless(given: list[Given], handle: Any) -> None:
    if not given:
        handle.remove()


def _held(optimizer: Optimizer) -> int:
    """Count the parameters of an optimizer."""
    return sum(len(group["params"]) for group in optimizer.param_groups)
