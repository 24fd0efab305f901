"""A jump upwards in a series, such as that of alpha over a run: is there one, where, and from what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

FEWEST = 8
"""Values from which a jump is looked for."""

_MEDIAN_CHI2 = 0.45493642311957283  # of one degree of freedom
_REPEATS = 1999
_AT_ONCE = 1 << 22  # simulated values at a time


@dataclass(frozen=True)
class Jump:
    """The most marked rise of a series.

    Attributes
    ----------
    before, after : float
        Steps of the last value before it and of the first one after.
    rise, stderr : float
        Mean of the ``window`` values after less that of as many before, and its error where values
        scatter independently by :attr:`scatter`.
    pvalue : float
        Chance of a rise as marked somewhere in a series of independent normal values whose mean never
        rises, at most; by simulation, from 0.0005 on.
    window : int
        Values on either side that show it best.
    minimum, minimum_step : float
        Smallest value up to the jump, and its step.
    from_minimum : bool
        Whether the level before the jump is the lowest of the series, to twice its error.
    scatter : float
        Standard deviation of a value about its mean, from the median of squared differences.
    n : int
    """

    before: float
    after: float
    rise: float
    stderr: float
    pvalue: float
    window: int
    minimum: float
    minimum_step: float
    from_minimum: bool
    scatter: float
    n: int

    def __str__(self) -> str:
        if self.pvalue > 0.05:
            return (
                f"no jump: the most marked rise, by {self.rise:.3g} after step {self.before:g}, has "
                f"p = {self.pvalue:.2g}"
            )
        level = ", from its minimum" if self.from_minimum else ""
        return (
            f"a jump by {self.rise:.3g} +- {self.stderr:.2g} between steps {self.before:g} and "
            f"{self.after:g}{level} (p = {self.pvalue:.2g}); smallest value {self.minimum:.3g} at step "
            f"{self.minimum_step:g}"
        )


def jump_after_minimum(values: npt.ArrayLike, steps: npt.ArrayLike | None = None, *, seed: int = 0) -> Jump:
    """Look for a jump upwards, as alpha is said to make once it has reached its minimum.

    Parameters
    ----------
    values : array of float, shape (n,)
        At least 8 that are finite; others are left out.
    steps : array of numbers, shape (n,), optional
        Rising; default 0, 1, ...
    seed : int
        Of the simulation.

    Returns
    -------
    Jump

    Raises
    ------
    TypeError, ValueError
        No such arrays, or too few values.

    Notes
    -----
    The statistic is the largest of (mean of h values after - mean of h values before) / (s sqrt(2 / h)) over
    all places and h = 2, 3, 4, 6, 8, ... up to a third of n, as of moving sums (Eichinger and Kirch,
    Bernoulli 24, 2018), with s from the median of squared differences, which a few jumps hardly change. Its
    law is simulated for a constant mean; a mean that falls makes smaller statistics, so that the level holds
    for all that never rise. Values that resemble their neighbours are not of that law, and jump too often.
    Before a jump from a fall the window has larger values than the last: the rise is then told too small.
    O(n log n), and 1999 simulations, which are remembered by n.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> alpha = np.r_[np.linspace(1.6, 1.2, 20), np.full(12, 1.5)] + 0.02 * rng.standard_normal(32)
    >>> found = jump_after_minimum(alpha)
    >>> found.before, found.after, found.from_minimum, found.pvalue
    (19.0, 20.0, True, 0.0005)
    """
    y, at = _checked(values, steps)
    n = y.size
    scatter = float(_scatter(y[None])[0])
    if scatter == 0:
        scatter = float(np.abs(np.diff(y)).max()) / math.sqrt(2) or 1.0  # a step function, or a constant
    best, place, window = -math.inf, 1, 2
    for h in _windows(n):
        rises = _rises(y[None], h)[0] / (scatter * math.sqrt(2 / h))
        i = int(np.argmax(rises))
        if rises[i] > best:
            best, place, window = float(rises[i]), i + h, h
    law = _law(n, seed)
    pvalue = (1 + int(law.size - np.searchsorted(law, best))) / (1 + law.size)
    rise = float(y[place : place + window].mean() - y[place - window : place].mean())
    lowest = int(np.argmin(y[:place]))
    levels = np.convolve(y, np.full(window, 1 / window), "valid")
    level = float(y[place - window : place].mean())
    from_minimum = level <= float(levels.min()) + 2 * scatter * math.sqrt(2 / window)
    return Jump(
        float(at[place - 1]), float(at[place]), rise, scatter * math.sqrt(2 / window), pvalue, window,
        float(y[lowest]), float(at[lowest]), from_minimum, scatter, n,
    )  # fmt: skip


def _checked(values: npt.ArrayLike, steps: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    y = np.asarray(values)
    if y.dtype.kind not in "fiu":
        raise TypeError(f"values: expected real numbers, got {y.dtype}")
    if y.ndim != 1:
        raise ValueError(f"values: expected shape (n,), got {y.shape}")
    at = np.arange(y.size) if steps is None else np.asarray(steps)
    if at.dtype.kind not in "fiu":
        raise TypeError(f"steps: expected real numbers, got {at.dtype}")
    if at.shape != y.shape:
        raise ValueError(f"steps: expected shape {y.shape}, got {at.shape}")
    if np.any(np.diff(at) <= 0):
        raise ValueError("steps: expected rising numbers, got others")
    known = np.isfinite(y)
    if int(known.sum()) < FEWEST:
        raise ValueError(f"values: expected at least {FEWEST} that are finite, got {int(known.sum())}")
    return y[known].astype(np.float64), at[known].astype(np.float64)


def _windows(n: int) -> Sequence[int]:
    most = max(n // 3, 2)
    return sorted({h for e in range(1, 40) for h in (1 << e, 3 << (e - 1)) if h <= most})


def _scatter(y: FloatArray) -> FloatArray:
    """Estimate the standard deviation of each row's values about a mean that seldom changes."""
    squares = np.diff(y, axis=1) ** 2
    scatter: FloatArray = np.sqrt(np.median(squares, axis=1) / (2 * _MEDIAN_CHI2))
    return scatter


def _rises(y: FloatArray, h: int) -> FloatArray:
    """Mean of h values less that of the h before, of each row at each place."""
    total = np.concatenate([np.zeros((len(y), 1)), np.cumsum(y, axis=1)], axis=1)
    rises: FloatArray = (total[:, 2 * h :] - 2 * total[:, h:-h] + total[:, : -2 * h]) / h
    return rises


@lru_cache(maxsize=16)
def _law(n: int, seed: int) -> FloatArray:
    """Return the statistic of series of independent normal values, sorted."""
    rng = np.random.default_rng([seed, n])
    found: list[FloatArray] = []
    left = _REPEATS
    while left:
        y = rng.standard_normal((min(left, max(_AT_ONCE // n, 1)), n))
        left -= len(y)
        largest = np.max([_rises(y, h).max(axis=1) / math.sqrt(2 / h) for h in _windows(n)], axis=0)
        found.append(largest / _scatter(y))
    law = np.sort(np.concatenate(found))
    law.flags.writeable = False
    return law
