"""Pearson's chi-square test of normality in cells of equal probability."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special

from gradtail.estimators.normality.cut import CutNormal
from gradtail.estimators.normality.driver import Found, Recipe, run
from gradtail.estimators.normality.histogram import Bins
from gradtail.estimators.normality.sources import IntArray, Rows
from gradtail.states.magnitudes import FloatArray

FEWEST_CELLS = 4
"""With 3 the fit leaves nothing to be tested."""

FEWEST = 20
"""Values that the test takes at least: some 3 a cell."""

_FEW_A_CELL = 3.0
_ANGLES = 10
_FARTHEST = 80.0  # a squared radius
_NODES, _WEIGHTS = (part / 2 for part in np.polynomial.legendre.leggauss(32))
_NODES += 0.5  # of (0, 1)


def pearson_chi2(source: object, *, axis: int | None = None, cells: int | None = None) -> Any:
    r"""Pearson's chi-square test in cells that have equal probabilities under the fitted normal law.

    .. math:: X^2 = \sum_{i=1}^c (N_i - n / c)^2 / (n / c)

    Parameters
    ----------
    source : array, Tracks or Summary
        An array is anything that NumPy reads as real numbers, or a torch tensor on the CPU. Of a
        Summary the cells end at edges of its bins, those nearest to cells of equal probability, so
        that there are fewer of them and they are unequal.
    axis : int, optional
        As for :func:`~gradtail.estimators.normality.dagostino`.
    cells : int, optional
        At least 4. Default: 2 n**(2/5), rounded up.

    Returns
    -------
    NormalityTest or NormalityTests
        As for :func:`~gradtail.estimators.normality.dagostino`; at least 20 values are needed.

    Raises
    ------
    TypeError
        Another kind of source (moments do not do), or of ``cells``; an ``axis`` with a state.
    ValueError
        Fewer than 4 cells; an axis that is not there; or a single sample with fewer than 20 finite
        values, of equal ones, or of a Summary whose bins are too wide for 4 cells.

    Notes
    -----
    Mean and variance (ddof = 0) are fitted to the values and not to the counts. The statistic then has
    the law of chi2(c - 3) + l1 Z1**2 + l2 Z2**2 (Chernoff and Lehmann 1954, Ann. Math. Stat. 25, 579,
    theorem 1), with l1 and l2 the shares of the Fisher information on the two parameters that the cells
    lose, and not that of chi2(c - 3), which rejects too often with few cells. The number of cells is
    Moore's (1986, in D'Agostino and Stephens, Goodness-of-Fit Techniques, section 3.2.4). Values that
    were rounded are better summarised first: ties fall into one cell in an array, while a Summary of
    bfloat16 or float16 knows how far each may have been moved.

    O(values) for arrays, read in pieces of a few MiB along ``axis``, a sample of its own in float64 at once;
    O(2**bits) for a Summary. P-values below about 1e-17 are not told apart.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(size=1000)
    >>> pearson_chi2(x).rejected, pearson_chi2(x, cells=10).rejected
    (True, True)
    """
    if cells is not None:
        if isinstance(cells, bool) or not isinstance(cells, (int, np.integer)):
            raise TypeError(f"cells: expected an int of at least {FEWEST_CELLS}, got {cells!r}")
        if cells < FEWEST_CELLS:
            raise ValueError(f"cells: expected an int of at least {FEWEST_CELLS}, got {cells}")
        cells = int(cells)
    recipe = Recipe(
        "Pearson's chi-square", FEWEST, lambda rows: _rows(rows, cells), lambda n: _warn(n, cells),
        bins=lambda bins: _bins(bins, cells),
    )  # fmt: skip
    return run(recipe, source, axis)


def chernoff_lehmann(statistic: FloatArray, cells: int, losses: tuple[float, float]) -> FloatArray:
    r"""Return the probability that chi2(cells - 3) + l1 Z1**2 + l2 Z2**2 is larger.

    Of polar coordinates of (Z1, Z2) the squared radius r is exponential with mean 2, and the angle
    makes l = l1 cos**2 + l2 sin**2 of the two shares:

    .. math:: E_l \left[ e^{-s / 2l} + \int_0^{s / l} \tfrac12 e^{-r / 2} Q_{c-3}(s - l r) dr \right].

    The mean over the angle is a sum over equal steps, that over r Gauss-Legendre after
    r = (s / l) (1 - v**2), which takes away the root that Q_1 has at 0. The error is below 1e-10 for cells
    of equal probability, and 1e-6 where they lose nine tenths of one parameter and nothing of the other.
    """
    s, back = np.unique(np.asarray(statistic, dtype=np.float64), return_inverse=True)
    angles = (np.arange(_ANGLES) + 0.5) * (np.pi / 2 / _ANGLES)
    total = np.zeros(s.shape)
    for share in (losses[0] * np.cos(angles) ** 2 + losses[1] * np.sin(angles) ** 2).tolist():
        last = np.minimum(s / max(share, 1e-12), _FARTHEST)
        r = last[:, None] * (1 - _NODES**2)
        rest = special.chdtrc(cells - 3, np.maximum(s[:, None] - share * r, 0.0))
        total += np.exp(-0.5 * last) + last * ((np.exp(-0.5 * r) * rest * _NODES) @ _WEIGHTS)
    return np.asarray(np.minimum(total / _ANGLES, 1.0)[back.reshape(np.shape(statistic))])


def default_cells(n: IntArray) -> IntArray:
    """Return the number of cells for n values."""
    return np.asarray(np.ceil(2 * n.astype(np.float64) ** 0.4), dtype=np.int64)


@lru_cache(maxsize=512)
def equal_losses(cells: int) -> tuple[float, float]:
    """Shares of the information on mean and deviation that cells of equal probability lose."""
    lost = CutNormal(special.ndtri(np.arange(1, cells) / cells)).lost
    return float(lost[0, 0]), float(lost[1, 1])  # the others vanish by symmetry


def _rows(rows: Rows, cells: int | None) -> Found:
    wanted = default_cells(rows.n) if cells is None else np.full(rows.n.shape, cells)
    probability = special.ndtr(rows.deviations / np.sqrt(rows.variance)[:, None])
    statistic, pvalue = np.empty(rows.n.shape), np.empty(rows.n.shape)
    for c in np.unique(wanted).tolist():
        these = np.flatnonzero(wanted == c)
        part = probability if these.size == wanted.size else probability[these]
        seen = slice(None) if rows.whole else ~np.isnan(part)
        cell = np.minimum(np.where(np.isnan(part), 0.0, part) * c, c - 1).astype(np.int64)
        cell += c * np.arange(these.size)[:, None]
        counts = np.bincount(cell[seen].reshape(-1), minlength=c * these.size).reshape(-1, c)
        n = rows.n[these]
        expected = n / c
        statistic[these] = ((counts - expected[:, None]) ** 2).sum(axis=1) / expected
        pvalue[these] = chernoff_lehmann(statistic[these], c, equal_losses(c))
    return statistic, pvalue


def _bins(bins: Bins, cells: int | None) -> tuple[float, float, list[str]]:
    c = int(default_cells(np.array(bins.n))) if cells is None else cells
    level = special.ndtr(bins.z)
    wanted = np.arange(1, c) / c
    after = np.clip(np.searchsorted(level, wanted), 1, level.size - 1)
    nearest = np.where(wanted - level[after - 1] < level[after] - wanted, after - 1, after)
    # A bin may be wider than all the cells wanted; its far end may be at no probability to speak of.
    chosen = np.unique(nearest[(level[nearest] > 0.5 / c) & (level[nearest] < 1 - 0.5 / c)])
    if chosen.size < FEWEST_CELLS - 1:
        raise ValueError(
            f"source: expected bins that cut the fitted law into at least {FEWEST_CELLS} cells, "
            f"got {chosen.size + 1}"
        )
    law = CutNormal(bins.z[chosen])
    counts = np.diff(bins.below[chosen], prepend=0, append=bins.n)
    expected = bins.n * law.probability
    statistic = float(((counts - expected) ** 2 / expected).sum())
    first, second = np.clip(np.linalg.eigvalsh(law.lost), 0.0, 1.0).tolist()
    pvalue = float(chernoff_lehmann(np.array(statistic), counts.size, (first, second)))
    warnings = [] if counts.size > c // 2 else [f"bins are wide: {counts.size} cells in place of {c}"]
    return statistic, pvalue, warnings


def _warn(n: int, cells: int | None) -> list[str]:
    if cells is None or n >= _FEW_A_CELL * cells:
        return []
    return [f"{n} values are few for {cells} cells: the p-value is rough below {_FEW_A_CELL:.0f} a cell"]
