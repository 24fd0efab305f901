"""Noise of SGD in epochs: its autocovariance, and what heavy-ball SGD makes of it near a minimum.

The noise of batches drawn without replacement cancels over an epoch, so that flat directions feel less of it.
Kuehn and Rosenow (2023), arXiv:2306.05300.
"""

from gradtail.theory.epochs.fluctuations import (
    correlation_time,
    crossover_curvature,
    flat_limit,
    loss_fluctuation,
    loss_fluctuation_ratio,
)
from gradtail.theory.epochs.noise import autocovariance, noise_variance, spectrum
from gradtail.theory.epochs.policies import Policy
from gradtail.theory.epochs.simulation import SimulatedVariances, simulate
from gradtail.theory.epochs.variances import velocity_variance, weight_variance

__all__ = [
    "Policy",
    "SimulatedVariances",
    "autocovariance",
    "correlation_time",
    "crossover_curvature",
    "flat_limit",
    "loss_fluctuation",
    "loss_fluctuation_ratio",
    "noise_variance",
    "simulate",
    "spectrum",
    "velocity_variance",
    "weight_variance",
]
