"""Sums over whole numbers, taken like integrals: nodes and weights on blocks that grow with x."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from gradtail.estimators.powerlaw.quadrature import DROP, NODES, Curve, around, moments, panels, reach
from gradtail.states.magnitudes import FloatArray

_BLOCK = 0.25  # width of a block in log x, where the terms do not fall too fast
_STEEP = 12.0
_AS_INTEGRAL = 10**6  # terms from which Gauss-Legendre nodes serve: the error falls as their square
_MOST_BLOCKS = 200  # of a lattice; with more, only what is about the mode is summed
_FARTHEST = 700.0  # of log x: float64 ends

Sum: TypeAlias = tuple[float, FloatArray, FloatArray]
"""Its log, and the mean (2,) and covariance (2, 2) of y and bend(y)."""


@lru_cache(maxsize=4096)
def gram(n: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights for sums over 0..n-1, exact for polynomials of degree 31.

    Gauss quadrature of the measure with one unit at each whole number, from the three-term recurrence of
    the Gram (discrete Chebyshev) polynomials; up to 16 terms are taken one by one.
    """
    if n <= NODES:
        return np.arange(n, dtype=np.float64), np.ones(n)
    j = np.arange(1, NODES)
    size = float(min(n, _AS_INTEGRAL))
    off = np.sqrt(j * j * (1 - (j / size) ** 2) / (4 * (4 * j * j - 1.0)))  # in units of n
    nodes, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return (n - 1) / 2 + n * nodes, n * vectors[0] ** 2


@lru_cache(maxsize=64)
def lattice(start: float, block: float, far: float) -> tuple[FloatArray, FloatArray]:
    """Return log(x / start) and log weights for the whole numbers x >= start, up to log(x / start) = far."""
    position, y, weights = 0.0, [], []
    end = start * math.expm1(min(far, _FARTHEST - math.log(start)))
    while position <= end:
        n = max(NODES, math.floor((start + position) * math.expm1(block)))
        at, weight = gram(n) if n < _AS_INTEGRAL else _scaled(n)
        y.append(np.log1p((position + at) / start))
        weights.append(weight)
        position += n
    return np.concatenate(y), np.log(np.concatenate(weights))


def _scaled(n: int) -> tuple[FloatArray, FloatArray]:
    """Return the nodes and weights of a block that is as good as an integral."""
    at, weight = gram(_AS_INTEGRAL)
    return (at + 0.5) * (n / _AS_INTEGRAL) - 0.5, weight * (n / _AS_INTEGRAL)


def total(curve: Curve, p: float, q: float, start: float) -> Sum:
    """Sum exp(-p y - q bend(y)), y = log(x / start), over the whole numbers x >= start.

    Relative error near 1e-13.

    Parameters
    ----------
    curve : Curve
    p, q : float
        q > 0, or q = 0 and p > 1.
    start : float
        A whole number above 0.

    Returns
    -------
    log_sum : float
    mean : ndarray of float64, shape (2,)
        Of y and bend(y).
    cov : ndarray of float64, shape (2, 2)
    """
    far = _end(curve, p - 1, q)  # a sum over x is an integral over y of terms times x
    steepest = abs(p) + 1 + q * float(curve.slope(far))
    if p < 1 and far * steepest > _MOST_BLOCKS * _STEEP:
        return _about_the_mode(curve, p, q, start)
    halvings = max(0, math.ceil(math.log2(steepest * _BLOCK / _STEEP)))
    grid = 2 ** (math.ceil(4 * math.log2(far)) / 4)  # few different ones, so that they are found again
    y, log_weight = lattice(start, _BLOCK / 2**halvings, grid)
    u = curve.bend(y)
    exponent = log_weight - p * y - q * u
    highest = float(exponent.max())
    w = np.exp(exponent - highest)
    mass = float(w.sum())
    w /= mass
    t = np.stack([y, u])
    mean = t @ w
    away = t - mean[:, None]
    return highest + math.log(mass), mean, (away * w) @ away.T


def _about_the_mode(curve: Curve, p: float, q: float, start: float) -> Sum:
    """Sum where the terms times x, which an integral over y has, are greatest far above ``start``."""
    mode = float(curve.inverse((1 - p) / q))
    bend, zero = np.array([q * curve.factor(mode)]), np.zeros(1)
    with np.errstate(all="ignore"):
        left = reach(curve, zero, bend, np.array([mode]), -1.0)
        right = reach(curve, zero, bend, np.array([np.inf]), 1.0)
        begin, _, _ = panels(curve, zero, bend, left, right)
        ends = start * np.exp(np.append(begin, right) + mode)
    if not ends[-1] < math.inf:
        return math.nan, np.full(2, math.nan), np.full((2, 2), math.nan)
    x = np.unique(np.ceil(np.maximum(ends, start)))
    blocks = [gram(int(n)) if n < _AS_INTEGRAL else _scaled(int(n)) for n in np.diff(x)]
    at = np.concatenate([first + nodes for first, (nodes, _) in zip(x, blocks, strict=False)])
    middle = start * math.exp(mode)
    d = np.log1p((at - middle) / middle)
    u = curve.bend(d)
    # the terms themselves fall by 1 in y at the mode
    w = np.exp(-d - bend * u) * np.concatenate([weight for _, weight in blocks])
    one = np.zeros(1, np.int64)
    found = around(curve, p, q, np.array([mode]), moments(w[None], d[None], u[None], one))
    return float(found.log_mass[0]), found.mean[0], found.cov[0]


def _end(curve: Curve, p: float, q: float) -> float:
    """Return a y beyond which nothing is added any more."""
    if p > 0:
        bent = float(curve.ahead(DROP / q)) if q > 0 else math.inf
        return min(DROP / p, bent, _FARTHEST)
    mode = float(curve.inverse(-p / q))
    return mode + float(curve.ahead(DROP / (q * curve.factor(mode))))
