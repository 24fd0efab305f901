"""How often the monitor observes: as often as asked, or as often as a bound on its cost allows."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from gradtail.torch.packing import as_int
from gradtail.torch.steplog import StepLog

ENOUGH = 8
"""Observed steps whose median share decides."""

_ROOM = 0.7  # of the bound: what twice the cost must fit into before the cadence is raised again
_SLOWEST = 2**20  # times the cadence asked for


class Cadence:
    """Says whose turn it is, and doubles the distance between observed steps while they cost too much.

    Parameters
    ----------
    every : int
        Observed are the steps whose number is a multiple, at most.
    bound : float, optional
        Share of the time that the monitor may take: then ``every`` is doubled and halved as needed.

    Attributes
    ----------
    base, every : int
        What was asked for, and what holds now: ``base`` times a power of two.
    changes : StepLog of int
        ``every`` from the step on at which it came to hold; the first entry is the first step.
    """

    def __init__(self, every: int, bound: float | None = None) -> None:
        self.base = self.every = every
        self.bound = bound
        self.changes: StepLog[int] = StepLog()
        self._most = every * _SLOWEST
        self._next = every
        self._asked: tuple[int, bool] | None = None  # the newest number, and whether it was due
        self._missed = 0  # steps in a row that were not due
        self._open: tuple[int, float, float] | None = None  # observed step, its beginning, its cost so far
        self._shares: deque[float] = deque(maxlen=ENOUGH)

    def __repr__(self) -> str:
        return f"Cadence({self})"

    def __str__(self) -> str:
        """Say it as the arguments of a monitor."""
        if self.bound is None:
            return f"every={self.every}"
        return f"every={self.every}, given {self.base} and max_overhead={self.bound:g}"

    @property
    def is_plain(self) -> bool:
        """Whether every step is observed, come what may."""
        return self.base == 1 and self.bound is None

    @property
    def told(self) -> str | None:
        """The course of the cadence in words; None if it is as asked."""
        spans = list(zip(self.changes.steps, self.changes.values, strict=True))
        if len(spans) < 2:
            return None
        (_, first), *later = spans
        shown = [f"{_words(every)} from step {step} on" for step, every in later[-_TOLD:]]
        if len(later) > _TOLD:
            shown[0] = f"{len(later) - _TOLD} changes, then {shown[0]}"
        why = "" if self.bound is None else f", to keep within max_overhead={self.bound:g}"
        return f"observed: {', '.join([_words(first), *shown])}{why}"

    def is_due(self, number: int) -> bool:
        """Whether a step is to be observed. A change takes hold with the first question about a new number.

        All parts of a step (micro-batches, gradients seen in backward, several optimizers) get one answer.
        """
        if self._asked is not None and number <= self._asked[0]:
            return self._asked[1] if number == self._asked[0] else number % self.every == 0
        self.every = self._next
        if self.changes.newest() != self.every:
            self.changes.add(number, self.every)
        due = number % self.every == 0
        self._asked = number, due
        self._missed = 0 if due else self._missed + 1
        if self._missed >= 2 * self.every > 2 * self.base:
            # The loop's own numbers (odd ones, say) meet no multiple: as often as before, and no rarer again.
            self._turn_to(self.every // 2)
            self._most = self._next
        return due

    def note(self, number: int, observed: bool, entered: float, seconds: float) -> None:
        """Note a call of the monitor.

        Parameters
        ----------
        number : int
            Of the step.
        observed : bool
            Whether a pass was made.
        entered, seconds : float
            When the call began, by the clock, and what it took. Of steps between two observed ones this is
            next to nothing; the norm that ``clip_`` takes of them is no part of it, for without a monitor
            ``clip_grad_norm_`` would take it.
        """
        if self.bound is None:
            return
        if not observed or (self._open is not None and self._open[0] == number):
            if self._open is not None:
                step, begun, cost = self._open
                self._open = step, begun, cost + seconds
            return
        if self._open is not None and entered > self._open[1]:
            _, begun, cost = self._open
            self._shares.append(cost / (entered - begun))
            self._decide()
        if self._next == self.every:  # else the next period is neither of this cadence nor of the next one
            self._open = number, entered, seconds

    def _decide(self) -> None:
        if self.bound is None or len(self._shares) < ENOUGH or self._next != self.every:
            return
        share = statistics.median(self._shares)  # one slow step changes nothing
        if share > self.bound and 2 * self.every <= self._most:
            self._turn_to(2 * self.every)
        elif self.every > self.base and 2 * share < _ROOM * self.bound:
            self._turn_to(self.every // 2)

    def _turn_to(self, every: int) -> None:
        self._next = every
        self._missed = 0
        self._open = None
        self._shares.clear()

    def cut(self, last: int) -> None:
        """Forget what came after step ``last``."""
        self.changes.cut(last)
        self._asked = None
        self._turn_to(self._next)

    def state_dict(self) -> dict[str, Any]:
        """Return the cadence and its course."""
        return {"every": self._next, "changes": self.changes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on with the cadence of another, if that is free here and fits; its course is taken over."""
        changes: StepLog[int] = StepLog()
        every = self.base
        if state is not None:
            changes.load_state_dict(state["changes"], as_int)
            if (found := as_int(state["every"])) < 1:
                raise ValueError(f"state: expected a positive cadence, got {found}")
            times, rest = divmod(found, self.base)
            if self.bound is not None and not rest and not times & (times - 1):
                every = min(found, self.base * _SLOWEST)
        self.changes = changes
        self._asked, self._most = None, self.base * _SLOWEST
        self._turn_to(every)
        self.every = every


_TOLD = 6  # changes named in a report, the newest ones


def _words(every: int) -> str:
    """Say which steps.

    Examples
    --------
    >>> [_words(n) for n in (1, 2, 3, 4, 11, 21, 112)][:3]
    ['every step', 'every 2nd step', 'every 3rd step']
    """
    if every == 1:
        return "every step"
    ending = "th" if 10 < every % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(every % 10, "th")
    return f"every {every}{ending} step"
