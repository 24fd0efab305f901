"""What the variance of weights along directions of known curvature is returned as."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import level_of
from gradtail.theory.epochs import Policy, crossover_curvature, weight_variance

_BINS = 8  # rows of the text
_NEAR = 3.0  # a factor in curvature about the crossover, within which it is looked for
_FEWEST = 6  # directions that a line is laid through


@dataclass(frozen=True)
class Fluctuation:
    """Half the sum of curvature times weight variance over the directions compared: the loss they cost.

    Attributes
    ----------
    value, stderr : float
        Measured, about the mean of the window.
    freedom : float
        Epochs that are worth one independent one, less 1.
    expected, white : float
        By theory for the way batches are drawn, and for noise without memory, in the same window.
    """

    value: float
    stderr: float
    freedom: float
    expected: float
    white: float

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval by Student's t on the logarithm."""
        low, high = _interval(np.array(self.value), np.array(self.stderr), np.array(self.freedom), level)
        return float(low), float(high)

    def __str__(self) -> str:
        if not self.expected > 0:
            return "fluctuation of the loss: not known, as no direction is compared"
        low, high = self.ci()
        return (
            f"fluctuation of the loss: {self.value:.4g} (95 % {low:.4g} to {high:.4g}), "
            f"{self.value / self.expected:.3f} times theory's {self.expected:.4g}; "
            f"white noise: {self.white:.4g}"
        )


@dataclass(frozen=True)
class Quantity:
    """A number and how sure it is.

    Attributes
    ----------
    value, stderr : float
        NaN where it cannot be said.
    n : int
        Directions that it rests on.
    """

    value: float
    stderr: float
    n: int

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal interval."""
        reach = float(special.ndtri((1 + level_of(level)) / 2)) * self.stderr
        return self.value - reach, self.value + reach

    def __str__(self) -> str:
        return "not known" if math.isnan(self.value) else f"{self.value:.4g} +- {self.stderr:.2g}"


@dataclass(frozen=True, eq=False, repr=False)
class WeightVariances:
    """Variances of weights and of their steps along k directions, beside theory.

    Attributes
    ----------
    curvature : ndarray of float64, shape (k,)
    weight, weight_stderr : ndarray of float64, shape (k,)
        Mean square about the mean of the window.
    weight_freedom : ndarray of float64, shape (k,)
        Epochs over their correlation time, less 1.
    velocity, velocity_stderr, velocity_freedom : ndarray of float64, shape (k,)
        Of the differences of successive weights.
    noise_variance : ndarray of float64, shape (k,)
        C, the variance of the noise of a batch.
    noise_from : {"given", "velocity"}
        Where C is from; from the velocity, theory's velocity variance is the measured one.
    expected, white : ndarray of float64, shape (k,)
        Weight variance that a window of this length shows: by theory for ``policy``, and for white noise. NaN
        where the curvature is not positive.
    expected_velocity : ndarray of float64, shape (k,)
    relaxed : ndarray of bool, shape (k,)
        Whether the relaxation time (1 - beta) / (eta curvature) is within the window, and the weights move at
        all, by noise that is not 0: directions in which they are not are not compared.
    eta, beta : float
    M : int
        Batches of an epoch.
    policy : {"reshuffle", "replacement", "fixed"}
    epochs : int
        Whole epochs of the window.
    fluctuation : Fluctuation
        Of the loss, over the directions compared.
    warnings : tuple of str
    """

    curvature: FloatArray
    weight: FloatArray
    weight_stderr: FloatArray
    weight_freedom: FloatArray
    velocity: FloatArray
    velocity_stderr: FloatArray
    velocity_freedom: FloatArray
    noise_variance: FloatArray
    noise_from: Literal["given", "velocity"]
    expected: FloatArray
    white: FloatArray
    expected_velocity: FloatArray
    relaxed: npt.NDArray[np.bool_]
    eta: float
    beta: float
    M: int
    policy: Policy
    epochs: int
    fluctuation: Fluctuation
    warnings: tuple[str, ...] = ()

    @property
    def compared(self) -> int:
        """Number of directions that can have relaxed, and in which something moves."""
        return int(np.count_nonzero(self.relaxed))

    @property
    def ratio(self) -> FloatArray:
        """Weight variance over that expected, shape (k,); NaN where nothing moves."""
        return _over(self.weight, self.expected)

    @property
    def velocity_ratio(self) -> FloatArray:
        """Velocity variance over that expected, shape (k,)."""
        return _over(self.velocity, self.expected_velocity)

    @property
    def excess(self) -> FloatArray:
        """Weight variance above that expected, as a share of that of white noise, shape (k,).

        Noise that depends on the weights does not cancel over an epoch: it adds a small white part, which is
        all there is in flat directions.
        """
        return _over(self.weight - self.expected, self.white)

    @property
    def correlation_time(self) -> FloatArray:
        """Correlation time of the velocity in steps, 2 Var theta / Var v, shape (k,)."""
        return _over(2 * self.weight, self.velocity)

    @property
    def expected_correlation_time(self) -> FloatArray:
        """The same of theory, in this window."""
        return _over(2 * self.expected, self.expected_velocity)

    @property
    def relaxation_time(self) -> FloatArray:
        """(1 - beta) / (eta curvature) in steps; inf where the curvature is not positive."""
        positive = self.curvature > 0
        found = np.full(self.curvature.shape, np.inf)
        found[positive] = (1 - self.beta) / (self.eta * self.curvature[positive])
        return found

    @property
    def crossover(self) -> float:
        """Curvature below which the variance is reduced, by theory: 3 (1 - beta) / (eta M)."""
        return crossover_curvature(eta=self.eta, beta=self.beta, M=self.M)

    def find_crossover(self, *, without_excess: bool = False) -> Quantity:
        """Curvature of the crossover that the measured variances show.

        Theory's curve of the variance over that of white noise, shifted along the logarithm of the curvature
        to where it meets the measured ratios of the directions within a factor 3 of the predicted crossover,
        by least squares with their errors; its own error is from their scatter.

        Parameters
        ----------
        without_excess : bool
            Take :attr:`white_excess` off the ratios first.

        Returns
        -------
        Quantity
            Not known where batches are not reshuffled every epoch, or too few directions lie near it.
        """
        from scipy import optimize

        off = self.white_excess.value if without_excess else 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.log(self.weight / np.where(self.relaxed, self.white, np.nan) - off)
            x = np.log(self.curvature / self.crossover)
        near = self.relaxed & (np.abs(x) <= math.log(_NEAR)) & np.isfinite(r)
        n = int(near.sum())
        if self.policy != "reshuffle" or n < _FEWEST or not (x[near].min() < 0 < x[near].max()):
            return Quantity(math.nan, math.nan, n)
        x, r = x[near], r[near]
        w = 1 / np.maximum(self.weight_stderr[near] / self.weight[near], 1e-12) ** 2
        at, curve = self._curve()

        def loss(shift: float) -> float:
            return float(np.sum(w * (r - np.interp(x - shift, at, curve)) ** 2))

        bound = 2 * math.log(_NEAR)
        shift = float(optimize.minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)
        slope = np.interp(x - shift, at, np.diff(curve, append=curve[-1]) / (at[1] - at[0]))
        known = float(np.sum(w * slope**2))
        if abs(shift) > 0.99 * bound or known <= 0:
            return Quantity(math.nan, math.nan, n)
        value = self.crossover * math.exp(shift)
        return Quantity(value, value * math.sqrt(max(1.0, loss(shift) / (n - 1)) / known), n)

    def _curve(self) -> tuple[FloatArray, FloatArray]:
        """Log of theory's variance over that of white noise, by log of curvature over the crossover."""
        end = min(4.0, math.log(1.99 * (1 + self.beta) / (self.eta * self.crossover)))
        at = np.linspace(-6.0, end, 400)
        curvature = self.crossover * np.exp(at)
        settings: dict[str, Any] = {"eta": self.eta, "beta": self.beta, "M": self.M}
        white = weight_variance(curvature, **settings, policy="replacement")
        return at, np.asarray(np.log(weight_variance(curvature, **settings) / white))

    @property
    def white_excess(self) -> Quantity:
        """Mean of :attr:`excess` over the directions compared, weighted by its errors."""
        some = self.relaxed
        n = int(some.sum())
        if not n:
            return Quantity(math.nan, math.nan, 0)
        # relative errors: a variance that came out small by chance has a small error too
        error = self.weight_stderr[some] / self.weight[some] * self.expected[some] / self.white[some]
        w = 1 / error**2
        mean = float(np.sum(w * self.excess[some]) / w.sum())
        scatter = float(np.sum(w * (self.excess[some] - mean) ** 2)) / max(1, n - 1)
        return Quantity(mean, math.sqrt(max(1.0, scatter) / float(w.sum())), n)

    def weight_ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Interval of each weight variance by Student's t on the logarithm, from the spread over epochs."""
        return _interval(self.weight, self.weight_stderr, self.weight_freedom, level)

    def velocity_ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Interval of each velocity variance, as :meth:`weight_ci`."""
        return _interval(self.velocity, self.velocity_stderr, self.velocity_freedom, level)

    def __repr__(self) -> str:
        return f"WeightVariances({self.curvature.size} directions, {self.compared} compared, {self.policy})"

    def __str__(self) -> str:
        k = self.curvature.size
        left = k - self.compared
        lines = [
            f"weights along {k} directions over {self.epochs} epochs of {self.M} steps, {self.policy}: "
            f"{self.compared} compared"
            + (f", {left} left out, which cannot have relaxed in the window or do not move" if left else "")
        ]
        if self.compared:
            lines += [*self._rows(), *self._of_epochs(), f"  {self.fluctuation}"]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def _of_epochs(self) -> list[str]:
        """Say what noise that cancels over an epoch does, and how much does not cancel."""
        excess = self.white_excess
        said = [
            f"  white noise on top: {100 * excess.value:.2f} +- {100 * excess.stderr:.2g} % of what "
            "uncorrelated noise would do"
        ]
        if self.policy == "reshuffle":
            said.insert(
                0,
                f"  crossover curvature: {self.crossover:.4g} by theory, measured {self.find_crossover()} "
                f"({self.find_crossover(without_excess=True)} less the white noise)",
            )
        return [] if self.policy == "fixed" else said  # one order is not the mean of all

    def _rows(self) -> list[str]:
        order = np.flatnonzero(self.relaxed)
        order = order[np.argsort(-self.curvature[order])]
        names = ("curvature", "n", "Var theta", "theory", "white", "measured/theory", "Var v ratio", "time")
        rows = ["  " + "".join(f"{name:>16}" for name in names)]
        for some in np.array_split(order, min(_BINS, order.size)):
            ratio = self.ratio[some]
            rows.append(
                "  "
                + f"{np.exp(np.log(self.curvature[some]).mean()):>16.4g}{some.size:>16}"
                + f"{self.weight[some].mean():>16.4g}{self.expected[some].mean():>16.4g}"
                + f"{self.white[some].mean():>16.4g}{np.exp(np.log(ratio).mean()):>16.3f}"
                + f"{np.exp(np.log(self.velocity_ratio[some]).mean()):>16.3f}"
                + f"{np.exp(np.log(self.correlation_time[some]).mean()):>16.4g}"
            )
        return rows


def _over(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide, where 0 over 0 is NaN without a word: directions in which nothing moves."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole)


def _interval(
    value: FloatArray, stderr: FloatArray, freedom: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = np.exp(special.stdtrit(freedom, (1 + level_of(level)) / 2) * stderr / value)
    return value / reach, value * reach
