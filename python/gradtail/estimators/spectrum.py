"""The covariance of gradients over steps: eigenvalues, trace, and how many directions they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators import leverage
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
from gradtail.estimators.ranks import RankPowerLaw, eigengaps, rank_power_law, subspace_bound
from gradtail.estimators.rows import check_dimension, check_top, checked
from gradtail.estimators.spectrum_result import Basis, CovarianceSpectrum
from gradtail.states.magnitudes import FloatArray

__all__ = [
    "CovarianceSpectrum",
    "RankPowerLaw",
    "covariance_spectrum",
    "eigengaps",
    "rank_power_law",
    "subspace_bound",
]

FEW_STEPS = 20
"""Steps below which errors are not to be trusted."""

BUCKETS_A_STEP = 8
"""Buckets a step from which a sketch shows the whole of a spectrum."""

OF_A_GROUP = 128
"""Buckets of a sketch that is likely the small one of a group of arrays."""

_BLOCKS = 16
_FEWEST_BLOCKS = 3
_DRIFT_IN_ERRORS, _DRIFT_WORTH_A_WORD = 5.0, 0.02
_BIAS_LEFT = 1.5  # at most so many times what the correction has taken off
_WORTH_A_WORD = 1.2  # by so much a ratio must be beyond its bound
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

    O(T**2 m + 16 T**3), in float64.

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
    sample = _Sample.of(x, exact, size if is_sketch else None, centred)
    values, sampling, sketch = _spectrum(sample, wanted)
    trace = _trace(sample)
    share = _inverse_ratio(sample)
    parts = leverage.shares(sample.g)
    basis: Basis = "law"
    rest = _about_sketch(sample, wanted)
    if not math.isnan(share.value) and leverage.few_steps_rule(parts, share.value):
        share, basis = _sample_inverse_ratio(sample), "sample"
        most = min(most, (trace.value / float(values[0])) ** 2)
        rest.append(leverage.words(parts, numbers))
    elif trace.value > 0:
        most = min(most, leverage.most_directions(float(values[0]), trace.value, sample.dof(count)))
        rest += _about_size(sample, share.value, most)
    warnings = [*_about_steps(count, left_out, sample), *_about_drift(sample, trace.value), *rest]
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


def _sample_inverse_ratio(sample: _Sample) -> _Number:
    """Take the inverse participation ratio of the steps as they are."""

    def one(kept: npt.NDArray[np.intp]) -> FloatArray:
        part = sample.part(sample.g, kept)
        known = sample.cosines is not None
        return np.array([leverage.sample_inverse_ratio(part, sample.r, exact_norms=known)])

    value, sampling = float(one(np.arange(sample.steps))[0]), float(sample.error(one)[0])
    shares = sample.every / sample.every.sum()
    chance = 0.0 if sample.r is None else math.sqrt(8 / sample.r * float(np.sum(shares**4)))
    return _Number(value, sampling, chance)


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
    share = f", about {100 * min(moved / trace, 1.0):.0f} % of the trace" if sample.centred else ""
    return [f"the mean gradient moved over these steps, as it does when the weights change{share}"]


def _about_sketch(sample: _Sample, wanted: int) -> list[str]:
    steps, r = sample.steps, sample.r
    if r is None or r >= BUCKETS_A_STEP * steps or wanted <= r / BUCKETS_A_STEP:
        return []
    # The sketch of a group is small by design, and who asks for its spectrum has not chosen it.
    small = ", all that a stream keeps of one group" if r <= OF_A_GROUP else ""
    return [
        f"the sketch of a step has only {r} buckets{small}: trust about the first "
        f"{r // BUCKETS_A_STEP} of the {wanted} eigenvalues; the others fall faster than the true ones"
    ]


def _about_size(sample: _Sample, share: float, most: float) -> list[str]:
    """Say by how much the eigenvalues of so few steps are off, and where the ratio is at its bound."""
    steps = sample.steps
    if math.isnan(share) or share >= 4 / steps:
        return []
    if share <= 0:
        return [f"{steps} steps are too few to count the directions: there are too many of them"]
    directions = min(1 / share, most)
    # the edge of the spectrum of a flat law (Marchenko and Pastur 1967)
    over = (1 + math.sqrt(directions / steps)) ** 2
    found = [
        f"with about {directions:.3g} directions in {steps} steps the largest eigenvalues may be up to "
        f"{over:.2g} times too large and the smallest are too small; the participation ratio allows for it"
    ]
    if 1 / share > _WORTH_A_WORD * most:
        found.append(
            "the participation ratio is the most that the number of elements and the largest eigenvalue "
            f"allow: pairs of different steps by themselves would give {1 / share:.3g}"
        )
    return found
