"""The tail that a power law was fitted to, in one form for points, bins and whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gradtail.states.magnitudes import FloatArray

Form: TypeAlias = Literal["points", "bins", "integers"]


@dataclass(frozen=True, repr=False, eq=False)
class TailSample:
    """Values of at least ``xmin``, each distinct value or occupied bin once.

    Attributes
    ----------
    form : {"points", "bins", "integers"}
        Continuous values as they are; continuous values known to lie in bins; whole numbers.
    xmin : float
    low, high : ndarray of float64, shape (m,)
        log(x / xmin), ascending, from 0. Of bins the two ends, disjoint, empty bins left out; the
        highest may end at infinity. Else both are the same array.
    count : ndarray of float64, shape (m,)
        Values at each, above zero.
    """

    form: Form
    xmin: float
    low: FloatArray
    high: FloatArray
    count: FloatArray

    @property
    def n(self) -> float:
        """Values in all."""
        return float(self.count.sum())

    @property
    def integers(self) -> FloatArray:
        """The values x themselves, where they are whole numbers."""
        return np.rint(self.xmin * np.exp(self.low))
