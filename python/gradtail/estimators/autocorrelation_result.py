"""What the autocorrelation of step vectors holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs import Policy, autocovariance

IntArray = npt.NDArray[np.int64]

TRAINING = (
    "the weights moved between these steps, and the full gradient answers the noise of the steps before: "
    "apart from an order that repeats, these numbers cannot tell how batches were drawn"
)
"""What is to be said of steps at weights that move."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Autocorrelation:
    """Autocovariance of a sequence of vectors: mean inner product of those h steps apart.

    Attributes
    ----------
    lags : ndarray of int64, shape (H,)
        In steps, from 0.
    covariance : ndarray of float64, shape (H,)
        Sum of inner products over the pairs that there are, over their number; at lag 0 the mean squared
        norm. In units of the squared gradient.
    correlation : ndarray of float64, shape (H,)
        The same over that at lag 0.
    stderr : ndarray of float64, shape (H,)
        Of the correlation, if the vectors are independent (white noise): window and sketch together; 0 at
        lag 0, NaN where no two steps are so far apart. Reshuffled epochs differ from that by shares 1 / M.
    sketch_stderr : ndarray of float64, shape (H,)
        The part of it that is due to the sketch; 0 of exact rows.
    pairs : ndarray of int64, shape (H,)
        Pairs of steps at each lag.
    participation_ratio : float
        (tr C)**2 / tr C**2 of the covariance, as the inner products of different steps show it: how many
        series of single numbers this one is worth. Sketches tell it up to a few times their buckets.
    repeats : int or None
        The smallest lag at which the correlation is above a half, and as much and 6 errors above its
        neighbours, and such a peak again at twice and three times the lag as far as seen: batches that come
        again in the same order. Of a given period that lag alone. At weights that move, where a direction may
        oscillate, none up to 4 steps, none after correlations far below 0, and none that is not seen twice.
    period : int or None
        Batches of an epoch, if told.
    frozen : bool
        Whether all vectors were taken at the same weights.
    centred : bool
        Whether the mean of the steps was taken off, which lowers correlations of white noise by 1 / (T - 1).
    steps : int
        T: vectors used.
    size : int
        Elements of a vector, or buckets of a sketch.
    sketched : bool
    nonfinite : int
        Vectors left out.
    warnings : tuple of str
    """

    lags: IntArray
    covariance: FloatArray
    correlation: FloatArray
    stderr: FloatArray
    sketch_stderr: FloatArray
    pairs: IntArray
    participation_ratio: float
    repeats: int | None
    period: int | None
    frozen: bool
    centred: bool
    steps: int
    size: int
    sketched: bool
    nonfinite: int
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Policy | None:
        """What these numbers alone say of the order of batches: "fixed", or None where they cannot tell.

        To tell the others apart at fixed weights there is :func:`gradtail.sampling_policy`.
        """
        return "fixed" if self.repeats is not None else None

    def ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Interval of each correlation, by ``stderr``.

        Returns
        -------
        low, high : ndarray of float64, shape (H,)
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        half = special.ndtri((1 + level) / 2) * self.stderr
        return self.correlation - half, self.correlation + half

    def expected(self, policy: Policy = "reshuffle", period: int | None = None) -> FloatArray:
        """Return the correlation of exact theory at these lags, for noise at fixed weights.

        Parameters
        ----------
        policy : {"reshuffle", "replacement", "fixed"}
        period : int, optional
            Batches of an epoch; default: as told before.

        Raises
        ------
        ValueError
            No period, or an unknown policy.
        """
        batches = self.period if period is None else period
        if batches is None:
            raise ValueError("period: expected the number of batches of an epoch, got None")
        found = np.asarray(autocovariance(self.lags, batches, policy=policy), np.float64)
        if self.centred and policy == "replacement":
            found[1:] -= 1 / (self.steps - 1)
        return found

    def __str__(self) -> str:
        how = f"sketches into {self.size} buckets" if self.sketched else "exact rows"
        at = self._shown()
        some = ", ".join(f"{self.lags[i]}: {self.correlation[i]:.3f} +- {self.stderr[i]:.2g}" for i in at)
        lines = [f"autocorrelation of {self.steps} steps ({how}); lag and value {some}"]
        if self.period is not None and self.frozen and at:
            theory = {kind: self.expected(kind) for kind in ("reshuffle", "replacement", "fixed")}
            for kind, values in theory.items():
                lines.append(f"  {kind}: " + ", ".join(f"{self.lags[i]}: {values[i]:.3f}" for i in at))
        if self.repeats is not None:
            lines.append(f"  the batches repeat in the same order after {self.repeats} steps")
        elif not self.frozen:
            lines.append("  the order of the batches: cannot tell")
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def _shown(self) -> list[int]:
        """Places of the lags that are worth a line: the first, the period, and its repeat."""
        wanted = {1, 2, 3}
        for lag in (self.period, self.repeats):
            if lag is not None:
                wanted |= {lag - 1, lag, lag + 1}
        places = [i for i, lag in enumerate(self.lags.tolist()) if lag in wanted and self.pairs[i]]
        return places[: _SHOWN + 3]

    def __repr__(self) -> str:
        first = self.correlation[1] if self.lags.size > 1 else math.nan
        return (
            f"Autocorrelation(steps={self.steps}, lags={self.lags.size}, first={first:.4g}, "
            f"repeats={self.repeats}, warnings={len(self.warnings)})"
        )
