"""Whether batches were reshuffled, drawn with replacement, or came in a fixed order: exact tests."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradtail.estimators.gram import gram
from gradtail.estimators.policy_result import SamplingPolicy, about_power
from gradtail.estimators.rows import checked
from gradtail.states.magnitudes import FloatArray

IndexArray = npt.NDArray[np.intp]

_LEAST_PERMUTATIONS = 99


def sampling_policy(
    vectors: npt.ArrayLike,
    *,
    period: int,
    phase: int | None = None,
    steps: npt.ArrayLike | None = None,
    level: float = 0.05,
    leak: float | None = None,
    permutations: int = 499,
    seed: int = 0,
) -> SamplingPolicy:
    """Tell from gradient noise at fixed weights how batches were drawn.

    Parameters
    ----------
    vectors : array of float, shape (T, m)
        Noise of consecutive steps, the gradient of each batch less the full gradient at the same weights; or
        some of its coordinates, or sketches of it by one linear map, as they are.
    period : int
        M, batches of an epoch; at least two epochs of steps are needed.
    phase : int, optional
        Steps before the first whole epoch, 0 to M - 1. Default: not known; taken is that at which the sums of
        the noise over epochs are smallest.
    steps : array of int, shape (T,), optional
        Number of each step; must be consecutive.
    level : float in (0, 1)
        Size of each test.
    leak : float in [0, 1), optional
        Share of the noise that may come from elsewhere than the choice of examples: dropout, examples that
        are left over by the last batch (at most 1 / M), arithmetic. Default: 0.1, or 1 / M if that is more.
    permutations : int
        Of each kind.
    seed : int
        Of the permutations.

    Returns
    -------
    SamplingPolicy

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two whole epochs, rows that are not finite, steps with gaps, no noise
        at all, or settings out of range.

    Notes
    -----
    With replacement, noise vectors are independent and alike, so that any order of the steps is as likely as
    any other: the test is exact by permutations. Its statistics are the remainder of the noise over epochs
    (small where they are reshuffled), the correlation at lag M (large in a fixed order), and the sum over
    lags 1..M of the squared autocovariance (any other memory), joined by the least of their p-values, whose
    own law is that of the same permutations (Westfall and Young 1993).

    Reshuffled, the batches of an epoch add up to nothing, and their order within epochs is as likely as any
    other. The first is seen without chance: a remainder above ``leak`` rejects. The second is an exact test,
    by permutations within epochs, of the sum over lags 1..M of (R(h) - E R(h))**2 / V(h), with E R(h) the
    exact form -C (M - h) / (M (M - 1)) for the pairs of this window, and V from the permutations.

    A fixed order repeats itself after an epoch: 1 less the correlation at lag M above ``leak`` rejects.

    Noise that does not come from the choice of examples, such as that of dropout, has no memory either: where
    it is more than ``leak`` of the whole, reshuffled epochs and a fixed order are rejected as well, and
    "replacement" may be what is left although nothing was drawn with replacement.

    Whatever the covariance of the noise, and in sketches as in the vectors, the sizes are exact; few
    directions only cost power. O(T**2 m) for the Gram matrix and O(permutations T M).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.standard_normal((60, 50))
    >>> noise -= noise.mean(axis=0)
    >>> epochs = np.concatenate([rng.permutation(noise).reshape(20, 3, 50).mean(axis=1) for _ in range(3)])
    >>> print(sampling_policy(epochs, period=20, phase=0))  # doctest: +ELLIPSIS
    order of batches: epochs that are shuffled anew; 60 steps, epochs of 20
      reshuffle not rejected (p = ...); replacement rejected (p = ...); fixed rejected (p = 0)
      ...
    """
    x, _, numbers, left_out = checked(vectors, None, steps)
    if left_out:
        raise ValueError(f"vectors: expected finite values, got {left_out} rows with NaN or infinity")
    if np.any(np.diff(numbers) != 1):
        raise ValueError("steps: expected consecutive steps, got some that are missing")
    batches = _checked_int(period, "period", 2, len(x) // 2, f"half of the {len(x)} steps")
    given = None if phase is None else _checked_int(phase, "phase", 0, batches - 1, "below the period")
    if given and (len(x) - given) // batches < 2:
        raise ValueError(
            f"vectors: expected two whole epochs of {batches} from step {given}, got {len(x)} steps"
        )
    repeats = _checked_int(permutations, "permutations", _LEAST_PERMUTATIONS, None, "")
    _share(level, "level", open_end=True)
    allowed = max(0.1, 1 / batches) if leak is None else _share(leak, "leak", open_end=False)
    rng = np.random.default_rng(_checked_int(seed, "seed", 0, None, ""))
    window = _Window.of(_products(x), batches, given)
    if not window.diagonal.any():
        raise ValueError("vectors: expected some noise, got zeros")
    sums, remainders, repetition = window.statistics(np.arange(window.steps))
    best = int(np.argmin(remainders))
    remainder = float(remainders[best])
    white = _white(window, repeats, rng)
    chi2, joint = _within_epochs(window, window.phases[best], repeats, rng)
    found = SamplingPolicy(
        pvalues={
            "reshuffle": joint if remainder <= allowed else 0.0,
            "replacement": white,
            "fixed": 1.0 if 1 - repetition <= allowed else 0.0,
        },
        level=float(level),
        remainder=remainder,
        repetition=float(repetition),
        chi2=chi2,
        correlation=np.append(1.0, sums / window.counts / window.diagonal.mean()),
        leak=allowed,
        period=batches,
        phase=window.phases[best],
        phase_given=given is not None,
        steps=window.steps,
        epochs=(window.steps - window.phases[best]) // batches,
        participation_ratio=window.participation_ratio(),
        permutations=repeats,
    )
    return replace(found, warnings=about_power(found))


def _products(x: npt.NDArray[np.floating]) -> FloatArray:
    """Take inner products of the rows, in units in which they neither vanish nor overflow."""
    return gram(x, int(np.frexp(max(float(x.max()), -float(x.min())))[1]))


@dataclass(frozen=True)
class _Window:
    """Inner products of the steps, and which pairs of them are at lags 1..M, ordered by lag.

    ``first`` and ``second`` are the steps of each pair, ``starts`` where each lag begins, ``counts`` how many
    pairs it has.
    """

    g: FloatArray
    period: int
    phases: list[int]
    first: IndexArray
    second: IndexArray
    starts: IndexArray
    counts: IndexArray

    @classmethod
    def of(cls, g: FloatArray, period: int, phase: int | None) -> _Window:
        steps = len(g)
        counts = steps - np.arange(1, period + 1)
        starts = np.append(0, np.cumsum(counts)[:-1])
        first = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        second = first + np.repeat(np.arange(1, period + 1), counts)
        phases = list(range(period)) if phase is None else [phase]
        return cls(g, period, phases, first, second, starts, counts)

    @property
    def steps(self) -> int:
        return len(self.g)

    @property
    def diagonal(self) -> FloatArray:
        return np.diag(self.g)

    def lag_sums(self, order: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Return the products of all pairs of the steps in this order, and their sums at lags 1..M."""
        products = self.g.ravel()[order[self.first] * self.steps + order[self.second]]
        return products, np.add.reduceat(products, self.starts)

    def statistics(self, order: IndexArray) -> tuple[FloatArray, FloatArray, float]:
        """Return sums at lags, the remainder over epochs of each phase, and the correlation at lag M."""
        products, sums = self.lag_sums(order)
        m, own = self.period, self.diagonal[order]
        near = int(self.starts[m - 1])  # pairs at lags below M, which are in windows of M steps from ...
        from_, past = np.maximum(self.second[:near] - m + 1, 0), self.first[:near] + 1
        change = np.bincount(from_, products[:near], self.steps + 1)
        change -= np.bincount(past, products[:near], self.steps + 1)
        total = np.append(0.0, np.cumsum(own))
        powers = total[m:] - total[:-m]
        windows = powers + 2 * np.cumsum(change)[: self.steps - m + 1]
        remainders = np.array([windows[p::m].sum() / powers[p::m].sum() for p in self.phases])
        both = (own[: self.steps - m].sum() + own[m:].sum()) / 2
        return sums, np.maximum(remainders, 0.0), float(sums[m - 1] / both)

    def participation_ratio(self) -> float:
        """(tr C)**2 / tr C**2, from products of steps of less than a period apart."""
        near = int(self.starts[self.period - 1])
        square = float(np.mean(self.g[self.first[:near], self.second[:near]] ** 2))
        return float(self.diagonal.mean()) ** 2 / square if square > 0 else math.inf


def _white(window: _Window, repeats: int, rng: np.random.Generator) -> float:
    """P-value of white noise, by permutations of all steps."""
    n, own = window.steps, window.diagonal
    mean = (float(window.g.sum()) - float(own.sum())) / (n * (n - 1))

    def measures(order: IndexArray) -> FloatArray:
        sums, remainders, repetition = window.statistics(order)
        memory = float(np.sum((sums - window.counts * mean) ** 2 / window.counts))
        return np.array([-remainders.min(), repetition, memory])

    orders = [np.arange(n), *(rng.permutation(n) for _ in range(repeats))]
    values = np.array([measures(order) for order in orders])
    # share of values that are as large, for each statistic; rounding must not part equal ones
    sizes = np.abs(values).max(axis=0)
    ranked = np.sort(values + 1e-12 * sizes, axis=0)
    shares = np.column_stack(
        [1 - np.searchsorted(ranked[:, c], values[:, c]) / len(values) for c in range(3)]
    )
    least = shares.min(axis=1)
    return float(np.mean(least <= least[0] + 1e-12))


def _within_epochs(
    window: _Window, phase: int, repeats: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the joint statistic against reshuffled epochs, and its p-value by permutations within them."""
    n, m = window.steps, window.period
    epoch = (np.arange(n) - phase) // m
    same = (epoch[window.first] == epoch[window.second]).astype(np.float64)
    theory = -np.add.reduceat(same, window.starts) * window.diagonal.mean() / (m - 1)
    orders = [np.arange(n), *(np.argsort(epoch + rng.random(n)) for _ in range(repeats))]
    away = np.array([window.lag_sums(order)[1] for order in orders]) - theory
    variance = np.mean(away**2, axis=0)  # with the order that is tested, so that it is one of many alike
    size = np.divide(away**2, variance, out=np.zeros_like(away), where=variance > 0).sum(axis=1)
    return float(size[0]), float(np.mean(size >= size[0] * (1 - 1e-12)))


def _checked_int(value: object, name: str, least: int, most: int | None, why: str) -> int:
    end = "" if most is None else f" to {most}, {why}"
    expected = f"{name}: expected an int from {least}{end}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{expected}, got {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{expected}, got {value}")
    return int(value)


def _share(value: object, name: str, *, open_end: bool) -> float:
    expected = f"{name}: expected a number " + ("between 0 and 1" if open_end else "from 0 to below 1")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{expected}, got {value!r}")
    if not ((0 < value < 1) if open_end else (0 <= value < 1)):
        raise ValueError(f"{expected}, got {value}")
    return float(value)
