"""Integrals of exp(-p y - q bend(y)) over bins of y, with their moments, to near float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from gradtail.estimators.order import IntArray
from gradtail.states.magnitudes import FloatArray

Elementwise: TypeAlias = Callable[[Any], Any]
"""Of a float or an array of float64."""

NODES = 16
"""Of a panel whose integrand changes much."""

_FEW_NODES = 4
_GENTLE = 0.3  # change of the exponent over a panel up to which few nodes leave 1e-15
_STEEP = 12.0  # and up to which NODES leave 1e-16
DROP = 50.0
"""Fall of the exponent beyond which nothing is added any more: exp(-50) is 2e-22."""


@dataclass(frozen=True)
class Curve:
    """A convex function of y that bends a power law: zero and flat at 0, with second derivative 1 there.

    Both curves reproduce themselves when moved: bend(m + d) = bend(m) + slope(m) d + factor(m) bend(d). All
    integrals are taken around the mode by this, so that none is a difference of large numbers.

    Attributes
    ----------
    bend, slope, factor : callable
        The function, its derivative and its second derivative.
    inverse : callable
        Of the derivative.
    far : callable
        A y beyond which ``bend`` is greater than a given value.
    """

    bend: Elementwise
    slope: Elementwise
    factor: Elementwise
    inverse: Elementwise
    far: Elementwise


def excess_exp(y: FloatArray) -> FloatArray:
    """Return exp(y) - 1 - y without loss at small y."""
    near = np.abs(y) < 0.25
    if not near.any():
        return np.asarray(np.expm1(y) - y)
    small = np.where(near, y, 0.0)
    series = 1 + small / 12
    for k in range(11, 2, -1):
        series = 1 + small / k * series
    series *= small * small / 2
    return np.asarray(series if near.all() else np.where(near, series, np.expm1(y) - y))


PARABOLA = Curve(
    bend=lambda y: y * y / 2,
    slope=lambda y: y,
    factor=np.ones_like,
    inverse=lambda v: v,
    far=lambda v: np.sqrt(2 * v),
)
"""Of the lognormal law: y = log(x / xmin) is normal."""

EXPONENTIAL = Curve(
    bend=excess_exp,
    slope=np.expm1,
    factor=np.exp,
    inverse=np.log1p,
    far=lambda v: np.minimum(np.sqrt(2 * v), 1 + np.log1p(2 * v)),
)
"""Of the power law that an exponential cuts off: its exponent is linear in x."""


@dataclass(frozen=True)
class Masses:
    """Integrals over m bins, and the moments of (y, bend(y)) within each.

    Attributes
    ----------
    log_mass : ndarray of float64, shape (m,)
    mean : ndarray of float64, shape (m, 2)
    cov : ndarray of float64, shape (m, 2, 2)
    """

    log_mass: FloatArray
    mean: FloatArray
    cov: FloatArray


@cache
def legendre(k: int) -> tuple[FloatArray, FloatArray]:
    """Return the k nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(k)
    return (nodes + 1) / 2, weights / 2


def masses(curve: Curve, p: float, q: float, low: FloatArray, width: FloatArray) -> Masses:
    """Integrate exp(-p y - q bend(y)) over each bin [low, low + width].

    Each bin is cut where the exponent has fallen by 50 from its highest, into panels over which it changes
    by no more than 12; 4 nodes serve where it changes by less than 0.3. Relative error near 1e-14.

    Parameters
    ----------
    curve : Curve
    p, q : float
        q >= 0; an infinite bin needs q > 0, or q = 0 and p > 0.
    low, width : ndarray of float64, shape (m,)
        low >= 0, width > 0, which may be infinite.

    Returns
    -------
    Masses
    """
    high = low + width
    mode = float(curve.inverse(-p / q)) if q > 0 and p < 0 else 0.0
    falling, rising = mode <= low, mode >= high  # by the first alone where low + width rounds to low
    top = np.where(falling, low, np.where(rising, high, mode))
    steep = np.where(falling | rising, p + q * curve.slope(top), 0.0)
    bend = q * curve.factor(top)
    left = np.where(falling, 0.0, np.where(rising, width, mode - low))
    right = np.where(falling, width, np.where(rising, 0.0, high - mode))
    left = _reach(curve, -steep, bend, left, -1.0)
    right = _reach(curve, steep, bend, right, 1.0)
    ends = np.maximum(
        np.abs(steep - bend * np.abs(curve.slope(-left))), np.abs(steep + bend * curve.slope(right))
    )
    change = (left + right) * np.maximum(ends, 1.0)  # bend(y) itself may grow as exp(y)
    shape = np.empty((low.size, 6))
    gentle = change <= _GENTLE
    for group, k in ((gentle, _FEW_NODES), (~gentle, NODES)):
        if group.any():
            pieces = np.maximum(np.ceil(change[group] / _STEEP), 1.0).astype(np.int64)
            shape[group] = _sums(curve, steep[group], bend[group], -left[group], right[group], pieces, k)
    return _around(curve, p, q, top, shape)


def _reach(curve: Curve, steep: FloatArray, bend: FloatArray, width: FloatArray, side: float) -> FloatArray:
    """How far from the top the exponent falls by DROP, or ``width`` if it does not."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fall = steep * width + bend * curve.bend(side * width)
        if not (fall > DROP).any() and np.isfinite(fall).all():
            return width
        steep = np.maximum(steep, 0.0)
        # Convex and from the right: Newton's steps do not pass the root
        ratio = DROP / bend
        bound = curve.far(ratio) if side > 0 else np.maximum(np.sqrt(3 * ratio), ratio + 1)
        at = np.fmin(np.fmin(DROP / steep, bound), width)
        for _ in range(8):
            gradient = steep + bend * np.abs(curve.slope(side * at))
            move = (steep * at + bend * curve.bend(side * at) - DROP) / gradient
            at = at - np.where(move > 0, move, 0.0)
            if not (move > 0.01 * at).any():  # near enough, and on the far side
                break
    return np.minimum(at, width)


def _sums(
    curve: Curve,
    steep: FloatArray,
    bend: FloatArray,
    start: FloatArray,
    end: FloatArray,
    pieces: IntArray,
    k: int,
) -> FloatArray:
    """Log of the integral relative to the top; mean and covariance of (d, bend(d)), d the way from there."""
    nodes, weights = legendre(k)
    first = np.cumsum(pieces) - pieces
    owner = np.repeat(np.arange(pieces.size), pieces)
    size = (end - start) / pieces
    step = np.arange(owner.size) - first[owner]
    d = (start[owner] + step * size[owner])[:, None] + size[owner][:, None] * nodes
    u = curve.bend(d)
    w = np.exp(-(steep[owner][:, None] * d + bend[owner][:, None] * u)) * weights
    return moments(w, d, u, first, owner, size)


def moments(
    w: FloatArray, d: FloatArray, u: FloatArray, first: IntArray, owner: IntArray, size: FloatArray
) -> FloatArray:
    """Add up weights, and the two means and three covariances, over the panels of each bin."""
    single = first.size == owner.size

    def add(values: FloatArray) -> FloatArray:
        rows = values.sum(axis=1)
        return rows if single else np.asarray(np.add.reduceat(rows, first))

    mass = add(w)
    mean_d, mean_u = add(w * d) / mass, add(w * u) / mass
    away_d, away_u = d - mean_d[owner][:, None], u - mean_u[owner][:, None]
    wd = w * away_d
    parts = add(wd * away_d), add(wd * away_u), add(w * away_u * away_u)
    return np.stack([np.log(mass * size), mean_d, mean_u, *(part / mass for part in parts)], axis=1)


def _around(curve: Curve, p: float, q: float, top: FloatArray, shape: FloatArray) -> Masses:
    """Turn what is relative to the top of each bin into what is relative to 0."""
    log_mass, d, u, dd, du, uu = shape.T
    bend, slope, factor = curve.bend(top), curve.slope(top), curve.factor(top)
    cross = slope * dd + factor * du
    spread = slope * slope * dd + 2 * slope * factor * du + factor * factor * uu
    mean = np.stack([top + d, bend + slope * d + factor * u], axis=1)
    cov = np.stack([dd, cross, cross, spread], axis=1).reshape(-1, 2, 2)
    return Masses(log_mass - p * top - q * bend, mean, cov)
