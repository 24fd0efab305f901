"""Nodes and weights for one step of SGD on Gaussian least squares, as a unit vector sees it.

A step multiplies the square of a length by Q = (1 - c X)**2 + c**2 X Y with c = eta sigma**2 / b, X ~ chi2(b)
and Y ~ chi2(d - 1) independent. Expectations of powers of Q are integrals over t = sqrt(X) and w = sqrt(Y):
there chi-squared laws of any number of degrees of freedom, and their tilts by powers of Q, are bells of width
about 0.7, so that panels of length 1 serve for all of them. Q vanishes at t = 1 / sqrt(c), w = 0 alone;
panels shrink geometrically towards that point, and 1 - c X is computed from the distance to it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_POINTS, _LOG_WEIGHTS = (1 + _POINTS) / 2, np.log(_WEIGHTS / 2)
_PROBES = np.array([0.05, 0.5, 0.95])
_SHRINK = 5.0  # of neighbouring panels near the zero of Q: 20 points then leave 2e-17
_DROP = 45.0  # of a panel below the greatest one, in logs, from which on it is left out
_MARGIN = 12.0  # beyond the bells, in t and w
_SMALLEST = 1e-15
_SERIES = 0.05  # |p| max(1, |t|) below which the remainder of a power is summed as a series
_TERMS = 14


class Law:
    """A deterministic rule for expectations under the law of Q.

    Parameters
    ----------
    c : float
        eta sigma**2 / b.
    b, d : int
        Batch size and dimension.
    tilts : float
        Powers s of the length for which the parts of the plane that matter are kept; 0 is added.
        It serves for powers in between if the bells of neighbours overlap: up to 3, say.
    refine : int
        Panels are cut into so many: for checks.

    Notes
    -----
    Up to about 1000 tiles of 400 points are kept in two dimensions; finding them costs
    O(sqrt(b + s) + sqrt(d + s)).
    """

    def __init__(self, c: float, b: int, d: int, *tilts: float, refine: int = 1) -> None:
        tilts, m = tuple(sorted({0.0, *tilts})), d - 1
        # where Y has no weight near 0, the zero of Q is seen from a distance: no panel need be smaller
        reach = max(math.exp(-38 / (m + 1)), _SMALLEST) / refine
        # beyond X = 1 / c a tilt s moves the bell of X up to 2 s from there, and that of Y up to s
        beyond = 1 / c + 2 * tilts[-1] if tilts[-1] else 0.0
        left, off, width = _around(1 / math.sqrt(c), math.sqrt(b + beyond) + _MARGIN, reach, refine)
        probes = _PROBES * width[:, None]
        profiles = _profiles(c, b, m, left[:, None] + probes, off[:, None] + probes, tilts)
        kept = _matter([p.max(axis=1) + np.log(width) for p in profiles])
        left, off, width = left[kept], off[kept], width[kept]
        t, log_t = left[:, None] + width[:, None] * _POINTS, np.log(width)[:, None] + _LOG_WEIGHTS
        tau = off[:, None] + width[:, None] * _POINTS
        log_t = log_t + _bell(t, b)
        if m == 0:
            p, log_q = _step(c, t, tau, np.zeros_like(t))
            log_weight = log_t
        else:
            across, breadth = _towards(math.sqrt(m + tilts[-1]) + _MARGIN, reach, refine)
            w, log_w = across[:, None] + breadth[:, None] * _POINTS, np.log(breadth)[:, None] + _LOG_WEIGHTS
            log_w = log_w + _bell(w, m)
            at, of, up = left + width / 2, off + width / 2, across + breadth / 2
            _, middle = _step(c, at[:, None], of[:, None], up[None, :])
            flat = (_bell(at, b) + np.log(width))[:, None] + (_bell(up, m) + np.log(breadth))[None, :]
            i, j = np.nonzero(_matter([flat + 0.5 * s * middle for s in tilts]))
            p, log_q = _step(c, t[i][:, :, None], tau[i][:, :, None], w[j][:, None, :])
            log_weight = log_t[i][:, :, None] + log_w[j][:, None, :]
        self.p, self.log_q, self.log_weight = p.ravel(), log_q.ravel(), log_weight.ravel()
        top = float(self.log_weight.max())
        weight = np.exp(self.log_weight - top)
        total = float(weight.sum())
        self.weight = weight / total
        self._log_total = top + math.log(total)
        self.mean_p = b * c * (c * (d + b + 1) - 2)  # of Q - 1, in closed form

    def log_moment(self, s: float) -> float:
        """Return log E Q**(s/2), by the rule alone."""
        exponent = self.log_weight + (0.5 * s) * self.log_q
        top = float(exponent.max())
        return top + math.log(float(np.exp(exponent - top).sum())) - self._log_total

    def growth(self, s: float) -> float:
        """Return E (Q**(s/2) - 1) / s; for s = 0 its limit, E log(Q) / 2.

        What is linear in Q - 1 is taken in closed form. In many dimensions it nearly cancels the rest, and
        what remains, of which the sign decides, would be lost in rounding. Where steps are so long that Q - 1
        is large, it is the other way round.
        """
        if s == 0 and abs(self.mean_p) > 1:
            return 0.5 * float(self.weight @ self.log_q)
        return 0.5 * (self.mean_p + float(self.weight @ remainder(self.p, self.log_q, 0.5 * s)))

    def log_growth(self, s: float) -> float:
        """Return log E Q**(s/2) / s; for s = 0 its limit. It rises with s."""
        if s == 0:
            return self.growth(0.0)
        if 0.5 * s * float(self.log_q.max()) < 300:
            change = s * self.growth(s)
            if abs(change) < 0.5:
                return math.log1p(change) / s
        return self.log_moment(s) / s


def remainder(p: FloatArray, log_q: FloatArray, t: float) -> FloatArray:
    """Return ((1 + p)**t - 1) / t - p, with log(1 + p) for t = 0, without loss at small p."""
    far = (log_q if t == 0 else np.expm1(t * log_q) / t) - p
    near = np.flatnonzero(np.abs(p) * max(1.0, abs(t)) < _SERIES)
    if near.size:
        small = p[near]
        total, factor, power = np.zeros_like(small), 1.0, small.copy()
        for k in range(2, 2 + _TERMS):
            factor *= (t - k + 1) / k
            power *= small
            total += factor * power
        far[near] = total
    return far


def _bell(t: FloatArray, k: int) -> FloatArray:
    """Log density of chi with k degrees of freedom, less that at its mode; without loss at large k."""
    if k == 1:
        return -0.5 * t * t
    mode = math.sqrt(k - 1)
    away = (t - mode) / mode
    return (k - 1) * (np.log1p(away) - away - 0.5 * away * away)


def _step(c: float, t: FloatArray, tau: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Q - 1 and log Q at t, at the distance tau to the right of the zero."""
    ct = c * t
    p = ct * t * (c * (t * t + w * w) - 2)
    # 1 - c t**2 = -c tau (2 t - tau), since the zero is at t - tau
    q = (c * tau * (2 * t - tau)) ** 2 + (ct * w) ** 2
    return p, np.where(np.abs(p) < 0.5, np.log1p(np.maximum(p, -0.5)), np.log(q))


def _distances(last: float, reach: float, refine: int) -> FloatArray:
    """Edges from 0 to ``last``: from ``reach`` on by a factor, from 1 on by 1."""
    first = min(reach, last)
    levels = max(math.ceil(math.log(min(1.0, last) / first) / math.log(_SHRINK)), 0)
    near = min(1.0, last) * _SHRINK ** -np.arange(levels, -1, -1.0)
    edges = np.concatenate([[0.0], near, np.arange(2.0, last), [last]])
    edges = np.unique(edges[edges <= last])
    if refine > 1:
        cuts = np.arange(refine) / refine
        edges = np.append((edges[:-1, None] + np.diff(edges)[:, None] * cuts).ravel(), last)
    return edges


def _towards(last: float, reach: float, refine: int) -> tuple[FloatArray, FloatArray]:
    """Left ends and widths of panels from 0 to ``last`` that shrink towards 0."""
    edges = _distances(last, reach, refine)
    return edges[:-1], np.diff(edges)


def _around(zero: float, last: float, reach: float, refine: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Left ends, the same from ``zero`` on, and widths of panels up to ``last`` that shrink to it."""
    below = _distances(zero, reach, refine)[::-1]
    off, width = -below[:-1], -np.diff(below)
    off, width = off[off < last - zero], width[off < last - zero]
    left = zero + off
    left[0] = 0.0
    if last > zero:
        right, more = _towards(last - zero, reach, refine)
        left, off, width = (np.concatenate(x) for x in ((left, zero + right), (off, right), (width, more)))
    return left, off, width


def _profiles(
    c: float, b: int, m: int, t: FloatArray, tau: FloatArray, tilts: tuple[float, ...]
) -> list[FloatArray]:
    """Log of the integrand over t, for each tilt, at that w which is about the best for it."""
    found = []
    bell = _bell(t, b)
    for s in tilts:
        if m == 0:
            w = np.zeros_like(t)
        else:
            # the one positive root y = w**2 of (m - y)(A + B y) + s B y = 0, where A + B y is Q
            share, both = (tau * (2 * t - tau) / t) ** 2, m + s  # A / B
            half = 0.5 * (both - share)
            root = np.sqrt(half * half + m * share)
            w = np.sqrt(np.where(half > 0, half + root, m * share / np.maximum(root - half, 1e-300)))
        found.append(bell + (_bell(w, m) if m else 0.0) + 0.5 * s * _step(c, t, tau, w)[1])
    return found


def _matter(logs: list[FloatArray]) -> npt.NDArray[np.bool_]:
    """Whether each panel, or tile, is not negligible for one of the tilts."""
    kept = np.zeros(logs[0].shape, dtype=bool)
    for values in logs:
        kept |= values > values.max() - _DROP
    return kept
