"""Index of a stable law from log sizes of values and of their block sums."""

from __future__ import annotations

import math

import numpy as np

from gradtail.states.magnitudes import FloatArray


def log_sum_index(x: FloatArray, k1: int) -> float:
    r"""Return alpha of a strictly stable law from blocks of ``k1`` values or vectors.

    1 / alpha = (mean log \|Y\| - mean log \|X\|) / log k1, with Y the sums of blocks of k1 neighbours, and
    norms for vectors (Mohammadi, Mohammadpour and Ogata 2015, Metrika 78, 549, corollary 2.4). Not cut at 2.

    Parameters
    ----------
    x : ndarray of float64, shape (n,) or (n, p)
        Values or vectors, of which none is 0, at least ``k1`` of them; what fills no block is left out.
    k1 : int
        At least 2.

    Returns
    -------
    float
        inf where sums are no larger than values.
    """
    k2 = len(x) // k1
    x = x[: k1 * k2].reshape(k1 * k2, -1)
    y = x.reshape(k2, k1, -1).sum(axis=1)
    xi = float(_log_size(y).mean() - _log_size(x).mean()) / math.log(k1)
    return 1 / xi if xi > 0 else math.inf


def _log_size(x: FloatArray) -> FloatArray:
    """Log of the norm of each row, whatever its scale."""
    top = np.abs(x).max(axis=1)
    top[top == 0] = np.finfo(np.float64).tiny
    return np.asarray(np.log(top) + 0.5 * np.log(np.maximum(((x / top[:, None]) ** 2).sum(axis=1), 1e-300)))
