"""What follows from the variances: crossover, flat limit, correlation time, fluctuation of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs.policies import (
    HeavyBall,
    Policy,
    as_given,
    check_batches,
    check_policy,
    learning_rate,
    momentum_of,
    real_values,
)
from gradtail.theory.epochs.variances import velocity_variance, weight_variance


def crossover_curvature(*, eta: float, beta: float, M: int) -> float:
    """Curvature at which the weight variance goes over from that of white noise to the flat limit.

    3 (1 - beta) / (eta M), where eta / (2 lambda (1 - beta)) equals eta**2 M / (6 (1 - beta)**2).

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`.

    Examples
    --------
    >>> round(crossover_curvature(eta=0.005, beta=0.9, M=1000), 12)
    0.06
    """
    return 3 * (1 - momentum_of(beta)) / (learning_rate(eta) * check_batches(M))


def flat_limit(*, eta: float, beta: float, M: int) -> float:
    """Weight variance of reshuffled epochs in the limit of curvature 0, for noise of variance 1.

    eta**2 / (1 - beta)**2 ((M + 1) / 6 - beta Q / (1 - beta**2)), Q = 1 - 2 G(beta) / (M (M - 1)),
    G(z) = z ((M - 1) - M z + z**M) / (1 - z)**2; about eta**2 M / (6 (1 - beta)**2).

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`.

    Examples
    --------
    >>> round(flat_limit(eta=0.005, beta=0.9, M=1000), 7)
    0.4054525
    """
    return float(weight_variance(0.0, eta=eta, beta=beta, M=M))


def correlation_time(
    curvature: npt.ArrayLike, *, eta: float, beta: float, M: int, policy: Policy = "reshuffle"
) -> Any:
    """Correlation time of the velocity in steps: twice the variance of the weight over that of the velocity.

    For a stationary weight that is the sum of n c(n) over the sum of c(n), n >= 1, with c the autocovariance
    of the velocity. (1 + beta) / (eta lambda) with replacement; for reshuffled epochs about
    (M / 3) (1 + beta) / (1 - beta) in flat directions.

    Parameters
    ----------
    curvature, eta, beta, M, policy
        As for :func:`weight_variance`; of a fixed order it is the ratio alone.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`.

    Examples
    --------
    >>> correlation_time([0.0, 0.6], eta=0.005, beta=0.9, M=1000).round(1).tolist()
    [6274.8, 592.5]
    """
    settings: dict[str, Any] = {"eta": eta, "beta": beta, "M": M, "policy": policy}
    weight = np.asarray(weight_variance(curvature, **settings))
    return as_given(2 * weight / np.asarray(velocity_variance(curvature, **settings)), curvature)


def loss_fluctuation(
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    noise_variance: npt.ArrayLike = 1.0,
    policy: Policy = "reshuffle",
) -> float:
    """Mean of the loss above its minimum: half the sum of curvatures times weight variances.

    Parameters
    ----------
    curvature, eta, beta, M, noise_variance, policy
        As for :func:`weight_variance`; a curvature of 0 adds its limit, which with replacement is not 0.

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`.

    Examples
    --------
    >>> round(loss_fluctuation([0.01, 1.0], eta=0.02, beta=0.9, M=100, noise_variance=[0.01, 1.0]), 6)
    0.04552
    """
    each = _curvature_times_variance(curvature, eta, beta, M, check_policy(policy))
    scale = real_values(noise_variance, "noise_variance", least=0.0)
    return float(np.sum(each * scale) / 2)


def loss_fluctuation_ratio(
    curvature: npt.ArrayLike,
    *,
    eta: float,
    beta: float,
    M: int,
    noise_variance: npt.ArrayLike | None = None,
    policy: Policy = "reshuffle",
) -> float:
    """Fluctuation of the loss over that with white noise of the same variance.

    Parameters
    ----------
    curvature : array of float
        The spectrum of the Hessian.
    eta, beta, M, policy
        As for :func:`weight_variance`.
    noise_variance : array of float, optional
        Default: in proportion to the curvature, as where the noise covariance is the Hessian's multiple.

    Raises
    ------
    TypeError, ValueError
        As for :func:`weight_variance`; also where there is no noise at all.

    Examples
    --------
    >>> eigenvalues = np.logspace(-4, 1, 200)
    >>> round(loss_fluctuation_ratio(eigenvalues, eta=0.005, beta=0.9, M=1000), 3)
    0.978
    """
    noise = curvature if noise_variance is None else noise_variance
    whole, white = (
        loss_fluctuation(curvature, eta=eta, beta=beta, M=M, noise_variance=noise, policy=kind)
        for kind in (policy, "replacement")
    )
    if not white > 0:
        raise ValueError("noise_variance: expected noise in at least one direction, got none")
    return whole / white


def _curvature_times_variance(
    curvature: npt.ArrayLike, eta: float, beta: float, M: int, policy: Policy
) -> FloatArray:
    if policy == "replacement":
        check_batches(M)
        balls = HeavyBall.of(curvature, eta, beta)
        return np.asarray(balls.variogram_of_one * (1 + balls.beta) / balls.eta)
    found = weight_variance(curvature, eta=eta, beta=beta, M=M, policy=policy)
    return np.asarray(np.asarray(curvature, np.float64) * found)
