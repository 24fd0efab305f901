"""The cosine of each step's vector with that of an earlier step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.estimators.rows import checked
from gradtail.states.magnitudes import FloatArray


@dataclass(frozen=True, eq=False)
class StepCosines:
    """Cosines of vectors a fixed number of steps apart.

    Attributes
    ----------
    steps : ndarray of int64, shape (K,)
        The later step of each pair.
    cosines : ndarray of float64, shape (K,)
        NaN where either vector is 0.
    stderr : ndarray of float64, shape (K,)
        Of the sketch: (1 - c**2) / sqrt(r), by which the cosine of the vectors themselves may be off; 0 of
        exact rows.
    lag : int
    buckets : int or None
        Of the sketch; None of exact rows.
    """

    steps: npt.NDArray[np.int64]
    cosines: FloatArray
    stderr: FloatArray
    lag: int
    buckets: int | None

    @property
    def mean(self) -> float:
        """Mean cosine; NaN without pairs."""
        known = self.cosines[~np.isnan(self.cosines)]
        return float(known.mean()) if known.size else float("nan")

    def ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Interval of each cosine for the sketch: by Fisher's transformation, as of r pairs of numbers.

        Returns
        -------
        low, high : ndarray of float64, shape (K,)
        """
        from scipy import special

        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        if self.buckets is None:
            return self.cosines, self.cosines
        half = special.ndtri((1 + level) / 2) / np.sqrt(self.buckets)
        with np.errstate(divide="ignore"):
            z = np.arctanh(self.cosines)
        return np.tanh(z - half), np.tanh(z + half)

    def __str__(self) -> str:
        if not self.cosines.size:
            return f"no two steps {self.lag} apart"
        how = "exact rows" if self.buckets is None else f"+- {np.nanmax(self.stderr):.2g} each by the sketch"
        low, high = np.nanquantile(self.cosines, [0.05, 0.95]) if np.isfinite(self.mean) else (np.nan, np.nan)
        return (
            f"cosine of steps {self.lag} apart: mean {self.mean:.3f}, 5 % below {low:.3f} and 5 % above "
            f"{high:.3f}, {self.cosines.size} pairs ({how})"
        )

    def __repr__(self) -> str:
        return f"StepCosines({self.cosines.size} pairs, lag={self.lag}, mean={self.mean:.3g})"


def step_cosines(
    vectors: npt.ArrayLike,
    *,
    steps: npt.ArrayLike | None = None,
    lag: int = 1,
    sketched: bool = False,
) -> StepCosines:
    """Return the cosine of each vector with the one ``lag`` steps before.

    Parameters
    ----------
    vectors : array of float, shape (T, m)
        One row a step, or sketches by one map. Rows that are not finite are left out.
    steps : array of int, shape (T,), optional
        Number of each step. Default: 0, 1, ...
    lag : int
        In steps; positive.
    sketched : bool
        Whether the rows are sketches, into as many buckets as they have columns.

    Returns
    -------
    StepCosines

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two finite rows, steps of another shape, no positive lag.

    Notes
    -----
    Over maps into r buckets the product of two sketches has the mean of that of the vectors and at most the
    variance (1 + c**2) / r times both squared norms, c their cosine (Charikar, Chen and Farach-Colton 2002).
    The norms of the sketches err with it, so that over these, and not over the exact norms, the cosine has
    only the error (1 - c**2) / sqrt(r) to first order: that of a correlation of r pairs. O(T m).

    Examples
    --------
    >>> step_cosines([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]).cosines.round(3).tolist()
    [0.707, 0.707]
    """
    x, _, numbers, _ = checked(vectors, None, steps)
    if isinstance(lag, bool) or not isinstance(lag, (int, np.integer)):
        raise TypeError(f"lag: expected a positive int, got {lag!r}")
    if lag < 1:
        raise ValueError(f"lag: expected a positive int, got {lag}")
    order = np.argsort(numbers, kind="stable")
    at = np.searchsorted(numbers[order], numbers - lag)
    before = order[np.minimum(at, len(order) - 1)]
    later = np.flatnonzero(numbers[before] == numbers - lag)
    before = before[later]
    largest = np.abs(x).max(axis=1)
    exponents = np.frexp(largest)[1]
    rows = np.ldexp(x.astype(np.float64), -exponents[:, None])
    lengths = np.linalg.norm(rows, axis=1)
    over = lengths[later] * lengths[before]
    products = np.einsum("km,km->k", rows[later], rows[before])
    found = np.divide(products, over, out=np.full(len(over), np.nan), where=over > 0)
    found = np.clip(found, -1.0, 1.0)
    buckets = int(x.shape[1]) if sketched else None
    stderr = np.zeros(len(over)) if buckets is None else (1 - found**2) / np.sqrt(buckets)
    return StepCosines(numbers[later], found, stderr, int(lag), buckets)
