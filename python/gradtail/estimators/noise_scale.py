"""Noise scale: how many examples a batch needs before its gradient is more signal than noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.autocorrelation import Rows
from gradtail.estimators.fieller import fieller
from gradtail.estimators.rows import checked
from gradtail.states.magnitudes import FloatArray

FEWEST = 4
"""Steps, or batches, that a noise scale is taken from at least."""

_FEW, _CARRIED = 20, 4


@dataclass(frozen=True)
class NoiseScale:
    """The simple noise scale tr(Sigma) / |G|**2: about the batch size beyond which more examples save little.

    Attributes
    ----------
    trace : float
        tr(Sigma): variance of the gradient of one example, summed over elements; an unbiased estimate too.
    square : float
        |G|**2: squared norm of the mean gradient; an unbiased estimate, which may be negative.
    trace_variance, covariance, square_variance : float
        Of these two estimates, by the spread of the steps (or batches) and the sketch.
    samples : int
        Steps, or batches.
    dof : float
        Degrees of freedom of the variances.
    spread : {"steps", "batches"}
        What the error comes from.
    sketched : bool
    nonfinite : int
        Steps or batches left out.
    warnings : tuple of str
    unit : {"examples", "micro-batches"}
        What ``value`` counts, and ``trace`` is that of one of: micro-batches where their size was not told.
    """

    trace: float
    square: float
    trace_variance: float
    covariance: float
    square_variance: float
    samples: int
    dof: float
    spread: Literal["steps", "batches"]
    sketched: bool
    nonfinite: int
    warnings: tuple[str, ...] = ()
    unit: Literal["examples", "micro-batches"] = "examples"

    @property
    def value(self) -> float:
        """The noise scale, in ``unit``; inf where ``square`` is not positive."""
        if not self.square > 0:
            return math.inf
        return max(self.trace, 0.0) / self.square

    @property
    def stderr(self) -> float:
        """Standard error of the value to first order; inf where that is. Intervals do not rest on it."""
        if not (self.square > 0 and math.isfinite(self.value)):
            return math.inf
        x = self.trace / self.square
        variance = self.trace_variance - 2 * x * self.covariance + x * x * self.square_variance
        return math.sqrt(max(variance, 0.0)) / self.square

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Fieller's confidence set.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : float
            high is inf where these steps do not show that the mean gradient is not 0: low is a bound then.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        t = float(special.stdtrit(self.dof, (1 + level) / 2))
        return fieller(self.trace, self.square, self.trace_variance, self.covariance, self.square_variance, t)

    def is_bounded(self, level: float = 0.95) -> bool:
        """Whether the confidence set has an upper end."""
        return math.isfinite(self.ci(level)[1])

    def __str__(self) -> str:
        low, high = self.ci()
        if math.isfinite(high):
            said = f"noise scale {self.value:.3g} {self.unit} (95 % {low:.3g} to {high:.3g})"
        elif low > 0:
            said = f"noise scale at least {low:.3g} {self.unit} (95 %), no upper bound"
        else:
            said = "noise scale open: neither bound is known"
        lines = [
            f"{said}; tr(Sigma) {self.trace:.3g} +- {math.sqrt(self.trace_variance):.2g}, "
            f"|G|^2 {self.square:.3g} +- {math.sqrt(self.square_variance):.2g}, "
            f"from {self.samples} {self.spread}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


class MicroBatches(Protocol):
    """Squared norms of the parts that an accumulated gradient is the sum of, and of that sum."""

    @property
    def batches(self) -> int:
        """Parts."""

    @property
    def mean_square(self) -> float:
        """Mean of the squared norms of the parts."""

    @property
    def sum_square(self) -> float:
        """Squared norm of the sum."""


def noise_scale(
    small_square: npt.ArrayLike,
    big_square: npt.ArrayLike,
    *,
    small: npt.ArrayLike,
    big: npt.ArrayLike,
    buckets: int | None = None,
) -> NoiseScale:
    """Estimate the noise scale from squared gradient norms at two batch sizes over steps.

    The big batch of a step is made of the small ones: micro-batches and their mean, or the gradients of ranks
    and their average. Of one layer as of the whole model.

    Parameters
    ----------
    small_square : array of float, shape (K,)
        At each step the mean, over the small batches, of the squared norms of their mean gradients.
    big_square : array of float, shape (K,)
        Squared norm of the mean gradient of the big batch.
    small, big : int, or array of int, shape (K,)
        Examples in a small and in the big batch.
    buckets : int, optional
        Of the sketch that the squares are those of, the same map at all steps.

    Returns
    -------
    NoiseScale
        Of the averages over these steps: mean tr(Sigma) over mean |G|**2.

    Raises
    ------
    TypeError, ValueError
        Other shapes, negative squares, a big batch that is not larger than the small one, or fewer than 4
        steps with finite squares.

    Notes
    -----
    With b and B examples, (B big - b small) / (B - b) for |G|**2 and (small - big) / (1/b - 1/B) for
    tr(Sigma) are unbiased at each step, and are averaged over steps before the ratio is taken, as in
    McCandlish, Kaplan and Amodei (2018), arXiv:1812.06162, appendix A.1. The confidence set is Fieller's. The
    variances come from differences of successive steps (von Neumann 1941), so that a level that moves slowly
    is no noise, with 2 (K - 1)**2 / (3 K - 4) degrees of freedom, or 2 K / k of the larger kurtosis k, where
    few steps carry the spread; batches of different steps are taken for independent.
    A sketch into r buckets that all steps share adds 2 / r to both squared relative errors, which is the most
    that it can do. O(K).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> micro = 1 + 4 * rng.standard_normal((100, 8, 50))  # of one example each: tr(Sigma) / |G|^2 = 16
    >>> small, big = np.sum(micro**2, axis=2).mean(axis=1), np.sum(micro.mean(axis=1) ** 2, axis=1)
    >>> print(noise_scale(small, big, small=1, big=8))
    noise scale 15.4 examples (95 % 13.6 to 17.8); tr(Sigma) 802 +- 5.5, |G|^2 52 +- 3.4, from 100 steps
    """
    first, second = _squares(small_square, "small_square"), _squares(big_square, "big_square")
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"big_square: expected shape {first.shape} of one dimension, got {second.shape}")
    b, large = (_examples(values, name, first.shape) for values, name in ((small, "small"), (big, "big")))
    if np.any(large <= b):
        at = int(np.argmax(large <= b))
        raise ValueError(f"big: expected more examples than the small batch's {b[at]:g}, got {large[at]:g}")
    known = np.isfinite(first) & np.isfinite(second)
    left_out = int(known.size - np.count_nonzero(known))
    first, second, b, large = first[known], second[known], b[known], large[known]
    count = len(first)
    if count < FEWEST:
        raise ValueError(f"small_square: expected at least {FEWEST} steps with finite squares, got {count}")
    pairs = np.array([(first - second) / (1 / b - 1 / large), (large * second - b * first) / (large - b)])
    scale = _scale(pairs)
    moves = np.diff(pairs / scale, axis=1)
    variance = moves @ moves.T / (2 * (count - 1) * count)
    # a difference of two values of kurtosis k has (k + 3) / 2
    dof = min(2 * (count - 1) ** 2 / (3 * count - 4), 2 * count / (2 * _kurtosis(moves) - 3))
    return _found(pairs.mean(axis=1), variance, scale, count, dof, "steps", buckets, left_out)


def noise_scale_from_batches(
    vectors: npt.ArrayLike, norms: npt.ArrayLike | None = None, *, batch_size: int, buckets: int | None = None
) -> NoiseScale:
    """Estimate the noise scale from gradients of independent batches at the same weights.

    Parameters
    ----------
    vectors : array of float, shape (n, m)
        The mean gradient of each batch, or its sketch.
    norms : array of float, shape (n,), optional
        Exact norms, where the rows are sketches.
    batch_size : int
        Examples in a batch.
    buckets : int, optional
        Of the sketch; default: m where ``norms`` are given.

    Returns
    -------
    NoiseScale

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than 4 finite rows, norms of another shape, no positive batch size.

    Notes
    -----
    |G|**2 is the mean inner product of two different batches, and tr(Sigma) the batch size times what the
    mean squared norm exceeds it by; both U-statistics with variances by the jackknife over batches, of n - 1
    degrees of freedom, or fewer where few batches carry the spread. Batches of one epoch without replacement
    are not independent: |G|**2 is then too small by tr(Sigma) / N of N examples. O(n**2 m).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = noise_scale_from_batches(1 + 2 * rng.standard_normal((64, 200)), batch_size=4)  # 4 * 4 / 1
    >>> round(found.value, 1), [round(end) for end in found.ci()]
    (15.6, [14, 17])
    """
    x, exact, _, left_out = checked(vectors, norms, None)
    size = float(_examples(batch_size, "batch_size", ())[()])
    n = len(x)
    if n < FEWEST:
        raise ValueError(f"vectors: expected at least {FEWEST} batches with finite values, got {n}")
    rows = Rows.of(x, exact)
    g = rows.gram(np.arange(n))
    own, others = np.diag(g), g.sum(axis=1) - np.diag(g)
    total, pairs = float(others.sum()), n * (n - 1)
    square = total / pairs
    trace = size * (float(own.mean()) - square)
    # leaving out one batch each
    squares = (total - 2 * others) / ((n - 1) * (n - 2))
    traces = size * ((own.sum() - own) / (n - 1) - squares)
    values = np.array([traces, squares])
    away = values - values.mean(axis=1, keepdims=True)
    variance = (n - 1) / n * away @ away.T
    dof = min(n - 1.0, 2 * n / (_kurtosis(away) - 1))
    factor = math.ldexp(1.0, 2 * rows.exponent)
    r = buckets if buckets is not None or exact is None else x.shape[1]
    return _found(np.array([trace, square]) * factor, variance, factor, n, dof, "batches", r, left_out)


def noise_scale_from_micro(
    records: Iterable[MicroBatches], *, batch_size: int | None = None, buckets: int | None = None
) -> NoiseScale:
    """Estimate the noise scale from the micro-batches of accumulated steps.

    Parameters
    ----------
    records : iterable of objects with ``batches``, ``mean_square`` and ``sum_square``
        One a step, such as ``monitor.micro.records``; those of a single micro-batch are left out.
    batch_size : int, optional
        Examples in a micro-batch. Default: not known, and the result is in micro-batches.
    buckets : int, optional
        Of the sketch that both squares are those of.

    Returns
    -------
    NoiseScale

    Raises
    ------
    TypeError, ValueError
        As for :func:`noise_scale`; fewer than 4 steps of two micro-batches or more.

    Notes
    -----
    Whatever the losses were multiplied by cancels: n increments are taken as n-th parts of the gradient.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> rng = np.random.default_rng(0)
    >>> parts = (1 + 4 * rng.standard_normal((100, 8, 50))) / 8
    >>> records = [
    ...     SimpleNamespace(batches=8, mean_square=np.sum(p**2) / 8, sum_square=np.sum(p.sum(axis=0) ** 2))
    ...     for p in parts
    ... ]
    >>> round(noise_scale_from_micro(records, batch_size=1).value, 1)
    15.4
    """
    some = [record for record in records if record.batches > 1]
    size = _examples(1 if batch_size is None else batch_size, "batch_size", ())[()]
    n = np.array([record.batches for record in some], np.float64)
    small = np.array([record.mean_square for record in some], np.float64) * n**2
    big = np.array([record.sum_square for record in some], np.float64)
    if len(some) < FEWEST:
        raise ValueError(
            f"records: expected at least {FEWEST} steps of two micro-batches or more, got {len(some)}"
        )
    found = noise_scale(small, big, small=np.full(len(some), size), big=n * size, buckets=buckets)
    return replace(found, unit="micro-batches") if batch_size is None else found


def _kurtosis(away: FloatArray) -> float:
    """Return the larger kurtosis of two rows of mean 0; at least that of normal numbers."""
    square = np.mean(away**2, axis=1)
    fourth = np.mean(away**4, axis=1)
    found = np.divide(fourth, square**2, out=np.zeros(2), where=square > 0)
    return max(3.0, float(found.max()))


def _scale(pairs: FloatArray) -> float:
    largest = float(np.abs(pairs).max())
    return math.ldexp(1.0, int(np.frexp(largest)[1])) if largest > 0 else 1.0


def _found(
    means: FloatArray,
    variance: FloatArray,
    scale: float,
    count: int,
    dof: float,
    spread: Literal["steps", "batches"],
    buckets: int | None,
    left_out: int,
) -> NoiseScale:
    """Put the parts together; ``variance`` is over ``scale`` squared."""
    if buckets is not None:
        if isinstance(buckets, bool) or not isinstance(buckets, (int, np.integer)):
            raise TypeError(f"buckets: expected a positive int, got {buckets!r}")
        if buckets < 1:
            raise ValueError(f"buckets: expected a positive int, got {buckets}")
        variance = variance + np.diag(2 / buckets * (means / scale) ** 2)
    variance = variance * scale**2
    warnings = [f"{left_out} {spread} with NaN or infinite values are left out"] if left_out else []
    if count < _FEW:
        warnings.append(f"{count} {spread} are few: at least {_FEW} for the interval to be trusted")
    elif dof < count / _CARRIED:
        warnings.append(f"few of the {spread} carry the spread: the interval is that of fewer, {dof:.0f}")
    return NoiseScale(
        trace=float(means[0]),
        square=float(means[1]),
        trace_variance=float(variance[0, 0]),
        covariance=float(variance[0, 1]),
        square_variance=float(variance[1, 1]),
        samples=count,
        dof=float(dof),
        spread=spread,
        sketched=buckets is not None,
        nonfinite=left_out,
        warnings=tuple(warnings),
    )


def _squares(values: npt.ArrayLike, name: str) -> FloatArray:
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers, got {values!r:.60}") from error
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {x.dtype}")
    x = x.astype(np.float64)
    if np.any(x < 0):
        raise ValueError(f"{name}: expected squares of at least 0, got {x.min():.6g}")
    return x


def _examples(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> FloatArray:
    x = np.asarray(values)
    whole = x.dtype.kind in "iu" or (x.dtype.kind == "f" and x.ndim > 0 and bool(np.all(x == np.rint(x))))
    if not whole:
        raise TypeError(f"{name}: expected a positive int, got {values!r:.60}")
    if np.any(x < 1):
        raise ValueError(f"{name}: expected a positive int, got {x.min()}")
    if x.ndim and x.shape != shape:
        raise ValueError(f"{name}: expected an int, or shape {shape}, got {x.shape}")
    return np.broadcast_to(x, shape).astype(np.float64)
