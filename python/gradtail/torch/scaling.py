"""Loss scaling: gradients are observed unscaled, and an overflow is no observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from gradtail.torch.scalar import moved


class Scaling:
    """Unscales by the GradScaler of the loop, at the moment of observation.

    ``GradScaler.step`` makes a pass over the gradients that unscales them, or at least looks for
    infinities, unless ``unscale_`` was called before. The monitor calls it: the pass moves, it does
    not become one more, every statistic is exact whatever the scale, and ``max_norm`` means the true
    norm. A loop that calls ``unscale_`` itself is left to do so.

    Parameters
    ----------
    scaler : torch.amp.GradScaler
    optimizers : sequence of Optimizer
        Those that the scaler steps with the watched gradients.
    """

    def __init__(self, scaler: Any, optimizers: Sequence[Optimizer]) -> None:
        for method in ("unscale_", "get_scale", "is_enabled"):
            if not callable(getattr(scaler, method, None)):
                raise TypeError(f"scaler: expected a torch.amp.GradScaler, got {type(scaler).__name__}")
        if not optimizers:
            raise ValueError("scaler: expected the optimizer to be given with it, got none")
        self._scaler = scaler
        self._optimizers = list(optimizers)

    @property
    def scale(self) -> float:
        """What the gradients that have not been unscaled are multiplied by."""
        return float(self._scaler.get_scale()) if self._scaler.is_enabled() else 1.0

    def unscale(self, only: Optimizer | None = None) -> float | None:
        """Make sure that gradients are unscaled; the scale if the scaler found an overflow.

        Parameters
        ----------
        only : Optimizer, optional
            Gradients of one optimizer.
        """
        if not self._scaler.is_enabled():
            return None
        flags: list[Any] = []
        for optimizer in self._optimizers if only is None else [only]:
            if not any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                continue
            try:
                self._scaler.unscale_(optimizer)
            except RuntimeError as error:
                if "already been called" not in str(error):
                    raise
            # Private, but the only place where the scaler keeps what it found; without it an overflow
            # is a step like any other with non-finite values.
            if (found := getattr(self._scaler, "_found_inf_per_device", None)) is not None:
                flags += found(optimizer).values()
        return self.scale if _any(flags) else None


def _any(flags: list[Any]) -> bool:
    """Whether any flag is set, in one read of all.

    An overflow is not observed, so this must be known now. It is a wait that ``scaler.step`` would make.
    """
    if not flags:
        return False
    home = flags[0].device
    return float(flags[0] if len(flags) == 1 else torch.stack([moved(f, home) for f in flags]).max()) > 0


def unscale_within(scaling: Scaling | None, optimizer: Optimizer) -> float | None:
    """Unscale in the hook of an optimizer's step; the scale if there was an overflow.

    ``GradScaler.step`` leaves it to a fused optimizer to unscale, by a ``grad_scale`` that must then go.

    Raises
    ------
    RuntimeError
        Gradients that are scaled by nobody knows whom.
    """
    attributes = vars(optimizer)
    if scaling is None:
        if attributes.get("grad_scale") is not None:
            raise RuntimeError(
                "scaler: expected the GradScaler to be given, Monitor(..., scaler=scaler), for this "
                "optimizer unscales gradients as it reads them, got none"
            )
        return None
    overflow = scaling.unscale(optimizer)
    if attributes.get("grad_scale") is not None:
        attributes["grad_scale"] = None
    return overflow
