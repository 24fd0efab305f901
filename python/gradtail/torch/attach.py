"""Observation by the optimizer: a hook that runs before each of its steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class Attachment:
    """A hook on an optimizer.

    The hook does not keep its owner alive, and goes with it: a monitor that a notebook cell makes anew under
    the same name leaves nothing behind. Optimizers do not pickle or copy their hooks: a copy is a free one.

    Parameters
    ----------
    optimizer : Optimizer
    call : bound method
        Called with the optimizer before each of its steps.
    """

    def __init__(self, optimizer: Optimizer, call: Callable[[Optimizer], None]) -> None:
        method = weakref.WeakMethod(call)

        def before(stepping: Optimizer, *_: Any) -> None:
            if (alive := method()) is not None:
                alive(stepping)

        self.optimizer = weakref.ref(optimizer)
        self._handle: Any = optimizer.register_step_pre_hook(before)
        weakref.finalize(call.__self__, self.remove)  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Take the hook off; once is enough, twice does no harm."""
        self._handle.remove()
