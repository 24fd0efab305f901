"""A bounded list of what happened at which step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

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

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, value: V) -> None:
        """Append; what the newest step holds already is replaced."""
        if self.steps and self.steps[-1] == step:
            self.values[-1] = value
            return
        if len(self) >= self._most:
            del self.steps[1::2], self.values[1::2]
        self.steps.append(step)
        self.values.append(value)

    def newest(self) -> V | None:
        """Return the newest value; None if there is none."""
        return self.values[-1] if self.values else None

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        kept = sum(step <= last for step in self.steps)
        del self.steps[kept:], self.values[kept:]

    def state_dict(self, plain: Callable[[V], Any] | None = None) -> dict[str, list[Any]]:
        """Return steps and values, each made plain by ``plain``."""
        values = [value if plain is None else plain(value) for value in self.values]
        return {"steps": list(self.steps), "values": values}

    def load_state_dict(self, state: Mapping[str, list[Any]], made: Callable[[Any], V] | None = None) -> None:
        """Take over what :meth:`state_dict` gave, each value made by ``made``."""
        values = [value if made is None else made(value) for value in state["values"]]
        self.steps, self.values = [int(step) for step in state["steps"]], values
