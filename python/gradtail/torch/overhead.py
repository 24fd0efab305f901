"""What a monitor costs, measured while it runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Overhead:
    """Time inside the monitor's calls and, on a GPU, of its passes that have ended.

    Medians and percentiles are over the newest 1024 calls.

    Attributes
    ----------
    calls : int
        Calls so far.
    p50, p99 : float
        Seconds a call; NaN before the first.
    step : float
        Median seconds from one call to the next; NaN before the second.
    share : float
        The part of all the time since the first call that went to the monitor: ``mean / mean_step``.
    mean, mean_step : float
        Average seconds in the monitor and of a step, over all steps that have ended; NaN before the first.
    """

    calls: int
    p50: float
    p99: float
    step: float
    share: float
    mean: float
    mean_step: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


class Stopwatch:
    """Times a ``with`` block, and the period from one to the next."""

    def __init__(self) -> None:
        self._inside: deque[float] = deque(maxlen=1024)
        self._period: deque[float] = deque(maxlen=1024)
        self._calls = 0
        self._total = 0.0
        self._first: float | None = None
        self._entered: float | None = None
        self._before = 0.0  # spent in parts of the call that is to come

    def __enter__(self) -> None:
        now = time.perf_counter()
        if self._entered is None:
            self._first = now
        else:
            self._period.append(now - self._entered)
        self._entered = now

    def __exit__(self, *_: object) -> None:
        assert self._entered is not None
        now = time.perf_counter()
        self._inside.append(now - self._entered + self._before)
        self._before = 0.0
        self._total += self._inside[-1]
        self._calls += 1

    @property
    def newest(self) -> tuple[float, float]:
        """When the newest call began, by the clock, and the seconds that it took."""
        assert self._entered is not None
        return self._entered, self._inside[-1]

    def add(self, extra_seconds: float) -> None:
        """Count time of the device as part of the next call.

        Of passes that ended since the call before: nobody waits for the one that has just begun.
        """
        self._before += extra_seconds

    @contextmanager
    def part(self) -> Iterator[None]:
        """Time a block that belongs to the next call."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._before += time.perf_counter() - started

    def overhead(self) -> Overhead:
        """Summarise what was timed."""
        inside = np.array(self._inside)
        p50, p99 = np.percentile(inside, [50, 99]) if inside.size else (np.nan, np.nan)
        step = float(np.median(self._period)) if self._period else np.nan
        mean = mean_step = np.nan
        if self._period and self._entered is not None and self._first is not None:
            # Up to the newest call and without it: its step has not ended.
            ended = self._calls - 1
            mean, mean_step = (self._total - self._inside[-1]) / ended, (self._entered - self._first) / ended
        return Overhead(
            self._calls, float(p50), float(p99), step, float(mean / mean_step), float(mean), float(mean_step)
        )
