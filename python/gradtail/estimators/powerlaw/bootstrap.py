"""Distances and fits of samples drawn from a fit: what chance alone would give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradtail.estimators.powerlaw import binned_likelihood
from gradtail.estimators.powerlaw.bins import Bins
from gradtail.estimators.powerlaw.scan import falls_below, search
from gradtail.estimators.powerlaw.tails import TailData
from gradtail.states.magnitudes import FloatArray

_ENTRIES = 1 << 20  # of the tables of one chunk


def null_distances(
    data: TailData, at: int, alpha: float, repeats: int, rng: np.random.Generator
) -> FloatArray:
    """Distances of samples of the fitted law from their own fits, with xmin as it was given.

    Parameters
    ----------
    data : TailData
    at : int
        Where the tail begins.
    alpha : float
        Its fit.
    repeats : int
    rng : Generator
    """
    if isinstance(data, Bins):
        return _null_of_bins(data, at, alpha, repeats, rng)
    n = int(data.n_tail(at))
    found = np.empty(repeats)
    for i in range(repeats):
        drawn = data.of(*_from_xmin(float(data.values[at]), *data.draw(at, alpha, n, rng)), 0)
        (fitted,) = drawn.alphas(np.array([0])).tolist() if drawn.values.size > 1 else [np.inf]
        found[i] = drawn.distance(0, fitted)[0] if np.isfinite(fitted) else 0.0
    return found


def _from_xmin(xmin: float, values: FloatArray, count: FloatArray) -> tuple[FloatArray, FloatArray]:
    if values[0] == xmin:
        return values, count
    return np.append(xmin, values), np.append(0.0, count)


def _null_of_bins(data: Bins, at: int, alpha: float, repeats: int, rng: np.random.Generator) -> FloatArray:
    """All samples of a chunk at once."""
    n = int(data.n_tail(at))
    bins, share = data.law(at, alpha, n)
    low = data.grid.logs[bins] - data.grid.logs[bins[0]]
    classes, own = np.unique(data.grid.classes[bins], return_inverse=True)
    widths, sorting = data.grid.widths[classes], np.argsort(own, kind="stable")
    starts = np.searchsorted(own[sorting], np.arange(classes.size))
    width = np.diff(data.grid.logs)[bins]
    widest = np.full(1, width[np.isfinite(width)].max(initial=0.0))
    found = np.empty(repeats)
    rows = max(1, _ENTRIES // bins.size)
    for begin in range(0, repeats, rows):
        size = min(rows, repeats - begin)
        count = rng.multinomial(n, share / share.sum(), size=size).astype(np.float64)
        places = count @ low
        fitted, sure = binned_likelihood.by_powers(places, count @ data.grid.powers[bins], widest)
        if not sure.all():
            left = np.flatnonzero(~sure)
            by_width = np.add.reduceat(count[left][:, sorting], starts, axis=1)
            fitted[left] = binned_likelihood.by_widths(places[left], by_width, widths)
        from_ = count[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] / n
        gap = np.abs(from_ - np.exp(-fitted[:, None] * low[1:]))
        found[begin : begin + size] = gap.max(axis=1, initial=0.0)
    return found


class SemiParametric:
    """Samples that are the fitted law above xmin and the data below it (CSN 2009, section 4.1)."""

    def __init__(self, data: TailData, at: int, alpha: float) -> None:
        self._data, self._at, self._alpha = data, at, alpha
        self._body = np.append(data.count[:at], data.unseen)
        self._share = float(data.n_tail(at)) / data.n

    def draw(self, rng: np.random.Generator) -> TailData:
        """Draw a sample as large as the data."""
        data, at = self._data, self._at
        n = data.n
        above = int(rng.binomial(n, self._share))
        body = _resampled(self._body, n - above, rng)
        drawn, count = data.draw(at, self._alpha, above, rng) if above else (np.zeros(0), np.zeros(0))
        there = np.flatnonzero(body[:-1])
        values = np.concatenate([data.values[there], drawn])
        return data.of(values, np.concatenate([body[there], count]), int(body[-1]))


def share_as_far(data: TailData, at: int, alpha: float, distance: float, repeats: int, seed: int) -> int:
    """Count samples of which the nearest fit, xmin searched again, is at least as far as ``distance``."""
    rng, law = np.random.default_rng(seed), SemiParametric(data, at, alpha)
    far = 0
    for _ in range(repeats):
        drawn = law.draw(rng)
        far += not (drawn.values.size > 1 and falls_below(drawn, distance))
    return far


def resampled_fits(data: TailData, repeats: int, seed: int) -> npt.NDArray[np.float64]:
    """Fit resampled data, xmin searched again: rows of alpha, xmin, n_tail."""
    rng = np.random.default_rng(seed)
    weights = np.append(data.count, data.unseen)
    found: list[tuple[float, float, float]] = []
    while len(found) < repeats:
        count = _resampled(weights, data.n, rng)
        there = np.flatnonzero(count[:-1])
        if there.size > 1:
            drawn = data.of(data.values[there], count[there], int(count[-1]))
            at, alpha, *_ = search(drawn)
            found.append((alpha, float(drawn.values[at]), float(drawn.n_tail(at))))
    return np.array(found).T


def _resampled(weights: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    if not n:
        return np.zeros(weights.size)
    return rng.multinomial(n, weights / weights.sum()).astype(np.float64)
