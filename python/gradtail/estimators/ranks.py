"""Eigenvalues against their rank: the power law that they may follow, their gaps, and what gaps are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators.powerlaw import PowerLawFit, fit
from gradtail.estimators.spectrum_result import CovarianceSpectrum
from gradtail.states.magnitudes import FloatArray

_TOP = 1000  # as in the studies
_FEWEST = 3
_BIAS_LEFT = 0.5  # of what the correction for a sketch has moved a slope by

STEPS_A_RANK = 32
"""Steps for each eigenvalue, below which those of a sample are not those of its law."""


@dataclass(frozen=True)
class RankPowerLaw:
    """How nearly the largest eigenvalues follow l_k = l_1 k**-slope.

    Attributes
    ----------
    slope, slope_stderr : float
        From the maximum-likelihood exponent of the density, 1 / (exponent - 1); its standard error
        were the eigenvalues independent draws.
    loglog_slope, loglog_stderr : float
        Of a least-squares line through log l_k over log k, for comparison; its error for independent
        draws is slope sqrt(2 / top) (Gabaix and Ibragimov 2011, J. Bus. Econ. Stat. 29, 24).
    top : int
        Eigenvalues fitted to; the smallest of them is the cutoff.
    ks : float
        Kolmogorov-Smirnov distance.
    law : PowerLawFit
        The fit, with its critical values, p-value and rivals.
    warnings : tuple of str
    slope_sketch_stderr : float
        Part of the slope's error that is due to a sketch; 0 of exact eigenvalues.
    uncorrected_ks : float
        Distance before the bias of a sketch was taken off; of exact eigenvalues the same as ``ks``.
    """

    slope: float
    slope_stderr: float
    loglog_slope: float
    loglog_stderr: float
    top: int
    ks: float
    law: PowerLawFit = field(repr=False)
    warnings: tuple[str, ...] = ()
    slope_sketch_stderr: float = 0.0
    uncorrected_ks: float = math.nan

    @property
    def exponent(self) -> float:
        """Density exponent."""
        return self.law.exponent

    def critical(self, level: float = 0.05, *, calibrated: bool = True) -> float:
        """Distance exceeded with probability ``level`` by independent draws of a power law.

        Eigenvalues of one matrix are no independent draws (they keep apart, and lie on a line of ranks
        more nearly): the comparison is a convention of the studies, and no p-value. See
        :meth:`gradtail.powerlaw.PowerLawFit.critical`.
        """
        return self.law.critical(level, calibrated=calibrated)

    @property
    def rejected(self) -> bool:
        """Whether the distance is at least the calibrated critical value of 5 %."""
        return self.ks >= self.critical()

    @property
    def is_open(self) -> bool:
        """Whether the sketch leaves open which it is: with its bias and without, the verdicts differ."""
        return self.slope_sketch_stderr > 0 and (self.uncorrected_ks >= self.critical()) != self.rejected

    @property
    def verdict(self) -> str:
        """The result in words, at 5 %, by the calibrated and by the printed critical value.

        Of sketches it names what they add to the error of the slope, and the distance before their bias was
        taken off.
        """
        own, printed = self.critical(), self.critical(calibrated=False)
        slopes = f"slope {self.slope:.3g} +- {self.slope_stderr:.2g} (log-log {self.loglog_slope:.3g}"
        said = f"distance {self.ks:.3g} {'above' if self.rejected else 'below'} {own:.3g}"
        if self.slope_sketch_stderr:
            slopes += f", sketch +- {self.slope_sketch_stderr:.2g}"
            said += f" ({self.uncorrected_ks:.3g} with the bias of the sketch)"
        if self.rejected and self.ks < printed:
            said += f", though below the printed {printed:.3g}"
        said = f"power law {'rejected' if self.rejected else 'not rejected'} at 5 %: {said}"
        if self.is_open:
            said += ", which its correction alone decides: more buckets would tell"
        return f"{said}; {slopes}), top {self.top}"

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"  warning: {w}" for w in self.warnings)])


def rank_power_law(eigenvalues: npt.ArrayLike | CovarianceSpectrum, top: int | None = None) -> RankPowerLaw:
    """Fit a power law to the largest eigenvalues, or gaps, over their rank.

    Parameters
    ----------
    eigenvalues : array of real numbers, shape (n,), or CovarianceSpectrum
        In any order; negative ones are below all cutoffs. The warnings of a spectrum are kept, and what its
        sketch does to the slope and to the distance is part of the result.
    top : int, optional
        How many of the largest, which must be positive; default: 1000, or all positive ones if fewer.

    Returns
    -------
    RankPowerLaw

    Raises
    ------
    TypeError, ValueError
        No real numbers, one that is not finite, or fewer than ``top`` positive ones.

    Notes
    -----
    The procedure of Xie et al., "On the Power-Law Hessian Spectrums in Deep Learning" (2022): cut at the
    ``top``-th, maximum likelihood for the density, slope derived from it. O(n log n).

    The slope is the mean of log(l_k / l_K). A sketch into r buckets gives each eigenvalue a relative error
    of about sqrt(2 / r), nearly independent ones, so that the mean has sqrt(2 / (r K)), and the cutoff l_K
    min(sqrt(2 / r), slope / K), since its neighbours hold it; and a bias. Half of what taking it off has
    moved the slope by is the third part of ``slope_sketch_stderr``: enough for laws of slope 0.5 to 1.3 from
    r = 8 T on, while below it the slope may be off by several times the error stated.

    The spectrum of T steps is that of a sample, which is not the law that the steps follow: of 1000 normal
    steps with l_k = 1 / k the slope of the first 125 is 0.86 in 3,000 dimensions and 0.78 in 20,000, where
    the law has 0.97. The first T / 32 are less off.

    Examples
    --------
    >>> found = rank_power_law(1 / np.arange(1, 1001))
    >>> round(found.exponent, 5), round(found.slope, 5), round(found.loglog_slope, 5), round(found.ks, 5)
    (2.00439, 0.99563, 1.0, 0.00161)
    >>> print(found)
    power law not rejected at 5 %: distance 0.00161 below 0.0339; slope 0.996 +- 0.031 (log-log 1), top 1000
    """
    spectrum = eigenvalues if isinstance(eigenvalues, CovarianceSpectrum) else None
    values = _checked(eigenvalues if spectrum is None else spectrum.eigenvalues)
    positive = int(np.count_nonzero(values > 0))
    if top is None:
        top = min(_TOP, positive)
    elif isinstance(top, bool) or not isinstance(top, (int, np.integer)):
        raise TypeError(f"top: expected an int, got {type(top).__name__}")
    elif top < _FEWEST:
        raise ValueError(f"top: expected at least {_FEWEST}, got {top}")
    if positive < max(top, _FEWEST):
        raise ValueError(f"eigenvalues: expected at least {max(top, _FEWEST)} positive ones, got {positive}")
    if values[0] == values[top - 1]:
        raise ValueError(f"eigenvalues: expected the {top} largest to differ, got {values[0]:.6g} for all")
    law = fit(values, top=top, tail="upper")
    x = np.log(np.arange(1, top + 1))
    y = np.log(values[:top])
    x -= x.mean()
    slope = -float(x @ y / (x @ x))
    warnings, sketch, uncorrected = law.warnings, 0.0, law.ks
    if spectrum is not None:
        warnings = (*spectrum.warnings, *_about_sample(spectrum, top), *warnings)
        if spectrum.sketched:
            before = fit(spectrum.uncorrected, top=top, tail="upper")
            chance = math.sqrt(2 / spectrum.size)
            parts = chance / math.sqrt(top), min(chance, law.slope / top), before.slope - law.slope
            sketch, uncorrected = math.hypot(*parts[:2], _BIAS_LEFT * parts[2]), before.ks
    return RankPowerLaw(
        law.slope, law.stderr / law.alpha**2, slope, abs(slope) * math.sqrt(2 / top), top, law.ks, law,
        warnings, sketch, uncorrected,
    )  # fmt: skip


def _about_sample(spectrum: CovarianceSpectrum, top: int) -> tuple[str, ...]:
    if top * STEPS_A_RANK <= spectrum.steps:
        return ()
    trusted = spectrum.steps // STEPS_A_RANK
    return (
        f"the spectrum of {spectrum.steps} steps is that of a sample: beyond about rank {trusted} it is not "
        "that of the law which the steps follow, and the slope may be off by tenths",
    )


def eigengaps(eigenvalues: npt.ArrayLike) -> FloatArray:
    """Differences of neighbouring eigenvalues, l_k - l_(k+1).

    Parameters
    ----------
    eigenvalues : array of real numbers, shape (n,)
        In any order.

    Returns
    -------
    ndarray of float64, shape (n - 1,)
        By rank k = 1, ..., n - 1.

    Raises
    ------
    TypeError, ValueError
        No real numbers, fewer than two, or one that is not finite.

    Notes
    -----
    Of l_k = l_1 / k the gaps are l_1 / (k (k + 1)): a power law of slope 2 nearly.

    Examples
    --------
    >>> eigengaps([1.0, 8.0, 2.0]).tolist()
    [6.0, 1.0]
    """
    return -np.diff(_checked(eigenvalues)) + 0.0  # no negative zeros


def subspace_bound(eigenvalues: npt.ArrayLike, perturbation: float, *, complete: bool = False) -> FloatArray:
    """Bound how far a perturbation of a symmetric matrix can turn each eigenvector.

    Parameters
    ----------
    eigenvalues : array of real numbers, shape (n,)
        Of the matrix, in any order.
    perturbation : float
        Spectral norm of what is added.
    complete : bool
        Whether these are all eigenvalues. If not, the gap below the last one is not known.

    Returns
    -------
    ndarray of float64, shape (n,)
        Bounds for the sine of the angle, by rank. From 1 on they say nothing; infinite where an
        eigenvalue is repeated, and NaN for the last one of an incomplete list.

    Raises
    ------
    TypeError, ValueError
        No real numbers, one that is not finite, or a negative norm.

    Notes
    -----
    sin <= 2 |M| / min(l_(k-1) - l_k, l_k - l_(k+1)): Yu, Wang and Samworth (2015), Biometrika 102, 315,
    corollary 1, a variant of Davis and Kahan's theorem which asks for gaps of one matrix alone. For
    l_k = l_1 / k it is 2 |M| k (k + 1) / l_1; with (k + 1)**2, as in print, it is looser by (k + 1) / k.

    Examples
    --------
    >>> subspace_bound([1.0, 0.5, 0.1], 0.01, complete=True).round(3).tolist()
    [0.04, 0.05, 0.05]
    """
    values = _checked(eigenvalues)
    if isinstance(perturbation, bool) or not isinstance(perturbation, (int, float, np.integer, np.floating)):
        raise TypeError(f"perturbation: expected a number, got {type(perturbation).__name__}")
    if not 0 <= perturbation < math.inf:
        raise ValueError(f"perturbation: expected a norm of at least 0, got {perturbation}")
    gaps = -np.diff(values)
    above = np.append(np.inf, gaps)
    below = np.append(gaps, np.inf if complete else np.nan)
    nearest = np.minimum(above, below)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = 2 * perturbation / nearest
    bound[nearest == 0] = np.inf
    return np.asarray(bound)


def _checked(eigenvalues: Any) -> FloatArray:
    """Sort from the largest down."""
    try:
        values = np.asarray(eigenvalues)
    except ValueError as error:
        raise TypeError(f"eigenvalues: expected an array of real numbers, got {eigenvalues!r:.60}") from error
    if values.dtype.kind not in "fiu":
        raise TypeError(f"eigenvalues: expected real numbers, got dtype {values.dtype}")
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"eigenvalues: expected shape (n,) with n of at least 2, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("eigenvalues: expected finite numbers, got NaN or infinity")
    return np.sort(values.astype(np.float64))[::-1]
