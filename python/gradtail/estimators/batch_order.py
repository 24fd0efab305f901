"""How batches were drawn, from the examples in them: counting, and no look at gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators import batch_chances as chances
from gradtail.estimators.batch_epochs import count_followed, phase_repeats, step_places, stretches
from gradtail.estimators.batch_order_result import BatchOrder, Order
from gradtail.states.batch_log import BatchLog, IntArray

_TRIED = 64  # lags at which a fixed order is looked for
_ERRORS = 6.0
_SHORT = 8  # times as many stretches without repetition as epochs: more than restarts explain


def batch_order(
    batches: BatchLog | Iterable[npt.ArrayLike],
    *,
    period: int | None = None,
    examples: int | None = None,
    level: float = 1e-6,
) -> BatchOrder:
    """Tell from the examples of each batch how they were drawn, and whether the sampler is broken.

    Parameters
    ----------
    batches : BatchLog, or iterable of arrays of int
        The indices of the examples of each step, in the order of the steps.
    period : int, optional
        Batches of an epoch. Default: found, from ``examples`` over the batch size or from the first example
        that comes again.
    examples : int, optional
        How many there are: indices are then 0 to examples - 1, and that each of them comes is checked.
        Default: the largest index and one.
    level : float in (0, 1)
        Largest chance at which there is a verdict, each.

    Returns
    -------
    BatchOrder

    Raises
    ------
    TypeError, ValueError
        No indices, no batch, or settings out of range.

    Notes
    -----
    In reshuffled epochs, and in a fixed order, no example comes twice in an epoch: that is impossible, not
    unlikely, so one that does rules them out. With replacement the chance that c draws of n examples, no two
    compared within a batch, are all different is at most exp(-(c**2 - sum c_b**2) / (2 n)) an epoch; times
    the phases and periods tried it is the chance given for "reshuffle". The number that come again is within
    sqrt(draws log(2 / level) / 2) of its mean (Azuma and Hoeffding), which "replacement" is judged by.

    Faults, and bounds on the chance of each from a sound sampler: one of equal chances, by epochs or with
    replacement, the likelier of both ways:

    - Batches of the same s of N examples, apart from an order that repeats: pairs / binom(N, s).
    - D examples twice in a batch: impossible without replacement, else exp(-m) (e m / D)**D with
      m = sum s (s - 1) / (2 N), as each draw hits an earlier one with a chance of at most that over N.
    - k of n examples never seen: of an order that repeats as many as a batch has or more, else min over
      j <= k of binom(n, j) times the chance that j given ones are left out: (1 - j / N)**draws with
      replacement, 0 in a whole epoch that leaves out fewer than j.
    - With a period told: examples that come again within an epoch, far fewer times than by replacement, and
      than by epochs that are broken off wherever one comes again, which happens 8 times an epoch or more. A
      batch's worth an epoch, as of padding, and few restarts are a warning.
    - An index that is no example.

    Unequal chances on purpose (weighted samplers) are no fault. Where different batches share more examples
    than by equal chances, or too little to tell, the first two are warnings; so is the third, unless nearly
    all examples that come do so in epochs and equally often. What can't be seen: batches of other ranks or
    workers, unless they are in the same batch. O(draws log draws).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> epochs = [rng.permutation(1000).reshape(20, 50) for _ in range(3)]
    >>> print(batch_order(np.concatenate(epochs), examples=1000))
    batches: epochs that are shuffled anew; 60 steps, 3000 draws of 1000 examples, epochs of 20
      0 times an example came again within an epoch (shuffled anew: 0; with replacement: about 1.08e+03)
      0 examples never came
      chance that another way of drawing shows this: below 1e-12
    >>> batch_order([batch for batch in epochs[0] for _ in range(2)]).faults
    ('20 batches have the same examples as an earlier one, as steps 0 and 1: workers with the same seed?',)
    """
    log = batches if isinstance(batches, BatchLog) else _log_of(batches)
    told = _checked(period, "period", 1)
    given = _checked(examples, "examples", 1)
    if not (isinstance(level, (int, float)) and 0 < level < 1):
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    if not len(log):
        raise ValueError("batches: expected at least one, got none")
    return _Look(log, told, given, float(level)).found()


class _Look:
    """One record, looked at in turn for an order that repeats, for faults, and for epochs."""

    def __init__(self, log: BatchLog, told: int | None, given: int | None, level: float) -> None:
        self.log, self.told, self.given, self.level = log, told, given, level
        self.places = step_places(log.steps)
        self.size = int(np.bincount(log.sizes).argmax())
        self.examples = log.largest + 1 if given is None else given
        self.distinct = np.unique(log.ids)
        # of fewer examples everything is likelier
        self.fewest = given or max(len(self.distinct), self.size, ((told or 1) - 1) * self.size + 1)
        self.followed = count_followed(self.examples, log.halvings)
        order = np.lexsort((np.repeat(self.places, log.counts), log.ids))
        ids, at = log.ids[order], np.repeat(self.places, log.counts)[order]
        again = ids[1:] == ids[:-1]
        self.before, self.after = at[:-1][again], at[1:][again]
        self.faults: list[str] = []
        self.warnings: list[str] = []
        self.chance = 0.0
        self.may_repeat = False  # whether all batches so far agree with an order that repeats

    def found(self) -> BatchOrder:
        """Put the parts together."""
        repeats = self.repeated_order()
        period, phase, chance = self.epochs()
        windows = period or max(1, math.ceil(self.examples / self.size))
        repeated, expected, reach = self.repetition(windows, phase or 0)
        self.look_for_weights()
        self.duplicates()
        equal = self.equal_batches(repeats)
        unseen = self.unseen(period, repeats is not None, repeated < expected - reach)
        verdict: Order | None = None
        if repeats is None and phase is None and self.told is not None and 0 < repeated < expected - reach:
            self.few_repeats(self.told, repeated, expected)
        warnings = self.warnings
        if self.faults:
            verdict, chance = "broken", self.chance
        elif repeats is not None:
            verdict, period, phase, chance = "fixed", repeats[0], None, repeats[1]
            if period == 1:
                warnings.append("every batch is of the same examples")
        elif phase is not None and chance <= self.level and not self.may_repeat:
            verdict = "reshuffle"
        elif repeated and abs(repeated - expected) <= reach < expected / 2:
            verdict, period, chance = "replacement", windows, 0.0
        else:
            chance = 1.0
            if repeated > expected + reach:
                warnings.append("some examples come more often than by chance: a weighted sampler does so")
        if verdict == "reshuffle" and self.told not in (None, period):
            warnings.append(f"epochs have {period} batches, not the {self.told} told")
        if self.log.dropped:
            warnings.append(f"the {self.log.dropped} steps before are not kept")
        return BatchOrder(
            verdict=verdict,
            faults=tuple(self.faults),
            chance=chance,
            level=self.level,
            period=period,
            phase=phase,
            steps=len(self.log),
            draws=int(self.log.sizes.sum()),
            examples=self.examples,
            examples_given=self.given is not None,
            followed=2.0**-self.log.halvings,
            equal_batches=equal,
            duplicates=int(self.log.repeated.sum()),
            repeated=repeated,
            repeated_expected=expected,
            unseen=unseen,
            warnings=tuple(warnings),
        )

    def fault(self, words: str, chance: float, excused: bool = False) -> None:
        """Note a fault if no sampler of equal chances is likely to show it, and none of others is at hand."""
        if chance <= self.level and excused:
            self.warnings.append(words + ": a broken sampler, or unequal chances as of a weighted one")
        elif chance <= self.level:
            self.faults.append(words)
            self.chance = max(self.chance, chance)

    def look_for_weights(self) -> None:
        """See whether some examples come in more of the different batches than others do by chance."""
        log = self.log
        different = np.zeros(len(log), bool)
        different[np.unique(log.hashes, return_index=True)[1]] = True
        kept = np.repeat(different, log.counts)
        _, times = np.unique(log.ids[kept], return_counts=True)
        each = log.counts[different].astype(np.float64)
        pairs = float(np.sum(times * (times - 1.0))) / 2
        n: float = self.followed
        if self.given is None:  # as many as the chances are of
            n = max(len(self.distinct), self.fewest * 2.0**-log.halvings)
        self.mean_pairs = max(0.0, float(each.sum() ** 2 - np.sum(each**2))) / (2 * max(n, 1))
        self.pairs = pairs
        self.weighted = pairs > self.mean_pairs + _ERRORS * math.sqrt(self.mean_pairs) + _ERRORS
        # of those that came at all
        self.uneven = float(np.sum((times - times.mean()) ** 2)) > times.sum() if times.size else True

    def few_repeats(self, period: int, repeated: int, expected: float) -> None:
        """Judge examples that come again within an epoch, far fewer times than by replacement."""
        words = f"{repeated} times an example came again within an epoch of {period} batches: never where"
        words += f" each comes once, about {expected:.3g} times with replacement"
        epochs = -(-(int(self.places[-1]) + 1) // period)
        if int(phase_repeats(self.before, self.after, period).min()) <= self.size * epochs:
            self.warnings.append(words + "; fewer than make up a batch an epoch: padding of the last batch?")
            return
        starts = stretches(self.before, self.after, self.places, period)
        _, anew, reach = self.repetition(period, 0, starts)
        # a stretch ends up to about a batch late
        excused = repeated + 2 * self.size * epochs >= anew - reach
        if excused or len(starts) * period < _SHORT * len(self.log):
            self.warnings.append(words + "; epochs that were broken off and begun anew do so")
        else:
            self.fault(words, self.level)

    def repeated_order(self) -> tuple[int, float] | None:
        """Return the lag after which all batches come again, and the chance of it."""
        hashes = self.log.hashes
        at = np.full(int(self.places[-1]) + 1, -1, np.int64)
        at[self.places] = np.arange(len(hashes))
        first = np.flatnonzero(hashes[1:] == hashes[0])[:_TRIED] + 1
        for lag in (self.places[first] - self.places[0]).tolist():
            later = self.places[self.places >= lag]
            a, b = at[later - lag], at[later]
            pairs = a >= 0
            if np.array_equal(hashes[a[pairs]], hashes[b[pairs]]):
                everything = lag == 1 and self.size >= self.fewest
                count = int(np.count_nonzero(pairs))
                chance = chances.same_order(self.fewest, self.size, lag, count, len(first))
                self.may_repeat = True
                return (lag, chance) if chance <= self.level or everything else None
        return None

    def equal_batches(self, repeats: tuple[int, float] | None) -> int:
        """Count batches of the examples of an earlier one, within the order that repeats if there is one."""
        log, found = self.log, 0
        within = np.ones(len(log), bool) if repeats is None else self.places < repeats[0]
        steps, hashes, sizes = log.steps[within], log.hashes[within], log.sizes[within]
        order = np.argsort(hashes, kind="stable")
        same = hashes[order][1:] == hashes[order][:-1]
        for size in np.unique(sizes[order][1:][same]).tolist():
            many = int(np.count_nonzero(sizes == size))
            some = np.flatnonzero(same & (sizes[order][1:] == size))
            some = some[np.argsort(order[some + 1])]
            a, b = int(steps[order[some[0]]]), int(steps[order[some[0] + 1]])
            near = np.median(order[some + 1] - order[some]) < _TRIED
            words = f"{len(some)} batches have the same examples as an earlier one, as steps {a} and {b}"
            pairs = many * (many - 1) / 2
            self.fault(
                words + (": workers with the same seed?" if near else ""),
                chances.equal(pairs, self.fewest, size),
                self.weighted,
            )
            found += len(some)
        if (
            repeats is not None
            and self.told is not None
            and repeats[0] < self.told
            and not self.told % repeats[0]
        ):
            words = f"the same {repeats[0]} batches come {self.told // repeats[0]} times in an epoch"
            self.fault(words, chances.equal(math.comb(self.told, 2), self.fewest, self.size), self.weighted)
        return found

    def duplicates(self) -> None:
        """Look for examples that are twice in a batch."""
        log, sizes = self.log, self.log.sizes.astype(np.float64)
        count = int(log.repeated.sum())
        if count:
            step = int(log.steps[int(np.argmax(log.repeated > 0))])
            words = f"{count} times an example is in its batch already, first in that of step {step}"
            mean = float(np.sum(sizes * (sizes - 1))) / (2 * self.fewest)
            chance = chances.hits(count, mean)
            # chances that make for so many let different batches share as much more: a quarter of it at least
            most = self.mean_pairs * (1 + max(0.0, count / mean - 1) / 4) if mean else math.inf
            seen = self.pairs + _ERRORS * (math.sqrt(self.pairs) + 1) < most
            self.fault(words, chance, self.weighted or not seen)
            self.weighted |= chance <= self.level and not seen

    def unseen(self, period: int | None, repeats: bool, few: bool) -> int | None:
        """Count the examples that never came."""
        if self.given is None:
            return None
        log = self.log
        if log.smallest < 0 or log.largest >= self.given:
            worst = log.smallest if log.smallest < 0 else log.largest
            self.fault(f"the index {worst} is none of {self.given} examples", 0.0)
        seen = int(np.count_nonzero((self.distinct >= 0) & (self.distinct < self.given)))
        missing = self.followed - seen
        if missing:
            batches = period or math.ceil(self.given / self.size)
            whole = max(0, (int(self.places[-1]) + 2 - batches) // batches)  # at whatever phase
            each = min(self.given, self.least(batches)) if whole else 0
            chance = chances.unseen(
                missing, self.followed, self.given, int(log.sizes.sum()), whole, self.given - each
            )
            if repeats:  # an order leaves out the same examples each time: fewer than make up a batch
                chance = 0.0 if missing >= self.size else 1.0
            words = f"{missing} of {self.followed} examples never came in {int(log.sizes.sum())} draws"
            # without epochs, those of small chances may be all that is missing
            self.fault(words, chance, self.weighted or (not repeats and (self.uneven or not few)))
        return missing

    def least(self, batches: int) -> int:
        """Return the fewest draws of as many neighbouring steps."""
        sums = np.zeros(int(self.places[-1]) + 2, np.int64)
        sums[self.places + 1] = self.log.sizes
        sums = np.cumsum(sums)
        return int((sums[batches:] - sums[:-batches]).min())

    def epochs(self) -> tuple[int | None, int | None, float]:
        """Return period and phase at which no example comes twice in an epoch, and the chance of it."""
        if self.log.repeated.any():
            return self.told, None, 1.0
        periods = self.periods()
        for period, skipped in periods:
            good = phase_repeats(self.before, self.after, period) == 0
            if period > 1 and (self.places[-1] >= period) and good.any():
                phase = int(np.argmax(good))
                window = (self.places - phase) // period - (-phase // period)
                kept = window > 0 if skipped else window >= 0
                counts = self.log.counts * kept
                total = np.bincount(window, counts)
                pairs = float(np.sum(total**2) - np.sum(counts.astype(np.float64) ** 2)) / 2
                tried = len(periods) * (1 if skipped else min(period, len(self.log)))
                return period, phase, chances.of_log(math.log(tried) - pairs / max(self.followed, 1))
        return self.told, None, 1.0

    def periods(self) -> list[tuple[int, bool]]:
        """Return the periods to be tried, and of each whether the first epoch is no evidence for it."""
        found = [] if self.told is None else [(self.told, False)]
        found += [(math.ceil(self.examples / self.size), False), (self.examples // self.size, False)]
        if self.after.size and not self.log.dropped:
            found.append((int(self.after.min()), True))
        return found

    def repetition(self, period: int, phase: int, starts: IntArray | None = None) -> tuple[int, float, float]:
        """Count what comes again within epochs; its mean with replacement, and how far that may be off.

        With ``starts`` the mean is that of drawing without replacement from each of these places on.
        """
        window = (self.places - phase) // period
        window -= window[0]
        same = (self.before - phase) // period == (self.after - phase) // period
        n = max(self.followed, 1)
        counts = self.log.counts.astype(np.float64)
        if starts is not None:
            stretch = np.searchsorted(starts, self.places, side="right")
            _, first, part = np.unique(
                np.stack([window, stretch]), axis=1, return_index=True, return_inverse=True
            )
            window = window[first]
            counts = np.bincount(part.reshape(-1), counts).astype(np.float64)
        with np.errstate(divide="ignore"):
            left = np.exp(np.bincount(window, np.log1p(-np.minimum(counts / n, 1.0))))
        expected = float(counts.sum() - n * np.sum(1 - left))
        reach = math.sqrt(float(counts.sum()) * math.log(2 / self.level) / 2)
        return int(np.count_nonzero(same)), max(expected, 0.0), reach


def _log_of(batches: Any) -> BatchLog:
    log = BatchLog()
    for step, batch in enumerate(batches):
        log.add(step, batch)
    return log


def _checked(value: object, name: str, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value}")
    return int(value)
