"""Heavy-ball SGD with the noise of actual batches, simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import generator, level_of, whole
from gradtail.theory.epochs.policies import HeavyBall, Policy, check_batches, check_policy, real_values

_VALUES = 1 << 21  # of the noise that is in memory at once
_RELAXED = 5.0  # memory times that a start from 0 takes to be forgotten


@dataclass(frozen=True, eq=False)
class SimulatedVariances:
    """Variances of weights and velocities, averaged over steps, with errors from independent runs.

    Attributes
    ----------
    curvature : ndarray of float64, shape (k,)
    weight_variance, weight_stderr : ndarray of float64, shape (k,)
        Mean square of the weight about the minimum.
    velocity_variance, velocity_stderr : ndarray of float64, shape (k,)
    noise_variance : ndarray of float64, shape (k,)
        C of the noise used, for comparison with theory.
    relaxed : ndarray of bool, shape (k,)
        Whether the steps left out at the start are at least 5 memory times, so that it is forgotten.
    policy : str
    seeds : int
        Independent runs.
    steps : int
        Of each run, those left out at the start not counted.
    """

    curvature: FloatArray
    weight_variance: FloatArray
    weight_stderr: FloatArray
    velocity_variance: FloatArray
    velocity_stderr: FloatArray
    noise_variance: FloatArray
    relaxed: npt.NDArray[np.bool_]
    policy: Policy
    seeds: int
    steps: int

    def weight_ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Student's interval of each weight variance."""
        return self._ci(self.weight_variance, self.weight_stderr, level)

    def velocity_ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Student's interval of each velocity variance."""
        return self._ci(self.velocity_variance, self.velocity_stderr, level)

    def _ci(self, value: FloatArray, stderr: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
        half = special.stdtrit(self.seeds - 1, (1 + level_of(level)) / 2) * stderr
        return value - half, value + half

    def __str__(self) -> str:
        lines = [f"{self.policy}: {self.seeds} runs of {self.steps} steps; curvature, variance of the weight"]
        for i, value in enumerate(self.curvature):
            mark = "" if self.relaxed[i] else "  (may still remember its start)"
            lines.append(f"  {value:.4g}: {self.weight_variance[i]:.4g} +- {self.weight_stderr[i]:.2g}{mark}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"SimulatedVariances({self.policy!r}, curvatures={self.curvature.size}, seeds={self.seeds}, "
            f"steps={self.steps})"
        )


def simulate(
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    policy: Policy = "reshuffle",
    noise: npt.ArrayLike | None = None,
    batch_size: int = 1,
    epochs: int = 400,
    burn_in: int | None = None,
    seeds: int = 32,
    seed: int | np.random.Generator | None = 0,
) -> SimulatedVariances:
    """Run heavy-ball SGD on a quadratic with the noise of batches that are drawn from actual vectors.

    Parameters
    ----------
    curvature : float, or array of float, shape (k,)
        Of the directions, which share the batches.
    eta, beta, M, policy
        As for :func:`gradtail.theory.epochs.weight_variance`; "fixed" draws one order for each run.
    noise : array of float, shape (M * batch_size,) or (M * batch_size, k), optional
        Gradient noise of every example, in each direction; its mean is taken off. Default: normal numbers,
        scaled so that the noise of a batch has variance 1.
    batch_size : int
        Examples in a batch.
    epochs : int
        Length of a run.
    burn_in : int, optional
        Epochs that are left out at the start, which is at weight and velocity 0. Default: a quarter.
    seeds : int
        Independent runs, at least 2.
    seed : int, Generator or None
        Of the permutations, or draws, and of the default noise.

    Returns
    -------
    SimulatedVariances

    Raises
    ------
    TypeError, ValueError
        Arguments out of range, or noise of another shape.

    Notes
    -----
    O(seeds * epochs * M * (k + batch_size)) time; about 16 MB of noise at once.

    Examples
    --------
    >>> from gradtail.theory.epochs import weight_variance
    >>> setting = {"eta": 0.1, "beta": 0.0, "M": 20}
    >>> found = simulate([0.5, 5.0], **setting, epochs=200, seeds=8)
    >>> off = (found.weight_variance - weight_variance([0.5, 5.0], **setting)) / found.weight_stderr
    >>> bool((abs(off) < 4).all())
    True
    """
    balls = HeavyBall.of(np.atleast_1d(real_values(curvature, "curvature")), eta, beta)
    if balls.step.ndim != 1 or not balls.step.size:
        raise ValueError(f"curvature: expected a number, or one dimension, got shape {balls.step.shape}")
    batches, kind, rng = check_batches(M), check_policy(policy), generator(seed)
    size, length, runs = (
        whole(batch_size, "batch_size"),
        whole(epochs, "epochs"),
        whole(seeds, "seeds", least=2),
    )
    first = length // 4 if burn_in is None else whole(burn_in, "burn_in", least=0)
    if first >= length:
        raise ValueError(f"burn_in: expected an int below epochs = {length}, got {first}")
    examples, scale = _noise(noise, batches, size, balls.step.size, kind, rng)
    sums = _run(balls, examples, batches, kind, length, first, runs, rng)
    steps = (length - first) * batches
    weight, velocity = (part / steps for part in sums)
    root = math.sqrt(runs)
    with np.errstate(divide="ignore"):
        memory = -1 / np.log(balls.slowest)
    return SimulatedVariances(
        curvature=balls.step / balls.eta,
        weight_variance=weight.mean(axis=0),
        weight_stderr=weight.std(axis=0, ddof=1) / root,
        velocity_variance=velocity.mean(axis=0),
        velocity_stderr=velocity.std(axis=0, ddof=1) / root,
        noise_variance=np.broadcast_to(scale, balls.step.shape).copy(),
        relaxed=first * batches >= _RELAXED * np.where(balls.slowest < 1, memory, np.inf),
        policy=kind,
        seeds=runs,
        steps=steps,
    )


def _noise(
    noise: npt.ArrayLike | None,
    batches: int,
    size: int,
    directions: int,
    kind: Policy,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Return centred noise of the examples, shape (N, 1) or (N, k), and its variance in a batch."""
    n = batches * size
    chosen = rng.standard_normal(n) if noise is None else real_values(noise, "noise")
    if chosen.shape not in ((n,), (n, directions)):
        raise ValueError(
            f"noise: expected shape ({n},) or ({n}, {directions}), one row an example of {batches} batches "
            f"of {size}, got {chosen.shape}"
        )
    chosen = chosen.reshape(n, -1)
    chosen = chosen - chosen.mean(axis=0)
    share = (n - 1) / (n * size) if kind == "replacement" else (n - size) / (n * size)
    scale = share * chosen.var(axis=0, ddof=1)
    if noise is None:
        return chosen / np.sqrt(scale), np.ones(1)
    return chosen, scale


def _run(
    balls: HeavyBall,
    examples: FloatArray,
    batches: int,
    kind: Policy,
    epochs: int,
    burn_in: int,
    runs: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Sum squares of weights and velocities over steps; shape (runs, k) each."""
    from scipy import signal

    n, columns = examples.shape
    size, k = n // batches, balls.step.size
    orders = np.tile(np.arange(n), (runs, 1))
    if kind == "fixed":
        orders = rng.permuted(orders, axis=1)
    states = np.zeros((k, runs, 2))
    previous = np.zeros((k, runs))
    squares, moves = np.zeros((runs, k)), np.zeros((runs, k))
    once = max(1, _VALUES // (runs * n * columns))
    done = 0
    while done < epochs:
        more = min(once, epochs - done, burn_in - done if done < burn_in else epochs)
        xi = np.empty((runs, more, batches, columns))
        for i in range(more):
            if kind == "replacement":
                orders = rng.integers(0, n, (runs, n))
            elif kind == "reshuffle":
                orders = rng.permuted(orders, axis=1)
            xi[:, i] = examples[orders].reshape(runs, batches, size, columns).mean(axis=2)
        flat = xi.reshape(runs, more * batches, columns)
        for j, step in enumerate(balls.step):
            recursion: list[Any] = [1.0, -(1 + balls.beta - step), balls.beta]
            theta, states[j] = signal.lfilter(
                [-balls.eta], recursion, flat[:, :, j if columns > 1 else 0], axis=1, zi=states[j]
            )
            if done >= burn_in:
                squares[:, j] += np.einsum("st,st->s", theta, theta)
                velocity = np.diff(theta, axis=1, prepend=previous[j][:, None])
                moves[:, j] += np.einsum("st,st->s", velocity, velocity)
            previous[j] = theta[:, -1]
        done += more
    return squares, moves
