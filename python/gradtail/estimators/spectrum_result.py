"""What the estimate of a covariance spectrum holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from gradtail.states.magnitudes import FloatArray


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
    trace, trace_stderr, trace_sketch_stderr : float
        Trace of C, its standard error and the part of it due to the sketch.
    inverse_ratio, inverse_ratio_stderr, inverse_ratio_sketch_stderr : float
        tr C**2 / (tr C)**2 of the law, whose inverse is the participation ratio. The estimate is
        unbiased but for the trace below the line, and may be negative where steps are few.
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
    """

    eigenvalues: FloatArray
    stderr: FloatArray
    sampling_stderr: FloatArray
    sketch_stderr: FloatArray
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

    @property
    def participation_ratio(self) -> float:
        """(tr C)**2 / tr C**2: directions of equal variance that would do as much; inf if open."""
        if math.isnan(self.inverse_ratio):
            return math.nan
        return 1 / self.inverse_ratio if self.inverse_ratio > 0 else math.inf

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
        """Interval of the participation ratio, from that of its inverse; never below 1, inf if open."""
        part = self.inverse_ratio_sketch_stderr
        sampling = math.sqrt(max(self.inverse_ratio_stderr**2 - part**2, 0.0))
        half = float(self._half(sampling, part, level))
        if math.isnan(half + self.inverse_ratio):
            return math.nan, math.nan
        low, high = self.inverse_ratio - half, self.inverse_ratio + half
        return (max(1.0, 1 / high) if high > 0 else math.inf), (max(1.0, 1 / low) if low > 0 else math.inf)

    def _half(self, sampling: FloatArray | float, sketch: FloatArray | float, level: float) -> FloatArray:
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        p = (1 + level) / 2
        t = special.stdtrit(max(self.blocks - 1, 1), p)
        return np.asarray(np.hypot(t * np.asarray(sampling), special.ndtri(p) * np.asarray(sketch)))

    def __str__(self) -> str:
        kind = "covariance" if self.centred else "second moment"
        how = f"sketches into {self.size} buckets" if self.sketched else "exact rows"
        low, high = self.participation_ratio_ci()
        lines = [
            f"{kind} of {self.steps} steps ({how}): trace {self.trace:.3g} +- {self.trace_stderr:.2g}, "
            f"largest eigenvalue {self.eigenvalues[0]:.3g} +- {self.stderr[0]:.2g}, "
            f"participation ratio {self.participation_ratio:.3g} (95 % {low:.3g} to {high:.3g})"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])
