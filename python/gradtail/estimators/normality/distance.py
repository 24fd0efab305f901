"""The Kolmogorov-Smirnov distance from the fitted normal law, with Lilliefors' null."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from gradtail.estimators import lilliefors
from gradtail.estimators.normality.cut import CutNormal
from gradtail.estimators.normality.driver import Found, Recipe, run
from gradtail.estimators.normality.histogram import Bins
from gradtail.estimators.normality.sources import Rows
from gradtail.states.magnitudes import FloatArray

FEWEST = 8
"""Values that the test takes at least."""

DRAWS = 4999
"""Of the limit law at the edges of a histogram."""

_APART = 1 / 256
_FEWEST_POINTS = 3


def ks_normal(source: object, *, axis: int | None = None) -> Any:
    r"""Lilliefors' test: the largest distance between the distribution function and the fitted normal law.

    .. math:: D = \sup_x |F_n(x) - \Phi((x - \bar x) / s)|

    Parameters
    ----------
    source : array, Tracks or Summary
        An array is anything that NumPy reads as real numbers, or a torch tensor on the CPU. Of a
        Summary the distance is looked at where bins end, with at least 1 / 256 of the fitted law
        between those taken.
    axis : int, optional
        As for :func:`~gradtail.estimators.normality.dagostino`.

    Returns
    -------
    NormalityTest or NormalityTests
        As for :func:`~gradtail.estimators.normality.dagostino`.

    Raises
    ------
    TypeError
        Another kind of source: moments do not do; an ``axis`` with a state.
    ValueError
        An axis that is not there; or a single sample with fewer than 8 finite values, of equal ones,
        or of a Summary whose bins are too wide to tell a law.

    Notes
    -----
    Lilliefors (1967), J. Am. Stat. Assoc. 62, 399: mean and variance (ddof = 1) are those of the
    values, so that the distance is far smaller than the tables of Kolmogorov and Smirnov have it. The
    p-values of arrays are those of :mod:`gradtail.estimators.lilliefors`.

    At the edges of a histogram the null is another. There sqrt(n) D tends to the largest of a normal
    vector with the covariance of Durbin (1973, Ann. Stat. 1, 279),
    min(s, t) - s t - f(s) f(t) - z_s f(s) z_t f(t) / 2 with f the normal density, of which 4999 draws
    are compared: a p-value is a multiple of 1 / 5000, and near 0.05 is known to 0.003. A Summary of
    bfloat16 or float16 values takes them as rounded to nearest; an array takes values as they are.

    O(n log n) for n values in an array, read in pieces of a few MiB along ``axis``; for a Summary
    some 50 ms.

    Examples
    --------
    >>> import numpy as np
    >>> from gradtail import summarize
    >>> x = np.random.default_rng(0).laplace(size=5000)
    >>> ks_normal(x).rejected, ks_normal(summarize(x)).pvalue
    (True, 0.0002)
    """
    return run(_KS, source, axis)


def _rows(rows: Rows) -> Found:
    n = rows.n.astype(np.float64)[:, None]
    deviation = np.sqrt(rows.variance[:, None] * (n / (n - 1)))
    law = np.sort(rows.deviations, axis=1)  # NaN comes last
    law /= deviation
    special.ndtr(law, out=law)
    rank = np.arange(law.shape[1])
    under = np.fmax.reduce((rank + 1) / n - law, axis=1)
    over = np.fmax.reduce(law - rank / n, axis=1)
    distance = np.maximum(under, over)
    return distance, np.asarray(lilliefors.pvalue("normal", rows.n, distance))


def _bins(bins: Bins) -> tuple[float, float, list[str]]:
    law, distance = at_points(bins)
    null = np.abs(limit_draws(law, DRAWS, np.random.default_rng(0))).max(axis=1)
    larger = int(np.count_nonzero(null >= np.sqrt(bins.n) * distance))
    return distance, (1 + larger) / (1 + DRAWS), []


def at_points(bins: Bins) -> tuple[CutNormal, float]:
    """Return the points of a histogram that the distance is looked at, and the distance there."""
    z = bins.z * np.sqrt(1 - 1 / bins.n)
    chosen = spaced(special.ndtr(z))
    if chosen.size < _FEWEST_POINTS:
        raise ValueError(
            f"source: expected at least {_FEWEST_POINTS} ends of bins in the fitted law, got {chosen.size}"
        )
    law = CutNormal(z[chosen])
    return law, float(np.abs(bins.below[chosen] / bins.n - special.ndtr(law.z)).max())


def spaced(level: FloatArray) -> Any:
    """Choose points, outwards from the middle two, with enough probability from one to the next.

    The middle two are both taken, next to nothing apart: an atom at 0 shows between them.
    """
    middle = level.size // 2
    up, down = [middle], [middle - 1]
    while (i := int(np.searchsorted(level, level[up[-1]] + _APART))) < level.size:
        up.append(i)
    while (i := int(np.searchsorted(level, level[down[-1]] - _APART, side="right")) - 1) >= 0:
        down.append(i)
    chosen = np.array(down[::-1] + up)
    # Ends beyond all but a trace of the law say nothing that those within do not.
    return chosen[(level[chosen] > _APART / 4) & (level[chosen] < 1 - _APART / 4)]


def limit_draws(law: CutNormal, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draw the limit of sqrt(n) (F_n - fitted law) at the points of ``law``, shape (draws, points).

    With G_i the excess of the counts over sqrt(n), the empirical process is their running sum, and
    the fitted parameters take off what their scores, summed over the values, explain: from the
    cells E[score | cell] G_i, and an independent rest with the variance that the cells lose.
    """
    root = np.sqrt(law.probability)
    counts = rng.standard_normal((draws, root.size))
    counts -= (counts @ root)[:, None] * root
    values, vectors = np.linalg.eigh(law.lost)
    rest = rng.standard_normal((draws, 2)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    scores = counts @ law.scores.T + rest
    density = np.exp(-0.5 * law.z**2) / np.sqrt(2 * np.pi)
    moved = np.array([density, law.z * density / np.sqrt(2)])
    return np.asarray(np.cumsum(counts * root, axis=1)[:, :-1] + scores @ moved)


def _warn(n: int) -> list[str]:
    return []


_KS = Recipe("Lilliefors' distance", FEWEST, _rows, _warn, bins=_bins)
