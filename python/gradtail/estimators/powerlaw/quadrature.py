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
_STEEP = 16.0  # width of a panel times the steepest slope in it, up to which NODES leave 1e-16
_MOST = 32  # panels of a section: three times what any needs
_CHUNK = 4096  # bins at a time
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
    ahead, behind : callable
        A d such that bend(d), or bend(-d), is not less than a given value; at most twice the least one.
    growth : float
        How fast log(bend(y)**2) grows at last: beyond the fall of the density its moments fall later.
    cuts : tuple of float
        Ways from the greatest slope to the right, and from the top to the left, that must not share a panel
        with what is beyond: each panel there sees one shape.
    """

    bend: Elementwise
    slope: Elementwise
    factor: Elementwise
    inverse: Elementwise
    ahead: Elementwise
    behind: Elementwise
    growth: float = 0.0
    cuts: tuple[float, ...] = ()


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
    ahead=lambda v: np.sqrt(2 * v),
    behind=lambda v: np.sqrt(2 * v),
)
"""Of the lognormal law: y = log(x / xmin) is normal."""

EXPONENTIAL = Curve(
    bend=excess_exp,
    slope=np.expm1,
    factor=np.exp,
    inverse=lambda v: np.log1p(np.maximum(v, -1.0)),
    ahead=lambda v: np.minimum(np.sqrt(2 * v), 1 + np.log1p(2 * v)),
    behind=lambda v: v / 2 + np.sqrt(v / 2) * np.sqrt(v / 2 + 4),  # from bend(-d) >= d**2 / (d + 2)
    growth=2.0,
    cuts=(1.0, 2.0, 4.0, 8.0, 20.0, 44.0),  # exp(-44) is 8e-20
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

    Each bin is cut where the exponent has fallen by 50 from its highest, and into at most 60 panels, whatever
    p and q are, over which it changes by no more than 16; 4 nodes serve where it changes by less than 0.3.
    Relative error near 1e-14.

    Parameters
    ----------
    curve : Curve
    p, q : float
        q >= 0; an infinite bin needs q > 0, or q = 0 and p > 0. Results that float64 cannot hold are
        infinite or NaN.
    low, width : ndarray of float64, shape (m,)
        width > 0, which may be infinite.

    Returns
    -------
    Masses
    """
    with np.errstate(all="ignore"):
        parts = [
            _masses(curve, p, q, low[i : i + _CHUNK], width[i : i + _CHUNK])
            for i in range(0, low.size, _CHUNK)
        ]
    if len(parts) == 1:
        return parts[0]
    return Masses(
        np.concatenate([part.log_mass for part in parts]),
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.cov for part in parts]),
    )


def _masses(curve: Curve, p: float, q: float, low: FloatArray, width: FloatArray) -> Masses:
    high = low + width
    mode = float(curve.inverse(np.float64(-p) / q)) if q > 0 else -np.inf
    falling, rising = mode <= low, mode >= high  # by the first alone where low + width rounds to low
    top = np.where(falling, low, np.where(rising, high, mode))
    steep = np.where(falling | rising, p + q * curve.slope(top), 0.0)
    bend = q * curve.factor(top)
    left = np.where(falling, 0.0, np.where(rising, width, mode - low))
    right = np.where(falling, width, np.where(rising, 0.0, high - mode))
    left = reach(curve, -steep, bend, left, -1.0)
    right = reach(curve, steep - (curve.growth if q > 0 else 0.0), bend, right, 1.0)
    ends = np.maximum(
        np.abs(steep - bend * np.abs(curve.slope(-left))), np.abs(steep + bend * curve.slope(right))
    )
    change = (left + right) * np.maximum(ends, 1.0)  # bend(y) itself may grow as exp(y)
    gentle = change <= _GENTLE
    shape = np.empty((low.size, 6))
    if gentle.any():
        start, size = -left[gentle], (left + right)[gentle]
        each = np.arange(size.size)
        shape[gentle] = _sums(curve, steep[gentle], bend[gentle], start, size, each, _FEW_NODES)
    if not gentle.all():
        other = ~gentle
        start, size, owner = panels(curve, steep[other], bend[other], left[other], right[other])
        shape[other] = _sums(curve, steep[other], bend[other], start, size, owner, NODES)
    return around(curve, p, q, top, shape)


def reach(curve: Curve, steep: FloatArray, bend: FloatArray, width: FloatArray, side: float) -> FloatArray:
    """How far from the top the exponent falls by DROP, or ``width`` if it does not."""
    fall = steep * width + bend * curve.bend(side * width)
    if not (fall > DROP).any() and np.isfinite(fall).all():
        return width
    steep = np.maximum(steep, 0.0)
    # Convex and from the right: Newton's steps do not pass the root
    ratio = DROP / bend
    bound = curve.ahead(ratio) if side > 0 else curve.behind(ratio)
    at = np.fmin(np.fmin(DROP / steep, bound), width)
    for _ in range(8):
        gradient = steep + bend * np.abs(curve.slope(side * at))
        move = (steep * at + bend * curve.bend(side * at) - DROP) / gradient
        at = at - np.where(move > 0, move, 0.0)
        if not (move > 0.01 * at).any():  # near enough, and on the far side
            break
    return np.minimum(at, width)


def panels(
    curve: Curve, steep: FloatArray, bend: FloatArray, left: FloatArray, right: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Cut each [-left, right] around its top into panels: their starts, sizes and owners."""
    cuts = [c for c in reversed(curve.cuts) if c < max(left.max(), right.max())]
    none = np.zeros(left.size)
    ends = np.stack(
        [
            -left,
            *(-np.minimum(left, c) for c in cuts),
            none,
            *(np.maximum(right - c, 0.0) for c in cuts),
            right,
        ],
        axis=1,
    )
    slope = np.abs(steep[:, None] + bend[:, None] * curve.slope(ends))
    size = np.diff(ends, axis=1)
    change = size * np.maximum(slope[:, :-1], slope[:, 1:])
    finite = np.where(np.isfinite(change), change, 0.0)  # else the integral is beyond float64 anyway
    pieces = np.minimum(np.ceil(finite / _STEEP), _MOST).astype(np.int64)
    pieces[size > 0] = np.maximum(pieces[size > 0], 1)
    pieces[:, -1] += pieces.sum(axis=1) == 0  # of a bin without width, so that all have one
    often = pieces.ravel()
    section = np.repeat(np.arange(often.size), often)
    step = np.arange(section.size) - (np.cumsum(often) - often)[section]
    own = size.ravel()[section] / often[section]
    return ends[:, :-1].ravel()[section] + step * own, own, section // size.shape[1]


def _sums(
    curve: Curve,
    steep: FloatArray,
    bend: FloatArray,
    start: FloatArray,
    size: FloatArray,
    owner: IntArray,
    k: int,
) -> FloatArray:
    """Log of the integral relative to the top; mean and covariance of (d, bend(d)), d the way from there."""
    nodes, weights = legendre(k)
    d = start[:, None] + size[:, None] * nodes
    u = curve.bend(d)
    largest = size if size.size == steep.size else np.maximum.reduceat(size, firsts(owner))
    w = np.exp(-(steep[owner][:, None] * d + bend[owner][:, None] * u)) * weights
    w *= (size / largest[owner])[:, None]
    sums = moments(w, d, u, owner)
    sums[:, 0] += np.log(largest)
    return sums


def firsts(owner: IntArray) -> IntArray:
    """Position of the first panel of each owner."""
    return np.flatnonzero(np.diff(owner, prepend=-1))


def moments(w: FloatArray, d: FloatArray, u: FloatArray, owner: IntArray) -> FloatArray:
    """Add up weights, and the two means and three covariances, over the panels of each bin."""
    first = firsts(owner)
    single = first.size == owner.size

    def add(values: FloatArray) -> FloatArray:
        rows = values.sum(axis=1)
        return rows if single else np.asarray(np.add.reduceat(rows, first))

    mass = add(w)
    mean_d, mean_u = add(w * d) / mass, add(w * u) / mass
    away_d, away_u = d - mean_d[owner][:, None], u - mean_u[owner][:, None]
    wd = w * away_d
    parts = add(wd * away_d), add(wd * away_u), add(w * away_u * away_u)
    return np.stack([np.log(mass), mean_d, mean_u, *(part / mass for part in parts)], axis=1)


def around(curve: Curve, p: float, q: float, top: FloatArray, shape: FloatArray) -> Masses:
    """Turn what is relative to the top of each bin into what is relative to 0."""
    log_mass, d, u, dd, du, uu = shape.T
    bend, slope, factor = curve.bend(top), curve.slope(top), curve.factor(top)
    cross = slope * dd + factor * du
    spread = slope * slope * dd + 2 * slope * factor * du + factor * factor * uu
    mean = np.stack([top + d, bend + slope * d + factor * u], axis=1)
    cov = np.stack([dd, cross, cross, spread], axis=1).reshape(-1, 2, 2)
    return Masses(log_mass - p * top - q * bend, mean, cov)
