"""Two other estimators of the stable index: by quantiles and by the empirical characteristic function."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gradtail.estimators.stable.law import LEAST, MOST, alpha_of_ratio, table
from gradtail.estimators.stable.result import Control
from gradtail.states.magnitudes import FloatArray

MOST_VALUES = 1 << 20
"""That are looked at: an even choice of more."""

_POINTS = np.arange(1, 11) / 10  # at which the characteristic function is taken, in units of the scale


def thinned(x: npt.NDArray[np.floating]) -> FloatArray:
    """Return at most ``MOST_VALUES`` values, evenly over the array, as float64."""
    return x[:: -(-x.size // MOST_VALUES)].astype(np.float64)


def by_quantiles(x: FloatArray) -> tuple[Control, float]:
    """McCulloch's estimate for a symmetric law, and the scale s of exp(-|s u|^alpha).

    Parameters
    ----------
    x : ndarray of float64, shape (n,)

    Returns
    -------
    Control, float
        alpha is NaN below 0.5, where its table ends, or where quartiles coincide; values above 2 occur, as
        of the block estimator, along the tangent at 2.

    Notes
    -----
    McCulloch (1986), Commun. Statist. Simula. 15, 1109: alpha from (q95 - q05) / (q75 - q25), which
    knows neither place nor scale. His table is not used: quantiles come from quadrature of the law.
    """
    low, first, third, high = np.quantile(x, [0.05, 0.25, 0.75, 0.95]).tolist()
    ratio = math.log((high - low) / (third - first)) if third > first else math.nan
    alpha = alpha_of_ratio(ratio)
    if math.isnan(alpha):
        return Control(math.nan, math.nan, x.size, "quantiles (McCulloch)"), math.nan
    known, at = table(), min(max(alpha, LEAST), MOST)
    spread = math.sqrt(float(known.relative_variance(at)) / x.size)
    stderr = spread / abs(float(known.log_ratio(at, 1)))
    scale = (third - first) / 2 / float(known.quartile(at))
    return Control(alpha, stderr, x.size, "quantiles (McCulloch)"), scale


def by_characteristic_function(x: FloatArray, alpha: float, scale: float) -> Control:
    r"""Regress log(-log \|phi(u)\|^2) on log u.

    Parameters
    ----------
    x : ndarray of float64, shape (n,)
    alpha, scale : float
        First guesses, of :func:`by_quantiles`.

    Returns
    -------
    Control
        NaN without a first guess.

    Notes
    -----
    Koutrouvelis (1980), J. Amer. Statist. Assoc. 75, 918: the slope is alpha. Here at ten points up to
    1 / scale, by least squares; the error follows from the covariance of the empirical characteristic
    function of a symmetric law, (phi(t + s) + phi(t - s)) / 2 - phi(t) phi(s).
    """
    name = "characteristic function (Koutrouvelis)"
    if not (math.isfinite(alpha) and scale > 0):
        return Control(math.nan, math.nan, x.size, name)
    log_u = np.log(_POINTS)
    away = log_u - log_u.mean()
    away /= float(away @ log_u)
    square = np.empty(_POINTS.size)
    centre = float(np.median(x))
    standard = (x - centre) / scale
    step = np.exp(1j * _POINTS[0] * standard)
    power = np.ones_like(step)
    for i in range(_POINTS.size):
        power *= step
        square[i] = abs(power.mean()) ** 2
    if not (square.min() > 0 and square.max() < 1):
        return Control(math.nan, math.nan, x.size, name)
    y = np.log(-np.log(square))
    found = float(away @ y)
    shape = min(max(found, LEAST), MOST)
    size = math.exp(float(y.mean() - math.log(2) - shape * log_u.mean()) / shape)  # about 1: what is left

    def phi(u: FloatArray) -> FloatArray:
        return np.asarray(np.exp(-((size * np.abs(u)) ** shape)))

    both, apart = np.add.outer(_POINTS, _POINTS), np.subtract.outer(_POINTS, _POINTS)
    at = phi(_POINTS)
    cov = (phi(both) + phi(apart)) / 2 - np.outer(at, at)
    gradient = away * 2 / (at * np.log(at * at))
    return Control(found, math.sqrt(float(gradient @ cov @ gradient) / x.size), x.size, name)
