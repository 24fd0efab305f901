"""Variance of weights in training along directions of known curvature, beside the theory of epoch noise."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradtail.estimators.series import correlation_time
from gradtail.estimators.weight_variance_result import Fluctuation, WeightVariances
from gradtail.estimators.weight_window import variance_in_window
from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs import Policy, velocity_variance
from gradtail.theory.epochs.policies import HeavyBall, check_batches, check_policy, real_values

_FEWEST = 8  # epochs whose spread tells an error
_STRAIGHT, _SHARE = 0.5, 0.1  # a trend with that share of the variance, in that share of the directions


def weight_variances(
    weights: npt.ArrayLike,
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    noise_variance: npt.ArrayLike | None = None,
    policy: Policy = "reshuffle",
) -> WeightVariances:
    """Compare the variance of weights along directions with that of heavy-ball SGD on a quadratic.

    Parameters
    ----------
    weights : array of float, shape (T, k)
        Along each direction, after every step of a run at constant step size near a minimum; T of at least
        8 epochs. What is over from whole epochs is left out at the start.
    curvature : array of float, shape (k,)
        Of each direction; weight decay belongs to it.
    eta, beta, M
        Step size, momentum, and batches of an epoch, as for :func:`gradtail.theory.epochs.weight_variance`.
    noise_variance : float or array of float, shape (k,), optional
        C of a batch in each direction, from gradients at fixed weights. Default: what theory takes from the
        variance of the velocity, which the curvature hardly changes.
    policy : {"reshuffle", "replacement", "fixed"}
        How batches were drawn.

    Returns
    -------
    WeightVariances

    Raises
    ------
    TypeError, ValueError
        Weights that are not finite or of another shape, fewer than 8 epochs, a curvature at which SGD is
        unstable, settings out of range.

    Notes
    -----
    The time mean is taken off, and theory is of the variance that is left in a window of T steps
    (:func:`gradtail.estimators.weight_window.variance_in_window`). Means over epochs are the batch means of
    the errors, which neither the phase within an epoch nor noise that cancels over it can disturb; they are
    widened by the integrated correlation time of these means (Geyer 1992), or by that of theory where noise
    is white. Directions whose relaxation time (1 - beta) / (eta curvature) exceeds the window are flagged,
    and so are those of curvature 0 and less, and those that never move or whose noise is 0: they have no
    ratio to theory. A fixed order repeats itself: what the errors then do not know
    is how other orders would have done. The model is that of Kuehn and Rosenow (2023), arXiv:2306.05300.
    O(k T).

    Examples
    --------
    >>> from scipy import signal
    >>> rng = np.random.default_rng(0)
    >>> noise = np.concatenate([x - x.mean() for x in rng.standard_normal((400, 50))])
    >>> eta, beta, curvature = 0.02, 0.9, np.array([5.0, 0.02])
    >>> weights = np.stack(
    ...     [signal.lfilter([-eta], [1, -(1 + beta - eta * a), beta], noise) for a in curvature], axis=1
    ... )
    >>> found = weight_variances(weights, curvature, eta=eta, beta=beta, M=50)
    >>> bool(np.all(np.abs(found.ratio - 1) < 0.2)), (found.weight / found.white).round(1).tolist()
    (True, [1.0, 0.0])
    """
    x = real_values(weights, "weights")
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"weights: expected shape (T, k), one row a step, got {x.shape}")
    curved = real_values(curvature, "curvature")
    if curved.shape != x.shape[1:]:
        raise ValueError(f"curvature: expected shape {x.shape[1:]}, one a direction, got {curved.shape}")
    batches, kind = check_batches(M), check_policy(policy)
    balls = HeavyBall.of(np.maximum(curved, 0.0), eta, beta)
    epochs = len(x) // batches
    if epochs < _FEWEST:
        raise ValueError(
            f"weights: expected at least {_FEWEST} epochs of {batches} steps, got {len(x)} steps"
        )
    steps = epochs * batches
    v = np.diff(x, axis=0)[-((epochs - (len(x) == steps)) * batches) :]
    x = x[len(x) - steps :]
    still = np.ptp(x, axis=0) == 0
    x, v = np.where(still, 0.0, x - x.mean(axis=0)), np.where(still, 0.0, v - v.mean(axis=0))
    positive = curved > 0
    relaxation = np.full(curved.shape, np.inf)
    relaxation[positive] = (1 - balls.beta) / balls.step[positive]
    settings: dict[str, Any] = {"eta": balls.eta, "beta": balls.beta, "M": batches}
    memory = np.minimum(relaxation, steps) / batches if kind == "replacement" else np.zeros(curved.shape)
    weight, weight_stderr, weight_freedom = _over_epochs(x**2, batches, memory)
    velocity, velocity_stderr, velocity_freedom = _over_epochs(v**2, batches, np.zeros(curved.shape))
    of_one = np.asarray(velocity_variance(balls.step / balls.eta, **settings, policy=kind))
    noise_from: Literal["given", "velocity"] = "velocity"
    noise = velocity / of_one
    if noise_variance is not None:
        noise_from = "given"
        given = real_values(noise_variance, "noise_variance", least=0.0)
        if given.shape not in ((), curved.shape):
            raise ValueError(f"noise_variance: expected shape {curved.shape}, got {given.shape}")
        noise = np.broadcast_to(given, curved.shape).copy()
    still |= noise == 0
    relaxed = (relaxation <= steps) & ~still
    expected, white = np.full(curved.shape, np.nan), np.full(curved.shape, np.nan)
    for target, one in ((expected, kind), (white, "replacement")):
        shown = variance_in_window(curved[positive], steps, **settings, policy=one)
        target[positive] = noise[positive] * shown
    half = np.where(relaxed, curved, 0.0) / 2
    share = np.where(relaxed, half * weight, 0.0) ** 2  # of the variance of the sum, about
    slow = float(np.sum(np.where(relaxed, memory * share, 0.0)) / max(share.sum(), np.finfo(float).tiny))
    loss, loss_stderr, loss_freedom = _over_epochs((x**2 @ half)[:, None], batches, np.array([slow]))
    return WeightVariances(
        curvature=curved,
        weight=weight,
        weight_stderr=weight_stderr,
        weight_freedom=weight_freedom,
        velocity=velocity,
        velocity_stderr=velocity_stderr,
        velocity_freedom=velocity_freedom,
        noise_variance=noise,
        noise_from=noise_from,
        expected=expected,
        white=white,
        expected_velocity=noise * of_one,
        relaxed=relaxed,
        eta=balls.eta,
        beta=balls.beta,
        M=batches,
        policy=kind,
        epochs=epochs,
        fluctuation=Fluctuation(
            float(loss[0]),
            float(loss_stderr[0]),
            float(loss_freedom[0]),
            float(np.sum(half[relaxed] * expected[relaxed])),
            float(np.sum(half[relaxed] * white[relaxed])),
        ),
        warnings=_about(x, weight, relaxed, still, kind),
    )


def _over_epochs(
    squares: FloatArray, batches: int, memory: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return means of columns, their standard errors, and their degrees of freedom.

    ``memory`` is the least correlation time in epochs.
    """
    means = squares.reshape(-1, batches, squares.shape[1]).mean(axis=1)
    n = len(means)
    times = np.array([correlation_time(np.ascontiguousarray(one)) for one in means.T])
    times = np.minimum(np.maximum(times, memory), n / 2)
    stderr = means.std(axis=0, ddof=1) * np.sqrt(times / n)
    return means.mean(axis=0), stderr, n / times - 1


def _about(
    x: FloatArray,
    weight: FloatArray,
    relaxed: npt.NDArray[np.bool_],
    still: npt.NDArray[np.bool_],
    kind: Policy,
) -> tuple[str, ...]:
    said = []
    if still.any():
        said.append(
            f"nothing moves, or there is no noise, in {np.count_nonzero(still)} of {still.size} directions: "
            "these are not compared"
        )
    if not relaxed.any():
        said.append("no direction can have relaxed in this window: nothing is compared")
    else:
        t = np.linspace(-1, 1, len(x))
        slope = t @ x / (t @ t)
        straight = slope**2 * np.mean(t**2) / np.maximum(weight, np.finfo(float).tiny)
        drifting = int(np.count_nonzero(relaxed & (straight > _STRAIGHT)))
        if drifting > _SHARE * np.count_nonzero(relaxed):
            said.append(
                f"{drifting} of the directions compared move steadily through the window: these weights are "
                "not stationary yet"
            )
    if kind == "fixed":
        said.append("a fixed order repeats itself: errors do not know how other orders would have done")
    return tuple(said)
