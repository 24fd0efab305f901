"""What there is to show while the demo trains, and the plain lines for where there is no terminal."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from gradtail.estimators import TailEstimate, hill
from gradtail.experiments.training import Step
from gradtail.stream import GradientStream
from gradtail.torch import Monitor

SHOWN = 5
ENOUGH = 1000
"""Nonzero values from which on the tail of one step says something; norms have fewer."""


@dataclass(frozen=True)
class Status:
    """The state of a run after a step."""

    done: int
    steps: int
    loss: float
    norm: float
    tokens_per_second: float
    nonfinite: int
    overhead: float
    seconds: float


@dataclass(frozen=True)
class LayerTail:
    """The tail of one layer's gradient in the newest step."""

    name: str
    estimate: TailEstimate


class View(Protocol):
    """Shows a run; a context manager around the training loop."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, status: Status) -> None:
        """Show the state after a step."""


class Tracker:
    """Makes a :class:`Status` of every step."""

    def __init__(self, monitor: Monitor, steps: int) -> None:
        self._monitor = monitor
        self._steps = steps
        self._recent: deque[float] = deque(maxlen=20)
        self._nonfinite = 0
        self._started = time.perf_counter()

    def after(self, step: Step) -> Status:
        """Return the state of the run after ``step``."""
        self._recent.append(step.seconds)
        self._nonfinite += self._monitor.stream.nonfinite() if self._monitor.enabled else 0
        return Status(
            done=step.number + 1,
            steps=self._steps,
            loss=step.loss,
            norm=step.norm,
            tokens_per_second=step.tokens / statistics.median(self._recent),
            nonfinite=self._nonfinite,
            overhead=self._monitor.overhead.share,
            seconds=time.perf_counter() - self._started,
        )


def heaviest_tails(stream: GradientStream, most: int = SHOWN) -> list[LayerTail]:
    """Rank the layers by the tail of their newest gradient, heaviest first.

    Ordered by the upper end of the iid interval. Tails whose alpha slides with k have no index and
    come after those that have one; layers with fewer than 1000 nonzero values are left out.
    """
    found = []
    for name in stream.names:
        newest = stream.summary(name, "newest")
        if newest.count - newest.zeros >= ENOUGH:
            found.append(LayerTail(name, hill(newest)))
    found.sort(key=lambda layer: (layer.estimate.plateau is False, layer.estimate.ci(0.95)[1]))
    return found[:most]


def percent(share: float) -> str:
    """Write a share as a percentage; a question mark where it is not known."""
    return "?" if math.isnan(share) else f"{100 * share:.1f} %"


class PlainView:
    """A line every few steps, for logs and pipes: no control codes."""

    def __init__(self, steps: int, *, lines: int = 20, write: Callable[[str], None] | None = None) -> None:
        self._every = max(1, steps // lines)
        self._write = write if write is not None else lambda line: print(line, flush=True)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, status: Status) -> None:
        """Write a line if it is time for one."""
        if status.done not in (1, status.steps) and status.done % self._every:
            return
        width = len(str(status.steps))
        self._write(
            f"step {status.done:{width}}/{status.steps}  loss {status.loss:.3f}  norm {status.norm:.3g}  "
            f"{status.tokens_per_second:,.0f} tokens/s  non-finite {status.nonfinite}  "
            f"overhead {percent(status.overhead)}{self._left(status)}"
        )

    @staticmethod
    def _left(status: Status) -> str:
        if status.done == status.steps:
            return ""
        left = round(status.seconds / status.done * (status.steps - status.done))
        return f"  {left // 60}:{left % 60:02} left"
