"""What the estimate of a covariance spectrum holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from gradtail.states.magnitudes import FloatArray

Basis = Literal["law", "sample"]


@dataclass(frozen=True, eq=False)
class CovarianceSpectrum:
    """The spectrum of the covariance of a sample of steps.

    Attributes
    ----------
    eigenvalues : ndarray of float64, shape (k,)
        Descending; of the sample. In units of the squared gradient.
    stderr : ndarray of float64, shape (k,)
        Sampling error and that of the sketch together; NaN where there are too few steps for one, as for
        the last eigenvalues, which the parts of the sample do not have.
    sampling_stderr, sketch_stderr : ndarray of float64, shape (k,)
        Each apart; the second is 0 of exact rows.
    uncorrected : ndarray of float64, shape (k,)
        The eigenvalues before the bias of the sketch was taken off; of exact rows the same.
    trace, trace_stderr, trace_sketch_stderr : float
        Trace of C, its standard error and the part of it due to the sketch.
    inverse_ratio, inverse_ratio_stderr, inverse_ratio_sketch_stderr : float
        tr C**2 / (tr C)**2, whose inverse is the participation ratio. That of the law is unbiased but for
        the trace below the line, and may be negative where steps are few.
    centred : bool
        About the mean of the steps, over T - 1; else the second moment, over T.
    steps : int
        T: rows used.
    size : int
        m: elements of a row, or buckets of a sketch.
    sketched : bool
    nonfinite : int
        Rows left out.
    blocks : int
        Blocks of consecutive steps that the sampling error comes from.
    warnings : tuple of str
    basis : {"law", "sample"}
        Whether the ratio estimates that of the law which the steps follow, or is just that of these steps,
        since a few of them carry the trace and say nothing of others.
    most_directions : float
        Bound of the participation ratio: the dimension, and (trace / largest eigenvalue)**2.
    largest_share : float
        Share of the trace of the one step that has most of it.
    """

    eigenvalues: FloatArray
    stderr: FloatArray
    sampling_stderr: FloatArray
    sketch_stderr: FloatArray
    uncorrected: FloatArray
    trace: float
    trace_stderr: float
    trace_sketch_stderr: float
    inverse_ratio: float
    inverse_ratio_stderr: float
    inverse_ratio_sketch_stderr: float
    centred: bool
    steps: int
    size: int
    sketched: bool
    nonfinite: int
    blocks: int
    warnings: tuple[str, ...] = ()
    basis: Basis = "law"
    most_directions: float = math.inf
    largest_share: float = math.nan

    @property
    def participation_ratio(self) -> float:
        """(tr C)**2 / tr C**2: directions of equal variance that would do as much.

        At most ``most_directions``, which it is where these steps cannot tell how many there are.
        """
        if math.isnan(self.inverse_ratio):
            return math.nan
        return min(1 / self.inverse_ratio if self.inverse_ratio > 0 else math.inf, self.most_directions)

    @property
    def is_open(self) -> bool:
        """Whether these steps are too few for the participation ratio, so that it is only its bound."""
        return self.inverse_ratio <= 0

    @property
    def participation_ratio_stderr(self) -> float:
        """Standard error of the participation ratio; inf where that is."""
        if not self.inverse_ratio > 0:
            return math.inf if self.inverse_ratio <= 0 else math.nan
        return self.inverse_ratio_stderr / self.inverse_ratio**2

    def ci(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Interval of each eigenvalue: Student's t of the sampling error and the sketch's part, on the log.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : ndarray of float64, shape (k,)
            NaN where there is no standard error; 0 to 0 of an eigenvalue that is 0.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            half = self._half(self.sampling_stderr, self.sketch_stderr, level) / self.eigenvalues
            low, high = self.eigenvalues * np.exp(-half), self.eigenvalues * np.exp(half)
        zero = self.eigenvalues == 0
        return np.where(zero, 0.0, low), np.where(zero, 0.0, high)

    def trace_ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the trace, on its log."""
        if self.trace == 0:
            return 0.0, 0.0
        sampling = math.sqrt(max(self.trace_stderr**2 - self.trace_sketch_stderr**2, 0.0))
        half = float(self._half(sampling, self.trace_sketch_stderr, level)) / self.trace
        return self.trace * math.exp(-half), self.trace * math.exp(min(half, 700.0))

    def participation_ratio_ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the participation ratio, from that of its inverse; from 1 to ``most_directions``."""
        part = self.inverse_ratio_sketch_stderr
        sampling = math.sqrt(max(self.inverse_ratio_stderr**2 - part**2, 0.0))
        half = float(self._half(sampling, part, level))
        if math.isnan(half + self.inverse_ratio):
            return math.nan, math.nan
        low, high = self.inverse_ratio - half, self.inverse_ratio + half
        ends = (max(1.0, 1 / end) if end > 0 else math.inf for end in (high, low))
        first, last = (min(end, self.most_directions) for end in ends)
        return first, last

    def _half(self, sampling: FloatArray | float, sketch: FloatArray | float, level: float) -> FloatArray:
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        p = (1 + level) / 2
        t = special.stdtrit(max(self.blocks - 1, 1), p)
        return np.asarray(np.hypot(t * np.asarray(sampling), special.ndtri(p) * np.asarray(sketch)))

    def __str__(self) -> str:
        kind = "covariance" if self.centred else "second moment"
        how = f"sketches into {self.size} buckets" if self.sketched else "exact rows"
        lines = [
            f"{kind} of {self.steps} steps ({how}): trace {self.trace:.3g} +- {self.trace_stderr:.2g}, "
            f"largest eigenvalue {self.eigenvalues[0]:.3g} +- {self.stderr[0]:.2g}, {self._ratio()}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def _ratio(self) -> str:
        (low, high), ratio = self.participation_ratio_ci(), self.participation_ratio
        whose = " of these steps" if self.basis == "sample" else ""
        if math.isnan(ratio):
            return "participation ratio not known"
        if self.is_open:
            return "participation ratio open" + ("" if math.isnan(low) else f" (95 %: at least {low:.3g})")
        ends = "" if math.isnan(low) else f" (95 % {low:.3g} to {high:.3g})"
        return f"participation ratio{whose} {ratio:.3g}{ends}"

    def __repr__(self) -> str:
        return (
            f"CovarianceSpectrum(steps={self.steps}, eigenvalues={self.eigenvalues.size}, "
            f"trace={self.trace:.4g}, participation_ratio={self.participation_ratio:.4g}, "
            f"basis={self.basis!r}, warnings={len(self.warnings)})"
        )
