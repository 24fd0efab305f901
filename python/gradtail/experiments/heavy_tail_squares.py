"""One point of the least-squares table of `gradtail reproduce heavy-tail-sgd`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from gradtail.theory import least_squares
from gradtail.torch.interrupts import Interrupts

POINTS = (
    (0.5, 1, 1), (2 / 3, 1, 1), (5 / 6, 1, 1), (1.0, 1, 1), (1.5, 1, 1), (2.6, 1, 1),
    (0.5, 1, 2), (0.625, 1, 2), (0.75, 1, 2), (0.64, 5, 10), (0.17, 1, 10), (0.18, 10, 100),
)  # fmt: skip
"""Step size, batch size and dimension: around eta_crit, beyond it, and one beyond eta_max."""

CURVES = ((1, 1), (1, 2), (1, 10), (5, 10), (10, 100))
"""Batch size and dimension of the curves of alpha against the step size."""

_ON_A_CURVE = 24


@dataclass(frozen=True)
class Squares:
    """SGD on Gaussian least squares with unit variance."""

    eta: float
    batch: int
    dimension: int
    chains: int
    steps: int
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it."""
        return f"squares-eta{self.eta:.4g}-b{self.batch}-d{self.dimension}-s{self.seed}"


def examine(at: Squares, interrupts: Interrupts) -> dict[str, Any] | None:
    """Simulate one point, and hold both estimates against theory; None after Ctrl-C."""
    began = time.perf_counter()
    try:
        found = least_squares.simulate(
            at.eta, at.batch, at.dimension, chains=at.chains, steps=at.steps, seed=at.seed,
            stop=lambda: interrupts.stopped,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    return {
        **asdict(at), "alpha": found.alpha, "rho": found.rho,
        "eta_crit": least_squares.eta_crit(at.batch, at.dimension),
        "eta_max": least_squares.eta_max(at.batch, at.dimension),
        "hill": found.hill.alpha, "hill_stderr": found.hill.stderr, "hill_k": found.hill.k,
        "averaged": found.averaged.alpha, "averaged_stderr": found.averaged.stderr,
        "growth": found.growth, "growth_stderr": found.growth_stderr, "stopped": found.stopped,
        "state": found.state, "warnings": list(found.warnings),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


@cache
def curves() -> list[dict[str, Any]]:
    """Return alpha against the step size over its maximum, from theory."""
    made = []
    for batch, dimension in CURVES:
        most = least_squares.eta_max(batch, dimension)
        crit = least_squares.eta_crit(batch, dimension)
        # Even in logs of the distance to both ends of where alpha goes from many to none.
        shares = np.unique(np.r_[np.geomspace(0.05, 1, _ON_A_CURVE // 2), 1 - np.geomspace(1e-4, 0.5, 12)])
        etas = [float(share * most) for share in shares if share < 1]
        made.append(
            {
                "batch": batch, "dimension": dimension, "eta_crit": crit, "eta_max": most, "eta": etas,
                "alpha": [least_squares.tail_index(eta, batch, dimension) for eta in etas],
            }
        )  # fmt: skip
    return made
