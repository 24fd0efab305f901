"""How the noise of one step goes with that of others: autocovariance of vectors over steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from gradtail.estimators.autocorrelation_result import TRAINING, Autocorrelation, IntArray
from gradtail.estimators.rows import checked
from gradtail.states.magnitudes import FloatArray

_VALUES = 1 << 21  # transformed at once
_ROWS = 1024  # that the size of inner products is measured on
_GAPS = 16  # times as many steps as vectors there may be
_FEW_PAIRS = 16
_PEAK, _ERRORS = 0.5, 6.0
_SHORT = 4  # lags up to which waves look like an order that repeats
_AGAIN, _DEEP = 0.7, 0.4  # of the peak: as high at its multiples, and as far below 0 before it


def autocorrelation(
    vectors: npt.ArrayLike,
    norms: npt.ArrayLike | None = None,
    *,
    steps: npt.ArrayLike | None = None,
    lags: int | None = None,
    period: int | None = None,
    centred: bool = False,
    frozen: bool = True,
    sketched: bool | None = None,
) -> Autocorrelation:
    """Estimate the autocovariance of a sequence of vectors at all lags.

    Gradient noise is here the gradient of a batch less the full gradient at the same weights.

    Parameters
    ----------
    vectors : array of float, shape (T, m)
        One row a step, in the order of the steps: the noise itself, some of its coordinates, or sketches of
        it by one random linear map into m buckets. Rows that are not finite are left out.
    norms : array of float, shape (T,), optional
        Exact Euclidean norm of each vector, where the rows are sketches: each row is scaled to its norm, so
        that inner products become cosines times norms. Not where the mean is taken off.
    steps : array of int, shape (T,), optional
        Number of each step, rising; lags are differences of these. Default: 0, 1, ...
    lags : int, optional
        Largest lag in steps; default: all.
    period : int, optional
        Batches of an epoch, for the overlay of theory, and as the lag at which an order may repeat.
    centred : bool
        Take off the mean of the steps, as for gradients themselves.
    frozen : bool
        Whether all vectors were taken at the same weights; if not, a warning says what cannot be told.
    sketched : bool, optional
        Whether the rows are sketches; default: if ``norms`` are given.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two finite rows, norms or steps of another shape, steps that do not
        rise, or whose gaps are longer than 16 times what is there, lags or period out of range.

    Notes
    -----
    Sums over pairs by FFT (Wiener and Khinchin), each over the number of pairs: unbiased if the mean of the
    noise is 0. Inner products of independent vectors have mean 0 and mean square tr C**2, and of sketches
    into r buckets ((tr C)**2 + tr C**2) / r more, so that the standard error of white noise at lag h is
    sqrt(q / pairs) / tr C with q the mean square of the products found (over pairs of at most 1024 steps;
    lags at which batches repeat are left out of it). The sketch's error averages over pairs as the sampling
    error does: it is one more direction in r.

    O(T m log T + min(T, 1024)**2 m).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.standard_normal((60, 50))
    >>> noise -= noise.mean(axis=0)
    >>> epochs = np.concatenate([rng.permutation(noise).reshape(10, 6, 50).mean(axis=1) for _ in range(400)])
    >>> found = autocorrelation(epochs, period=10)
    >>> found.correlation[[1, 5, 10]].round(2).tolist(), found.expected()[[1, 5, 10]].round(2).tolist()
    ([-0.1, -0.06, 0.0], [-0.1, -0.06, 0.0])
    """
    x, exact, numbers, left_out = checked(vectors, norms, steps)
    is_sketch = exact is not None if sketched is None else bool(sketched)
    if np.any(np.diff(numbers) <= 0):
        raise ValueError("steps: expected rising numbers, got some that are not")
    stride, places = _grid(numbers)
    most = int(places[-1]) * stride
    top = most if lags is None else _lag(lags, "lags", most)
    batches = None if period is None else _lag(period, "period", None)
    rows = Rows.of(x, None if centred else exact, centred)
    scale = rows.exponent
    count = top // stride + 1
    sums, pairs = _lag_sums(rows, places, count)
    covariance = np.divide(sums, pairs, out=np.full(count, np.nan), where=pairs > 0)
    total = float(covariance[0])
    at = stride * np.arange(count)
    correlation = covariance / total if total > 0 else np.full(count, np.nan)
    square = _mean_square(rows, places, correlation)
    buckets = x.shape[1] if is_sketch else None
    ratio = math.nan
    if total > 0:
        rest = (buckets * square - total**2) / (buckets + 1) if buckets else square
        ratio = total**2 / rest if rest > 0 else math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(pairs > 0, 1 / np.sqrt(pairs), np.nan)
    chance[0] = 0.0
    stderr = chance * (math.sqrt(square) / total if total > 0 else math.nan)
    found, refused = _repeat(correlation, stderr, pairs, at, batches, bool(frozen))
    warnings = [] if frozen else [TRAINING]
    if refused is not None:
        warnings.append(
            f"a peak at lag {refused} is no verdict: a direction that oscillates from step to step has such, "
            "and an order that repeats one as high at twice and three times the lag"
        )
    if left_out:
        warnings.append(f"{left_out} steps with NaN or infinite values are left out")
    if stride > 1:
        warnings.append(f"these are every {stride}th step at most: other lags are not seen")
    return Autocorrelation(
        lags=at.astype(np.int64),
        covariance=np.ldexp(covariance, 2 * scale),
        correlation=correlation,
        stderr=stderr,
        sketch_stderr=chance / math.sqrt(buckets) if buckets else np.zeros(count),
        pairs=pairs,
        participation_ratio=ratio,
        repeats=found,
        period=batches,
        frozen=bool(frozen),
        centred=bool(centred),
        steps=len(x),
        size=int(x.shape[1]),
        sketched=is_sketch,
        nonfinite=left_out,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class Rows:
    """Rows over 2**exponent, scaled to norms that are known; float64, some columns at a time."""

    x: npt.NDArray[Any]
    shift: int
    factor: FloatArray | None
    exponent: int
    centred: bool

    @classmethod
    def of(cls, x: npt.NDArray[Any], exact: FloatArray | None, centred: bool = False) -> Rows:
        """Take rows, and the norms they are to have."""
        shift = int(np.frexp(max(float(x.max()), -float(x.min())))[1])
        if exact is None:
            return cls(x, shift, None, shift, centred)
        exponent = int(np.frexp(float(exact.max()))[1])
        lengths = np.sqrt(sum(np.einsum("tm,tm->t", p, p) for p in cls(x, shift, None, 0, False).parts()))
        factor = np.divide(np.ldexp(exact, -exponent), lengths, out=np.zeros(len(x)), where=lengths > 0)
        return cls(x, shift, factor, exponent, centred)

    def parts(self, length: int | None = None) -> Iterator[FloatArray]:
        """Yield blocks of columns, as many as fit where each takes ``length`` values (default: as it is)."""
        columns = max(1, _VALUES // (len(self.x) if length is None else length))
        for start in range(0, self.x.shape[1], columns):
            part = np.ldexp(self.x[:, start : start + columns].astype(np.float64), -self.shift)
            if self.factor is not None:
                part *= self.factor[:, None]
            if self.centred:
                part -= part.mean(axis=0)
            yield part

    def gram(self, chosen: IntArray) -> FloatArray:
        """Inner products of some of the rows."""
        total = np.zeros((len(chosen), len(chosen)))
        for part in self.parts():
            total += part[chosen] @ part[chosen].T
        return total


def _grid(numbers: IntArray) -> tuple[int, IntArray]:
    """Return the largest common stride of the steps, and their places in it."""
    stride = int(np.gcd.reduce(np.diff(numbers)))
    places = (numbers - numbers[0]) // stride
    if places[-1] >= _GAPS * len(numbers):
        raise ValueError(
            f"steps: expected at most {_GAPS} times as many steps as vectors from first to last, "
            f"got {places[-1] + 1} and {len(numbers)}"
        )
    return stride, places


def _lag(value: object, name: str, most: int | None) -> int:
    end = "" if most is None else f" to {most}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int from {2 if most is None else 1}{end}, got {value!r}")
    if value < (2 if most is None else 1) or (most is not None and value > most):
        raise ValueError(f"{name}: expected an int from {2 if most is None else 1}{end}, got {value}")
    return int(value)


def _lag_sums(rows: Rows, places: IntArray, count: int) -> tuple[FloatArray, IntArray]:
    """Sum inner products at each lag on the grid, and count the pairs."""
    length = int(places[-1]) + 1
    size = fft.next_fast_len(length + count, real=True)
    power = np.zeros(size // 2 + 1)
    for part in rows.parts(size):
        spread = np.zeros((length, part.shape[1]))
        spread[places] = part
        turned = fft.rfft(spread, size, axis=0)
        power += np.einsum("fc,fc->f", turned.real, turned.real)
        power += np.einsum("fc,fc->f", turned.imag, turned.imag)
    there = np.zeros(length)
    there[places] = 1.0
    seen = np.abs(fft.rfft(there, size)) ** 2
    sums = fft.irfft(power, size)[:count]
    return sums, np.rint(fft.irfft(seen, size)[:count]).astype(np.int64)


def _mean_square(rows: Rows, places: IntArray, correlation: FloatArray) -> float:
    """Mean square of the inner products of different steps, without lags at which batches repeat."""
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _ROWS)).astype(np.int64))
    g = rows.gram(chosen)
    apart = np.abs(places[chosen][:, None] - places[chosen])
    alike = np.append(np.nan_to_num(correlation) > _PEAK, False)
    alike[0] = True
    kept = ~alike[np.minimum(apart, len(alike) - 1)]
    return float(np.mean(g[kept] ** 2)) if kept.any() else float(np.mean(np.diag(g)) ** 2)


def _repeat(
    correlation: FloatArray,
    stderr: FloatArray,
    pairs: IntArray,
    at: IntArray,
    period: int | None,
    frozen: bool,
) -> tuple[int | None, int | None]:
    """Return the smallest lag with a peak that no chance, drift or wave makes, and one that is refused.

    A direction that oscillates in training, with cos(2 pi f h) at lag h, has peaks of that height for f
    above 1/6 alone, at a lag up to 4 or after a trough of -1/2 or less; an order of M batches that repeats
    has -1 / (M - 1) on the average before lag M.
    """
    if len(at) < 4:
        return None, None
    level = np.maximum(correlation[1:-2], correlation[3:])
    height = correlation[2:-1] - level
    peak = (height > _PEAK) & (height > _ERRORS * stderr[2:-1]) & (pairs[3:] >= _FEW_PAIRS)
    if period is not None:
        peak &= at[2:-1] == period
    where = 2 + np.flatnonzero(peak)
    for i in where.tolist():
        value = correlation[i]
        later = [j for j in (2 * i, 3 * i) if j + 1 < len(at) and pairs[j + 1] >= _FEW_PAIRS]
        # heights, for a drift lowers what is far apart
        stays = value > _PEAK and all(height[j - 2] >= _AGAIN * height[i - 2] for j in later)
        before = np.nan_to_num(correlation[1:i]).min()
        if stays and (frozen or (i > _SHORT and later and before > -_DEEP * value)):
            return int(at[i]), None
    return None, int(at[where[0]]) if where.size else None
