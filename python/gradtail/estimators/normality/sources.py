"""What tests of normality read: arrays in pieces of rows, moments, and histograms of a Summary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import as_source
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.magnitudes import FloatArray
from gradtail.states.moments import Moments
from gradtail.states.summary import Summary

IntArray: TypeAlias = npt.NDArray[np.int64]

_VALUES_A_PIECE = 1 << 19  # 4 MiB of float64, and a few temporaries of the same size
_SAFE = 1e50  # fourth powers of anything from 1 / this to this are far from the ends of float64


@dataclass(frozen=True)
class Rows:
    """Samples, one a row, each of finite values that are not all equal.

    Attributes
    ----------
    deviations : ndarray of float64, shape (r, t)
        From the mean of the row, in a unit of its own; NaN where nothing was observed.
    n : ndarray of int64, shape (r,)
    variance : ndarray of float64, shape (r,)
        In that unit, ddof = 0.
    whole : bool
        Whether nothing is missing.
    """

    deviations: FloatArray
    n: IntArray
    variance: FloatArray
    whole: bool

    def mean_power(self, p: int) -> FloatArray:
        """Mean of the p-th power of the deviations, p = 3 or 4, shape (r,)."""
        d = self.deviations if self.whole else np.nan_to_num(self.deviations)
        squares = d * d
        return np.asarray((squares * (d if p == 3 else squares)).sum(axis=1) / self.n)


def real_array(source: object) -> npt.NDArray[np.floating[Any]]:
    """Return an array of real floating-point numbers in its own shape."""
    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        return source
    flat: Any = as_source(source)
    own: Any = source  # what as_source took has a shape, or is nested lists
    return np.asarray(flat.reshape(tuple(own.shape) if hasattr(own, "shape") else np.shape(own)))


def check_axis(axis: object, ndim: int) -> int:
    """Return the axis along which the values of one sample lie, from 0 up."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis: expected None or an int, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis: expected an int from {-ndim} to {ndim - 1}, got {axis}")
    return int(axis) % ndim


def pieces(x: npt.NDArray[Any], axis: int) -> Iterator[tuple[tuple[slice, slice], FloatArray]]:
    """Yield rows of bounded memory as float64, and their place among coordinates of shape (before, after)."""
    samples = x.shape[axis]
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    cube = x.reshape(before, samples, after)
    most = max(1, _VALUES_A_PIECE // max(1, samples))
    wide = max(1, min(after, most))
    high = max(1, most // wide)
    for i in range(0, before, high):
        for j in range(0, after, wide):
            place = slice(i, min(i + high, before)), slice(j, min(j + wide, after))
            part = cube[place[0], :, place[1]].swapaxes(1, 2).astype(np.float64, order="C")
            yield place, part.reshape(part.shape[0] * part.shape[1], samples)


def rows_of(values: FloatArray, fewest: int) -> tuple[Rows, IntArray, npt.NDArray[np.bool_], int]:
    """Standardise the rows that can be tested.

    Returns
    -------
    rows : Rows
        Those with at least ``fewest`` finite values that are not all equal.
    n : ndarray of int64
        Finite values of every row.
    constant : ndarray of bool
        Rows with enough values, all equal.
    infinite : int
        Infinite values in all.
    """
    finite = np.isfinite(values)
    n = np.asarray(finite.sum(axis=1), dtype=np.int64)
    whole = bool(finite.all())
    infinite = 0 if whole else int(np.isinf(values).sum())
    low = np.min(values, axis=1, initial=np.inf, where=finite)
    high = np.max(values, axis=1, initial=-np.inf, where=finite)
    enough = n >= fewest
    constant = enough & (low == high)
    keep = enough & ~constant
    if not keep.all():
        values, finite, low, high = values[keep], finite[keep], low[keep], high[keep]
        whole = bool(finite.all())
    size, kept = np.maximum(np.abs(low), np.abs(high)), n[keep]
    if np.any(size > _SAFE) or np.any(size < 1 / _SAFE):
        values = np.ldexp(values, -np.frexp(size)[1][:, None])
    if whole:
        deviations = values - (values.sum(axis=1) / kept)[:, None]
        variance = np.asarray((deviations * deviations).sum(axis=1) / kept)
    else:
        mean = np.where(finite, values, 0.0).sum(axis=1) / kept
        deviations = np.where(finite, values, np.nan) - mean[:, None]
        variance = np.asarray(np.where(finite, deviations * deviations, 0.0).sum(axis=1) / kept)
    return Rows(deviations, kept, variance, whole), n, constant, infinite


@dataclass(frozen=True)
class Shape:
    """What tests from moments take, all of one shape, () for a single sample.

    Attributes
    ----------
    n : ndarray of int64
    skewness, kurtosis : ndarray of float64
        The latter in excess of 3; NaN where not known.
    constant : ndarray of bool
        Without variance.
    """

    n: IntArray
    skewness: FloatArray
    kurtosis: FloatArray
    constant: npt.NDArray[np.bool_]


def shape_of_coordinates(source: CoordinateMoments) -> Shape:
    """Skewness and kurtosis of every coordinate."""
    return Shape(source.count, source.skewness, source.excess_kurtosis, source.sums[1] == 0)


def moments_of(source: Summary | Moments) -> tuple[Moments, list[str]]:
    """Return the moments, and a warning of what is not in them."""
    m = source.moments if isinstance(source, Summary) else source
    return m, nonfinite_warning(m.nan + m.posinf + m.neginf)


def nonfinite_warning(count: int) -> list[str]:
    """Warn of values left out."""
    return [f"{count} non-finite values are left out"] if count else []


def equal_values(n: int) -> ValueError:
    """Return the refusal of values without spread."""
    return ValueError(f"source: expected values that are not all equal, got {n} equal ones")


def no_spread(m: Moments, most: int) -> ValueError:
    """Return the refusal of power sums that say too little of what is about the mean."""
    if m.variance == 0:
        return equal_values(m.count)
    return ValueError(
        f"source: expected a mean within {most} standard deviations of zero, beyond which power sums "
        f"lose too many digits, got mean {m.mean:.3g} and standard deviation {m.variance**0.5:.3g}"
    )


def too_few(fewest: int, n: int) -> ValueError:
    """Return the refusal of too few values."""
    return ValueError(f"source: expected at least {fewest} finite values, got {n}")
