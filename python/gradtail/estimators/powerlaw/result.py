"""What a power-law fit returns: numbers, how sure they are, and the tests that go with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import special

from gradtail.estimators import lilliefors
from gradtail.estimators.powerlaw import bootstrap
from gradtail.estimators.powerlaw.compare import RIVALS, Comparison, compare
from gradtail.estimators.powerlaw.tails import TailData
from gradtail.states.magnitudes import FloatArray
from gradtail.states.magnitudes import Tail as Side

NULL_REPEATS = 4000
"""Samples that critical values rest on where no table serves."""

RULED_OUT = 0.1
"""CSN's level: a power law with a smaller p is ruled out, and a likelihood ratio with a smaller p counts."""


class PValue(float):
    """A p-value by simulation: the share of samples of the law that lie at least as far from their fit.

    Attributes
    ----------
    repeats : int
        Samples drawn; 0 for a tabulated law.
    """

    repeats: int

    def __new__(cls, value: float, repeats: int) -> PValue:
        """Make a float that knows how it came about."""
        new = super().__new__(cls, value)
        new.repeats = repeats
        return new

    def __reduce__(self) -> tuple[type[PValue], tuple[float, int]]:
        """Pickle and copy."""
        return PValue, (float(self), self.repeats)

    @property
    def stderr(self) -> float:
        """Standard error of the simulation; where none, or all, were as far, that of half a sample."""
        if not self.repeats:
            return 0.0
        p = min(max(float(self), 0.5 / self.repeats), 1 - 0.5 / self.repeats)
        return math.sqrt(p * (1 - p) / self.repeats)


@dataclass(frozen=True)
class FitSpread:
    """Standard errors by resampling the data, xmin searched again each time.

    Attributes
    ----------
    exponent, xmin, n_tail : float
    repeats : int
    """

    exponent: float
    xmin: float
    n_tail: float
    repeats: int

    def __str__(self) -> str:
        return (
            f"exponent +- {self.exponent:.2g}, xmin +- {self.xmin:.2g}, n_tail +- {self.n_tail:.2g} "
            f"({self.repeats} resamplings)"
        )


@dataclass
class _Known:
    """What has been worked out of a fit so far."""

    pvalue: PValue | None = None
    null: FloatArray | None = None
    rivals: dict[str, Comparison] = field(default_factory=dict)


@dataclass(frozen=True)
class PowerLawFit:
    """A power law p(x) ~ x**-exponent for x >= xmin, fitted to a sample.

    Attributes
    ----------
    exponent : float
        Of the density.
    stderr : float
        Of the exponent, xmin taken as given and the values as independent.
    xmin : float
    n_tail : int
        Values from xmin on.
    n : int
        Nonzero finite values on this side.
    ks : float
        Kolmogorov-Smirnov distance: sup over i = 0..n_tail-1 of abs(i / n_tail - F(x_(i))) for
        continuous values x_(0) <= x_(1) <= ..., the largest difference of distribution functions for
        whole numbers, and the same at the edges of bins.
    cutoff : {"searched", "given", "rank"}
        How xmin was chosen: by the least ``ks``, as a number, or as the K-th largest value.
    search : {"exact", "coarse to fine", "none"}
        Whether all distinct values were considered as xmin.
    form : {"points", "bins", "integers"}
    tail : {"both", "upper", "lower"}
    warnings : tuple of str
    """

    exponent: float
    stderr: float
    xmin: float
    n_tail: int
    n: int
    ks: float
    cutoff: Literal["searched", "given", "rank"]
    search: Literal["exact", "coarse to fine", "none"]
    form: Literal["points", "bins", "integers"]
    tail: Side = "both"
    warnings: tuple[str, ...] = ()
    _data: TailData = field(default=None, repr=False, compare=False)  # type: ignore[assignment]
    _at: int = field(default=0, repr=False, compare=False)
    _known: _Known = field(default_factory=_Known, repr=False, compare=False)

    @property
    def alpha(self) -> float:
        """Exponent of the tail P(X > x) ~ x**-alpha: ``exponent`` less 1."""
        return self.exponent - 1

    @property
    def slope(self) -> float:
        """Slope s of the values over their rank, x_k ~ k**-s: 1 / (exponent - 1)."""
        return 1 / self.alpha

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the exponent, xmin taken as given.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : float
            Of continuous values exact, by the Gamma law of n_tail / alpha; else from the likelihood's
            curvature, on a logarithmic scale.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if self.form == "points":
            free = self.n_tail - (self.cutoff == "rank")  # the K-th value is xmin itself
            factors = special.gammaincinv(free, tails) / self.n_tail
        else:
            factors = np.exp(special.ndtri(tails) * self.stderr / self.alpha)
        low, high = (1 + self.alpha * factors).tolist()
        return low, high

    def critical(self, level: float = 0.05, *, calibrated: bool = True) -> float:
        """Distance that ``ks`` exceeds with probability ``level`` where the power law holds.

        Parameters
        ----------
        level : float in (0, 1)
        calibrated : bool
            With account of the exponent that was fitted to the same values: by the Monte Carlo tables of
            :mod:`gradtail.estimators.lilliefors` for continuous values, else by 4,000 samples of the
            fitted law in the same bins or of whole numbers. False: the values as printed in the
            studies, for example 1.36 / sqrt(n_tail) at 5 %, of which the true size is near 0.5 %.

        Returns
        -------
        float
            For a given xmin. Where xmin was searched, the least of many distances is compared, so that
            the true size is smaller than ``level``: :meth:`pvalue` repeats the search.

        Raises
        ------
        ValueError
            ``level`` is out of range, or, of the printed values, is none of 0.2, 0.15, 0.1, 0.05, 0.01.
        """
        if not calibrated:
            return float(lilliefors.printed(self.n_tail, level))
        if self.form == "points":
            return float(lilliefors.critical(self._law, self.n_tail, level))
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        return float(np.quantile(self._null(), 1 - level, method="higher"))

    def pvalue(self, repeats: int = 1000, seed: int = 0) -> PValue:
        """Probability of a distance as large as ``ks`` where the power law holds.

        Parameters
        ----------
        repeats : int
            Samples drawn; the error is at most 1 / (2 sqrt(repeats)). Of continuous values with xmin given,
            or cut at a rank, the law is tabulated, and none are drawn.
        seed : int

        Returns
        -------
        PValue
            A float with ``repeats`` and ``stderr``. Below 0.1 the power law is ruled out (CSN).

        Notes
        -----
        Where xmin was searched: the semi-parametric bootstrap of Clauset, Shalizi and Newman (2009),
        section 4.1. Each sample has as many values as the data, those above xmin from the fitted law and
        those below drawn from the data, and xmin is searched in it again. Costs one search a repeat at
        most, and usually far less: it ends at the first xmin that comes nearer than ``ks``.
        """
        _check_repeats(repeats, 1)
        if self.cutoff == "searched":
            far = bootstrap.share_as_far(self._data, self._at, self.alpha, self.ks, int(repeats), seed)
            self._known.pvalue = PValue(far / int(repeats), int(repeats))
        elif self.form == "points":
            self._known.pvalue = PValue(lilliefors.pvalue(self._law, self.n_tail, self.ks), 0)
        else:
            rng = np.random.default_rng(seed)
            null = bootstrap.null_distances(self._data, self._at, self.alpha, int(repeats), rng)
            self._known.pvalue = PValue(float(np.mean(null >= self.ks)), int(repeats))
        return self._known.pvalue

    def spread(self, repeats: int = 200, seed: int = 0) -> FitSpread:
        """Return standard errors that hold the choice of xmin too, by resampling the data (CSN's brackets).

        Raises
        ------
        ValueError
            xmin was not searched: :attr:`stderr` is the error then.
        """
        if self.cutoff != "searched":
            raise ValueError(f"spread: expected a fit with xmin='ks', got one with xmin {self.cutoff}")
        _check_repeats(repeats, 2)
        found = bootstrap.resampled_fits(self._data, repeats, seed)
        exponent, xmin, n_tail = found.std(axis=1, ddof=1).tolist()
        return FitSpread(exponent, xmin, n_tail, repeats)

    def compare(self, rival: str) -> Comparison:
        """Test by the ratio of likelihoods whether a rival fits the values from xmin on better.

        Parameters
        ----------
        rival : {"lognormal", "exponential", "stretched_exponential", "truncated_power_law"}

        Returns
        -------
        Comparison
        """
        if not isinstance(rival, str) or rival not in RIVALS:
            raise ValueError(f"rival: expected one of {', '.join(map(repr, RIVALS))}, got {rival!r}")
        found = self._known.rivals.get(rival)
        if found is None:
            found = compare(self._data.sample(self._at), self.exponent, rival)
            self._known.rivals[rival] = found
        return found

    def compare_all(self) -> dict[str, Comparison]:
        """Compare with all four rivals."""
        return {rival: self.compare(rival) for rival in RIVALS}

    @property
    def verdict(self) -> str:
        """The result in words: ruled out or not at 0.1, and which rivals fit as well or better.

        By the last :meth:`pvalue` that was asked for. Before that continuous values with a given xmin, or
        cut at a rank, are tested by the tabulated law; others take samples to test, and are not.
        """
        known = self._known.pvalue
        if known is None and self.form == "points" and self.cutoff != "searched":
            known = self.pvalue()
        return describe(self, known)

    def __str__(self) -> str:
        side = "both tails" if self.tail == "both" else f"{self.tail} tail"
        how = {"searched": f"xmin searched ({self.search})", "given": "xmin given", "rank": "cut at a rank"}
        lines = [
            f"{self.verdict}; {side}, top {self.n_tail} of {self.n} from {self.xmin:.4g}, {how[self.cutoff]}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    @property
    def _law(self) -> Literal["exponential", "exponential_rank"]:
        return "exponential_rank" if self.cutoff == "rank" else "exponential"

    def _null(self) -> FloatArray:
        if self._known.null is None:
            rng = np.random.default_rng(0)
            self._known.null = bootstrap.null_distances(self._data, self._at, self.alpha, NULL_REPEATS, rng)
        return self._known.null


def describe(fit: PowerLawFit, pvalue: float | None) -> str:
    """Put a fit, its test and its rivals into words."""
    low, high = fit.ci()
    if pvalue is None:
        test = "power law not tested (pvalue() does)"
    else:
        shown = "< 0.001" if pvalue < 0.001 else f"= {pvalue:.2g}"
        test = f"power law {'' if pvalue < RULED_OUT else 'not '}ruled out at {RULED_OUT:g} (p {shown})"
    good = [one for one in fit.compare_all().values() if one.rival_is_as_good]
    good.sort(key=lambda one: one.ratio)
    better = [one.rival for one in good if one.pvalue < RULED_OUT]
    equal = [one.rival for one in good if one.pvalue >= RULED_OUT]
    parts = [f"{test}, exponent {fit.exponent:.4g} (95 % {low:.4g} to {high:.4g})"]
    for names, what in ((better, "better"), (equal, "as well")):
        if names:
            listed = ", ".join(name.replace("_", " ") for name in names)
            parts.append(f"{listed} {'fit' if len(names) > 1 else 'fits'} {what}")
    return "; ".join(parts)


def _check_repeats(repeats: object, least: int) -> None:
    if isinstance(repeats, bool) or not isinstance(repeats, (int, np.integer)) or repeats < least:
        raise ValueError(f"repeats: expected an int of at least {least}, got {repeats!r}")
