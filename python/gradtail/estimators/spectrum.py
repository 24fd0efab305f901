"""The covariance of gradients over steps: eigenvalues, trace, and how many directions they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators.gram import (
    block_edges,
    centre,
    gram,
    jackknife,
    quadratic_sketch_variance,
    squared_trace,
    weighted_sketch_variance,
    without_sketch_bias,
)
from gradtail.estimators.spectrum_result import CovarianceSpectrum
from gradtail.states.magnitudes import FloatArray

__all__ = ["CovarianceSpectrum", "covariance_spectrum"]

FEW_STEPS = 20
"""Steps below which errors are not to be trusted."""

BUCKETS_A_STEP = 8
"""Buckets a step from which a sketch shows the whole of a spectrum."""

_BLOCKS = 16
_FEWEST_BLOCKS = 3
_DRIFT_IN_ERRORS, _DRIFT_WORTH_A_WORD = 5.0, 0.02
_BIAS_LEFT = 1.5  # at most so many times what the correction has taken off
_FOR_RATIO = 8  # steps needed for the error of the U-statistic, which takes four at a time


def covariance_spectrum(
    vectors: npt.ArrayLike,
    norms: npt.ArrayLike | None = None,
    *,
    centred: bool = True,
    top: int | None = None,
    sketched: bool | None = None,
) -> CovarianceSpectrum:
    """Estimate the spectrum of the covariance of step vectors from their Gram matrix.

    Parameters
    ----------
    vectors : array of float, shape (T, m)
        One row a step, in the order of the steps: the gradients themselves, or their sketches by one
        random linear map (count sketch) into m buckets. Rows that are not finite are left out.
    norms : array of float, shape (T,), optional
        Exact Euclidean norm of each gradient, where the rows are sketches: they set the diagonal of
        the Gram matrix, and its other entries become cosines times norms.
    centred : bool
        True: the covariance about the mean of the steps, with ``ddof`` = 1, that is, over T - 1.
        False: the second moment E[g g'], over T.
    top : int, optional
        Eigenvalues wanted; default: all T - 1, or T if not centred, or m if that is less.
    sketched : bool, optional
        Whether the rows are sketches; default: if ``norms`` are given.

    Returns
    -------
    CovarianceSpectrum

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two finite rows, norms of another shape or negative, or more
        eigenvalues wanted than these steps have.

    Notes
    -----
    The eigenvalues are those of the sample of T steps. Their sampling error is by the jackknife that
    leaves out 16 blocks of consecutive steps in turn. A sketch into r buckets acts on the Gram matrix
    as r samples would, G^(1/2) W G^(1/2) / r with W of Wishart's law: the bias is taken off by the
    relation of sample and population spikes (Bai and Ding 2012), with the gaps of close eigenvalues
    smoothed as in Ledoit and Wolf (2020), and the variance comes from
    Var(a'S'S b) = (|a|**2 |b|**2 + (a'b)**2) / r by the delta method. What is left of the bias is
    taken to be up to 1.5 times what has been taken off.

    ``participation_ratio`` is (tr C)**2 / tr C**2 of the law and not of the sample, whose own is below
    T: tr C**2 is the U-statistic over distinct steps of Chen, Zhang and Zhong (2010, JASA 105, 810),

        sum* (x_i'x_j)**2 / P2 - 2 sum* x_i'x_j x_j'x_k / P3 + sum* x_i'x_j x_k'x_l / P4,

    with Pm = T! / (T-m)!, and of a sketch (r U - (tr C)**2) / (r + 1), since a sketch adds
    (tr C**2 + (tr C)**2) / r to it. Not centred it is the first sum alone.

    O(T**2 m + 16 T**3), in float64.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = 5 + rng.standard_normal((400, 50)) * np.sqrt([30, 10] + [0.1] * 48)
    >>> found = covariance_spectrum(rows, top=3)
    >>> [round(value) for value in found.eigenvalues.tolist()], round(found.participation_ratio, 1)
    ([29, 10, 0], 2.0)
    """
    x, exact, left_out = _checked(vectors, norms)
    is_sketch = exact is not None if sketched is None else bool(sketched)
    steps, size = x.shape
    wanted = _check_top(top, min(steps - 1 if centred else steps, size))
    sample = _Sample.of(x, exact, size if is_sketch else None, centred)
    values, sampling, sketch = _spectrum(sample, wanted)
    trace = _trace(sample)
    share = _inverse_ratio(sample)
    warnings = [*_about_steps(steps, left_out, sample), *_about_drift(sample, trace.value)]
    warnings += _about_size(sample, share.value, wanted)
    scale = 2 * sample.exponent
    return CovarianceSpectrum(
        eigenvalues=np.ldexp(values, scale),
        stderr=np.ldexp(np.hypot(sampling, sketch), scale),
        sampling_stderr=np.ldexp(sampling, scale),
        sketch_stderr=np.ldexp(sketch, scale),
        trace=float(np.ldexp(trace.value, scale)),
        trace_stderr=float(np.ldexp(math.hypot(trace.sampling, trace.sketch), scale)),
        trace_sketch_stderr=float(np.ldexp(trace.sketch, scale)),
        inverse_ratio=share.value,
        inverse_ratio_stderr=math.hypot(share.sampling, share.sketch),
        inverse_ratio_sketch_stderr=share.sketch,
        centred=centred,
        steps=steps,
        size=size,
        sketched=is_sketch,
        nonfinite=left_out,
        blocks=sample.blocks,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class _Number:
    """An estimate and the two parts of its error."""

    value: float
    sampling: float
    sketch: float


@dataclass(frozen=True)
class _Sample:
    """Gram matrices of the steps, over 4**exponent.

    Attributes
    ----------
    raw : ndarray, shape (T, T)
        Of the rows as they are, less their mean if centred.
    g : ndarray, shape (T, T)
        The same with the diagonal that the exact norms give.
    cosines : ndarray, shape (T, T), or None
        Between the rows as they are, where norms are known.
    lengths : ndarray, shape (T,)
    r : int or None
        Buckets of the sketch.
    """

    raw: FloatArray
    g: FloatArray
    cosines: FloatArray | None
    lengths: FloatArray
    r: int | None
    centred: bool
    exponent: int
    edges: list[int]
    every: FloatArray
    vectors: FloatArray

    @classmethod
    def of(cls, x: npt.NDArray[Any], exact: FloatArray | None, r: int | None, centred: bool) -> _Sample:
        largest = np.abs(x).max() if exact is None else exact.max()
        exponent = int(np.frexp(largest)[1])
        raw = gram(np.ldexp(x, -exponent))
        g, own, cosines = raw, np.sqrt(np.diag(raw)), None
        lengths = own
        if exact is not None:
            lengths = np.ldexp(exact, -exponent)
            outer = np.outer(own, own)
            cosines = np.divide(raw, outer, out=np.zeros_like(raw), where=outer > 0)
            g = cosines * np.outer(lengths, lengths)
        rounding = len(g) * float(np.finfo(np.float64).eps) * float(np.trace(g))
        if centred:
            raw, g = centre(raw), centre(g)
        values, rows = np.linalg.eigh(g)
        dof = len(g) - 1 if centred else len(g)
        every = np.where(values > rounding, values, 0.0)[::-1] / dof
        edges = block_edges(len(g), _BLOCKS)
        return cls(raw, g, cosines, lengths, r, centred, exponent, edges, every, rows[:, ::-1])

    @property
    def steps(self) -> int:
        return len(self.g)

    @property
    def blocks(self) -> int:
        return len(self.edges) - 1

    def dof(self, steps: int) -> int:
        return steps - 1 if self.centred else steps

    def part(self, matrix: FloatArray, kept: npt.NDArray[np.intp]) -> FloatArray:
        """Gram matrix of some of the steps, about their own mean."""
        chosen = matrix[np.ix_(kept, kept)]
        return centre(chosen) if self.centred else chosen

    def error(self, statistic: Any, fewest: int = 0) -> Any:
        """Jackknife a statistic of the steps kept; NaN where there are too few."""
        if self.blocks < _FEWEST_BLOCKS or self.steps < fewest:
            return np.full_like(statistic(np.arange(self.steps)), np.nan)
        return jackknife(self.steps, self.edges, statistic)


def _spectrum(sample: _Sample, wanted: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues and their errors by sampling and by the sketch."""
    values = sample.every[:wanted]
    safe = np.where(values > 0, values, 1.0)

    def ratios(kept: npt.NDArray[np.intp]) -> FloatArray:
        found = np.full(wanted, np.nan)
        dof = sample.dof(len(kept))
        known = np.maximum(np.linalg.eigvalsh(sample.part(sample.g, kept))[::-1], 0.0)[: min(dof, wanted)]
        found[: known.size] = known / dof / safe[: known.size]
        return found

    sampling = sample.error(ratios)
    if sample.r is None:
        return values, values * sampling, np.zeros(wanted)
    shown = without_sketch_bias(values, sample.every, sample.r)
    chance = np.full(wanted, math.sqrt(2 / sample.r))
    if sample.cosines is not None:
        forms = sample.vectors[:, :wanted] * sample.lengths[:, None]
        variance = quadratic_sketch_variance(forms, sample.cosines, sample.r)
        chance = np.sqrt(variance) / sample.dof(sample.steps) / safe
    return shown, shown * sampling, np.hypot(chance * shown, _BIAS_LEFT * (values - shown))


def _trace(sample: _Sample) -> _Number:
    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        return np.array([np.trace(sample.part(sample.g, kept)) / sample.dof(len(kept))])

    value, sampling = float(one(np.arange(sample.steps))[0]), float(sample.error(one)[0])
    sketch = 0.0
    if sample.r is not None and sample.cosines is None:
        sketch = math.sqrt(2 / sample.r * float(np.sum(sample.every**2)))
    elif sample.r is not None and sample.cosines is not None and sample.centred:
        # the norms are exact; what is taken off for the mean is not
        mean = sample.lengths[:, None] / math.sqrt(sample.steps * (sample.steps - 1))
        sketch = math.sqrt(float(quadratic_sketch_variance(mean, sample.cosines, sample.r)[0]))
    return _Number(max(value, 0.0), sampling, sketch)


def _inverse_ratio(sample: _Sample) -> _Number:
    """Estimate tr C**2 / (tr C)**2."""
    if sample.steps < (4 if sample.centred else 2):
        return _Number(math.nan, math.nan, 0.0)
    # A sketch's own variance is known where the rows are taken as they are, whatever their mean.
    matrix = sample.raw if sample.centred else sample.g

    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        trace = float(np.trace(sample.part(sample.g, kept))) / sample.dof(len(kept))
        squared = squared_trace(sample.part(matrix, kept), sample.r, trace, centred=sample.centred)
        return np.array([squared / trace**2 if trace > 0 else math.nan])

    value, sampling = float(one(np.arange(sample.steps))[0]), float(sample.error(one, _FOR_RATIO)[0])
    total = float(sample.every.sum())
    if sample.r is None or total == 0:
        return _Number(value, sampling, 0.0)
    if sample.cosines is not None and not sample.centred:
        pairs = sample.steps * (sample.steps - 1)
        weights = 2 / pairs * sample.g * np.outer(sample.lengths, sample.lengths) / total**2
        np.fill_diagonal(weights, 0.0)
        linear = weighted_sketch_variance(weights, sample.cosines, sample.r)
    else:
        linear = 8 / sample.r * float(np.sum((sample.every / total) ** 4))
    return _Number(value, sampling, math.hypot(math.sqrt(linear), 2 / (sample.r * sample.steps)))


def _checked(vectors: object, norms: object) -> tuple[npt.NDArray[Any], FloatArray | None, int]:
    """Return the finite rows, their norms, and how many rows were not finite."""
    x = _real(vectors, "vectors")
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"vectors: expected shape (steps, m) with m of at least 1, got {x.shape}")
    finite = np.isfinite(x).all(axis=1)
    exact: FloatArray | None = None
    if norms is not None:
        exact = _real(norms, "norms").astype(np.float64)
        if exact.shape != x.shape[:1]:
            raise ValueError(f"norms: expected shape {x.shape[:1]}, got {exact.shape}")
        if np.any(exact < 0):
            raise ValueError(f"norms: expected numbers of at least 0, got {exact[exact < 0][0]}")
        finite &= np.isfinite(exact)
        exact = exact[finite]
    left_out = int(finite.size - np.count_nonzero(finite))
    if finite.size - left_out < 2:
        raise ValueError(f"vectors: expected at least 2 finite rows, got {finite.size - left_out}")
    return (x if left_out == 0 else x[finite]), exact, left_out


def _real(values: object, name: str) -> npt.NDArray[Any]:
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers, got {values!r:.60}") from error
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {x.dtype}")
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _check_top(top: object, rank: int) -> int:
    if top is None:
        return rank
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)):
        raise TypeError(f"top: expected an int from 1 to {rank}, got {top!r}")
    if not 1 <= top <= rank:
        raise ValueError(f"top: expected an int from 1 to {rank}, the rank of these steps, got {top}")
    return int(top)


def _about_steps(steps: int, left_out: int, sample: _Sample) -> list[str]:
    found = []
    if left_out:
        found.append(f"{left_out} steps with NaN or infinite values are left out")
    if sample.blocks < _FEWEST_BLOCKS:
        found.append(f"{steps} steps are too few for a standard error")
    elif steps < FEW_STEPS:
        found.append(f"{steps} steps are few: at least {FEW_STEPS} for errors to be trusted")
    return found


def _about_drift(sample: _Sample, trace: float) -> list[str]:
    """Warn if the mean of the later half of the steps is not that of the earlier."""
    if sample.steps < FEW_STEPS:
        return []
    g, half = centre(sample.raw), sample.steps // 2
    parts = g[:half, :half], g[half:, half:]
    sizes = [len(part) * (len(part) - 1) for part in parts]
    apart = sum(float(p.sum() - np.trace(p)) / n for p, n in zip(parts, sizes, strict=True))
    apart -= 2 * float(g[:half, half:].mean())
    # Of each half, since a mean that moves is no noise; that of the sketch stays in, as it is here too.
    squared = sum(squared_trace(centre(part), None, 0.0) for part in parts) / 2
    spread = math.sqrt(max(2 * squared * (1 / sizes[0] + 1 / sizes[1] + 2 / g[:half, half:].size), 0.0))
    moved = apart / 3  # variance of a mean that moves evenly
    if not (apart > _DRIFT_IN_ERRORS * spread and moved > _DRIFT_WORTH_A_WORD * trace):
        return []
    share = f": about {100 * min(moved / trace, 1.0):.0f} % of the trace" if sample.centred else ""
    return [f"the mean gradient moved over these steps, as the weights do in training{share}"]


def _about_size(sample: _Sample, share: float, wanted: int) -> list[str]:
    found, steps, r = [], sample.steps, sample.r
    if r is not None and r < BUCKETS_A_STEP * steps and wanted > r / BUCKETS_A_STEP:
        found.append(
            f"a sketch of {r} buckets is small for the whole spectrum of {steps} steps "
            f"({BUCKETS_A_STEP * steps} needed): a flat spectrum looks steeper than it is"
        )
    if not math.isnan(share) and share < 4 / steps:
        many = f"about {1 / share:.3g}" if share > 0 else "very many"
        found.append(
            f"{steps} steps are few for {many} directions: the sample's largest eigenvalues are larger than "
            "those of the law, and it has no others"
        )
    return found
