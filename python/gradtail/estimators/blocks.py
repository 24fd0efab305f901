"""Hill's estimator over a window of steps, with an error from the spread between blocks of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from gradtail.estimators.estimate import HillCurve, Slide, TailEstimate
from gradtail.estimators.order import BinnedValues, check_tail, require_values, tail_counts
from gradtail.estimators.tail import (
    ChoiceOfK,
    check_k,
    count,
    estimate,
    nearest_pareto,
    omissions,
    slide_of,
    slide_warning,
)
from gradtail.states.magnitudes import FloatArray, Magnitudes, Tail
from gradtail.states.summary import Summary

FEWEST_BLOCKS = 3
"""Blocks with values from which their spread is an error bar."""

_FIRST_K = 50
_MIXED_WORTH_A_WORD = 0.1  # of log alpha


@dataclass(frozen=True)
class _Part:
    """What one block says at its share of the values."""

    log_alpha: float
    log_alpha_wide: float  # at ten times as many
    k: int
    threshold: float
    blur: float
    slide: Slide | None


def hill_blocks(
    blocks: Sequence[Summary | Magnitudes], k: ChoiceOfK = "auto", tail: Tail = "both"
) -> TailEstimate:
    """Estimate the tail exponent of a typical block of steps, with an error from their spread.

    Coordinates of one gradient share their batch, so that an error bar which takes them for
    independent is several times too small. Blocks of steps are nearer to being independent. Each
    block has its own threshold: gradients of one scale early and another late, thrown together,
    would be a mixture with a tail of its own.

    Parameters
    ----------
    blocks : sequence of Summary or Magnitudes
        Of equal ``bits``; each from its own steps, best of like numbers of values.
    k, tail
        As for :func:`hill`; an int is over all blocks together. The same share of the values is
        taken of every block; for "auto" it is the median of the shares that suit each.

    Returns
    -------
    TailEstimate
        ``alpha`` is the geometric mean over blocks and ``threshold`` that of their thresholds, ``k``
        and ``n`` count all blocks. The interval is Student's, on log alpha. With fewer than 3
        blocks that have values all are thrown together, with the iid error and a warning.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hill`; also no blocks, or blocks of different ``bits``.

    Notes
    -----
    Of k values of a Pareto law, k alpha / estimate has the Gamma(k, 1) law, whose mean logarithm is
    digamma(k): so log k - digamma(k) is taken off each log estimate. O(blocks * 2**bits).

    Examples
    --------
    >>> import numpy as np
    >>> from gradtail import summarize
    >>> rng = np.random.default_rng(0)
    >>> steps = [summarize(10.0**-i * (rng.pareto(2.0, 10_000) + 1)) for i in range(20)]
    >>> estimate = hill_blocks(steps, k=0.05)
    >>> estimate.spread, estimate.blocks, round(estimate.alpha, 1)
    ('blocks', 20, 2.0)
    """
    tail = check_tail(tail)
    check_k(k)
    parts = check_blocks(blocks)
    ordered = [_ordered(part, tail) for part in parts]
    pooled = _pooled(parts, tail)
    left_out = tuple(omissions(blocks, tail))
    some = [one for one in ordered if one.known > 1]
    if len(some) < FEWEST_BLOCKS:
        found = estimate(pooled, k, tail)
        why = (
            f"{len(some)} blocks with values are too few for their spread ({FEWEST_BLOCKS} needed): iid error"
        )
        return replace(found, warnings=(*left_out, *found.warnings, why))
    warnings: list[str] = list(left_out)
    share, k_ks, ks = _share(some, pooled, k, warnings)
    estimates = [_part(one, share) for one in some]
    logs = [part.log_alpha for part in estimates]
    if not all(map(math.isfinite, logs)):
        found = estimate(pooled, k, tail)
        why = "the largest values of a block are equal: iid error"
        return replace(found, warnings=(*left_out, *found.warnings, why))
    b = len(logs)
    log_alpha = math.fsum(logs) / b
    alpha = math.exp(log_alpha)
    sampling = math.sqrt(math.fsum((x - log_alpha) ** 2 for x in logs) / (b - 1) / b)
    blur = math.fsum(part.blur for part in estimates) / b
    wide = [part.log_alpha_wide for part in estimates]
    drift = 0.0
    if k == "auto" and all(map(math.isfinite, wide)):
        drift = (log_alpha - math.fsum(wide) / b) / (math.sqrt(10) - 1)
    total = sum(part.k for part in estimates)
    if total < _FIRST_K:
        warnings.append(
            f"k = {total} is small: the standard error is {100 / math.sqrt(total):.0f} % of alpha"
        )
    trend = _joint_slide([part.slide for part in estimates])
    warnings += slide_warning(trend)
    warnings += _mixed_scales(pooled, total, log_alpha, sampling)
    return TailEstimate(
        alpha, alpha * math.hypot(sampling, blur), total,
        math.exp(math.fsum(math.log(part.threshold) for part in estimates) / b),
        pooled.n, tail, tuple(warnings), k_ks, ks, alpha * blur, drift,
        spread="blocks", blocks=b, slide=trend,
    )  # fmt: skip


def hill_curve_blocks(
    blocks: Sequence[Summary | Magnitudes], tail: Tail = "both", points: int = 60
) -> HillCurve:
    """Hill's estimate of a typical block at shares of its values spread evenly in their logarithm.

    Parameters
    ----------
    blocks : sequence of Summary or Magnitudes
        At least 3 with values.
    tail : {"both", "upper", "lower"}
    points : int
        Shares at most.

    Returns
    -------
    HillCurve
        k over all blocks together; geometric means over blocks, and errors from their spread.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hill_blocks`; also fewer than 3 blocks with values.
    """
    tail = check_tail(tail)
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ValueError(f"points: expected an int of at least 2, got {points!r}")
    parts = check_blocks(blocks)
    some = [one for one in (_ordered(part, tail) for part in parts) if one.known > 1]
    if len(some) < FEWEST_BLOCKS:
        raise ValueError(f"blocks: expected at least {FEWEST_BLOCKS} with values, got {len(some)}")
    smallest = min(one.known for one in some)
    shares = np.geomspace(1 / smallest, (smallest - 1) / smallest, points)
    logs, thresholds, blurs, k = [], [], [], np.zeros(points, np.int64)
    for one in some:
        at = np.clip((shares * one.known).round().astype(np.int64), 1, one.known - 1)
        excess = one.excess(at)
        with np.errstate(divide="ignore"):
            logs.append(-np.log(excess.mean) + special.digamma(at) - np.log(at))
        thresholds.append(np.log(excess.threshold))
        blurs.append(excess.blur)
        k += at
    with np.errstate(invalid="ignore"):  # inf - inf where all of a block's largest values are equal
        alpha = np.exp(np.mean(logs, axis=0))
        sampling = np.std(logs, axis=0, ddof=1) / math.sqrt(len(some))
    blur: FloatArray = np.mean(blurs, axis=0)
    keep = np.unique(k, return_index=True)[1]
    keep = keep[np.isfinite(alpha[keep]) & np.isfinite(sampling[keep])]
    stderr = alpha * np.hypot(sampling, blur)
    threshold = np.exp(np.mean(thresholds, axis=0))
    return HillCurve(k[keep], alpha[keep], stderr[keep], threshold[keep], (alpha * blur)[keep], len(some))


def _share(
    some: list[BinnedValues], pooled: BinnedValues, k: ChoiceOfK, warnings: list[str]
) -> tuple[float, int | None, float | None]:
    """Return the share of the values to take of every block; for "auto" also k and distance by KS."""
    if k != "auto":
        return count(k, pooled.n, pooled.known) / pooled.n, None, None
    enough = [one for one in some if one.n >= 10 * _FIRST_K]
    if len(enough) < len(some) / 2:
        least = 10 * _FIRST_K
        warnings.append(f"blocks have too few values to choose k ({least} needed): k is a tenth of them")
        return 0.1, None, None
    found = [(nearest_pareto(one), one.n) for one in enough]
    share = float(np.median([max(_FIRST_K, best // 10) / n for (best, _), n in found]))
    share_ks = float(np.median([best / n for (best, _), n in found]))
    return share, round(share_ks * pooled.n), float(np.median([distance for (_, distance), _ in found]))


def _part(one: BinnedValues, share: float) -> _Part:
    k = min(max(1, round(share * one.n)), one.known - 1)
    wide = min(10 * k, one.known - 1)
    excess = one.excess(np.array([k, wide]))
    logs = [
        special.digamma(at) - math.log(at) - math.log(mean) if mean > 0 else math.inf
        for at, mean in zip((k, wide), excess.mean.tolist(), strict=True)
    ]
    threshold, blur = float(excess.threshold[0]), float(excess.blur[0])
    return _Part(logs[0], logs[1], k, threshold, blur, slide_of(one, k))


def _joint_slide(slides: list[Slide | None]) -> Slide | None:
    """Average the slides of the blocks that have enough values to look; None unless most have."""
    some = [one for one in slides if one is not None]
    if len(some) < max(FEWEST_BLOCKS, len(slides) / 2):
        return None
    slopes = [one.slope for one in some]
    b = len(slopes)
    mean = math.fsum(slopes) / b
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in slopes) / (b - 1) / b)

    def typical(values: list[float]) -> float:
        return math.exp(math.fsum(map(math.log, values)) / b)

    return Slide(
        mean, spread, math.fsum(one.slope_exponential for one in some) / b,
        round(math.fsum(one.k_wide for one in some)), typical([one.alpha_wide for one in some]),
        round(math.fsum(one.k_narrow for one in some)), typical([one.alpha_narrow for one in some]),
    )  # fmt: skip


def _mixed_scales(pooled: BinnedValues, k: int, log_alpha: float, sampling: float) -> list[str]:
    """Warn where all values thrown together would tell another tale."""
    mean = float(pooled.excess(np.array([min(k, pooled.known - 1)])).mean[0])
    away = abs(-math.log(mean) - log_alpha) if mean > 0 else math.inf
    if away < max(_MIXED_WORTH_A_WORD, 3 * sampling):
        return []
    together = f"{1 / mean:.3g}" if mean > 0 else "inf"
    return [f"scales differ between blocks of steps: all values together would read alpha {together}"]


def check_blocks(blocks: object) -> list[Magnitudes]:
    """Return the histograms of the blocks."""
    if not isinstance(blocks, Sequence) or not all(isinstance(b, (Summary, Magnitudes)) for b in blocks):
        raise TypeError(f"blocks: expected a sequence of summaries, got {blocks!r:.60}")
    if not blocks:
        raise ValueError("blocks: expected at least one summary, got none")
    parts = [b.magnitudes if isinstance(b, Summary) else b for b in blocks]
    bits = sorted({part.bits for part in parts})
    if len(bits) > 1:
        raise ValueError(f"blocks: expected one number of bits, got {bits}")
    return parts


def _ordered(part: Magnitudes, tail: Tail) -> BinnedValues:
    return BinnedValues(
        tail_counts(part, tail), part.bits, part.exact, part.vanished if tail == "both" else 0
    )


def _pooled(parts: list[Magnitudes], tail: Tail) -> BinnedValues:
    counts = np.sum([tail_counts(part, tail) for part in parts], axis=0)
    vanished = sum(part.vanished for part in parts) if tail == "both" else 0
    pooled = BinnedValues(counts, parts[0].bits, all(part.exact for part in parts), vanished)
    require_values(pooled.known, tail)
    return pooled
