"""What tests of normality return: one test, one test a coordinate, and the share of them that reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.estimators.shares import clopper_pearson
from gradtail.states.magnitudes import FloatArray

IntArray: TypeAlias = npt.NDArray[np.int64]
Correction: TypeAlias = "Literal['benjamini-hochberg'] | None"

LEVEL = 0.05
"""The level that verdicts in words are at."""


@dataclass(frozen=True)
class NormalityTest:
    """One test of whether values have a normal law, of whatever mean and variance.

    Attributes
    ----------
    name : str
        Of the test.
    statistic : float
    pvalue : float
        Share of samples of a normal law with a statistic at least as large.
    n : int
        Finite values.
    warnings : tuple of str
    """

    name: str
    statistic: float
    pvalue: float
    n: int
    warnings: tuple[str, ...] = ()

    @property
    def rejected(self) -> bool:
        """Whether the 5 % test rejects the normal law."""
        return self.pvalue <= LEVEL

    @property
    def verdict(self) -> str:
        """The result of the 5 % test in words; a test that does not reject proves nothing."""
        found = "not normal" if self.rejected else "not told from a normal law"
        return f"{found} (p = {self.pvalue:.2g})"

    def __str__(self) -> str:
        lines = [f"{self.verdict}; {self.name} {self.statistic:.4g} of {self.n} values"]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


@dataclass(frozen=True)
class RejectionRate:
    """How many of many tests reject.

    Attributes
    ----------
    level : float
        Of each test, or the false discovery rate where there is a correction.
    correction : {None, "benjamini-hochberg"}
    rejected, tested : int
    skipped_constant, skipped_few, skipped_unknown : int
        Coordinates without a test, as in :class:`NormalityTests`.
    """

    level: float
    correction: Correction
    rejected: int
    tested: int
    skipped_constant: int = 0
    skipped_few: int = 0
    skipped_unknown: int = 0

    @property
    def rate(self) -> float:
        """Share of the tests that reject; NaN without tests."""
        return self.rejected / self.tested if self.tested else np.nan

    @property
    def gaussian_rate(self) -> float:
        """Share of the tests that do not reject: near 1 - level if every law is normal."""
        return 1 - self.rate

    @property
    def spread(self) -> Literal["iid"]:
        """What :meth:`ci` rests on: independence of the tests."""
        return "iid"

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper and Pearson's interval of :attr:`rate` (1934, Biometrika 26, 404), for independent tests.

        Coordinates of one gradient share their batches, so that their tests are alike: for them it is
        too narrow.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : float
            (0, 1) without tests.

        Raises
        ------
        ValueError
            ``level`` is not between 0 and 1.

        Examples
        --------
        >>> low, high = RejectionRate(0.05, None, rejected=5, tested=100).ci()
        >>> round(low, 3), round(high, 3)
        (0.016, 0.113)
        """
        return clopper_pearson(self.rejected, self.tested, level)

    def __str__(self) -> str:
        skipped = [
            f"{count} {why}"
            for count, why in (
                (self.skipped_constant, "without variance"),
                (self.skipped_few, "with too few values"),
                (self.skipped_unknown, "whose moments are lost to rounding"),
            )
            if count
        ]
        rest = f"; skipped: {', '.join(skipped)}" if skipped else ""
        if not self.tested:
            return f"no tests{rest}"
        how = "" if self.correction is None else " false discoveries (Benjamini-Hochberg)"
        low, high = self.ci()
        return (
            f"{_percent(self.rate)} % of {self.tested} tests reject a normal law "
            f"at {_percent(self.level)} %{how} (95 % {_percent(low)} to {_percent(high)} % "
            f"if they were independent; tests that share batches are not){rest}"
        )


@dataclass(frozen=True, repr=False, eq=False)
class NormalityTests:
    """One test a coordinate, all arrays of one shape.

    Attributes
    ----------
    name : str
        Of the test.
    statistic, pvalue : ndarray of float64
        NaN where there was no test.
    n : ndarray of int64
        Finite values.
    skipped_constant : int
        Coordinates with enough values that are all equal.
    skipped_few : int
        Coordinates with too few values.
    skipped_unknown : int
        Coordinates of which float32 sums have lost the moments.
    warnings : tuple of str
    """

    name: str
    statistic: FloatArray
    pvalue: FloatArray
    n: IntArray
    skipped_constant: int = 0
    skipped_few: int = 0
    skipped_unknown: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def tested(self) -> int:
        """Coordinates with a test."""
        return int(np.count_nonzero(~np.isnan(self.pvalue)))

    @property
    def rejected(self) -> npt.NDArray[np.bool_]:
        """Coordinates that are not normal at 5 %; False where there was no test. See :meth:`rate`."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.pvalue < LEVEL)

    def rate(self, level: float = LEVEL, correction: Correction = None) -> RejectionRate:
        """Count the tests that reject.

        Parameters
        ----------
        level : float in (0, 1)
        correction : {None, "benjamini-hochberg"}
            With it ``level`` is the share of the rejected that are expected to be normal; without it
            the share of the normal that are rejected.

        Returns
        -------
        RejectionRate

        Raises
        ------
        ValueError
            A level not between 0 and 1, or another correction.

        Notes
        -----
        O(m) for m coordinates, O(m log m) with a correction: see :func:`benjamini_hochberg`.

        Examples
        --------
        >>> pvalues = np.array([0.001, 0.04, 0.2, 0.6, float("nan")])
        >>> tests = NormalityTests("K2", np.full(5, 1.0), pvalues, np.full(5, 50), skipped_constant=1)
        >>> rate = tests.rate()
        >>> rate.rejected, rate.tested, rate.rate, rate.gaussian_rate
        (2, 4, 0.5, 0.5)
        >>> tests.rate(0.05, "benjamini-hochberg").rejected
        1
        """
        if isinstance(level, bool) or not isinstance(level, (int, float, np.floating)) or not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        if correction not in (None, "benjamini-hochberg"):
            raise ValueError(f"correction: expected None or 'benjamini-hochberg', got {correction!r}")
        pvalue = self.pvalue if correction is None else benjamini_hochberg(self.pvalue)
        return RejectionRate(
            float(level), correction, int(np.count_nonzero(pvalue <= level)), self.tested,
            self.skipped_constant, self.skipped_few, self.skipped_unknown,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"NormalityTests({self.name}, {self.tested} tests, shape {self.pvalue.shape})"

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.rate()}"]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


def benjamini_hochberg(pvalues: npt.ArrayLike) -> FloatArray:
    """Return p-values to be compared with a false discovery rate.

    Parameters
    ----------
    pvalues : array of float in [0, 1], any shape
        NaN where there was no test; those count for nothing and stay NaN.

    Returns
    -------
    ndarray of float64, same shape
        For m tests the least, over the p-values p_(j) not below one, of m p_(j) / j.

    Raises
    ------
    ValueError
        A value outside [0, 1].

    Notes
    -----
    Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57, 289: rejecting where the result is at most q
    keeps the expected share of normal coordinates among the rejected at q, if tests are independent
    or positively dependent. O(m log m).

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03, float("nan")]).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    p = np.asarray(pvalues, dtype=np.float64)
    flat = p.reshape(-1)
    tested = np.flatnonzero(~np.isnan(flat))
    found = flat[tested]
    if np.any((found < 0) | (found > 1)):
        raise ValueError(f"pvalues: expected numbers from 0 to 1, got {found[(found < 0) | (found > 1)][0]}")
    rising = np.argsort(found, kind="stable")
    scaled = found[rising] * (found.size / np.arange(1, found.size + 1))
    adjusted = flat.copy()
    adjusted[tested[rising]] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted.reshape(p.shape)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"
