"""Ctrl-C as a request to stop after this step, not as an exception in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupts:
    """Counts Ctrl-C while a ``with`` block runs.

    An exception in the middle of a step could leave the statistics of half a step behind, so the
    loop asks for :attr:`stopped` between steps. Once :meth:`finishing` was called, the second Ctrl-C
    of all raises KeyboardInterrupt. Before that, any number of them counts as one: some shells and
    launchers deliver each twice.
    """

    def __init__(self) -> None:
        self._stopped = False
        self._finishing = False
        self._installed = False
        self._outer: Interrupts | None = None

    @property
    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed, here or in a block around this one."""
        return self._stopped or (self._outer is not None and self._outer.stopped)

    def __enter__(self) -> Interrupts:
        # Another handler, or none as for a background job, is somebody's wish; and only the main
        # thread may set one.
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._pressed)
            self._installed = True
        outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
        self._outer = outer if isinstance(outer, Interrupts) and outer is not self else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def finishing(self) -> None:
        """Say that what remains may be given up."""
        self._finishing = True

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._finishing and self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
