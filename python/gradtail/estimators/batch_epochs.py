"""Where epochs may begin and end among batches, by the places at which examples come again."""

from __future__ import annotations

import numpy as np

from gradtail.states.batch_log import IntArray, is_followed

_CHUNK = 1 << 20
_APART = 16  # times as many steps as batches there may be


def phase_repeats(before: IntArray, after: IntArray, period: int) -> IntArray:
    """Count how often an example comes again within an epoch, for epochs that begin at each phase.

    ``before`` and ``after`` are the places of each two successive occurrences of an example; O(their number +
    period).
    """
    close = after - before < period
    first, last = before[close] + 1, after[close]  # an epoch begins at one of these
    changes = np.zeros(2 * period + 1, np.int64)
    begin = first % period
    np.add.at(changes, begin, 1)
    np.add.at(changes, begin + (last - first) + 1, -1)
    covered = np.cumsum(changes)[: 2 * period]
    return np.asarray(np.count_nonzero(close) - covered[:period] - covered[period:])


def stretches(before: IntArray, after: IntArray, places: IntArray, period: int) -> IntArray:
    """Return where stretches without repetition begin, each as long as it can be up to a period.

    No other way of cutting the record into such stretches needs fewer.
    """
    latest = np.full(int(places[-1]) + 1, -1, np.int64)
    np.maximum.at(latest, after, before)
    starts = [0]
    for place in places.tolist():
        if latest[place] >= starts[-1] or place - starts[-1] >= period:
            starts.append(place)
    return np.array(starts, np.int64)


def step_places(steps: IntArray) -> IntArray:
    """Return the place of each step among all that were taken, by its number."""
    if len(steps) < 2:
        return np.zeros(len(steps), np.int64)
    found = (steps - steps[0]) // np.gcd.reduce(np.diff(steps))
    return np.asarray(found if found[-1] < _APART * len(steps) else np.arange(len(steps)), np.int64)


def count_followed(examples: int, halvings: int) -> int:
    """Count the followed among the indices below ``examples``."""
    if not halvings:
        return examples
    starts = range(0, examples, _CHUNK)
    parts = (np.arange(start, min(start + _CHUNK, examples)) for start in starts)
    return sum(int(np.count_nonzero(is_followed(part, halvings))) for part in parts)
