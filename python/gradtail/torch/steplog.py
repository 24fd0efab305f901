"""A bounded list of what happened at which step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from gradtail.torch.packing import as_int

V = TypeVar("V")


class StepLog(Generic[V]):
    """One value a step, thinned out as it grows, cut when training goes back.

    Parameters
    ----------
    most : int
        Entries kept at most; when there are more, every second one is dropped.

    Examples
    --------
    >>> log = StepLog(4)
    >>> for step in range(6):
    ...     log.add(step, step * step)
    >>> log.cut(4)
    >>> log.steps, log.values
    ([0, 2, 4], [0, 4, 16])
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self.steps: list[int] = []
        self.values: list[V] = []
        self._counts: list[int] = []  # of each entry: how many there have been up to it

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        if not self.steps:
            return "StepLog(empty)"
        return f"StepLog({len(self)} steps up to {self.steps[-1]}, newest {self.values[-1]!r})"

    @property
    def total(self) -> int:
        """Steps that were added, those dropped since among them.

        Of a log that was cut it is the number up to the newest entry left, which leaves out those that were
        dropped after it.
        """
        return self._counts[-1] if self._counts else 0

    def add(self, step: int, value: V, *, missed: int = 0) -> None:
        """Append; what the newest step holds already is replaced.

        Parameters
        ----------
        step : int
        value : object
        missed : int
            Steps between the newest one and this that are counted and not kept.
        """
        if self.steps and self.steps[-1] == step:
            self.values[-1] = value
            return
        total = self.total
        if len(self) >= self._most:
            del self.steps[1::2], self.values[1::2], self._counts[1::2]
        self.steps.append(step)
        self.values.append(value)
        self._counts.append(total + missed + 1)

    def newest(self) -> V | None:
        """Return the newest value; None if there is none."""
        return self.values[-1] if self.values else None

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        kept = sum(step <= last for step in self.steps)
        del self.steps[kept:], self.values[kept:], self._counts[kept:]

    def state_dict(self, plain: Callable[[V], Any] | None = None) -> dict[str, list[Any]]:
        """Return steps, values, each made plain by ``plain``, and counts."""
        values = [value if plain is None else plain(value) for value in self.values]
        return {"steps": list(self.steps), "values": values, "counts": list(self._counts)}

    def load_state_dict(self, state: Mapping[str, list[Any]], made: Callable[[Any], V] | None = None) -> None:
        """Take over what :meth:`state_dict` gave, each value made by ``made``.

        Raises
        ------
        KeyError, TypeError, ValueError
            Not such a state; nothing has changed then.
        """
        steps, counts = ([as_int(n) for n in state[key]] for key in ("steps", "counts"))
        values = [value if made is None else made(value) for value in state["values"]]
        if not len(steps) == len(values) == len(counts):
            raise ValueError(
                "state: expected a value and a count for each step, "
                f"got {len(steps)} steps, {len(values)} values and {len(counts)} counts"
            )
        for what, numbers in (("steps", steps), ("counts", counts)):
            if any(a >= b for a, b in itertools.pairwise(numbers)):
                raise ValueError(f"state: expected {what} that rise, got {numbers[:3]}, ...")
        self.steps, self.values, self._counts = steps, values, counts
