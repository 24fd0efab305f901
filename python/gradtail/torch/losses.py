"""The losses that come with the steps."""

from __future__ import annotations

from torch import Tensor

from gradtail.torch.guard import warn
from gradtail.torch.steplog import StepLog


class Losses:
    """Losses by step, for the time line; a loss that is no number is left out, with one warning."""

    def __init__(self) -> None:
        self.log: StepLog[Tensor | float] = StepLog()
        self._warned = False

    def add(self, step: int, loss: Tensor | float) -> None:
        """Note a loss; one on a GPU stays there until it is read, for reading it now would wait."""
        if not (isinstance(loss, (int, float)) or (isinstance(loss, Tensor) and loss.numel() == 1)):
            if not self._warned:
                self._warned = True
                what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                warn(f"loss: expected a number or a tensor of one, got {what}; it is left out")
            return
        if isinstance(loss, Tensor):
            loss = loss.detach()
            if loss.device.type == "cpu":
                loss = float(loss)
        self.log.add(step, loss)

    def read(self) -> tuple[list[int], list[float]]:
        """Return steps and losses."""
        return list(self.log.steps), [float(value) for value in self.log.values]
