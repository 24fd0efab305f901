"""What an ensemble of SGD chains returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.estimate import TailEstimate
from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import level_of

_SURE = 5.0  # standard errors from which on distances are said to grow
_TENFOLD = math.log(10)
_NOTICED = 0.1  # change of log distance over the second half of a run that is worth a word
_FORGOTTEN = 3.0  # steps times |rho|, from which on chains have forgotten where they began
_FEW = 10  # distances, below which Hill's estimate is of hardly any

State: TypeAlias = Literal["stationary", "not stationary yet", "no stationary law", "diverges"]


@dataclass(frozen=True)
class AveragedIndex:
    """Index of averaged iterates.

    Attributes
    ----------
    alpha, stderr : float
        Median over block sizes, and its standard error.
    by_block : dict
        The estimate at each block size.
    chains : int
    """

    alpha: float
    stderr: float
    by_block: dict[int, float] = field(repr=False)
    chains: int

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Return a normal interval."""
        wide = float(special.ndtri((1 + level_of(level)) / 2)) * self.stderr
        return self.alpha - wide, self.alpha + wide

    def __str__(self) -> str:
        return f"alpha {self.alpha:.3g} +- {self.stderr:.2g}"


@dataclass(frozen=True, eq=False)
class Ensemble:
    r"""Independent chains of SGD on least squares.

    Attributes
    ----------
    eta, b, d, sigma, steps, averaged_over
        As asked for.
    given : bool
        Whether batches came from a given data set.
    alpha : float or None
        Of the stationary law for fresh data; None where there is none.
    rho : float
        Lyapunov exponent for fresh data.
    norms : ndarray of float64, shape (chains,)
        \|x - x*\| after the last step.
    hill : TailEstimate
        From ``norms``.
    averaged : AveragedIndex
        From the averages of the last iterates, to be held against min(alpha, 2).
    growth, growth_stderr : float
        Mean change of log \|x - x*\| a step over the second half; near rho where there is no stationary law,
        near 0 where there is one and it is reached.
    stopped : int
        Chains that went beyond 1e100 and were stopped.
    steps_at, log_median : ndarray, shape (m,)
        Steps, and the median of log \|x - x*\| at each.
    """

    eta: float
    b: int
    d: int
    sigma: float
    steps: int
    averaged_over: int
    given: bool
    alpha: float | None
    rho: float
    norms: FloatArray
    hill: TailEstimate
    averaged: AveragedIndex
    growth: float
    growth_stderr: float
    stopped: int
    steps_at: npt.NDArray[np.int64]
    log_median: FloatArray

    @property
    def grows(self) -> bool:
        """Whether distances grew over the second half, by more than chance and by 10 % or more."""
        total = self.growth * self.steps / 2
        return self.growth > _SURE * self.growth_stderr and total > _NOTICED

    @property
    def diverged(self) -> bool:
        """Whether distances grow without bound.

        Chains were stopped, or distances grow and either theory has no stationary law or they grew tenfold.
        """
        without = self.alpha is None or self.growth * self.steps / 2 > _TENFOLD
        return self.stopped > 0 or (self.grows and without)

    @property
    def shrinks(self) -> bool:
        """Whether distances shrank over the second half, by more than chance and by 10 % or more."""
        total = self.growth * self.steps / 2
        return self.growth < -_SURE * self.growth_stderr and total < -_NOTICED

    @property
    def short(self) -> bool:
        """Whether there is a stationary law, but steps times -rho, for fresh data, are below 3.

        Distances from the start have then shrunk by a factor above exp(-3), and the law is not reached.
        """
        return self.alpha is not None and self.steps * abs(self.rho) < _FORGOTTEN

    @property
    def state(self) -> State:
        """In a word, whether estimates are of a stationary law."""
        if self.diverged:
            return "diverges"
        if self.grows or self.shrinks or self.short:
            return "not stationary yet"
        return "stationary" if self.alpha is not None or self.given else "no stationary law"

    @property
    def stationary(self) -> bool:
        """Whether nothing was seen against a stationary law that is reached."""
        return self.state == "stationary"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the estimates are believed."""
        said = []
        fresh = " for fresh data" if self.given else ""
        if self.alpha is None:
            said.append(
                f"no stationary law{fresh}, rho = {self.rho:.3g}: the estimates are of a transient spread"
            )
        if self.stopped:
            said.append(
                f"diverged: {self.stopped} of {self.norms.size} chains went beyond 1e100 and were stopped"
            )
        if self.grows or self.shrinks:
            what = "diverging" if self.diverged else "not stationary yet"
            way = "grow" if self.grows else "shrink"
            said.append(
                f"{what}: log distances {way} by {abs(self.growth):.2g} +- {self.growth_stderr:.1g} a step "
                "over the second half"
            )
        if self.short:
            said.append(
                "not stationary yet: the start is forgotten in about "
                f"{math.ceil(_FORGOTTEN / abs(self.rho))} steps ({_FORGOTTEN:g} / -rho), and there were "
                f"{self.steps}"
            )
        if self.hill.k < _FEW:
            said.append(
                f"Hill's estimate rests on {self.hill.k} of {self.norms.size} distances: take more chains, "
                "or a larger top"
            )
        if self.alpha is not None and 1.7 < self.alpha < 2.5:
            said.append(
                "averages have the index min(alpha, 2); near 2 finite runs give about 0.25 too little"
            )
        return tuple(said)

    def __str__(self) -> str:
        sigma = f", sigma = {self.sigma:.6g}" if self.sigma != 1 else ""
        law = "no stationary law" if self.alpha is None else f"alpha {self.alpha:.3g}"
        limit = "" if self.alpha is None else f" (theory {min(self.alpha, 2.0):.3g})"
        lines = [
            f"SGD on least squares, eta = {self.eta:.6g}, b = {self.b}, d = {self.d}{sigma}, "
            f"{'given' if self.given else 'fresh'} data: {self.norms.size} chains, {self.steps} steps",
            f"  theory             {law}, rho {self.rho:.3g}",
            f"  distances, Hill    alpha {self.hill.alpha:.3g} +- {self.hill.stderr:.2g} (top {self.hill.k})",
            f"  averaged iterates  {self.averaged}{limit}",
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def __repr__(self) -> str:
        return (
            f"Ensemble(chains={self.norms.size}, steps={self.steps}, alpha={self.alpha}, "
            f"hill={self.hill.alpha:.4g}, averaged={self.averaged.alpha:.4g}, diverged={self.diverged})"
        )
