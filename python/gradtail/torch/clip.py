"""The decision to clip, carried out on the gradients or handed to the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from gradtail.torch.fold import Fold
from gradtail.torch.gradients import Gradients
from gradtail.torch.packing import as_int
from gradtail.torch.steplog import StepLog

MARGIN = 1e-6  # added to the norm before dividing, as torch does


@dataclass(frozen=True)
class Clipped:
    """How often ``clip_`` has been called up to a step, and what came of it.

    Attributes
    ----------
    calls, clipped, nonfinite : int
        Calls; those that scaled; those that found a NaN or infinity and scaled nothing.
    factor : float
        Of the newest call: what the gradients were multiplied by; NaN where the norm was not finite.
    max_norm : float
        Of the newest call; NaN before the first.
    """

    calls: int = 0
    clipped: int = 0
    nonfinite: int = 0
    factor: float = math.nan
    max_norm: float = math.nan


class Clip:
    """Scales gradients down to a norm, and counts.

    Parameters
    ----------
    gradients : Gradients
    fold : Fold
        For optimizers that take the factor.
    """

    def __init__(self, gradients: Gradients, fold: Fold) -> None:
        self._gradients = gradients
        self._fold = fold
        self._log: StepLog[Clipped] = StepLog()

    @property
    def counts(self) -> Clipped:
        """Counts up to now."""
        return self._log.newest() or Clipped()

    def apply(self, step: int, norm: float, max_norm: float, into: Optimizer | None) -> bool:
        """Clip; False if the norm is not finite, which leaves the gradients as they are."""
        finite, before = math.isfinite(norm), self.counts
        factor = min(1.0, max_norm / (norm + MARGIN)) if finite else 1.0
        if into is not None:
            skip = torch.full((), float(not finite), dtype=torch.float32, device=self._gradients.device)
            self._fold.give(into, factor, skip)
        elif factor < 1:
            scale(self._gradients.local(), factor)
        clipped = before.clipped + (factor < 1)
        now = Clipped(
            before.calls + 1,
            clipped,
            before.nonfinite + (not finite),
            factor if finite else math.nan,
            max_norm,
        )
        self._log.add(step, now)
        return finite

    def cut(self, last: int) -> None:
        """Forget the calls after step ``last``."""
        self._log.cut(last)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts by step."""
        return self._log.state_dict(lambda c: [c.calls, c.clipped, c.nonfinite, c.factor, c.max_norm])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of another."""
        self._log.load_state_dict(state, _clipped)


def _clipped(values: Sequence[Any]) -> Clipped:
    calls, clipped, nonfinite, factor, max_norm = values
    return Clipped(as_int(calls), as_int(clipped), as_int(nonfinite), float(factor), float(max_norm))


def scale(tensors: list[torch.Tensor], factor: float) -> None:
    """Multiply in place, values of sparse tensors alone."""
    dense = [t._values() if t.is_sparse else t for t in tensors]
    if dense:
        torch._foreach_mul_(dense, factor)
