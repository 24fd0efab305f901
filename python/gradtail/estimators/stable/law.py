"""The symmetric stable law: distribution and density by quadrature, and what quantiles say of alpha."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special
from scipy.interpolate import CubicSpline

from gradtail.states.magnitudes import FloatArray

LEAST, MOST = 0.5, 2.0
"""The alpha that tables reach over."""

_STEP = 0.05
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_HEIGHTS = np.array([-30.0, -22.0, -16.0, -11.0, -7.5, -5.0, -3.0, -1.5, -0.5, 0.3, 1.0, 1.8, 2.6, 3.7])
"""Between which exp(-exp(h)) is smooth enough for one panel of nodes."""


def distribution(x: float, alpha: float) -> tuple[float, float]:
    """Return P(X <= x) and the density at x > 0 of the law with characteristic function exp(-|u|^alpha).

    Zolotarev's integral (Nolan 1997, Commun. Statist. Stochastic Models 13, 759, Theorem 1): with
    V(t) = (cos t / sin(alpha t))^(alpha / (alpha - 1)) cos((alpha - 1) t) / cos t, the mean of
    exp(-x^(alpha / (alpha - 1)) V(t)) over t from 0 to pi/2 is twice P(X > x) for alpha above 1, and
    P(X <= x) - P(X > x) below. To about 1e-10 for alpha from 0.5 to 2 outside (0.97, 1.03).
    """
    if alpha == 1:
        return 0.5 + math.atan(x) / math.pi, 1 / (math.pi * (1 + x * x))
    power = alpha / (alpha - 1)
    ends = np.concatenate(
        [[0.0], np.geomspace(1e-12, 0.5, 400), 1 - np.geomspace(0.5, 1e-12, 400)[1:], [1.0]]
    )

    def height(share: FloatArray) -> FloatArray:
        t = share * (math.pi / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            h = power * (math.log(x) + np.log(np.cos(t) / np.sin(alpha * t)))
            h += np.log(np.cos((alpha - 1) * t) / np.cos(t))
        return h

    inner = height(ends[1:-1])
    rising = bool(inner[-1] > inner[0])
    order = slice(None) if rising else slice(None, None, -1)
    cuts = np.interp(_HEIGHTS, inner[order], ends[1:-1][order])
    edges = np.unique(np.concatenate([[0.0], cuts, [1.0]]))
    half = np.diff(edges) / 2
    h = np.clip(height((edges[:-1] + half)[:, None] + half[:, None] * _NODES), -700, 7)
    falling = np.exp(-np.exp(h))
    weight = half[:, None] * _WEIGHTS
    mass, slope = float((weight * falling).sum()), float((weight * np.exp(h) * falling).sum())
    below = 1 - mass / 2 if alpha > 1 else 0.5 + mass / 2
    return below, abs(power) * slope / (2 * x)


def quantile(p: float, alpha: float, start: float) -> tuple[float, float]:
    """Return the p-quantile, p above 1/2, and the density there, by Newton's method in log x."""
    x = start
    for _ in range(50):
        below, density = distribution(x, alpha)
        step = (below - p) / (density * x)
        x *= math.exp(-min(max(step, -1.0), 1.0))
        if abs(step) < 1e-11:
            break
    return x, distribution(x, alpha)[1]


@dataclass(frozen=True)
class QuantileTable:
    """What the 5, 25, 75 and 95 % quantiles are, by alpha."""

    quartile: CubicSpline
    log_ratio: CubicSpline
    relative_variance: CubicSpline
    alphas: FloatArray
    log_ratios: FloatArray


@cache
def table() -> QuantileTable:
    """Tabulate quantiles over alpha, once a process; about a tenth of a second.

    ``log_ratio`` is that of (q95 - q05) / (q75 - q25), and ``relative_variance`` n times the variance of
    its estimate from the quantiles of n values, of covariance p (1 - q) / (n f(p) f(q)) for p <= q.
    """
    alphas = np.array([round(i * _STEP, 9) for i in range(round(LEAST / _STEP), round(MOST / _STEP) + 1)])
    rows = []
    inner, outer = 0.9538725, 2.3261743  # of the normal law with alpha = 2
    for alpha in alphas[::-1].tolist():
        inner, at_inner = quantile(0.75, alpha, inner)
        outer, at_outer = quantile(0.95, alpha, outer)
        p = np.array([0.05, 0.25, 0.75, 0.95])
        density = np.array([at_outer, at_inner, at_inner, at_outer])
        cov = np.minimum.outer(p, p) - np.outer(p, p)
        cov /= np.outer(density, density)
        gradient = np.array([-1 / outer, 1 / inner, -1 / inner, 1 / outer]) / 2
        rows.append((inner, math.log(outer / inner), float(gradient @ cov @ gradient)))
    columns = np.array(rows[::-1], np.float64).T
    quartile, log_ratio, variance = (CubicSpline(alphas, column) for column in columns)
    return QuantileTable(quartile, log_ratio, variance, alphas, columns[1])


def alpha_of_ratio(log_ratio: float) -> float:
    """Return the alpha whose quantiles have this log ratio; beyond 2 along the tangent, NaN below 0.5."""
    known = table()
    if log_ratio <= known.log_ratios[-1]:
        slope = float(known.log_ratio(MOST, 1))
        return MOST + (log_ratio - float(known.log_ratios[-1])) / slope
    if log_ratio > known.log_ratios[0]:
        return math.nan
    alpha = float(np.interp(-log_ratio, -known.log_ratios, known.alphas))
    for _ in range(20):
        alpha = min(max(alpha, LEAST), MOST)
        step = (float(known.log_ratio(alpha)) - log_ratio) / float(known.log_ratio(alpha, 1))
        alpha -= step
        if abs(step) < 1e-12:
            break
    return alpha


def log_mean_of_normal() -> float:
    """Return the mean of log |Z|, Z standard normal."""
    return float(special.digamma(0.5) + math.log(2)) / 2
