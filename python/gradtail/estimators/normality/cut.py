"""A normal law cut into cells: their probabilities, and what they still tell of mean and variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from gradtail.states.magnitudes import FloatArray


@dataclass(frozen=True)
class CutNormal:
    """The standard normal law seen through cells between ``z``, with the whole line covered.

    Attributes
    ----------
    z : ndarray of float64, shape (c - 1,)
        Ascending.
    """

    z: FloatArray

    @cached_property
    def probability(self) -> FloatArray:
        """Of each cell, shape (c,); small ones of the upper tail keep their digits."""
        below = np.concatenate([[0.0], special.ndtr(self.z), [1.0]])
        above = np.concatenate([[1.0], special.ndtr(-self.z), [0.0]])
        return np.where(below[1:] < 0.5, np.diff(below), -np.diff(above))

    @cached_property
    def scores(self) -> FloatArray:
        """Mean over each cell of z and of (z**2 - 1) / sqrt(2), times sqrt(probability), shape (2, c).

        These are the derivatives of the log density by mean and standard deviation, each scaled to a
        variance of 1.
        """
        density = np.exp(-0.5 * self.z**2) / np.sqrt(2 * np.pi)
        edges = np.array([density, self.z * density / np.sqrt(2)])
        sums = -np.diff(edges, axis=1, prepend=0.0, append=0.0)
        root = np.sqrt(self.probability)
        return np.divide(sums, root, out=np.zeros_like(sums), where=root > 0)

    @property
    def lost(self) -> FloatArray:
        """Fisher information on mean and standard deviation that the cells lose, a share, shape (2, 2)."""
        return np.asarray(np.eye(2) - self.scores @ self.scores.T)
