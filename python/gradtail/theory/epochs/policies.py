"""How batches are drawn, and the settings of heavy-ball SGD, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import number, whole

Policy: TypeAlias = Literal["reshuffle", "replacement", "fixed"]
"""Batches of epochs that are shuffled anew, drawn with replacement, or the same in every epoch.

"fixed" means the average over orders that were chosen at random once.
"""


def check_policy(policy: object) -> Policy:
    """Return a policy."""
    if policy not in get_args(Policy):
        expected = ", ".join(map(repr, get_args(Policy)))
        raise ValueError(f"policy: expected one of {expected}, got {policy!r}")
    return cast(Policy, policy)


def check_batches(batches: object) -> int:
    """Return M, the number of batches of an epoch."""
    return whole(batches, "M", least=2)


def real_values(values: npt.ArrayLike, name: str, *, least: float | None = None) -> FloatArray:
    """Return finite real numbers of any shape, as float64."""
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected real numbers, got {values!r:.60}") from error
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got dtype {x.dtype}")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite numbers, got {x[~np.isfinite(x)].flat[0]}")
    if least is not None and (x < least).any():
        raise ValueError(f"{name}: expected numbers of at least {least:g}, got {x.min():.6g}")
    return x


def as_given(values: FloatArray, *given: npt.ArrayLike) -> Any:
    """Return a float where all arguments were numbers, else the array."""
    return float(values) if all(np.ndim(one) == 0 for one in given) else values


@dataclass(frozen=True)
class HeavyBall:
    """v <- beta v - eta (lambda theta + noise), theta <- theta + v, in directions of given curvature.

    Attributes
    ----------
    step : ndarray of float64
        eta times the curvatures; below 2 (1 + beta).
    eta, beta : float
    """

    step: FloatArray
    eta: float
    beta: float

    @classmethod
    def of(cls, curvature: npt.ArrayLike, eta: object, beta: object) -> HeavyBall:
        """Take curvatures at which SGD is stable, or that are 0.

        Raises
        ------
        TypeError, ValueError
            Not real numbers, a negative curvature, one beyond the bound of stability, eta that is not
            positive, or beta outside [0, 1).
        """
        rate, momentum = learning_rate(eta), momentum_of(beta)
        values = real_values(curvature, "curvature")
        if (values < 0).any():
            raise ValueError(
                "curvature: expected numbers of at least 0 (along a negative one SGD runs away, "
                f"and has no variance), got {values.min():.6g}"
            )
        bound = 2 * (1 + momentum)
        step = rate * values
        if (step >= bound).any():
            raise ValueError(
                f"curvature: expected numbers below 2 (1 + beta) / eta = {bound / rate:.6g} (SGD is unstable "
                f"beyond), got {values.max():.6g}"
            )
        return cls(step, rate, momentum)

    @property
    def variogram_of_one(self) -> FloatArray:
        """g(0) - g(1) of the weights under white noise of variance 1: finite at curvature 0."""
        bound = 2 * (1 + self.beta)
        return np.asarray(self.eta**2 / ((1 - self.beta) * (bound - self.step)))

    @property
    def slowest(self) -> FloatArray:
        """Modulus of the larger root of z**2 - (1 + beta - eta lambda) z + beta: what a step leaves."""
        middle = (1 + self.beta - self.step) / 2
        square = middle**2 - self.beta
        real = np.abs(middle) + np.sqrt(np.maximum(square, 0.0))
        return np.asarray(np.where(square < 0, np.sqrt(self.beta), real))


def learning_rate(eta: object) -> float:
    """Return a step size."""
    return number(eta, "eta", above=0.0)


def momentum_of(beta: object) -> float:
    """Return a momentum."""
    found = number(beta, "beta", least=0.0)
    if found >= 1:
        raise ValueError(f"beta: expected a number from 0 to below 1, got {found:.12g}")
    return found
