"""The gradients of micro-batches, out of what they add to the accumulated one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradtail.torch.gradients import Mark, mark_of
from gradtail.torch.packing import as_int
from gradtail.torch.scalar import Norm
from gradtail.torch.steplog import StepLog

FloatArray = npt.NDArray[np.float64]
Parts = Mapping[str, FloatArray]
Closed = tuple[int, FloatArray, FloatArray, list[Parts], Norm]


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return (
            f"MicroRecord(step={self.step}, batches={self.batches}, mean_square={self.mean_square:.4g}, "
            f"sum_square={self.sum_square:.4g}, norm={self.norm:.4g})"
        )


@dataclass(frozen=True, eq=False)
class _Groups:
    """Mean square of the increments and square of their sum, of each group; NaN where one is not there."""

    batches: int
    squares: FloatArray  # shape (groups, 2)


class MicroSteps:
    """The micro-batches of the newest steps: see :attr:`records`.

    Turns sketches of the gradient as it accumulates into those of its increments.

    The sketch is linear, so the sketch of an increment is the difference of two sketches: no gradient is
    copied or kept. Kept are a record a step, the squares of each group at 512 steps, and the sketches of the
    newest step, ``batches * r`` float64.
    """

    def __init__(self) -> None:
        self._log: StepLog[MicroRecord] = StepLog(2048)
        self._groups: StepLog[_Groups] = StepLog(512)
        self._names: list[str] = []  # of the groups, in the order of their squares
        self._increments: FloatArray = np.zeros((0, 0))
        self._open: list[FloatArray] = []
        self._parts: list[Parts] = []  # sketches of the groups of what has accumulated
        self._last: FloatArray | None = None
        self._marks: dict[str, Mark] = {}
        self._writes: int | None = None  # to a gradient, from one micro-step to the next
        self._waiting: Closed | None = None  # the newest step, if its norm has not been read yet

    def __repr__(self) -> str:
        newest = self.log.newest()
        return (
            "MicroSteps(empty)" if newest is None else f"MicroSteps({len(self._log)} steps, newest {newest})"
        )

    @property
    def records(self) -> list[MicroRecord]:
        """A :class:`MicroRecord` a step, oldest first; of more than 2048 steps every second one, or fewer."""
        return list(self.log.values)

    @property
    def log(self) -> StepLog[MicroRecord]:
        """The records with the numbers of their steps: ``.steps``, ``.values``, ``.newest()``."""
        self._read()
        return self._log

    @property
    def increments(self) -> FloatArray:
        """Sketches of the increments of the newest step, shape (batches, r); (0, 0) if there is none."""
        self._read()
        return self._increments

    @property
    def groups(self) -> list[str]:
        """Groups of which :meth:`of_group` knows; none of gradients on a GPU."""
        self._read()
        return list(self._names)

    def of_group(self, group: str) -> list[MicroRecord]:
        """Return the records of a group: its squares in sketches of 128 buckets.

        Parameters
        ----------
        group : str
            A group, or a dotted prefix of several, whose squares add.

        Returns
        -------
        list of MicroRecord
            A step each, oldest first, where any of them had a gradient; of more than 512 every second one, or
            fewer. ``norm`` is NaN.

        Raises
        ------
        ValueError
            No such group with micro-batches.
        """
        self._read()
        chosen = [i for i, name in enumerate(self._names) if name == group]
        chosen = chosen or [i for i, name in enumerate(self._names) if name.startswith(f"{group}.")]
        if not chosen:
            raise ValueError(f"group: expected a group of which micro-batches were seen, got {group!r}")
        found = []
        for step, one in zip(self._groups.steps, self._groups.values, strict=True):
            some = one.squares[[i for i in chosen if i < len(one.squares)]]
            if not np.isnan(some[:, 0]).all():
                mean, total = np.nansum(some, axis=0).tolist()
                found.append(MicroRecord(step, one.batches, mean, total, math.nan))
        return found

    def add(self, sketch: FloatArray, parts: Parts | None = None) -> None:
        """Note the sketch of the gradient accumulated so far, shape (r,), and of its groups."""
        self._read()  # whoever has a sketch in hand has waited
        self._open.append(sketch if self._last is None else sketch - self._last)
        self._last = sketch
        self._parts.append(parts or {})

    def follow(self, gradients: Mapping[str, Tensor]) -> None:
        """Look at the gradients before :meth:`add`: a sum that was begun anew leaves out what came before.

        Notes
        -----
        Gradients set to None come back as other tensors. Those zeroed in place were written to once more
        than from one micro-step to the next, of which the least number so far stands for what is usual.
        """
        if self._open:
            known = [(g, mark) for name, g in gradients.items() if (mark := self._marks.get(name))]
            writes = min((g._version - version for g, (seen, version) in known if seen() is g), default=None)
            least = self._writes
            if not self._is_same(gradients) or (writes is not None and least is not None and writes > least):
                self.drop()
            elif writes is not None:
                self._writes = writes if least is None else min(writes, least)
        self._marks = {name: mark_of(g) for name, g in gradients.items()}

    def _is_same(self, gradients: Mapping[str, Tensor]) -> bool:
        """Whether these are the tensors that the open increments were added to."""
        for name, (seen, _) in self._marks.items():
            g = gradients.get(name)
            # backward with create_graph adds into a new tensor
            if g is None or (g is not seen() and not g.requires_grad):
                return False
        return True

    def close(self, step: int, norm: Norm, gradients: Mapping[str, Tensor]) -> None:
        """End the step; one without a finite norm leaves no record, nor do increments of other gradients.

        A norm that is a tensor is read with the next sketch, or when records are asked for.
        """
        if self._open and not self._is_same(gradients):
            self.drop()
        if not self._open:
            return
        assert self._last is not None
        self._read()
        self._waiting = step, np.stack(self._open), self._last, self._parts, norm
        self.drop()
        if not isinstance(norm, Tensor):
            self._read()

    def _read(self) -> None:
        """Make a record of the step that waits for its norm."""
        if self._waiting is None:
            return
        step, increments, total, parts, found = self._waiting
        self._waiting, norm = None, float(found)
        if not np.isfinite(norm):
            return
        self._increments = increments
        mean_square = float(np.mean(np.sum(increments**2, axis=1)))
        self._log.add(step, MicroRecord(step, len(increments), mean_square, float(total @ total), norm))
        self._add_groups(step, parts)

    def _add_groups(self, step: int, parts: list[Parts]) -> None:
        if not parts[-1]:
            return
        self._names += [name for name in parts[-1] if name not in self._names]
        squares = np.full((len(self._names), 2), np.nan)
        for name, total in parts[-1].items():
            sums = np.array([some.get(name, np.zeros_like(total)) for some in parts])
            increments = np.diff(sums, axis=0, prepend=0.0)
            mean = float(np.mean(np.sum(increments**2, axis=1)))
            squares[self._names.index(name)] = mean, float(total @ total)
        self._groups.add(step, _Groups(len(parts), squares))

    def drop(self) -> None:
        """Forget the increments of a step that is not to count."""
        self._open, self._parts, self._last, self._marks = [], [], None, {}

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        self.drop()
        newest = self.log.newest()
        self._log.cut(last)
        self._groups.cut(last)
        if self._log.newest() is not newest:
            self._increments = np.zeros((0, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the records and the newest increments."""
        return {
            "log": self.log.state_dict(lambda r: list(astuple(r))),
            "increments": self._increments,
            "names": list(self._names),
            "groups": self._groups.state_dict(lambda one: [one.batches, one.squares]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another knew."""
        increments = np.asarray(state["increments"], np.float64)
        if increments.ndim != 2:
            raise ValueError(f"state: expected increments of 2 axes, got shape {increments.shape}")
        names, groups = [str(name) for name in state.get("names", [])], StepLog[_Groups](512)
        if "groups" in state:
            groups.load_state_dict(state["groups"], _groups)
        self._log.load_state_dict(state["log"], _record)
        self._names, self._groups = names, groups
        self._waiting = None
        self.drop()
        self._increments = increments


def _record(values: Sequence[Any]) -> MicroRecord:
    step, batches, *squares = values
    mean, total, norm = map(float, squares)
    return MicroRecord(as_int(step), as_int(batches), mean, total, norm)


def _groups(values: Sequence[Any]) -> _Groups:
    batches, squares = values
    found = np.asarray(squares, np.float64)
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f"state: expected squares of groups, two each, got shape {found.shape}")
    return _Groups(as_int(batches), found)
