"""What is to be said of a covariance spectrum: too few steps, a mean that moves, too small a sketch."""

from __future__ import annotations

import math

import numpy as np

from gradtail.estimators.gram import centre, squared_trace
from gradtail.estimators.spectrum_sample import FEWEST_BLOCKS, Sample

FEW_STEPS = 20
"""Steps below which errors are not to be trusted."""

BUCKETS_A_STEP = 8
"""Buckets a step from which a sketch shows the whole of a spectrum."""

OF_A_GROUP = 128
"""Buckets of a sketch that is likely the small one of a group of arrays."""

_DRIFT_IN_ERRORS, _DRIFT_WORTH_A_WORD = 5.0, 0.02
_WORTH_A_WORD = 1.2  # by so much a ratio must be beyond its bound


def about_steps(steps: int, left_out: int, sample: Sample) -> list[str]:
    """Warn of steps left out, and of too few."""
    found = []
    if left_out:
        found.append(f"{left_out} steps with NaN or infinite values are left out")
    if sample.blocks < FEWEST_BLOCKS:
        found.append(f"{steps} steps are too few for a standard error")
    elif steps < FEW_STEPS:
        found.append(f"{steps} steps are few: at least {FEW_STEPS} for errors to be trusted")
    return found


def about_drift(sample: Sample, trace: float) -> list[str]:
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


def about_sketch(sample: Sample, wanted: int) -> list[str]:
    """Warn of a sketch that shows no more than the head of the spectrum."""
    steps, r = sample.steps, sample.r
    if r is None or r >= BUCKETS_A_STEP * steps or wanted <= r / BUCKETS_A_STEP:
        return []
    # The sketch of a group is small by design, and who asks for its spectrum has not chosen it.
    small = ", all that a stream keeps of one group" if r <= OF_A_GROUP else ""
    return [
        f"the sketch of a step has only {r} buckets{small}: trust about the first "
        f"{r // BUCKETS_A_STEP} of the {wanted} eigenvalues; the others fall faster than the true ones"
    ]


def about_size(sample: Sample, share: float, most: float) -> list[str]:
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
