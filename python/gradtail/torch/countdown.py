"""How far a long piece of work is, and when it will be done, on the standard error stream."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_LINES = 10  # where there is no terminal
_EVERY = 0.2  # seconds, where there is one


class Countdown:
    """Says ``12/400, 0:31 left`` on one line that is rewritten, or on a few lines where it cannot be.

    Parameters
    ----------
    label : str
    total : int
        Pieces of work.
    shown : bool, optional
        None shows it on a terminal alone.
    """

    def __init__(self, label: str, total: int, shown: bool | None = None) -> None:
        self._label, self._total, self._done, self._before = label, total, 0, 0
        self._stream: TextIO = sys.stderr
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._shown = self._terminal if shown is None else shown
        self._began = self._last = time.perf_counter()
        self._written = False

    def __enter__(self) -> Countdown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._terminal and self._written:
            self._stream.write("\n")

    def skip(self, pieces: int) -> None:
        """Count pieces that were done earlier, and took none of this time."""
        self._done, self._before = self._done + pieces, self._before + pieces

    def busy(self, what: str) -> None:
        """Say on a terminal what goes on before the next piece is done."""
        if self._shown and self._terminal:
            now = time.perf_counter()
            self._rewrite(f"{self._label}: {self._done}/{self._total}, {what}", now)

    def advance(self) -> None:
        """Count one piece."""
        self._done += 1
        if not self._shown:
            return
        now, last = time.perf_counter(), self._done == self._total
        if self._terminal:
            self._rewrite(self.text(now), now, last)
        elif last or self._done * _LINES // self._total > (self._done - 1) * _LINES // self._total:
            self._stream.write(f"{self.text(now)}\n")
            self._stream.flush()

    def _rewrite(self, text: str, now: float, always: bool = False) -> None:
        if always or now - self._last >= _EVERY:
            self._stream.write(f"\r{text}\x1b[K")
            self._stream.flush()
            self._last, self._written = now, True

    def text(self, now: float) -> str:
        """Say how far it is."""
        if self._done == self._total:
            return f"{self._label}: {self._total} done in {clock(now - self._began)}"
        left = (now - self._began) / max(self._done - self._before, 1) * (self._total - self._done)
        return f"{self._label}: {self._done}/{self._total}, {clock(left)} left"


def announce(text: str, shown: bool | None = None) -> None:
    """Say a line before a long piece of work; None says it on a terminal alone."""
    if shown or (shown is None and bool(getattr(sys.stderr, "isatty", lambda: False)())):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> clock(7.4), clock(125), clock(7325)
    ('0:07', '2:05', '2:02:05')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
