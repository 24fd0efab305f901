"""Observation by the optimizer: a hook that runs before each of its steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

_ATTACHED: weakref.WeakKeyDictionary[Optimizer, list[Attachment]] = weakref.WeakKeyDictionary()


class Attachment:
    """A hook on an optimizer, for a set of parameters.

    Attaching anew for the same optimizer and parameters (a notebook cell that runs twice) takes the
    older hook off, so that nothing is observed twice. The hook does not keep its owner alive. Optimizers
    do not pickle or copy their hooks, so a copy is a free one.

    Parameters
    ----------
    optimizer : Optimizer
    parameters : iterable of int
        ``id`` of the watched parameters.
    call : bound method
        Called with the optimizer before each of its steps.
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[int], call: Callable[[Optimizer], None]
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
        self._key = frozenset(parameters)
        method = weakref.WeakMethod(call)

        def before(stepping: Optimizer, *_: Any) -> None:
            if (alive := method()) is not None:
                alive(stepping)

        others = _ATTACHED.setdefault(optimizer, [])
        for other in [other for other in others if other._key == self._key]:
            other.remove()
        self.optimizer = weakref.ref(optimizer)
        self._handle: Any = optimizer.register_step_pre_hook(before)
        others.append(self)
        weakref.finalize(call.__self__, self.remove)  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Take the hook off; once is enough, twice does no harm."""
        self._handle.remove()
        optimizer = self.optimizer()
        if optimizer is not None and self in (others := _ATTACHED.get(optimizer, [])):
            others.remove(self)
