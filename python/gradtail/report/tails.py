"""What the report says of a tail: estimates, Hill curve, time line; plain dicts for report.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators import hill, hill_blocks, hill_curve
from gradtail.estimators.blocks import hill_curve_blocks
from gradtail.estimators.estimate import HillCurve, TailEstimate
from gradtail.report.schema import jsonable, rounded
from gradtail.states.magnitudes import Tail
from gradtail.states.summary import Summary

TAILS: tuple[Tail, ...] = ("both", "upper", "lower")

FEWEST_BLOCKS = 3
"""Blocks of steps from which their spread is an error bar; with fewer it is the iid formula."""

MOST_BLOCKS = 12
"""Blocks that error bars are taken from at most; neighbours are joined until there are as few.

Longer blocks are nearer to being independent, and the work grows with their number; with twelve,
Student's factor is 2.2 where it would be 2.04 with thirty.
"""

FEWEST_VALUES = 10
"""Values above the threshold that a point of a curve or time line rests on at least."""

_CURVE_POINTS = 60


def estimate(blocks: Sequence[Summary], whole: Summary, tail: Tail) -> TailEstimate | None:
    """Estimate one tail from blocks of steps, or from their union where they are too few.

    Returns
    -------
    TailEstimate or None
        None where there are fewer than two nonzero values: no tail to speak of.
    """
    try:
        if len(blocks) >= FEWEST_BLOCKS:
            return hill_blocks(blocks, tail=tail)
        return hill(whole, tail=tail)
    except ValueError:
        return None


def merged(parts: Sequence[Summary]) -> Summary:
    """Join at least one summary."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def for_spread(blocks: Sequence[Summary]) -> list[Summary]:
    """Return the blocks that have values, neighbours joined until they are few enough."""
    present = [block for block in blocks if block.count]
    if len(present) <= MOST_BLOCKS:
        return present
    return [merged([present[i] for i in run]) for run in np.array_split(np.arange(len(present)), MOST_BLOCKS)]


def as_dict(found: TailEstimate | None) -> dict[str, Any] | None:
    """Flatten an estimate; ``slide`` is alpha at two k far apart, from the bulk outwards."""
    if found is None:
        return None
    slide = found.slide
    fields: dict[str, Any] = jsonable(
        {
            "alpha": found.alpha,
            "stderr": found.stderr,
            "ci95": list(found.ci(0.95)),
            "k": found.k,
            "k_ks": found.k_ks,
            "threshold": found.threshold,
            "n": found.n,
            "plateau": found.plateau,
            "slide": None if slide is None else [slide.alpha_wide, slide.alpha_narrow],
            "verdict": found.verdict,
            "spread": found.spread,
            "blocks": found.blocks,
            "warnings": list(found.warnings),
        }
    )
    return fields


def curve_of(blocks: Sequence[Summary], whole: Summary, tail: Tail = "both") -> dict[str, list[Any]] | None:
    """Take a Hill curve at k spread evenly in their logarithm, with its 95 % band.

    It is that of a typical block of steps, as the estimate is, or of all values where the blocks
    are too few for their spread.
    """
    try:
        full = _typical_curve(blocks, tail) or hill_curve(whole, tail)
    except ValueError:
        return None
    low, high = full.ci(0.95)
    keep = _spread_out(full.k)
    keep = keep[np.isfinite(full.alpha[keep])]
    return {
        "k": full.k[keep].tolist(),
        "alpha": rounded(full.alpha[keep]),
        "low": rounded(low[keep]),
        "high": rounded(high[keep]),
        "threshold": rounded(full.threshold[keep]),
    }


def _typical_curve(blocks: Sequence[Summary], tail: Tail) -> HillCurve | None:
    if len(blocks) < FEWEST_BLOCKS:
        return None
    try:
        return hill_curve_blocks(blocks, tail, _CURVE_POINTS)
    except ValueError:  # too few of them have nonzero values
        return None


def time_line(blocks: Sequence[Summary], found: TailEstimate | None) -> dict[str, list[Any]]:
    """Alpha of each block of steps, all at the same share of the values, so that they compare.

    The band is the iid one: a block alone has no spread to take a better one from.
    """
    share = 0.0 if found is None else found.k / found.n
    points = [_at_share(block, share) for block in blocks]
    return {name: rounded([point[i] for point in points]) for i, name in enumerate(("alpha", "low", "high"))}


def _at_share(block: Summary, share: float) -> tuple[float, float, float]:
    """Alpha and the ends of its interval; NaN where the block has too few values."""
    moments = block.moments
    nonzero = moments.count - moments.zeros
    k = round(share * nonzero)
    if FEWEST_VALUES <= k < nonzero:
        try:
            one = hill_curve(block, k=[k])
        except ValueError:
            return np.nan, np.nan, np.nan
        low, high = one.ci(0.95)
        return float(one.alpha[0]), float(low[0]), float(high[0])
    return np.nan, np.nan, np.nan


def _spread_out(k: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Pick about sixty entries of an ascending array, evenly spread in its logarithm."""
    first = int(np.searchsorted(k, FEWEST_VALUES))
    if first >= k.size:
        return np.zeros(0, np.int64)
    if k.size - first <= _CURVE_POINTS:
        return np.arange(first, k.size)
    at = np.geomspace(max(float(k[first]), 1.0), float(k[-1]), _CURVE_POINTS)
    return np.unique(np.clip(np.searchsorted(k, at), first, k.size - 1))
