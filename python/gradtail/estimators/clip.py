"""Where to clip: a threshold from the norms of a run so far, and how often a given one clips."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.series import correlation_time, is_level, ranks
from gradtail.states.magnitudes import FloatArray

FEWEST = 20
"""Finite norms that a threshold is taken from at least."""

_ENOUGH_ABOVE = 5  # norms above the threshold, worth as many independent ones, for an error to mean much
_SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
_FEWEST_RECENT = 40
_MOVE, _ONE_IN_TEN = 0.1, 1.22  # a change of level worth a word, and the bound for it


@dataclass(frozen=True)
class ClipRate:
    """How often a threshold clips.

    Attributes
    ----------
    max_norm : float
    rate : float
        Share of the steps with a larger norm.
    n : int
        Steps with a finite norm that it rests on.
    n_effective : float
        Independent steps that say as much.
    first_step, last_step : int
        The steps used, ends included.
    nonfinite : int
        Steps among them with NaN or infinite values, which are not in ``n``.
    warnings : tuple of str
    """

    max_norm: float
    rate: float
    n: int
    n_effective: float
    first_step: int
    last_step: int
    nonfinite: int
    warnings: tuple[str, ...] = ()

    @property
    def stderr(self) -> float:
        """Standard error of the rate."""
        return math.sqrt(self.rate * (1 - self.rate) / self.n_effective)

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's interval of the rate, for as many independent steps as these are worth."""
        return _wilson(self.rate, self.n_effective, level)

    def __str__(self) -> str:
        rare, often = self.ci()
        lines = [
            f"a threshold of {self.max_norm:.3g} clips {100 * self.rate:.2g} % of the steps "
            f"(95 % {100 * rare:.2g} to {100 * often:.2g} %); "
            f"from {self.n} norms of steps {self.first_step} to {self.last_step}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


@dataclass(frozen=True)
class ClipSuggestion:
    """A threshold for clipping by the global norm.

    Attributes
    ----------
    threshold : float
        The norm that a share ``rate`` of the steps is expected to exceed.
    rate : float
        Expected clip rate, while training goes on as in the steps used.
    n : int
        Steps with a finite norm that it rests on.
    n_effective : float
        Independent steps that say as much.
    first_step, last_step : int
        The steps used, ends included.
    nonfinite : int
        Steps among them with NaN or infinite values, which are not in ``n``.
    warnings : tuple of str
    """

    threshold: float
    rate: float
    n: int
    n_effective: float
    first_step: int
    last_step: int
    nonfinite: int
    warnings: tuple[str, ...] = ()
    norms: FloatArray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    """The norms used, ascending."""

    @property
    def stderr(self) -> float:
        """Standard error of the threshold: half the width of its 68 % interval; inf if that is open."""
        low, high = self.ci(0.6827)
        return (high - low) / 2

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the norm exceeded at ``rate``: the norms exceeded at the ends of :meth:`rate_ci`.

        Returns
        -------
        low, high : float
            high is inf where the largest norm is not high enough to tell.
        """
        rare, often = self.rate_ci(level)
        return _exceeded(self.norms, often), _exceeded(self.norms, rare)

    def rate_ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the clip rate that the threshold will have: Wilson's."""
        return _wilson(self.rate, self.n_effective, level)

    def __str__(self) -> str:
        (low, high), (rare, often) = self.ci(), self.rate_ci()
        ends = f"{low:.3g} to {high:.3g}" if high < math.inf else f"from {low:.3g}, upper end unknown"
        lines = [
            f"clip at {self.threshold:.3g} (95 % {ends}): expected to clip "
            f"{100 * self.rate:.2g} % of the steps ({100 * rare:.2g} to {100 * often:.2g} %); "
            f"from {self.n} norms of steps {self.first_step} to {self.last_step}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


def suggest_clip(
    norms: npt.ArrayLike,
    *,
    rate: float = 0.05,
    steps: npt.ArrayLike | None = None,
    last: int | None = None,
) -> ClipSuggestion:
    """Suggest a threshold that clips a small share of the steps as they are now.

    Parameters
    ----------
    norms : array of float, shape (m,)
        Global gradient norm before clipping, in the order of the steps; NaN or infinite where a
        step was not finite. The record may be thinned.
    rate : float in (0, 0.5]
        Share of the steps to be clipped.
    steps : array of int, shape (m,), optional
        Number of each step; default: 0, 1, ...
    last : int, optional
        Take so many of the last entries; default: the longest recent part, of all, 3/4, 1/2, ...
        1/8 of the record, in which the norms keep their level and do not even seem to move; if there
        is no such part, the longest that keeps its level as far as can be told.

    Returns
    -------
    ClipSuggestion

    Raises
    ------
    TypeError, ValueError
        Not a record of norms, a rate outside (0, 0.5], or fewer than 20 finite norms, or 1 / rate.

    Notes
    -----
    The threshold is the value at rank (1 - rate)(n + 1) of n norms, which the next one exceeds with
    probability ``rate`` if they are exchangeable. Its interval inverts that of the rate (Woodruff
    1952), Wilson's with n over the correlation time of the norms' ranks or of the exceedances,
    whichever is longer, by Geyer's initial positive sequence. The part used keeps its level if
    neither the sum of the signs about its median nor that of the exceedances strays from a straight
    line by more than chance allows once in a hundred (Kolmogorov's bound). O(m log m).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> norms = np.append(np.geomspace(20, 1, 100), np.ones(900)) * rng.lognormal(0, 0.2, 1000)
    >>> found = suggest_clip(norms)
    >>> round(found.threshold, 1), found.first_step, found.last_step
    (1.3, 250, 999)
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.floating)):
        raise TypeError(f"rate: expected a number above 0 and at most 0.5, got {rate!r}")
    if not 0 < rate <= 0.5:
        raise ValueError(f"rate: expected a number above 0 and at most 0.5, got {rate}")
    values, numbers = _record(norms, steps)
    needed = max(FEWEST, math.ceil(1 / rate))
    part, drifts = _recent(values, rate, None, last, needed)
    used, numbers = values[part:], numbers[part:]
    finite = used[np.isfinite(used)]
    ordered = np.sort(finite)
    threshold = _exceeded(ordered, rate)
    above = finite > threshold
    worth = finite.size / _correlation(finite, above)
    warnings = _about(drifts, finite, used.size - finite.size)
    if worth * rate < _ENOUGH_ABOVE:
        warnings.append(
            f"{finite.size} norms are few for a rate of {100 * rate:.3g} %: only {int(above.sum())} are "
            f"above the threshold{_alike(finite.size, worth)}, so that it is a rough one"
        )
    tied = float(np.mean(finite >= ordered[-1] * (1 - 1e-3)))
    if tied > rate:
        warnings.append(
            f"{100 * tied:.2g} % of the norms are equal to the largest: were they taken after clipping?"
        )
    return ClipSuggestion(
        threshold, float(rate), int(finite.size), worth, int(numbers[0]), int(numbers[-1]),
        int(used.size - finite.size), tuple(warnings), ordered,
    )  # fmt: skip


def clip_rate(
    norms: npt.ArrayLike,
    max_norm: float,
    *,
    steps: npt.ArrayLike | None = None,
    last: int | None = None,
) -> ClipRate:
    """Say how often a threshold clips, from the recent norms.

    Parameters
    ----------
    norms, steps, last
        As for :func:`suggest_clip`; at least 2 finite norms.
    max_norm : float
        Positive.

    Returns
    -------
    ClipRate

    Raises
    ------
    TypeError, ValueError
        As for :func:`suggest_clip`, or ``max_norm`` is not a positive number.

    Examples
    --------
    >>> found = clip_rate([0.5, 2.0] * 50, 1.0)
    >>> found.rate, found.n
    (0.5, 100)
    """
    if isinstance(max_norm, bool) or not isinstance(max_norm, (int, float, np.integer, np.floating)):
        raise TypeError(f"max_norm: expected a positive number, got {max_norm!r}")
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    values, numbers = _record(norms, steps)
    part, drifts = _recent(values, 0.0, float(max_norm), last, 2)
    used, numbers = values[part:], numbers[part:]
    finite = used[np.isfinite(used)]
    above = finite > max_norm
    return ClipRate(
        float(max_norm), float(above.mean()), int(finite.size), finite.size / _correlation(finite, above),
        int(numbers[0]), int(numbers[-1]), int(used.size - finite.size),
        tuple(_about(drifts, finite, used.size - finite.size)),
    )  # fmt: skip


def _record(norms: object, steps: object) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    x = np.asarray(norms)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"norms: expected an array of real numbers, got dtype {x.dtype}")
    if x.ndim != 1:
        raise ValueError(f"norms: expected one number a step, got shape {x.shape}")
    values = x.astype(np.float64)
    if np.any(values < 0):
        raise ValueError(f"norms: expected numbers of at least 0, got {values[values < 0][0]}")
    numbers = np.arange(values.size) if steps is None else np.asarray(steps)
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise TypeError(f"steps: expected an array of ints, got dtype {numbers.dtype}")
    if numbers.shape != values.shape:
        raise ValueError(f"steps: expected shape {values.shape}, got {numbers.shape}")
    return values, numbers.astype(np.int64)


def _recent(
    values: FloatArray, rate: float, max_norm: float | None, last: int | None, needed: int
) -> tuple[int, bool]:
    """Return where the recent part begins, and whether the norms drift even there."""
    if last is not None:
        if isinstance(last, bool) or not isinstance(last, (int, np.integer)):
            raise TypeError(f"last: expected a positive int, got {last!r}")
        if last < 1:
            raise ValueError(f"last: expected a positive int, got {last}")
    finite = np.flatnonzero(np.isfinite(values))
    if last is not None:
        finite = finite[finite >= values.size - int(last)]
    if finite.size < needed:
        raise ValueError(f"norms: expected at least {needed} finite ones, got {finite.size}")
    least = max(needed, _FEWEST_RECENT)
    lengths = [n for share in _SHARES if (n := round(share * finite.size)) >= least] or [finite.size]
    if last is not None:
        lengths = lengths[:1]
    # A trend lengthens the memory that it is judged by, so that a whole record with a warm-up may pass for
    # level: where the norms seem to move, a shorter part in which they do not is the better one.
    doubtful, drifts = None, False
    for n in lengths:
        part = values[finite[-n:]]
        bound = _exceeded(np.sort(part), rate) if max_norm is None else max_norm
        marks = [part > np.median(part), part > bound]
        if is_level(part, marks):
            early, late = _thirds(part)
            moves = abs(early - late) > _MOVE * early and not is_level(part, marks[:1], _ONE_IN_TEN)
            if not moves and (last is not None or is_level(part, marks[1:], _ONE_IN_TEN)):
                return _start(values, finite, n, last), False
            drifts = drifts or (moves and doubtful is None)
            doubtful = n if doubtful is None else doubtful
    if doubtful is None:
        return _start(values, finite, n, last), True
    return _start(values, finite, doubtful, last), drifts


def _thirds(part: FloatArray) -> tuple[float, float]:
    """Medians of the first and of the last third."""
    third = max(1, part.size // 3)
    return float(np.median(part[:third])), float(np.median(part[-third:]))


def _start(values: FloatArray, finite: npt.NDArray[np.intp], n: int, last: int | None) -> int:
    """First entry of the part with the last n finite norms; a whole record begins at its own."""
    if n == finite.size:
        return 0 if last is None else max(0, values.size - int(last))
    return int(finite[-n])


def _exceeded(ordered: FloatArray, rate: float) -> float:
    """Return the norm that the next one exceeds with this probability; inf if none is high enough."""
    n = ordered.size
    rank = (1 - rate) * (n + 1)
    if rank > n:
        return math.inf
    low = max(int(rank), 1)
    part = min(max(rank - low, 0.0), 1.0)
    return float(ordered[low - 1] + part * (ordered[min(low, n - 1)] - ordered[low - 1]))


def _correlation(finite: FloatArray, above: npt.NDArray[np.bool_]) -> float:
    return max(correlation_time(ranks(finite)), correlation_time(above.astype(np.float64)))


def _wilson(rate: float, n: float, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    z = float(special.ndtri((1 + level) / 2))
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _alike(n: int, worth: float) -> str:
    """Say so if neighbours are alike, so that fewer independent norms would tell as much."""
    return ", and neighbouring steps are alike" if worth < 0.7 * n else ""


def _about(drifts: bool, finite: FloatArray, nonfinite: int) -> list[str]:
    found = []
    if drifts:
        early, late = _thirds(finite)
        way = "fell" if late < early else "rose"
        change = (
            f": they {way} from {early:.3g} to {late:.3g}" if abs(early - late) > _MOVE / 5 * early else ""
        )
        found.append(f"the norms do not keep their level over these steps{change}")
    if nonfinite:
        found.append(f"{nonfinite} of these steps had NaN or infinite values and are left out")
    return found
