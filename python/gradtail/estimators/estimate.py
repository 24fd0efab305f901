"""What tail estimators return: numbers, how sure they are, and a verdict in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from gradtail.estimators.order import IntArray
from gradtail.states.magnitudes import FloatArray, Tail


@dataclass(frozen=True)
class Slide:
    """How alpha changes with k: the trend of the normalised log spacings i log(X_i / X_(i+1)).

    Attributes
    ----------
    slope, slope_stderr : float
        Of the spacings over log i, as a share of their mean: 0 for a Pareto law.
    slope_exponential : float
        What an exponential law of as many values has, whatever its scale; also Weibull laws.
    k_wide, k_narrow : int
        Two k far apart in the range looked at.
    alpha_wide, alpha_narrow : float
        alpha at each.
    """

    slope: float
    slope_stderr: float
    slope_exponential: float
    k_wide: int
    alpha_wide: float
    k_narrow: int
    alpha_narrow: float

    @property
    def plateau(self) -> bool | None:
        """Whether alpha stays: False if the slope is nearer the exponential law's, None if unsure."""
        half = self.slope_exponential / 2
        if not 2 * self.slope_stderr <= half:
            return None
        return abs(self.slope) <= half

    def __str__(self) -> str:
        return (
            f"alpha slides from {self.alpha_wide:.3g} at k = {self.k_wide} "
            f"to {self.alpha_narrow:.3g} at k = {self.k_narrow}"
        )


@dataclass(frozen=True)
class TailEstimate:
    """A tail exponent, how sure it is, and whether there is one.

    Attributes
    ----------
    alpha : float
        P(|X| > x) ~ x**-alpha; inf if the k + 1 largest values are equal.
    stderr : float
        Of alpha: sampling error and bin width together.
    k : int
        Values above the threshold.
    threshold : float
        The (k+1)-th largest magnitude.
    n : int
        Finite nonzero values in the tail.
    tail : {"both", "upper", "lower"}
    warnings : tuple of str
    k_ks : int or None
        For k="auto", the k at which the tail is nearest its fitted Pareto law.
    ks : float or None
        The Kolmogorov-Smirnov distance there.
    bin_stderr : float
        The part of ``stderr`` that is due to bin width; 0 without bins, or where bins are points.
    drift : float
        For k="auto", bias that may be left: log of the factor by which alpha still moves as k falls
        further if what it moved from ``k_ks`` to ``k`` was bias in proportion to sqrt(k).
    spread : {"iid", "blocks"}
        What the sampling error rests on: independence of the values, or the spread of blocks.
    blocks : int or None
        Number of blocks.
    slide : Slide or None
        How alpha changes with k; None if there are too few points to look.
    """

    alpha: float
    stderr: float
    k: int
    threshold: float
    n: int
    tail: Tail
    warnings: tuple[str, ...] = ()
    k_ks: int | None = None
    ks: float | None = None
    bin_stderr: float = 0.0
    drift: float = 0.0
    spread: Literal["iid", "blocks"] = "iid"
    blocks: int | None = None
    slide: Slide | None = None

    @property
    def xi(self) -> float:
        """1 / alpha: the mean log excess over the threshold."""
        return 1 / self.alpha

    @property
    def plateau(self) -> bool | None:
        """Whether alpha stays as k changes; None if there are too few points to tell."""
        return None if self.slide is None else self.slide.plateau

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval for alpha.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : float
            From iid values exact for a Pareto law, where k alpha / estimate has the Gamma(k, 1) law;
            from blocks, Student's t on log alpha. The bin width's part is added to each side of the
            interval of log alpha in quadrature, then ``drift`` to the side that it points to.
            (0, inf) if alpha is inf.

        Raises
        ------
        ValueError
            ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        if not math.isfinite(self.alpha):
            return 0.0, math.inf
        blur = self.bin_stderr / self.alpha
        if self.blocks is None:
            down, up = _gamma_interval(self.k, blur, level)
        else:
            sampling = math.sqrt(max(self.stderr**2 - self.bin_stderr**2, 0.0)) / self.alpha
            t, z = special.stdtrit(self.blocks - 1, (1 + level) / 2), special.ndtri((1 + level) / 2)
            up = np.hypot(t * sampling, z * blur)
            down = -up
        low, high = float(down) + min(self.drift, 0.0), float(up) + max(self.drift, 0.0)
        return self.alpha * math.exp(low), self.alpha * math.exp(high)

    @property
    def verdict(self) -> str:
        """The result in words; no single index is named where alpha slides with k."""
        if math.isinf(self.alpha):
            return f"no tail: the {self.k + 1} largest values are equal"
        low, high = self.ci()
        interval = f"alpha {self.alpha:.3g} (95 % {low:.3g} to {high:.3g})"
        if self.plateau is None:
            return f"{self.obstacle} to tell a power law: {interval} at k = {self.k}"
        if self.plateau:
            return f"power-law tail, {interval}"
        return f"no plateau: {self.slide}, no single index"

    @property
    def obstacle(self) -> str:
        """What most of the error bar comes from."""
        if 2 * self.bin_stderr**2 > self.stderr**2:
            return "bins too wide"
        return "too few points" if self.blocks is None else "blocks of steps too different"

    def __str__(self) -> str:
        side = "both tails" if self.tail == "both" else f"{self.tail} tail"
        basis = "iid" if self.blocks is None else f"{self.blocks} blocks"
        lines = [f"{self.verdict}; {side}, top {self.k} of {self.n} above {self.threshold:.3g}, {basis}"]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


@dataclass(frozen=True)
class HillCurve:
    """Hill's estimate at many k, all arrays of shape (m,), k ascending.

    Attributes
    ----------
    k : ndarray of int64
    alpha, stderr, threshold : ndarray of float64
        As in :class:`TailEstimate`.
    bin_stderr : ndarray of float64
    blocks : int or None
        Number of blocks whose spread the errors rest on; None: from iid values.
    """

    k: IntArray
    alpha: FloatArray
    stderr: FloatArray
    threshold: FloatArray
    bin_stderr: FloatArray
    blocks: int | None = None

    def ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the interval at each k, as :meth:`TailEstimate.ci` without ``drift``."""
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        with np.errstate(invalid="ignore"):
            blur = np.where(np.isfinite(self.alpha), self.bin_stderr / self.alpha, 0.0)
        if self.blocks is None:
            down, up = _gamma_interval(self.k, blur, level)
        else:
            with np.errstate(invalid="ignore"):
                sampling = np.sqrt(np.maximum((self.stderr / self.alpha) ** 2 - blur**2, 0.0))
            t = special.stdtrit(self.blocks - 1, (1 + level) / 2)
            up = np.hypot(t * sampling, special.ndtri((1 + level) / 2) * blur)
            down = -up
        return np.where(np.isfinite(self.alpha), self.alpha * np.exp(down), 0.0), self.alpha * np.exp(up)

    def __repr__(self) -> str:
        ends = f"k={self.k[0]}..{self.k[-1]}" if self.k.size else "empty"
        return f"HillCurve({self.k.size} points, {ends}, blocks={self.blocks})"

    def __str__(self) -> str:
        if not self.k.size:
            return "Hill curve without points"
        basis = "iid" if self.blocks is None else f"{self.blocks} blocks"
        (wide, narrow) = (
            f"alpha {self.alpha[i]:.3g} +- {self.stderr[i]:.2g} at k = {self.k[i]}" for i in (-1, 0)
        )
        return f"Hill curve of {self.k.size} points: {wide}, {narrow}; {basis}"


def _gamma_interval(k: Any, blur: Any, level: float) -> tuple[Any, Any]:
    """Interval of log(alpha / estimate): alpha k / estimate ~ Gamma(k, 1), widened by ``blur``."""
    z = special.ndtri((1 + level) / 2) * blur
    low, high = (np.log(special.gammaincinv(k, p) / k) for p in ((1 - level) / 2, (1 + level) / 2))
    return -np.hypot(low, z), np.hypot(high, z)
