"""The gradients of micro-batches, out of what they add to the accumulated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.torch.steplog import StepLog

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MicroRecord:
    """The micro-batches of one optimizer step.

    Attributes
    ----------
    step : int
    batches : int
        Micro-batches.
    mean_square : float
        Mean of the squared norms of their increments, as sketched.
    sum_square : float
        Squared norm of the sum of the increments, as sketched by the same map.
    norm : float
        Exact norm of that sum, which is the gradient of the step; NaN if it is not known.

    Notes
    -----
    An increment is what one ``backward`` adds to ``.grad``: the micro-batch's gradient times whatever its
    loss was multiplied by (1 / batches, as a rule), loss scaling taken off. Of sharded gradients these are
    the numbers of the shards of this rank; both squares add over ranks.
    """

    step: int
    batches: int
    mean_square: float
    sum_square: float
    norm: float


class MicroSteps:
    """Turns sketches of the gradient as it accumulates into those of its increments.

    The sketch is linear, so the sketch of an increment is the difference of two sketches: no gradient is
    copied or kept. Kept are a record a step and the sketches of the newest step, ``batches * r`` float64.
    """

    def __init__(self) -> None:
        self.log: StepLog[MicroRecord] = StepLog(2048)
        self.increments: FloatArray = np.zeros((0, 0))
        self._open: list[FloatArray] = []
        self._last: FloatArray | None = None

    def add(self, sketch: FloatArray) -> None:
        """Note the sketch of the gradient accumulated so far, shape (r,)."""
        self._open.append(sketch if self._last is None else sketch - self._last)
        self._last = sketch

    def close(self, step: int, norm: float) -> None:
        """End the step; one without a finite norm leaves no record."""
        if not self._open:
            return
        assert self._last is not None
        increments = np.stack(self._open)
        total = self._last
        self.drop()
        if not np.isfinite(norm):
            return
        self.increments = increments
        mean_square = float(np.mean(np.sum(increments**2, axis=1)))
        self.log.add(step, MicroRecord(step, len(increments), mean_square, float(total @ total), norm))

    def drop(self) -> None:
        """Forget the increments of a step that is not to count."""
        self._open, self._last = [], None

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        self.drop()
        newest = self.log.newest()
        self.log.cut(last)
        if self.log.newest() is not newest:
            self.increments = np.zeros((0, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the records and the newest increments."""
        return {"log": self.log.state_dict(lambda r: list(astuple(r))), "increments": self.increments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another knew."""
        self.drop()
        self.log.load_state_dict(state["log"], lambda r: MicroRecord(*r))
        self.increments = np.asarray(state["increments"], np.float64)
