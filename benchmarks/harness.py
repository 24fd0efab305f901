"""The one timer. Every case is measured beside its references, in turns, in one process.

A ratio is the median over rounds of (time of the case / time of the reference in the same round):
the machine's clock and its other tenants then touch both alike.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[], Any]


@dataclass
class Row:
    """One line of the table."""

    group: str
    case: str
    seconds: float  # median
    best: float
    elements: int
    bytes: int
    ratio: float | None  # to the reference of the group
    goal: str = ""
    met: bool | None = None


@dataclass
class Table:
    """What a session measured."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        return row

    def markdown(self) -> str:
        head = ["| what | case | median | best | ns/element | ratio | goal | |", "|---" * 8 + "|"]
        return "\n".join(head + [self._line(row) for row in self.rows]) + "\n"

    @staticmethod
    def _line(row: Row) -> str:
        per = f"{row.seconds / row.elements * 1e9:.2f}" if row.elements else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        met = {None: "", True: "met", False: "**missed**"}[row.met]
        times = f"{_time(row.seconds)} | {_time(row.best)}"
        return f"| {row.group} | {row.case} | {times} | {per} | {ratio} | {row.goal} | {met} |"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def keep_freed_memory() -> None:
    """Tell glibc not to hand large temporaries back: the fair statement of a peer's arithmetic."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
    except OSError:
        pass


def interleaved(
    works: dict[str, Work], rounds: int, warmup: int = 2, inner: int = 1
) -> dict[str, list[float]]:
    """Time each work ``rounds`` times, one after the other within a round; seconds a call."""
    for work in works.values():
        for _ in range(warmup):
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begin = time.perf_counter()
            for _ in range(inner):
                work()
            times[name].append((time.perf_counter() - begin) / inner)
    return times


def compare(
    table: Table,
    group: str,
    works: dict[str, Work],
    *,
    elements: int,
    bytes: int,
    reference: str | None,
    rounds: int = 11,
    warmup: int = 2,
    inner: int = 1,
    goals: dict[str, float] | None = None,
    limits: dict[str, float] | None = None,
) -> dict[str, Row]:
    """Measure ``works`` side by side and add a row for each.

    ``goals`` are largest ratios to the reference, ``limits`` largest seconds.
    """
    times = interleaved(works, rounds, warmup, inner)
    rows = {}
    for name, own in times.items():
        ratio = None
        if reference is not None:
            ratio = statistics.median(a / b for a, b in zip(own, times[reference], strict=True))
        goal, met = "", None
        if goals and name in goals and ratio is not None:
            goal, met = f"ratio <= {goals[name]:g}", ratio <= goals[name]
        if limits and name in limits:
            goal, met = f"<= {_time(limits[name])}", statistics.median(own) <= limits[name]
        row = Row(group, name, statistics.median(own), min(own), elements, bytes, ratio, goal, met)
        rows[name] = table.add(row)
    return rows
