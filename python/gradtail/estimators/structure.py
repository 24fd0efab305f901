"""Are gradients heavy-tailed: across parameters at one step, and across steps for one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.estimators import lilliefors, normality, powerlaw
from gradtail.estimators.normality import NormalityTests
from gradtail.estimators.shares import clopper_pearson
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.magnitudes import FloatArray
from gradtail.states.summary import Summary
from gradtail.states.track_ring import Tracks

RowTest: TypeAlias = Literal["dagostino", "jarque_bera", "pearson_chi2", "ks_normal"]

LEVEL = 0.05
FEWEST_IN_TAIL = 50
"""Values that a power law is tested by at least."""


@dataclass(frozen=True)
class Rate:
    """A share of tests.

    Attributes
    ----------
    hits, tested : int
    """

    hits: int
    tested: int

    @property
    def value(self) -> float:
        """The share; NaN where nothing was tested."""
        return self.hits / self.tested if self.tested else math.nan

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Clopper and Pearson's interval (1934, Biometrika 26, 404), which takes tests as independent."""
        low, high = clopper_pearson(self.hits, self.tested, level)
        return (low, high) if self.tested else (math.nan, math.nan)

    def __str__(self) -> str:
        if not self.tested:
            return "none tested"
        low, high = self.ci()
        return f"{100 * self.value:.3g} % of {self.tested} (95 % iid {100 * low:.3g} to {100 * high:.3g} %)"


@dataclass(frozen=True, repr=False)
class Structure:
    """Tests of many vectors: columns (one step, all parameters) or rows (one parameter, all steps).

    Attributes
    ----------
    kind : str
        What the values are, such as "gradient" or "noise".
    of : {"columns", "rows"}
    top : int
        Largest magnitudes that the power law is held against, at most.
    ks, critical, exponent, n_tail : ndarray, shape (m,)
        Of each vector: distance from the fitted power law, the calibrated 5 % value for it, exponent, values
        fitted to; NaN and 0 where there were too few nonzero values.
    test : str
        Of normality.
    pvalue : ndarray of float64, shape (m,)
        Of normality; NaN where not tested.
    skipped_constant, skipped_few : int
        Vectors without a test of normality: all values equal, or too few.
    """

    kind: str
    of: Literal["columns", "rows"]
    top: int
    ks: FloatArray
    critical: FloatArray
    exponent: FloatArray
    n_tail: npt.NDArray[np.int64]
    test: str
    pvalue: FloatArray
    skipped_constant: int = 0
    skipped_few: int = 0

    @property
    def mean_ks(self) -> float:
        """Mean distance."""
        known = self.ks[np.isfinite(self.ks)]
        return float(known.mean()) if known.size else math.nan

    @property
    def power_law_rate(self) -> Rate:
        """Vectors for which a power law is not rejected at 5 %, by the calibrated critical value."""
        known = np.isfinite(self.ks)
        return Rate(int(np.count_nonzero(self.ks[known] < self.critical[known])), int(known.sum()))

    @property
    def printed_power_law_rate(self) -> Rate:
        """The same by 1.36 / sqrt(K), as in the studies, which rejects some 0.5 % where it says 5 %."""
        known = np.isfinite(self.ks)
        limit = lilliefors.PRINTED[LEVEL] / np.sqrt(np.maximum(self.n_tail[known], 1))
        return Rate(int(np.count_nonzero(self.ks[known] < limit)), int(known.sum()))

    @property
    def gaussian_rate(self) -> Rate:
        """Vectors for which normality is not rejected at 5 %: 95 % of normal ones."""
        known = np.isfinite(self.pvalue)
        return Rate(int(np.count_nonzero(self.pvalue[known] >= LEVEL)), int(known.sum()))

    def __repr__(self) -> str:
        return f"Structure({self.kind} {self.of}, {self.pvalue.size} vectors)"

    def __str__(self) -> str:
        across = (
            "across parameters, at one step" if self.of == "columns" else "across steps, of one parameter"
        )
        law = f"power law in {self.power_law_rate}, mean distance {self.mean_ks:.3g}"
        if not self.power_law_rate.tested:
            fewest = FEWEST_IN_TAIL * (10 if self.of == "columns" else 1)
            law = f"power law not tested, which takes {fewest} nonzero values"
        lines = [f"{self.kind} {across}: {law}; normal ({self.test}) in {self.gaussian_rate}"]
        if self.skipped_constant or self.skipped_few:
            lines.append(
                f"  skipped: {self.skipped_constant} constant, {self.skipped_few} with too few values"
            )
        return "\n".join(lines)


@dataclass
class ColumnTests:
    """Tests of one column after another, as they come.

    Parameters
    ----------
    kind : str
    top : int
        Largest magnitudes tested for a power law; a tenth of the nonzero values if that is less.
    """

    kind: str
    top: int
    _ks: list[float] = field(default_factory=list)
    _critical: list[float] = field(default_factory=list)
    _exponent: list[float] = field(default_factory=list)
    _n_tail: list[int] = field(default_factory=list)
    _pvalue: list[float] = field(default_factory=list)
    _constant: int = 0
    _few: int = 0

    def add(self, column: Summary) -> None:
        """Test one column by its histogram and moments."""
        nonzero = column.count - column.zeros
        k = min(self.top, nonzero // 10)
        ks = critical = exponent = math.nan
        n_tail = 0
        if k >= FEWEST_IN_TAIL:
            try:
                fit = powerlaw.fit(column, top=k)
            except ValueError:  # fewer than two distinct magnitudes
                pass
            else:
                ks, exponent, n_tail = fit.ks, fit.exponent, fit.n_tail
                critical = lilliefors.critical("exponential_rank", n_tail, LEVEL)
        pvalue = math.nan
        if not column.count:
            self._few += 1
        elif column.moments.variance == 0:
            self._constant += 1
        else:
            try:
                pvalue = normality.dagostino(column).pvalue
            except ValueError:
                self._few += 1
        for values, value in (
            (self._ks, ks), (self._critical, critical), (self._exponent, exponent), (self._pvalue, pvalue),
        ):  # fmt: skip
            values.append(value)
        self._n_tail.append(n_tail)

    def result(self) -> Structure:
        """Return what has been tested so far."""
        return Structure(
            self.kind, "columns", self.top, np.array(self._ks), np.array(self._critical),
            np.array(self._exponent), np.array(self._n_tail, np.int64), "dagostino", np.array(self._pvalue),
            self._constant, self._few,
        )  # fmt: skip


def rows(
    source: Tracks | npt.ArrayLike,
    kind: str = "gradient",
    test: RowTest = "dagostino",
    top: int = 1000,
) -> Structure:
    """Test every row of a gradient matrix: one parameter over all steps.

    Parameters
    ----------
    source : Tracks, or array of shape (T, m)
        Values over T steps; NaN where not observed.
    kind : str
    test : {"dagostino", "jarque_bera", "pearson_chi2", "ks_normal"}
    top : int
        Largest magnitudes tested for a power law, or all nonzero ones if they are fewer. As many as the
        studies take of columns, which of rows of no more steps is all of them, the smallest values too.

    Returns
    -------
    Structure

    Raises
    ------
    TypeError, ValueError
        As for the tests of :mod:`gradtail.normality`.

    Notes
    -----
    O(T m log T). Rows of zeros and constant rows are skipped and counted.
    """
    values = source.values if isinstance(source, Tracks) else np.asarray(source)
    if values.ndim != 2:
        raise ValueError(f"source: expected shape (T, m), got {values.shape}")
    tests: NormalityTests = getattr(normality, test)(values, axis=0)
    ks, exponent, n_tail = _tails(values, top)
    critical = np.full(ks.size, np.nan)
    known = np.isfinite(ks)
    if known.any():
        critical[known] = lilliefors.critical("exponential_rank", n_tail[known], LEVEL)
    return Structure(
        kind, "rows", top, ks, critical, exponent, n_tail, test, tests.pvalue,
        tests.skipped_constant, tests.skipped_few,
    )  # fmt: skip


def all_rows(moments: Sequence[CoordinateMoments]) -> NormalityTests:
    """Test every coordinate that moments are kept of, by Jarque-Bera.

    Parameters
    ----------
    moments : sequence of CoordinateMoments
        Of each parameter.
    """
    parts = [normality.jarque_bera(one) for one in moments]
    return NormalityTests(
        "Jarque-Bera",
        np.concatenate([one.statistic for one in parts]),
        np.concatenate([one.pvalue for one in parts]),
        np.concatenate([one.n for one in parts]),
        sum(one.skipped_constant for one in parts),
        sum(one.skipped_few for one in parts),
        sum(one.skipped_unknown for one in parts),
    )


def _tails(
    values: npt.NDArray[np.floating], top: int
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Distance, exponent and tail of the largest magnitudes of each column, columns of one k at once.

    The same numbers as ``powerlaw.fit(column, top=k)`` gives where no value is tied with the k-th.
    """
    size = np.abs(values)
    size = np.sort(np.where(np.isfinite(size), size, 0.0), axis=0)[::-1]
    m = size.shape[1]
    ks, exponent = np.full(m, np.nan), np.full(m, np.nan)
    n_tail = np.minimum(np.count_nonzero(size, axis=0), top)
    n_tail[n_tail < FEWEST_IN_TAIL] = 0
    for k in np.unique(n_tail[n_tail > 0]).tolist():
        mine = np.flatnonzero(n_tail == k)
        mine = mine[size[0, mine] > size[k - 1, mine]]
        logs = np.log(size[k - 1 :: -1, mine].astype(np.float64))
        logs -= logs[0]
        alpha = k / logs.sum(axis=0)
        rank = (np.arange(k) / k)[:, None]
        ks[mine] = np.abs(1 - np.exp(-alpha * logs) - rank).max(axis=0)
        exponent[mine] = 1 + alpha
    n_tail[np.isnan(ks)] = 0
    return ks, exponent, n_tail
