"""The xmin of least Kolmogorov-Smirnov distance, without looking at every point from every candidate.

A gap at any one value bounds a candidate's distance from below. The values at which the distances of
neighbours were reached make such bounds nearly sharp, so that few candidates are ever measured in full;
none is ruled out that could be the best.
"""

from __future__ import annotations

import numpy as np

from gradtail.estimators.order import IntArray
from gradtail.estimators.powerlaw.tails import TailData

EXACT_UP_TO = 20_000
"""Candidates that are all searched; of more, a geometric grid and then ever finer ones around its best."""

_SEEDS = 24  # candidates measured before any is ruled out
_AT_ONCE = 8
_GRID = 512  # candidates of a coarse search
_FINER = 32  # and of each finer one, in each of so many places:
_PLACES = 3
_RANKS = 2048  # of values that bounds rest on from the start, where the values are very many


def search(data: TailData) -> tuple[int, float, float, bool]:
    """Find the position of least distance.

    Returns
    -------
    at, alpha, distance : int, float, float
    exact : bool
        Whether every candidate was considered.
    """
    candidates = data.candidates
    if candidates.size <= EXACT_UP_TO:
        best = _Search(data)
        best.among(candidates)
        return best.at, best.alpha, best.distance, True
    return (*_coarse_to_fine(data, candidates), False)


def falls_below(data: TailData, distance: float) -> bool:
    """Whether :func:`search` comes nearer than ``distance``; it stops at the first candidate that does."""
    candidates = data.candidates
    if candidates.size > EXACT_UP_TO:  # as coarse as for the data, no better and no worse
        return _coarse_to_fine(data, candidates, distance)[2] < distance
    best = _Search(data, enough=distance)
    best.distance = distance
    best.among(candidates)
    return best.distance < distance


class _Search:
    """The best so far, over several sets of candidates."""

    def __init__(self, data: TailData, witnesses: IntArray | None = None, enough: float = -np.inf) -> None:
        self._data = data
        self.at, self.alpha, self.distance = 0, np.nan, np.inf
        self.enough = enough
        """A distance below which nothing better is looked for."""
        self.measured: dict[int, float] = {}
        self._witnesses = set() if witnesses is None else set(witnesses.tolist())

    def among(self, at: IntArray) -> None:
        """Look for a better one among these."""
        data = self._data
        at = at[~np.isin(at, list(self.measured))]
        if not at.size:
            return
        alpha = data.alphas(at)
        if not self.measured:
            for i in _spread(data, at):
                self._measure(int(at[i]), float(alpha[i]))
                if self.distance < self.enough:
                    return
        bound = data.bounds(at, alpha, np.array(sorted(self._witnesses)))
        bound[np.isin(at, list(self.measured))] = np.inf
        while True:
            keep = bound < self.distance
            at, alpha, bound = at[keep], alpha[keep], bound[keep]
            if not at.size or self.distance < self.enough:
                return
            next_ = np.argpartition(bound, min(_AT_ONCE, at.size) - 1)[:_AT_ONCE]
            new = np.unique([self._measure(int(at[i]), float(alpha[i])) for i in next_])
            bound[next_] = np.inf
            keep = bound < self.distance
            at, alpha, bound = at[keep], alpha[keep], bound[keep]
            np.maximum(bound, data.bounds(at, alpha, new), out=bound)

    def _measure(self, at: int, alpha: float) -> int:
        """Take the distance of one candidate; return where it is reached."""
        distance, where = self._data.distance(at, alpha)
        self._witnesses.add(where)
        self.measured[at] = distance
        if distance < self.distance or (distance == self.distance and at < self.at):
            self.at, self.alpha, self.distance = at, alpha, distance
        return where


def _spread(data: TailData, at: IntArray) -> IntArray:
    """Choose some candidates, evenly spread in the logarithm of the size of their tails."""
    return np.arange(at.size) if at.size <= _SEEDS else _geometric(data, at, _SEEDS)


def _geometric(data: TailData, at: IntArray, points: int) -> IntArray:
    n = data.n_tail(at)  # falls
    wanted = np.geomspace(n[0], n[-1], points)
    return np.unique(np.clip(np.searchsorted(-n, -wanted), 0, at.size - 1))


def _coarse_to_fine(
    data: TailData, candidates: IntArray, enough: float = -np.inf
) -> tuple[int, float, float]:
    """Measure the best of a grid, then of finer ones around the best few, down to neighbours."""
    ranks = np.searchsorted(data.before[1:], np.linspace(0, data.before[-1], _RANKS), side="right")
    best = _Search(data, np.minimum(ranks, data.values.size - 1), enough)
    grid = candidates[_geometric(data, candidates, _GRID)]
    best.among(grid)
    places = sorted(best.measured, key=best.measured.__getitem__)[:_PLACES]
    for place in places:
        i = int(np.searchsorted(grid, place))
        low, high = int(grid[max(i - 1, 0)]), int(grid[min(i + 1, grid.size - 1)])
        while high - low > 1 and best.distance >= enough:
            finer = np.unique(np.linspace(low, high, _FINER).round().astype(np.int64))
            best.among(finer)
            there = [(best.measured[at], at) for at in finer.tolist() if at in best.measured]
            if finer.size < _FINER or not there:
                break
            i = int(np.searchsorted(finer, min(there)[1]))
            low, high = int(finer[max(i - 1, 0)]), int(finer[min(i + 1, finer.size - 1)])
    return best.at, best.alpha, best.distance
