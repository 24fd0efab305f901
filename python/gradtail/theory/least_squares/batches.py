"""Batches of a given data set, drawn for many chains at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_REDRAWS = 0.5  # expected repeats in a batch up to which a batch with repeats is drawn again


def draw_batches(
    n: int, b: int, chains: int, replacement: bool, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return indices of shape (chains, b), independent between chains, distinct within unless replaced."""
    if b == 1 or replacement:
        return rng.integers(0, n, (chains, b))
    if b * (b - 1) / (2 * n) > _REDRAWS:
        # a uniform choice of b out of n: the places of the b smallest of n random numbers
        return np.asarray(np.argpartition(rng.random((chains, n)), b - 1, axis=1)[:, :b])
    drawn = rng.integers(0, n, (chains, b))
    while True:
        ordered = np.sort(drawn, axis=1)
        repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not repeated.size:
            return drawn
        drawn[repeated] = rng.integers(0, n, (repeated.size, b))
