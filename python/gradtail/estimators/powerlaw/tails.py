"""What every form of data tells the search for xmin and the tests: exponents and distances at candidates.

A candidate is a position in the ascending distinct values (or occupied bins) that the tail may begin at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import IntArray
from gradtail.estimators.powerlaw.sample import Form, TailSample
from gradtail.states.magnitudes import FloatArray

_CHUNK = 1 << 20  # entries of a matrix of gaps


def logs_below(values: FloatArray) -> FloatArray:
    """Logarithms less that of the last value, without loss where values are nearly equal to it."""
    last = values[-1]
    with np.errstate(divide="ignore"):  # far below, where the other form is taken
        near, far = np.log1p((values - last) / last), np.log(values) - np.log(last)
    logs: FloatArray = np.where(values > last / 2, near, far)
    return logs


class TailData(ABC):
    """Positive values in order, each distinct value or occupied bin once.

    Parameters
    ----------
    values : ndarray of float64, shape (m,)
        Ascending: values, or lower edges of bins. The first may have a count of 0: an xmin that was
        given and that no value equals.
    count : ndarray of float64, shape (m,)
    unseen : int
        Further values, smaller than all of these.
    """

    form: ClassVar[Form]
    last_step: ClassVar[float] = 0.0
    """What Clauset's distance leaves off the count above a step: for points i ends at n - 1."""

    def __init__(self, values: FloatArray, count: FloatArray, unseen: int = 0) -> None:
        self.values, self.count, self.unseen = values, count, unseen
        self.before = np.zeros(values.size + 1)  # values below each, and in the end all
        count.cumsum(out=self.before[1:])

    @property
    def n(self) -> int:
        """Values in all."""
        return int(self.before[-1]) + self.unseen

    @property
    def candidates(self) -> IntArray:
        """All positions that leave two distinct values."""
        return np.arange(max(self.values.size - 1, 0))

    def n_tail(self, at: npt.NDArray[np.int64] | int) -> FloatArray:
        """Count the values from each position on."""
        counts: FloatArray = self.before[-1] - self.before[at]
        return counts

    @abstractmethod
    def alphas(self, at: IntArray) -> FloatArray:
        """Maximum-likelihood tail exponent (density exponent less 1) of the tail at each position."""

    @abstractmethod
    def stderr(self, at: int, alpha: float) -> float:
        """Return the standard error of alpha, for a given xmin, from the likelihood's curvature."""

    @abstractmethod
    def survival(self, at: IntArray, alpha: FloatArray, j: IntArray) -> tuple[FloatArray, FloatArray]:
        """Fitted share of the tail from each value j on, and beyond it; arguments broadcast."""

    @abstractmethod
    def draw(self, at: int, alpha: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw n values of the fitted law: distinct ``values`` and their ``count``."""

    @abstractmethod
    def of(self, values: FloatArray, count: FloatArray, unseen: int) -> TailData:
        """Make data of this form, and bins of this grid, with other values."""

    @abstractmethod
    def sample(self, at: int) -> TailSample:
        """Return the tail from a position on."""

    def gaps(self, at: IntArray, alpha: FloatArray, j: IntArray) -> FloatArray:
        """Distance of the tail from its fit at the values j: a bound from below for the distance.

        Parameters
        ----------
        at, alpha : shape (s,)
        j : shape (m,)

        Returns
        -------
        ndarray, shape (s, m)
            0 where j lies below the tail.
        """
        at, alpha = at[:, None], alpha[:, None]
        n, start = self.n_tail(at), self.before[at]
        with np.errstate(over="ignore", invalid="ignore"):  # below the tail, where it does not count
            from_, beyond = self.survival(at, alpha, j)
        first = self.before[j] - start
        second = np.maximum(self.before[j + 1] - start - self.last_step, first)
        gap = np.maximum(np.abs(1 - from_ - first / n), np.abs(1 - beyond - second / n))
        gap[j < at] = 0.0
        gap[~np.isfinite(alpha[:, 0])] = 1.0  # values that differ by rounding alone
        return gap

    def bounds(self, at: IntArray, alpha: FloatArray, j: IntArray) -> FloatArray:
        """Return the largest of :meth:`gaps` over j for each candidate, in limited memory."""
        rows = max(1, _CHUNK // max(j.size, 1))
        parts = [
            self.gaps(at[i : i + rows], alpha[i : i + rows], j).max(axis=1, initial=0.0)
            for i in range(0, at.size, rows)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def distance(self, at: int, alpha: float) -> tuple[float, int]:
        """Kolmogorov-Smirnov distance of the tail from its fit, and the position where it is reached."""
        j = np.arange(at, self.values.size)
        gap = self.gaps(np.array([at]), np.array([alpha]), j)[0]
        worst = int(gap.argmax())
        return float(gap[worst]), at + worst
