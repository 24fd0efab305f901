"""Sets of step numbers, kept as runs: a training run of any length costs a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """The steps first, first + stride, ..., last."""

    first: int
    last: int
    stride: int

    def __len__(self) -> int:
        return (self.last - self.first) // self.stride + 1

    def count(self, low: int, high: int) -> int:
        """Count the steps from ``low`` to ``high``, both included."""
        first = max(0, -((self.first - low) // self.stride))
        last = min(len(self) - 1, (high - self.first) // self.stride)
        return max(0, last - first + 1)

    def meets(self, other: Run) -> bool:
        """Whether some step lies in both."""
        low, high = max(self.first, other.first), min(self.last, other.last)
        divisor = math.gcd(self.stride, other.stride)
        if low > high or (other.first - self.first) % divisor:
            return False
        # Both are arithmetic progressions: solve for the first step in common (Chinese remainders).
        inverse = pow(self.stride // divisor, -1, other.stride // divisor)
        jump = (other.first - self.first) // divisor * inverse % (other.stride // divisor)
        common, period = self.first + jump * self.stride, math.lcm(self.stride, other.stride)
        return common + max(0, -((common - low) // period)) * period <= high


class StepSet:
    """A set of steps. Adding in rising order at a constant stride takes constant time and memory.

    Examples
    --------
    >>> steps = StepSet([0, 2, 4, 5])
    >>> len(steps), 4 in steps, 3 in steps, steps.last
    (4, True, False, 5)
    """

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self._runs: list[Run] = []
        for step in steps:
            self.add(step)

    @classmethod
    def of(cls, run: Run) -> StepSet:
        """Return the steps of one run."""
        new = cls()
        new._runs = [run]
        return new

    def add(self, step: int) -> None:
        """Add a step above all others; the last one again changes nothing."""
        if self._runs:
            run = self._runs[-1]
            if step == run.last:
                return
            if step < run.last:
                raise ValueError(f"step: expected a number above {run.last}, got {step}")
            if len(run) == 1 or step - run.last == run.stride:
                self._runs[-1] = Run(run.first, step, step - run.last)
                return
            if len(run) == 2 and step - run.last < run.stride:
                # a gap, and then a rhythm: the second step begins the run
                self._runs[-1:] = [Run(run.first, run.first, 1), Run(run.last, step, step - run.last)]
                return
        self._runs.append(Run(step, step, 1))

    def __contains__(self, step: int) -> bool:
        return any(run.count(step, step) for run in self._runs)

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def __iter__(self) -> Iterator[int]:
        for run in self._runs:
            yield from range(run.first, run.last + 1, run.stride)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepSet):
            return NotImplemented
        if self._runs == other._runs:
            return True
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        runs = ", ".join(
            f"{r.first}..{r.last}" + (f" by {r.stride}" if r.stride > 1 else "") for r in self._runs
        )
        return f"StepSet({runs})"

    @property
    def first(self) -> int | None:
        """The smallest step; None of an empty set."""
        return self._runs[0].first if self._runs else None

    @property
    def last(self) -> int | None:
        """The largest step; None of an empty set."""
        return self._runs[-1].last if self._runs else None

    @property
    def runs(self) -> int:
        """Runs that the set is kept as."""
        return len(self._runs)

    def count(self, low: int, high: int) -> int:
        """Count the steps from ``low`` to ``high``, both included."""
        return sum(run.count(low, high) for run in self._runs)

    def meets(self, other: StepSet) -> bool:
        """Whether some step lies in both sets."""
        return any(a.meets(b) for a in self._runs for b in other._runs)

    def union(self, other: StepSet) -> StepSet:
        """Return the steps of either; runs that do not interleave are joined as they are."""
        new = StepSet()
        if self._runs == other._runs:
            new._runs = list(self._runs)
            return new
        overlapping: list[Run] = []
        for run in sorted([*self._runs, *other._runs], key=lambda run: (run.first, run.stride)):
            if overlapping and run.first > max(r.last for r in overlapping):
                new._extend(_joined(overlapping))
                overlapping = []
            overlapping.append(run)
        if overlapping:
            new._extend(_joined(overlapping))
        return new

    def cut(self, last: int) -> StepSet:
        """Return the steps up to ``last``."""
        new = StepSet()
        for run in self._runs:
            if kept := run.count(run.first, last):
                end = run.first + (kept - 1) * run.stride
                new._runs.append(Run(run.first, end, run.stride if kept > 1 else 1))
        return new

    def copy(self) -> StepSet:
        """Return a set of its own."""
        new = StepSet()
        new._runs = list(self._runs)
        return new

    def to_array(self) -> IntArray:
        """Return first, last and stride of each run, shape (runs, 3)."""
        return np.array([(r.first, r.last, r.stride) for r in self._runs], np.int64).reshape(-1, 3)

    @classmethod
    def from_array(cls, runs: npt.NDArray[np.integer]) -> StepSet:
        """Rebuild a set; ValueError if these are not rising runs."""
        new = cls()
        for first, last, stride in np.asarray(runs, np.int64).reshape(-1, 3).tolist():
            before = new.last
            if (
                stride < 1
                or last < first
                or (last - first) % stride
                or (before is not None and first <= before)
            ):
                raise ValueError(f"state: expected rising runs of steps, got {first}..{last} by {stride}")
            new._runs.append(Run(first, last, stride))
        return new

    @property
    def nbytes(self) -> int:
        """Memory, in bytes, about."""
        return 128 * len(self._runs)

    def _extend(self, runs: list[Run]) -> None:
        """Add runs that lie above all steps here, going on with the last run where they fit."""
        head, *rest = runs
        if self._runs:
            last = self._runs[-1]
            stride = head.first - last.last
            if (len(last) == 1 or last.stride == stride) and (len(head) == 1 or head.stride == stride):
                self._runs[-1] = Run(last.first, head.last, stride)
                self._runs += rest
                return
        self._runs += runs


def _joined(runs: list[Run]) -> list[Run]:
    """Join runs whose ranges overlap, sorted by their first step; odd mixtures step by step."""
    done: list[Run] = []
    total = runs[0]
    for run in runs[1:]:
        stride = total.stride if len(total) > 1 else run.stride
        aligned = (run.first - total.first) % stride == 0
        if aligned and run.last <= total.last and run.stride % stride == 0:
            continue  # nothing new
        if run.stride == 1 and len(run) > 1 and run.last >= total.last:
            if before := total.count(total.first, run.first - 1):
                last = total.first + (before - 1) * total.stride
                done.append(Run(total.first, last, total.stride if before > 1 else 1))
            total = run
        elif aligned and (run.stride == stride or len(run) == 1):
            total = Run(total.first, max(total.last, run.last), stride)
        else:
            steps = StepSet()
            for step in sorted({s for some in runs for s in range(some.first, some.last + 1, some.stride)}):
                steps.add(step)
            return steps._runs
    return [*done, total]
