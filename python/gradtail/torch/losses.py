"""The losses and accuracies that come with the steps."""

from __future__ import annotations

import reprlib
from numbers import Real

import numpy as np
from torch import Tensor

from gradtail.torch.guard import warn
from gradtail.torch.steplog import StepLog


class Losses:
    """Losses by step, for the time line; a loss that is no number is left out, with one warning.

    Parameters
    ----------
    name : str
        What they are called there, if they are something else.
    """

    def __init__(self, name: str = "loss") -> None:
        self._name = name
        self.log: StepLog[Tensor | float] = StepLog()
        self._warned = False

    def accept(self, loss: object) -> Tensor | float | None:
        """Return a loss as it is kept, None if it is none.

        One on a GPU is copied and stays there until it is read, for reading it now would wait; the loop may
        write to its own.
        """
        if loss is None:
            return None
        if isinstance(loss, Tensor):
            if loss.numel() == 1 and not loss.is_complex() and not loss.is_meta:
                return float(loss.detach()) if loss.device.type == "cpu" else loss.detach().clone()
        else:
            value = loss.item() if isinstance(loss, (np.ndarray, np.generic)) and loss.size == 1 else loss
            if isinstance(value, Real):
                return float(value)
        if not self._warned:
            self._warned = True
            warn(f"{self._name}: expected a number or a tensor of one, got {_shown(loss)}; it is left out")
        return None

    def add(self, step: int, loss: Tensor | float) -> None:
        """Note a loss that was accepted."""
        self.log.add(step, loss)

    def read(self) -> tuple[list[int], list[float]]:
        """Return steps and losses."""
        return list(self.log.steps), [float(value) for value in self.log.values]


def _shown(loss: object) -> str:
    if not isinstance(loss, (Tensor, np.ndarray)):
        return reprlib.repr(loss)
    kind = "a tensor" if isinstance(loss, Tensor) else "an array"
    dtype = str(loss.dtype).removeprefix("torch.")
    return f"{kind} of shape {tuple(loss.shape)} and dtype {dtype}"
