"""The covariance of gradients over steps: eigenvalues, trace, and how many directions they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.estimators import leverage
from gradtail.estimators.gram import (
    quadratic_sketch_variance,
    squared_trace,
    weighted_sketch_variance,
    without_sketch_bias,
)
from gradtail.estimators.ranks import RankPowerLaw, eigengaps, rank_power_law, subspace_bound
from gradtail.estimators.rows import check_dimension, check_top, checked
from gradtail.estimators.spectrum_result import Basis, CovarianceSpectrum
from gradtail.estimators.spectrum_sample import Sample
from gradtail.estimators.spectrum_words import about_drift, about_size, about_sketch, about_steps
from gradtail.estimators.subspace import SubspaceStability, subspace_stability
from gradtail.states.magnitudes import FloatArray

__all__ = [
    "CovarianceSpectrum",
    "RankPowerLaw",
    "SubspaceStability",
    "covariance_spectrum",
    "eigengaps",
    "rank_power_law",
    "subspace_bound",
    "subspace_stability",
]

_BIAS_LEFT = 1.5  # at most so many times what the correction has taken off
_FOR_RATIO = 8  # steps needed for the error of the U-statistic, which takes four at a time


def covariance_spectrum(
    vectors: npt.ArrayLike,
    norms: npt.ArrayLike | None = None,
    *,
    centred: bool = True,
    top: int | None = None,
    sketched: bool | None = None,
    dimension: int | None = None,
    steps: npt.ArrayLike | None = None,
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
    dimension : int, optional
        Elements of the gradient, which a sketch does not tell: no participation ratio is larger.
    steps : array of int, shape (T,), optional
        Number of each step, for the warnings; default: 0, 1, ...

    Returns
    -------
    CovarianceSpectrum

    Raises
    ------
    TypeError, ValueError
        Not a real matrix, fewer than two finite rows, norms or steps of another shape, negative norms, a
        ``dimension`` that is not positive, or more eigenvalues wanted than these steps have.

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

    That takes steps of one law. Where a few of them carry the trace (an outlier, a warm-up), tr C**2 over
    pairs of different steps knows nothing of them while tr C consists of them, and the ratio has no bound.
    It is then that of the sample, (sum l)**2 / sum l**2 of its eigenvalues, with a warning, and ``basis``
    is "sample": where sum w_i**2 of the shares w_i of the steps in the trace is above 1 / 25 and also above
    3 times (1 + 2 / p) / T, which normal steps have at a ratio p. Either ratio is at most the dimension,
    and at most (tr C / l)**2 of the largest eigenvalue l, for that of the law less the mean of the others
    (Yata and Aoshima 2012, J. Multivariate Anal. 105, 193).

    O(T**2 m + T**3) for few eigenvalues and O(T**2 m + 16 T**3) for all, in float64.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = 5 + rng.standard_normal((400, 50)) * np.sqrt([30, 10] + [0.1] * 48)
    >>> found = covariance_spectrum(rows, top=3)
    >>> [round(value) for value in found.eigenvalues.tolist()], round(found.participation_ratio, 1)
    ([29, 10, 0], 2.0)
    """
    x, exact, numbers, left_out = checked(vectors, norms, steps)
    is_sketch = exact is not None if sketched is None else bool(sketched)
    count, size = x.shape
    wanted = check_top(top, min(count - 1 if centred else count, size))
    most = check_dimension(dimension, None if is_sketch else size)
    sample = Sample.of(x, exact, size if is_sketch else None, centred, wanted)
    values, sampling, sketch = _spectrum(sample, wanted)
    trace = _trace(sample)
    share = _inverse_ratio(sample)
    parts = leverage.shares(sample.g)
    basis: Basis = "law"
    rest = about_sketch(sample, wanted)
    if not math.isnan(share.value) and leverage.few_steps_rule(parts, share.value):
        share, basis = _sample_inverse_ratio(sample), "sample"
        most = min(most, (trace.value / float(values[0])) ** 2)
        rest.append(leverage.words(parts, numbers))
    elif trace.value > 0:
        most = min(most, leverage.most_directions(float(values[0]), trace.value, sample.dof(count)))
        rest += about_size(sample, share.value, most)
    warnings = [*about_steps(count, left_out, sample), *about_drift(sample, trace.value), *rest]
    scale = 2 * sample.exponent
    return CovarianceSpectrum(
        eigenvalues=np.ldexp(values, scale),
        stderr=np.ldexp(np.hypot(sampling, sketch), scale),
        sampling_stderr=np.ldexp(sampling, scale),
        sketch_stderr=np.ldexp(sketch, scale),
        uncorrected=np.ldexp(sample.every[:wanted], scale),
        trace=float(np.ldexp(trace.value, scale)),
        trace_stderr=float(np.ldexp(math.hypot(trace.sampling, trace.sketch), scale)),
        trace_sketch_stderr=float(np.ldexp(trace.sketch, scale)),
        inverse_ratio=share.value,
        inverse_ratio_stderr=math.hypot(share.sampling, share.sketch),
        inverse_ratio_sketch_stderr=share.sketch,
        centred=centred,
        steps=count,
        size=size,
        sketched=is_sketch,
        nonfinite=left_out,
        blocks=sample.blocks,
        warnings=tuple(warnings),
        basis=basis,
        most_directions=max(most, 1.0),
        largest_share=float(parts.max()),
    )


@dataclass(frozen=True)
class _Number:
    """An estimate and the two parts of its error."""

    value: float
    sampling: float
    sketch: float


def _spectrum(sample: Sample, wanted: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues and their errors by sampling and by the sketch."""
    values = sample.every[:wanted]
    safe = np.where(values > 0, values, 1.0)

    def ratios(kept: npt.NDArray[np.intp]) -> FloatArray:
        found = np.full(wanted, np.nan)
        known = sample.largest(kept, wanted)
        found[: known.size] = known / safe[: known.size]
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


def _trace(sample: Sample) -> _Number:
    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        return np.array([sample.trace(kept)])

    value, sampling = float(one(np.arange(sample.steps))[0]), float(sample.error(one)[0])
    sketch = 0.0
    if sample.r is not None and sample.cosines is None:
        sketch = math.sqrt(2 / sample.r * float(np.sum(sample.every**2)))
    elif sample.r is not None and sample.cosines is not None and sample.centred:
        # the norms are exact; what is taken off for the mean is not
        mean = sample.lengths[:, None] / math.sqrt(sample.steps * (sample.steps - 1))
        sketch = math.sqrt(float(quadratic_sketch_variance(mean, sample.cosines, sample.r)[0]))
    return _Number(max(value, 0.0), sampling, sketch)


def _inverse_ratio(sample: Sample) -> _Number:
    """Estimate tr C**2 / (tr C)**2."""
    if sample.steps < (4 if sample.centred else 2):
        return _Number(math.nan, math.nan, 0.0)
    # A sketch's own variance is known where the rows are taken as they are, whatever their mean.
    matrix = sample.raw if sample.centred else sample.g

    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        trace = sample.trace(kept)
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


def _sample_inverse_ratio(sample: Sample) -> _Number:
    """Take the inverse participation ratio of the steps as they are."""

    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        part = sample.part(sample.g, kept)
        known = sample.cosines is not None
        return np.array([leverage.sample_inverse_ratio(part, sample.r, exact_norms=known)])

    value, sampling = float(one(np.arange(sample.steps))[0]), float(sample.error(one)[0])
    shares = sample.every / sample.every.sum()
    chance = 0.0 if sample.r is None else math.sqrt(8 / sample.r * float(np.sum(shares**4)))
    return _Number(value, sampling, chance)
