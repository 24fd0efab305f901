"""The decision to clip, carried out on the gradients or handed to the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradtail.torch.fold import Fold
from gradtail.torch.gradients import Gradients
from gradtail.torch.packing import as_int
from gradtail.torch.scalar import Norm, as_flag, by_kind, is_finite, moved
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


@dataclass(frozen=True)
class Unread:
    """The same, still on the device: ``numbers`` are calls, clipped ones, finite ones, and the ratio."""

    numbers: Tensor
    max_norm: float


class Clip:
    """Scales gradients down to a norm, and counts.

    Parameters
    ----------
    gradients : Gradients
    fold : Fold
        For optimizers that take the factor.

    Notes
    -----
    Of a norm that is a tensor nothing is read: factor, flag and counts are tensors too. The counts are added
    to in place, each step keeps a copy, and copies are read when they are asked for.
    """

    def __init__(self, gradients: Gradients, fold: Fold) -> None:
        self._gradients = gradients
        self._fold = fold
        self._log: StepLog[Clipped | Unread] = StepLog()
        self._live: Tensor | None = None  # the numbers of Unread as they are now
        self._constants: tuple[float, Tensor, Tensor, Tensor] | None = None  # see _on

    @property
    def counts(self) -> Clipped:
        """Counts up to now."""
        newest = self._log.newest()
        if newest is None:
            return Clipped()
        # the live ones where there are any: a CUDA graph adds to them without passing here
        return _read([newest if self._live is None else Unread(self._live, newest.max_norm)])[0]

    def apply(self, step: int, norm: Norm, max_norm: float, into: Optimizer | None) -> None:
        """Clip; a norm that is not finite leaves the gradients as they are."""
        if isinstance(norm, Tensor):
            self._apply_there(step, norm, max_norm, into)
            return
        finite, before = math.isfinite(norm), self.counts
        factor = min(1.0, max_norm / (norm + MARGIN)) if finite else 1.0
        if into is not None:
            self._fold.give(into, factor, as_flag(not finite, self._gradients.device))
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
        self._live = None

    def _apply_there(self, step: int, norm: Tensor, max_norm: float, into: Optimizer | None) -> None:
        """Clip where the norm is, without a look at it."""
        bound, one, true = self._on(norm.device, max_norm)
        live = self._counters(norm.device)
        ratio = torch.div(bound, norm + MARGIN).clamp_(max=1)
        finite = is_finite(norm)
        factor = torch.where(finite, ratio, one)
        live[:3].add_(torch.stack((true, factor < 1, finite)))
        live[3].copy_(ratio)
        if into is not None:
            self._fold.give(into, factor, as_flag(finite.logical_not(), self._gradients.device))
        else:  # always, for nobody knows whether the factor is 1
            scale(self._gradients.local(), factor)
        self._log.add(step, Unread(live.clone(), max_norm))

    def _on(self, device: torch.device, max_norm: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the bound, 1 and True on the device: a copy of numbers of the host's would wait."""
        held = self._constants
        if held is None or held[0] != max_norm or held[1].device != device:
            bound = torch.full((), max_norm, dtype=torch.float64, device=device)
            one = torch.ones((), dtype=torch.float64, device=device)
            held = self._constants = max_norm, bound, one, one > 0
        return held[1:]

    def _counters(self, device: torch.device) -> Tensor:
        """Return the numbers that calls are added to, going on with what was counted so far."""
        if self._live is None or self._live.device != device:
            before = self.counts
            finite = before.calls - before.nonfinite
            start = (float(before.calls), float(before.clipped), float(finite), math.nan)
            full = [torch.full((), value, dtype=torch.float64, device=device) for value in start]
            self._live = torch.stack(full)
        return self._live

    def cut(self, last: int) -> None:
        """Forget the calls after step ``last``."""
        self._log.cut(last)
        self._live = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts by step."""
        read: list[Clipped | Unread] = [*_read(self._log.values)]
        self._log.values = read
        return self._log.state_dict(_plain)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of another."""
        self._log.load_state_dict(state, _clipped)
        self._live = None


def _plain(found: Clipped | Unread) -> list[float]:
    assert isinstance(found, Clipped)
    return [found.calls, found.clipped, found.nonfinite, found.factor, found.max_norm]


def _clipped(values: Sequence[Any]) -> Clipped:
    calls, clipped, nonfinite, factor, max_norm = values
    return Clipped(as_int(calls), as_int(clipped), as_int(nonfinite), float(factor), float(max_norm))


def _read(values: Sequence[Clipped | Unread]) -> list[Clipped]:
    """Read counts off their device, all at once."""
    unread = [value.numbers for value in values if isinstance(value, Unread)]
    if unread:
        home = unread[-1].device
        rows = iter(torch.stack([moved(numbers, home) for numbers in unread]).tolist())
    found = []
    for value in values:
        if isinstance(value, Unread):
            calls, clipped, finite, ratio = next(rows)
            # of an infinite norm the ratio is 0, of one that is NaN it is NaN
            factor = ratio if ratio > 0 else math.nan
            value = Clipped(int(calls), int(clipped), int(calls - finite), factor, value.max_norm)
        found.append(value)
    return found


def scale(tensors: list[Tensor], factor: float | Tensor) -> None:
    """Multiply in place, values of sparse tensors alone.

    A factor that is a tensor is rounded to the dtype of the gradients, as ``clip_grad_norm_`` does: for
    lists torch has no other way that is one launch.
    """
    dense = [t._values() if t.is_sparse else t for t in tensors]
    if isinstance(factor, Tensor):
        for (device, dtype), alike in by_kind(dense).items():
            torch._foreach_mul_(alike, moved(factor, device).to(dtype))
    elif dense:
        torch._foreach_mul_(dense, factor)
