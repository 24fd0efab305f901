"""One way from any source to a test: what can be read, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.estimators.normality.histogram import Bins, bins_of
from gradtail.estimators.normality.result import NormalityTest, NormalityTests
from gradtail.estimators.normality.sources import (
    IntArray,
    Rows,
    Shape,
    check_axis,
    equal_values,
    moments_of,
    no_spread,
    nonfinite_warning,
    pieces,
    real_array,
    rows_of,
    shape_of_coordinates,
    too_few,
)
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.magnitudes import FloatArray, Magnitudes
from gradtail.states.moments import Moments
from gradtail.states.summary import Summary
from gradtail.states.track_ring import Tracks

Found: TypeAlias = tuple[FloatArray, FloatArray]
"""Statistics and p-values."""


@dataclass(frozen=True)
class Recipe:
    """A test: its statistic and p-value from each form that a source can have.

    Attributes
    ----------
    name : str
    fewest : int
        Values that a sample must have.
    rows : callable of Rows
    moments : callable of (n, skewness, kurtosis), or None
    bins : callable of Bins, or None
        Returns statistic, p-value and warnings.
    warn : callable of int
        Warnings that so many values call for.
    """

    name: str
    fewest: int
    rows: Callable[[Rows], Found]
    warn: Callable[[int], list[str]]
    moments: Callable[[IntArray, FloatArray, FloatArray], Found] | None = None
    bins: Callable[[Bins], tuple[float, float, list[str]]] | None = None


def run(recipe: Recipe, source: object, axis: object) -> Any:
    """Test a source of any kind; see the functions of this package."""
    states = (Summary, Moments, Magnitudes, CoordinateMoments, Tracks)
    if isinstance(source, states):
        if axis is not None:
            raise TypeError(f"axis: expected None for a {type(source).__name__}, got {axis!r}")
        return _of_state(recipe, source)
    x = real_array(source)
    if axis is None:
        return _one(recipe, x.reshape(-1))
    return _many(recipe, x, check_axis(axis, x.ndim))


def _of_state(recipe: Recipe, source: object) -> Any:
    if isinstance(source, Tracks):
        values = np.where(source.observed, source.values, np.float32(np.nan))
        return _many(recipe, values, 0)
    if isinstance(source, CoordinateMoments):
        if recipe.moments is None:
            raise TypeError(f"source: expected values, not moments, for {recipe.name}, got CoordinateMoments")
        return _coordinates(recipe, recipe.moments, shape_of_coordinates(source))
    if isinstance(source, Magnitudes):
        raise TypeError(
            "source: expected a Summary, whose moments give mean and variance, got its Magnitudes alone"
        )
    assert isinstance(source, (Summary, Moments))
    if recipe.moments is not None:
        return _summary(recipe, recipe.moments, source)
    if recipe.bins is None or isinstance(source, Moments):
        raise TypeError(f"source: expected a Summary or the values for {recipe.name}, got Moments")
    moments, warnings = moments_of(source)
    if moments.count < recipe.fewest:
        raise too_few(recipe.fewest, moments.count)
    statistic, pvalue, more = recipe.bins(bins_of(source))
    return NormalityTest(
        recipe.name, statistic, pvalue, moments.count, (*warnings, *recipe.warn(moments.count), *more)
    )


def _one(recipe: Recipe, x: npt.NDArray[Any]) -> NormalityTest:
    """Test one sample."""
    finite = x[np.isfinite(x)]
    if finite.size < recipe.fewest:
        raise too_few(recipe.fewest, finite.size)
    rows, _, constant, _ = rows_of(finite.astype(np.float64)[None], recipe.fewest)
    if constant[0]:
        raise equal_values(finite.size)
    statistic, pvalue = recipe.rows(rows)
    warnings = [*nonfinite_warning(x.size - finite.size), *recipe.warn(finite.size)]
    return NormalityTest(recipe.name, float(statistic[0]), float(pvalue[0]), finite.size, tuple(warnings))


def _many(recipe: Recipe, x: npt.NDArray[Any], axis: int) -> NormalityTests:
    """Test a sample for every place along the other axes."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    before = int(np.prod(x.shape[:axis], dtype=np.int64))
    square = before, int(np.prod(x.shape[axis + 1 :], dtype=np.int64))
    statistic, pvalue, count = np.full(square, np.nan), np.full(square, np.nan), np.zeros(square, np.int64)
    equal, left_out = 0, 0
    for place, values in pieces(x, axis):
        rows, n, constant, infinite = rows_of(values, recipe.fewest)
        tested = (n >= recipe.fewest) & ~constant
        size = statistic[place].shape
        found = np.full((2, n.size), np.nan)
        if tested.any():
            found[:, tested] = recipe.rows(rows)
        statistic[place], pvalue[place] = found[0].reshape(size), found[1].reshape(size)
        count[place] = n.reshape(size)
        equal, left_out = equal + int(constant.sum()), left_out + infinite
    warnings = [f"{left_out} infinite values are left out"] if left_out else []
    return _tests(
        recipe, statistic.reshape(shape), pvalue.reshape(shape), count.reshape(shape), equal, warnings
    )


def _coordinates(
    recipe: Recipe, test: Callable[[IntArray, FloatArray, FloatArray], Found], source: Shape
) -> NormalityTests:
    """Test every coordinate whose moments are known."""
    enough = source.n >= recipe.fewest
    constant = enough & source.constant
    tested = enough & ~constant & np.isfinite(source.skewness) & np.isfinite(source.kurtosis)
    statistic, pvalue = np.full(source.n.shape, np.nan), np.full(source.n.shape, np.nan)
    statistic[tested], pvalue[tested] = test(
        source.n[tested], source.skewness[tested], source.kurtosis[tested]
    )
    return _tests(recipe, statistic, pvalue, source.n, int(constant.sum()), [])


def _tests(
    recipe: Recipe, statistic: FloatArray, pvalue: FloatArray, n: IntArray, constant: int, warnings: list[str]
) -> NormalityTests:
    tested = ~np.isnan(pvalue)
    few = int(np.count_nonzero(n < recipe.fewest))
    unknown = n.size - int(np.count_nonzero(tested)) - few - constant
    more = recipe.warn(int(n[tested].min())) if tested.any() else []
    return NormalityTests(
        recipe.name, statistic, pvalue, n, constant, few, unknown, (*warnings, *more)
    )  # fmt: skip


def _summary(
    recipe: Recipe, test: Callable[[IntArray, FloatArray, FloatArray], Found], source: Summary | Moments
) -> NormalityTest:
    """Test what a summary has seen, from its moments."""
    m, warnings = moments_of(source)
    if m.count < recipe.fewest:
        raise too_few(recipe.fewest, m.count)
    skewness, kurtosis = m.skewness, m.excess_kurtosis
    if not np.isfinite(skewness + kurtosis):
        raise no_spread(m, 300)
    statistic, pvalue = test(np.array(m.count), np.array(skewness), np.array(kurtosis))
    return NormalityTest(
        recipe.name, float(statistic), float(pvalue), m.count, (*warnings, *recipe.warn(m.count))
    )
