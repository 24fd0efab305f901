"""The parts of `gradtail reproduce epoch-noise` without a network: a quadratic, and least squares."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradtail.estimators.weight_variance import weight_variances
from gradtail.states.magnitudes import FloatArray
from gradtail.theory import epochs as theory
from gradtail.torch.interrupts import Interrupts

TABLE = {"eta": 0.005, "beta": 0.9, "M": 1000}
CURVATURES = (0.0, 0.0006, 0.006, 0.06, 0.6, 6.0, 60.0)
"""Settings and curvatures of the table of exact values."""

SIMULATED: dict[str, Any] = {"eta": 0.02, "beta": 0.9, "M": 100}
SHARES = (0.01, 0.3, 1.0, 3.0, 50.0)
"""Settings of the simulated quadratic, and curvatures as shares of the crossover."""

_VARIANCES = (3, 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of the inputs of least squares
_EXAMPLES, _BATCH, _MOMENTUM = 2000, 20, 0.9
_BURN_IN = 4.0  # relaxation times of the flattest direction that is compared


@dataclass(frozen=True)
class Quadratic:
    """Heavy-ball SGD on a quadratic, with the noise of batches drawn in one of three ways."""

    policy: theory.Policy
    epochs: int = 400
    seeds: int = 32
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it."""
        return f"quadratic-{self.policy}-s{self.seed}"


@dataclass(frozen=True)
class Squares:
    """Least squares with the gradients of its own examples: noise that depends on the weights.

    Attributes
    ----------
    eta : float
        Step size.
    epochs : int
        Of the window, after those in which the flattest direction relaxes.
    runs : int
        Independent ones, from the minimum.
    seed : int
        Of the orders; the examples are the same for all.
    """

    eta: float
    epochs: int
    runs: int = 16
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it."""
        return f"squares-eta{self.eta:g}-s{self.seed}"


def exact_table() -> list[dict[str, Any]]:
    """Return exact variances over curvature for noise of variance 1."""
    rows = []
    for curvature in CURVATURES:
        weight = theory.weight_variance(curvature, **TABLE)  # type: ignore[arg-type]
        white = theory.weight_variance(curvature, **TABLE, policy="replacement")  # type: ignore[arg-type]
        rows.append(
            {
                "curvature": curvature, "weight": weight, "white": None if math.isinf(white) else white,
                "velocity": theory.velocity_variance(curvature, **TABLE),  # type: ignore[arg-type]
                "ratio": weight / white,
                "time": theory.correlation_time(curvature, **TABLE),  # type: ignore[arg-type]
            }
        )  # fmt: skip
    return rows


def examine_quadratic(at: Quadratic) -> dict[str, Any]:
    """Simulate one way of drawing batches beside its theory."""
    began = time.perf_counter()
    curvature = np.array(SHARES) * theory.crossover_curvature(**SIMULATED)
    found = theory.simulate(
        curvature, **SIMULATED, policy=at.policy, batch_size=2, epochs=at.epochs, seeds=at.seeds, seed=at.seed
    )
    return {
        **asdict(at), "curvature": curvature.tolist(),
        "weight": found.weight_variance.tolist(), "weight_stderr": found.weight_stderr.tolist(),
        "velocity": found.velocity_variance.tolist(), "velocity_stderr": found.velocity_stderr.tolist(),
        "expected": theory.weight_variance(curvature, **SIMULATED, policy=at.policy).tolist(),
        "expected_velocity": theory.velocity_variance(curvature, **SIMULATED, policy=at.policy).tolist(),
        "relaxed": found.relaxed.tolist(), "seconds": time.perf_counter() - began,
    }  # fmt: skip


def examine_squares(at: Squares, interrupts: Interrupts) -> dict[str, Any] | None:
    """Run SGD on least squares; return its variances beside theory, or None after Ctrl-C."""
    began = time.perf_counter()
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((_EXAMPLES, len(_VARIANCES))) * np.sqrt(_VARIANCES)
    targets = inputs.sum(axis=1) + rng.standard_normal(_EXAMPLES)
    curvature, basis = np.linalg.eigh(inputs.T @ inputs / _EXAMPLES)
    curvature, basis = curvature[::-1], basis[:, ::-1]
    targets = targets - inputs @ np.linalg.lstsq(inputs, targets)[0]  # the minimum is at 0
    inputs = inputs @ basis
    per_batch = _EXAMPLES // _BATCH
    noise = theory.noise_variance(
        (inputs * targets[:, None]).var(axis=0, ddof=1), batch_size=_BATCH, examples=_EXAMPLES
    )
    settings: dict[str, Any] = {"eta": at.eta, "beta": _MOMENTUM, "M": per_batch}
    slow = (1 - _MOMENTUM) / (at.eta * curvature)
    steps = at.epochs * per_batch
    before = math.ceil(_BURN_IN * slow[slow <= steps / _BURN_IN].max() / per_batch)
    series = _run(inputs, targets, at, before, interrupts)
    if series is None:
        return None
    each = [
        weight_variances(x, curvature, noise_variance=noise, **settings) for x in np.moveaxis(series, 1, 0)
    ]
    root = math.sqrt(at.runs)

    def over(values: list[FloatArray]) -> tuple[list[float], list[float]]:
        some = np.array(values)
        return some.mean(axis=0).tolist(), (some.std(axis=0, ddof=1) / root).tolist()

    weight, weight_stderr = over([one.weight for one in each])
    velocity, velocity_stderr = over([one.velocity for one in each])
    ratio, ratio_stderr = over([one.ratio for one in each])
    excess, excess_stderr = over([one.excess for one in each])
    loss, loss_stderr = over([np.array(one.fluctuation.value) for one in each])
    first = each[0]
    return {
        **asdict(at), "examples": _EXAMPLES, "batch": _BATCH, "beta": _MOMENTUM, "burn_in": before,
        "crossover": first.crossover, "curvature": curvature.tolist(), "relaxed": first.relaxed.tolist(),
        "weight": weight, "weight_stderr": weight_stderr, "expected": first.expected.tolist(),
        "white": first.white.tolist(), "ratio": ratio, "ratio_stderr": ratio_stderr,
        "excess": excess, "excess_stderr": excess_stderr, "velocity": velocity,
        "velocity_stderr": velocity_stderr, "expected_velocity": first.expected_velocity.tolist(),
        "loss": loss, "loss_stderr": loss_stderr, "expected_loss": first.fluctuation.expected,
        "white_loss": first.fluctuation.white, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def _run(
    inputs: FloatArray, targets: FloatArray, at: Squares, before: int, interrupts: Interrupts
) -> FloatArray | None:
    """Return weights over the steps of the window, shape (T, runs, d)."""
    rng = np.random.default_rng(at.seed)
    n, d = inputs.shape
    per_batch = n // _BATCH
    orders = np.tile(np.arange(n), (at.runs, 1))
    theta, v = np.zeros((at.runs, d)), np.zeros((at.runs, d))
    series = np.empty((at.epochs * per_batch, at.runs, d))
    for epoch in range(-before, at.epochs):
        if interrupts.stopped:
            return None
        orders = rng.permuted(orders, axis=1)
        batches = orders.reshape(at.runs, per_batch, _BATCH)
        x, y = inputs[batches], targets[batches]
        for k in range(per_batch):
            a = x[:, k]
            rest = np.matmul(a, theta[:, :, None])[:, :, 0] - y[:, k]
            v = _MOMENTUM * v - at.eta / _BATCH * np.matmul(rest[:, None, :], a)[:, 0]
            theta = theta + v
            if epoch >= 0:
                series[epoch * per_batch + k] = theta
    return series
