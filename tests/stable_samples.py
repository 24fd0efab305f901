"""Samples with a known stable index, and Gaussian ones that only look like it."""

import numpy as np


def stable(alpha, size, rng):
    """Symmetric stable values with characteristic function exp(-|u|^alpha).

    Chambers, Mallows and Stuck (1976), J. Amer. Statist. Assoc. 71, 340.
    """
    angle = rng.uniform(-np.pi / 2, np.pi / 2, size)
    if alpha == 1:
        return np.tan(angle)
    wait = rng.exponential(size=size)
    left = np.sin(alpha * angle) / np.cos(angle) ** (1 / alpha)
    return left * (np.cos((1 - alpha) * angle) / wait) ** ((1 - alpha) / alpha)


def isotropic(alpha, count, dimension, rng):
    """Isotropic stable vectors: normal ones times the root of a positive stable variable."""
    b = alpha / 2
    angle, wait = rng.uniform(0, np.pi, count), rng.exponential(size=count)
    radius = np.sin(b * angle) / np.sin(angle) ** (1 / b) * (np.sin((1 - b) * angle) / wait) ** ((1 - b) / b)
    return np.sqrt(radius)[:, None] * rng.standard_normal((count, dimension))


def autoregressive(phi, size, rng):
    """Gaussian AR(1)."""
    from scipy.signal import lfilter

    return lfilter([1], [1, -phi], rng.standard_normal(size))


def planted(name, n, rng):
    """What may be taken for a stable law."""
    g = rng.standard_normal(n)
    return {
        "scales": lambda: np.exp(rng.standard_normal(n)) * g,
        "zeros": lambda: np.where(rng.random(n) < 0.1, 0, g),
        "runs": lambda: np.repeat(np.exp(rng.standard_normal(n // 100)), 100) * g,
        "t3": lambda: rng.standard_t(3, n),
        "laplace": lambda: rng.laplace(size=n),
        "ar+": lambda: autoregressive(0.5, n, rng),
        "ar-": lambda: autoregressive(-0.5, n, rng),
        "mean": lambda: g + 0.1,
        "spike": lambda: np.where(rng.random(n) < 0.05, 0.25, g),
    }[name]()
