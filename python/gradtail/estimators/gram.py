"""Statistics of a Gram matrix of step vectors, and what a random sketch of the vectors does to them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

_VALUES = 1 << 20  # of the rows, taken as float64 at once
_SMALLEST_SHARE = 0.1  # sketches smaller than the steps would let it vanish


def gram(x: npt.NDArray[np.floating], exponent: int = 0) -> FloatArray:
    """Return x x' / 4**exponent, float64, shape (T, T), for x of shape (T, m), by a few columns at a time."""
    total = np.zeros((len(x), len(x)))
    columns = max(_VALUES // len(x), 64)
    for start in range(0, x.shape[1], columns):
        part = np.ldexp(x[:, start : start + columns].astype(np.float64), -exponent)
        total += part @ part.T
    total += total.T.copy()
    total /= 2
    return total


def centre(g: FloatArray) -> FloatArray:
    """Gram matrix of the rows less their mean."""
    mean = g.mean(axis=0)
    return np.asarray(g - mean[:, None] - mean[None] + mean.mean())


def block_edges(steps: int, most: int) -> list[int]:
    """Cut steps into at most ``most`` runs of like length, each of at least two steps if there are enough."""
    blocks = min(most, steps // 2) if steps >= 6 else steps
    return [steps * i // blocks for i in range(blocks + 1)]


def jackknife(
    steps: int, edges: list[int], statistic: Callable[[npt.NDArray[np.intp]], FloatArray]
) -> FloatArray:
    """Find the standard error of a statistic by leaving each block of consecutive steps out in turn.

    Parameters
    ----------
    edges : list of int
        Where blocks begin, and the number of steps.
    statistic : callable
        Takes the indices of the steps kept; an entry that is NaN of any part has the error NaN.
    """
    values = np.array([statistic(np.r_[0:start, stop:steps]) for start, stop in pairwise(edges)])
    blocks = len(values)
    return np.asarray(np.sqrt((blocks - 1) / blocks * np.sum((values - values.mean(axis=0)) ** 2, axis=0)))


def squared_trace(g: FloatArray, r: int | None, trace: float, *, centred: bool = True) -> float:
    """Estimate tr C**2 without bias; ``g`` need not be centred, but loses digits where a mean rules it.

    Parameters
    ----------
    g : ndarray, shape (T, T)
        Gram matrix: of sketches as they are if centred; of rescaled ones if not.
    r : int or None
        Buckets of the sketch.
    trace : float
        tr C.
    """
    n = len(g)
    off = g.copy()
    np.fill_diagonal(off, 0.0)
    squares = float(np.vdot(off, off))
    if not centred:
        if r is not None:
            lengths = np.diag(g)
            for i, row in enumerate(off):  # of a correlation of r values without a mean
                scale = lengths[i] * lengths
                scale[i] = 0.0
                cosines = np.divide(row**2, scale, out=np.zeros(n), where=scale > 0)
                squares -= float(np.sum(scale * (1 - cosines) * (1 - 2 * cosines))) / r
        return squares / (n * (n - 1))
    rows = off.sum(axis=0)
    chains = float(np.sum(rows**2))
    pairs = float(rows.sum()) ** 2
    p2 = n * (n - 1)
    p3, p4 = p2 * (n - 2), p2 * (n - 2) * (n - 3)
    found = squares / p2 - 2 * (chains - squares) / p3 + (pairs - 4 * chains + 2 * squares) / p4
    return found if r is None else (r * found - trace**2) / (r + 1)


def quadratic_sketch_variance(v: FloatArray, unit: FloatArray, r: int) -> FloatArray:
    """Variance over the sketch of v' c v, where c is the matrix of cosines of the sketches.

    Parameters
    ----------
    v : ndarray, shape (T, m)
        One form a column.
    unit : ndarray, shape (T, T)
        The true cosines.
    r : int

    Notes
    -----
    With d the error of the inner products of unit vectors, that of a cosine is
    d_st - rho_st (d_ss + d_tt) / 2, so that of the form is tr(A d) with A = v v' - diag(v * (unit v)),
    whose variance is 2 tr(A unit A unit) / r. O(T**2 m).
    """
    turned = unit @ v
    inner = np.sum(v * turned, axis=0)
    d = v * turned
    variance = inner**2 - 2 * np.sum(d * turned**2, axis=0) + np.sum(d * ((unit * unit) @ d), axis=0)
    return np.asarray(np.maximum(2 * variance / r, 0.0))


def weighted_sketch_variance(w: FloatArray, unit: FloatArray, r: int) -> float:
    """Variance over the sketch of the sum of w * c, as above for w of shape (T, T). O(T**3)."""
    turned = (w - np.diag(np.sum(w * unit, axis=0))) @ unit
    return max(2 / r * float(np.sum(turned * turned.T)), 0.0)


def without_sketch_bias(values: FloatArray, every: FloatArray, r: int) -> FloatArray:
    """Take off the bias that a sketch into r buckets gives to eigenvalues of a Gram matrix.

    Parameters
    ----------
    values : ndarray, shape (k,)
        The largest of ``every``.
    every : ndarray, shape (m,)
        Sketched eigenvalues, descending.
    """
    width = r ** (-1 / 3) * every
    gap = values[:, None] - every
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = every * gap / (gap**2 + width**2)
    pull[~np.isfinite(pull)] = 0.0
    share = 1 - 1 / r + pull.sum(axis=1) / r  # an eigenvalue has gap 0 to itself, and so no pull
    return np.asarray(np.minimum.accumulate(values / np.maximum(share, _SMALLEST_SHARE)))
