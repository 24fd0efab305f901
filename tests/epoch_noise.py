"""Noise of batches drawn in three ways, for tests of its memory."""

from __future__ import annotations

import numpy as np

POLICIES = ("reshuffle", "replacement", "fixed")


def examples(rng, count, size, slope):
    """Centred noise of examples whose covariance has eigenvalues k**-slope."""
    noise = rng.standard_normal((count, size)) * np.arange(1, size + 1) ** (-slope / 2)
    return noise - noise.mean(axis=0)


def batches(rng, noise, period, epochs, policy, skipped=0):
    """Mean noise of each batch over whole epochs, beginning ``skipped`` batches into the first."""
    n = len(noise)
    order, rows = rng.permutation(n), []
    for _ in range(epochs + bool(skipped)):
        if policy == "reshuffle":
            order = rng.permutation(n)
        elif policy == "replacement":
            order = rng.integers(0, n, n)
        rows.append(noise[order].reshape(period, n // period, -1).mean(axis=1))
    return np.concatenate(rows)[skipped : skipped + epochs * period]


def ratio(size, slope):
    """(tr C)**2 / tr C**2 of such a covariance."""
    law = np.arange(1, size + 1) ** -float(slope)
    return law.sum() ** 2 / (law**2).sum()
