"""Timers for work on a GPU: what the device takes, and what the host takes to enqueue it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Work = Callable[[], Any]

FLUSH_BYTES = 256 << 20  # more than the second-level cache of any GPU today


class Deadline:
    """Time that is left for all of the figures; each measurement asks for its share."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def until(self, share: float) -> float:
        """Return the moment at which a measurement with this share of what is left should end."""
        return time.monotonic() + max(share * self.left(), 2.0)


def sleep(seconds: float) -> None:
    """Keep the device busy, so that the host has enqueued all of what is timed before it begins."""
    cycles = int(seconds * 2e9)  # about that long, or longer
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def new_event(*, timing: bool = True) -> Any:
    """Make an event of torch's."""
    return torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]


def seconds_on_device(
    works: Mapping[str, Work],
    *,
    rounds: int,
    flush: bool = False,
    ahead: float = 0.005,
    until: float = np.inf,
) -> dict[str, list[float]]:
    """Time works in turns by CUDA events; seconds by work, one for each round.

    Parameters
    ----------
    works : mapping of str to callable
        What each enqueues is timed from its first to its last operation on the current stream.
    rounds : int
        At most; fewer if the clock passes ``until``, but three at least.
    flush : bool
        Write to a large buffer before each work, so that it finds nothing in the cache.
    ahead : float
        Seconds that the device is kept busy before each work: more than the host takes to enqueue it.
    until : float
        By ``time.monotonic()``.

    Notes
    -----
    The device is idle before each round of a work, so that work enqueued earlier takes no part.
    """
    scratch = torch.empty(FLUSH_BYTES if flush else 0, dtype=torch.uint8, device="cuda")
    for work in works.values():
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    found: dict[str, list[float]] = {name: [] for name in works}
    for done in range(rounds):
        if done >= 3 and time.monotonic() > until:
            break
        for name, work in works.items():
            begin, end = new_event(), new_event()
            torch.cuda.synchronize()
            if flush:
                scratch.zero_()
            sleep(ahead)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            found[name].append(1e-3 * begin.elapsed_time(end))
    return found


def seconds_on_host(work: Work, *, calls: int, until: float = np.inf) -> list[float]:
    """Time what each call takes on the host; the device has nothing to do when it begins."""
    for _ in range(20):
        work()
    found = []
    for done in range(calls):
        if done >= 100 and time.monotonic() > until:
            break
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    torch.cuda.synchronize()
    return found


def waits(work: Work, calls: int = 4) -> int:
    """Count the calls after which a busy device was not busy any more: they have waited for it."""
    waited = 0
    for _ in range(calls):
        torch.cuda.synchronize()
        sleep(0.3)
        event = new_event(timing=False)
        event.record()
        work()
        waited += bool(event.query())
        torch.cuda.synchronize()
    return waited


def ratio(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Median over rounds of one time over the other of the same round."""
    median: float = statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))
    return median


def ratio_error(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Half the width of the middle two thirds of those ratios, over the root of the rounds."""
    ratios = [a / b for a, b in zip(times[name], times[reference], strict=True)]
    low, high = np.quantile(ratios, [1 / 6, 5 / 6])
    return float(high - low) / (2 * math.sqrt(len(ratios)))


def say(seconds: float) -> str:
    """Write a time for people."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return p50, p99 and p99.9."""
    p50, p99, p999 = np.percentile(seconds, [50, 99, 99.9])
    return float(p50), float(p99), float(p999)
