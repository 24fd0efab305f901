"""Autocorrelation of single coordinates over steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from gradtail.estimators.autocorrelation import autocorrelation
from gradtail.estimators.autocorrelation_result import Autocorrelation, IntArray
from gradtail.states.magnitudes import FloatArray
from gradtail.states.track_ring import Tracks

_VALUES = 1 << 21


@dataclass(frozen=True, eq=False)
class CoordinateAutocorrelation:
    """Autocorrelation of each of many coordinates.

    Attributes
    ----------
    lags : ndarray of int64, shape (H,)
        From 0.
    correlation : ndarray of float64, shape (H, m)
        NaN of coordinates that do not change.
    stderr : ndarray of float64, shape (H, m)
        If the values are independent: 1 / sqrt(pairs).
    pooled : Autocorrelation
        Of the coordinates in units of their standard deviations, all together.
    constant : int
        Coordinates that do not change, or have fewer than two values.
    centred : bool
    steps : int
    """

    lags: IntArray
    correlation: FloatArray
    stderr: FloatArray
    pooled: Autocorrelation
    constant: int
    centred: bool
    steps: int

    def exceedance(self, level: float = 0.95) -> FloatArray:
        """Return the share of coordinates beyond the interval of white noise at each lag.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        ndarray of float64, shape (H,)
            About 1 - level if noise is white; 0 at lag 0.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        centre = -1 / (self.steps - 1) if self.centred else 0.0
        known = np.isfinite(self.correlation) & np.isfinite(self.stderr)
        beyond = np.abs(self.correlation - centre) > special.ndtri((1 + level) / 2) * self.stderr
        beyond[0] = False
        counts = known.sum(axis=1)
        empty = np.full(len(counts), np.nan)
        return np.asarray(np.divide((beyond & known).sum(axis=1), counts, out=empty, where=counts > 0))

    def __str__(self) -> str:
        m = self.correlation.shape[1]
        share = 100 * float(self.exceedance()[1])
        lines = [
            f"autocorrelation of {m} coordinates over {self.steps} steps: at lag 1 "
            f"{self.pooled.correlation[1]:.3f} +- {self.pooled.stderr[1]:.2g} on average, {share:.3g} % of "
            "them beyond the 95 % of white noise"
        ]
        if self.constant:
            lines.append(f"  {self.constant} coordinates do not change and are left out")
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.pooled.warnings)])

    def __repr__(self) -> str:
        return f"CoordinateAutocorrelation(coordinates={self.correlation.shape[1]}, steps={self.steps})"


def coordinate_autocorrelation(
    values: Tracks | npt.ArrayLike,
    *,
    lags: int | None = None,
    period: int | None = None,
    centred: bool = True,
    frozen: bool = True,
) -> CoordinateAutocorrelation:
    """Estimate the autocorrelation of single coordinates over steps.

    Parameters
    ----------
    values : Tracks, or array of float, shape (T, m)
        One row a step. NaN is a value that is not known; an infinite one counts as NaN.
    lags : int, optional
        Largest lag; default: T - 1.
    period, frozen
        As for :func:`gradtail.autocorrelation`.
    centred : bool
        Take off the mean of each coordinate.

    Returns
    -------
    CoordinateAutocorrelation

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two steps, no coordinate that changes, or steps with gaps.

    Notes
    -----
    Sums over pairs of known values by FFT, over their number and over the variance. O(T m log T).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = coordinate_autocorrelation(rng.standard_normal((400, 200)))
    >>> bool(0.03 < found.exceedance()[1] < 0.08)
    True
    """
    x = np.asarray(values.values if isinstance(values, Tracks) else values)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"values: expected an array of real numbers, got dtype {x.dtype}")
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ValueError(f"values: expected shape (steps, m) of at least 2 steps, got {x.shape}")
    if isinstance(values, Tracks) and np.any(np.diff(values.steps) != 1):
        raise ValueError("values: expected tracks of steps without gaps, got some that are missing")
    steps = len(x)
    if lags is not None and (isinstance(lags, bool) or not isinstance(lags, (int, np.integer))):
        raise TypeError(f"lags: expected an int from 1 to {steps - 1}, got {lags!r}")
    top = steps - 1 if lags is None else int(lags)
    if not 1 <= top < steps:
        raise ValueError(f"lags: expected an int from 1 to {steps - 1}, got {top}")
    x = x.astype(np.float64)
    known = np.isfinite(x)
    counts = known.sum(axis=0)
    x = np.where(known, x, 0.0)
    x *= 1 / np.maximum(np.abs(x).max(axis=0), np.finfo(np.float64).tiny)  # so that squares keep their digits
    if centred:
        x = np.where(known, x - x.sum(axis=0) / np.maximum(counts, 1), 0.0)
    power = np.sum(x * x, axis=0) / np.maximum(counts, 1)
    moving = (counts > 1) & (power > (4 * np.finfo(np.float64).eps) ** 2)
    if not moving.any():
        raise ValueError("values: expected a coordinate that changes, got none")
    correlation, stderr = np.full((top + 1, x.shape[1]), np.nan), np.full((top + 1, x.shape[1]), np.nan)
    size = fft.next_fast_len(steps + top, real=True)
    for part in np.array_split(np.flatnonzero(moving), max(1, size * int(moving.sum()) // _VALUES)):
        sums = fft.irfft(np.abs(fft.rfft(x[:, part], size, axis=0)) ** 2, size, axis=0)[: top + 1]
        pairs = fft.irfft(np.abs(fft.rfft(known[:, part].astype(float), size, axis=0)) ** 2, size, axis=0)
        pairs = np.rint(pairs[: top + 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation[:, part] = np.where(pairs > 0, sums / pairs, np.nan) / power[part]
            stderr[:, part] = np.where(pairs > 0, 1 / np.sqrt(pairs), np.nan)
    stderr[0, moving] = 0.0
    pooled = autocorrelation(
        x[:, moving] / np.sqrt(power[moving]), lags=top, period=period, centred=False, frozen=frozen
    )
    pooled = replace(pooled, centred=centred)  # each by its own mean
    return CoordinateAutocorrelation(
        np.arange(top + 1, dtype=np.int64), correlation, stderr, pooled, int((~moving).sum()), centred, steps
    )
