"""Steps that carry a covariance by themselves, and how many directions it can have at most."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

WORTH = 25
"""Steps of equal size that a trace must be worth, for its law to be judged from it."""

_BEYOND_CHANCE = 3  # times what normal steps of as many directions have
_WORTH_NAMING = 0.1  # share of the trace from which one step is named
_MOST_NAMED = 5


def shares(g: FloatArray) -> FloatArray:
    """Share of the trace that each step has, shape (T,), from the Gram matrix; 0 if all are zero."""
    squares = np.maximum(np.diag(g), 0.0)
    total = float(squares.sum())
    return np.asarray(squares / total if total > 0 else np.zeros_like(squares))


def few_steps_rule(share: FloatArray, inverse_ratio: float) -> bool:
    """Whether the trace is that of a few steps, by more than chance makes of normal ones.

    The sum of the squared shares is 1 / T for T steps of equal size and (1 + 2 / p) / T for normal steps in p
    directions of equal variance. The inverse participation ratio of the sample is this sum and the part
    from pairs of different steps, which alone says anything of the law. A sum that does not go down with
    T, since a few steps are the whole of it, leaves open which of the two is meant.
    """
    concentration = float(share @ share)
    directions = min(max(inverse_ratio, 0.0), 1.0)  # of their inverse
    chance = (1 + 2 * directions) / share.size
    return concentration > max(_BEYOND_CHANCE * chance, 1 / WORTH)


def sample_inverse_ratio(g: FloatArray, r: int | None, *, exact_norms: bool) -> float:
    """Take sum l**2 / (sum l)**2 of the sample, less what a sketch into r buckets adds to it."""
    share, trace = shares(g), float(np.trace(g))
    if not trace > 0:
        return math.nan
    found, own = float(np.sum((g / trace) ** 2)), float(share @ share)
    if r is not None and exact_norms:  # of pairs alone
        return max(found - (1 - own) / r, own)
    return found if r is None else max((r * found - 1) / (r + 1), own)


def most_directions(largest: float, trace: float, dof: int) -> float:
    """Bound the participation ratio by (trace / largest eigenvalue)**2.

    The largest eigenvalue of a sample is too large by what all other directions leave in its own: taken off
    is the mean of the other eigenvalues of the sample (noise reduction; Yata and Aoshima 2012,
    J. Multivariate Anal. 105, 193).
    """
    rest = max(trace - largest, 0.0) / max(dof - 1, 1)
    return (trace / (largest - rest)) ** 2 if largest > rest else math.inf


def words(share: FloatArray, steps: npt.NDArray[np.int64]) -> str:
    """Name the steps that carry half of the trace, and say what follows."""
    order = np.argsort(-share, kind="stable")
    half = int(np.searchsorted(np.cumsum(share[order]), 0.5)) + 1
    leading = order[:half]
    parts = []
    if share[order[0]] >= _WORTH_NAMING:
        parts.append(f"step {steps[order[0]]} alone carries {100 * share[order[0]]:.0f} % of the trace")
    if half > 1:
        named = ", ".join(str(steps[i]) for i in leading[:_MOST_NAMED])
        more = ", ..." if half > _MOST_NAMED else ""
        carried = 100 * float(share[leading].sum())
        parts.append(
            f"{half} of {share.size} steps ({named}{more}) carry {carried:.0f} %"
            + ("" if parts else " of the trace")
        )
    early = ", as in a warm-up" if half > 1 and leading.max() < share.size / 3 else ""
    return (
        f"{', and '.join(parts)}{early}: the first eigenvalues are such single steps, and the participation "
        "ratio is that of these steps, no estimate of what other steps would give"
    )
