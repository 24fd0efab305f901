"""The steps that changed nothing, some of which are known by then and some only once they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gradtail.torch.packing import as_int
from gradtail.torch.steplog import StepLog

MOST = 4096
"""Steps that wait to be read; of those before the oldest of them only the number of skipped ones is kept."""


@dataclass(frozen=True)
class Skipped:
    """A step that changed no parameter, because of a NaN or infinity.

    Attributes
    ----------
    step : int
    reason : str
        "overflow" of a GradScaler, or "found_inf" handed to the optimizer.
    name : str or None
        The first parameter with such a value; None if it lies on another rank or is not watched. Where
        nobody waits for the numbers of a step (gradients on a GPU) it is known only of a "found_inf" that is
        the first step with such a value in the run.
    index : int or None
        The first such element, in C order, of the whole parameter.
    scale : float
        Of the loss.
    """

    step: int
    reason: str
    name: str | None
    index: int | None
    scale: float


Locate = Callable[[int], tuple[str, int] | None]


class Skips:
    """Notes skipped steps, and steps of which a flag on the device says whether they were skipped.

    Flags are read when the log is asked for, never when they are noted.

    Parameters
    ----------
    locate : callable
        Of a step: name and index of its first non-finite value, or None.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._log: StepLog[Skipped] = StepLog()
        self._waiting: list[tuple[int, Tensor | Skipped]] = []
        self._dropped: Tensor | None = None  # how many of the steps that waited for too long were skipped
        self._missed = 0  # of those, the ones counted by now that go with the next entry

    @property
    def newest(self) -> int | None:
        """The newest step that was noted, skipped or waiting."""
        if self._waiting:
            return self._waiting[-1][0]
        return self._log.steps[-1] if self._log.steps else None

    def add(self, skipped: Skipped) -> None:
        """Note a step that was skipped."""
        if self._waiting:  # the log takes steps in their order
            self._waiting.append((skipped.step, skipped))
        else:
            self._log.add(skipped.step, skipped)

    def wait(self, step: int, flag: Tensor) -> None:
        """Note a step that was skipped if ``flag`` (0-dim, 0 or 1, not written to again) is 1."""
        self._waiting.append((step, flag))
        if len(self._waiting) > MOST:
            self._drop(len(self._waiting) // 2)

    def read(self) -> StepLog[Skipped]:
        """Return the skipped steps, having waited for those that are not known yet."""
        if self._dropped is not None:
            self._missed, self._dropped = self._missed + int(self._dropped), None
        bad = iter(_flags([flag for _, flag in self._waiting if isinstance(flag, Tensor)]))
        for step, found in self._waiting:
            if isinstance(found, Tensor):
                if not next(bad):
                    continue
                name, index = self._locate(step) or (None, None)
                found = Skipped(step, "found_inf", name, index, 1.0)
            self._log.add(step, found, missed=self._missed)
            self._missed = 0
        self._waiting.clear()
        return self._log

    @property
    def total(self) -> int:
        """Skipped steps, those among them that are no longer listed."""
        return self.read().total + self._missed

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        self.read().cut(last)
        self._missed = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the skipped steps."""
        return {**self.read().state_dict(asdict), "missed": self._missed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over those of another."""
        missed = as_int(state.get("missed", 0))
        self._log.load_state_dict(state, lambda entry: Skipped(**entry))
        self._waiting, self._dropped, self._missed = [], None, missed

    def _drop(self, many: int) -> None:
        """Keep of the oldest that wait no more than the number of those that were skipped."""
        oldest, self._waiting = self._waiting[:many], self._waiting[many:]
        flags = [flag for _, flag in oldest if isinstance(flag, Tensor)]
        known = len(oldest) - len(flags)
        if flags:
            home = flags[-1].device
            count = torch.stack([flag.to(home, non_blocking=True) for flag in flags]).count_nonzero() + known
            self._dropped = count if self._dropped is None else self._dropped.to(home) + count


def _flags(flags: list[Tensor]) -> list[bool]:
    """Read flags, those of one device at once."""
    if not flags:
        return []
    home = flags[-1].device
    return [bool(value) for value in torch.stack([flag.to(home) for flag in flags]).tolist()]
