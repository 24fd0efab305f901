"""Fit a power law to a sample: an array, or the histogram of a pass."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import as_source, check_tail
from gradtail.estimators.powerlaw.bins import Bins, from_magnitudes
from gradtail.estimators.powerlaw.integers import LARGEST, Integers
from gradtail.estimators.powerlaw.points import Points, distinct
from gradtail.estimators.powerlaw.result import PowerLawFit
from gradtail.estimators.powerlaw.scan import search
from gradtail.estimators.powerlaw.tails import TailData
from gradtail.estimators.tail import omissions
from gradtail.states.magnitudes import Tail as Side
from gradtail.states.summary import Summary

_FEW = 50  # values above xmin below which a fit is called small
_FAR_FROM_TOP = 0.1
_TIED = 0.1  # share of the tail that are copies, from which continuous values are called tied


def fit(
    source: object,
    xmin: float | Literal["ks"] = "ks",
    top: int | None = None,
    discrete: bool = False,
    *,
    tail: Side = "both",
) -> PowerLawFit:
    r"""Fit p(x) ~ x\**-exponent for x >= xmin by maximum likelihood.

    Parameters
    ----------
    source : Summary, Magnitudes, or array of real numbers of any shape
        An array (NumPy, a torch tensor on the CPU, nested lists) is never binned. Of a histogram the
        likelihood is that of its bins, and the cost depends on bins and not on values.
    xmin : float or "ks"
        Where the power law begins. "ks" takes the value, or edge of a bin, at which the
        Kolmogorov-Smirnov distance between the tail and its fit is least: all of up to 20,000 distinct
        values, and of more a geometric grid and finer ones around its best. Of bins, the next edge.
    top : int, optional
        Cut at the ``top``-th largest value instead, at least 3, which is xmin then and one of the ``top``
        values fitted to; with all its copies, where it has any. Of bins at the edge that leaves nearly as
        many.
    discrete : bool
        Whole numbers from 1 to 2**53, with the law x\**-exponent / zeta(exponent, xmin); arrays only.
    tail : {"both", "upper", "lower"}
        Of \|x\|, of x > 0, or of -x > 0. Zeros and non-finite values are left out.

    Returns
    -------
    PowerLawFit
        With the distance, critical values, a p-value and likelihood-ratio tests on demand, and warnings
        where they apply.

    Raises
    ------
    TypeError
        An argument is of another kind; a histogram with ``discrete``.
    ValueError
        Fewer than two distinct values from xmin on, ``top`` out of range or given together with
        ``xmin``, or values that are not whole with ``discrete``.

    Notes
    -----
    Clauset, Shalizi and Newman (2009), SIAM Rev. 51, 661: exponent by eq. 3.1 (continuous) and 3.5
    (discrete), xmin by section 3.3. Bins: Virkar and Clauset (2014), Ann. Appl. Stat. 8, 89. The rank
    cutoff is that of Tang et al., "Investigating the Overlooked Hessian Structure" (2025), where
    ``slope`` is 1 / (exponent - 1). The exponent has no upper limit.

    All errors take the values as independent, which coordinates of one gradient are not.

    O(n log n) for arrays of n values: the search measures few candidates in full, and rules the others
    out by bounds. The result keeps the values in order, 40 bytes each. Of a histogram the cost is in
    proportion to the bins in use.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).pareto(1.5, 10_000) + 1
    >>> found = fit(x, top=1000)
    >>> round(found.exponent, 2), round(found.stderr, 2), found.ks < found.critical(0.05)
    (2.5, 0.05, True)
    >>> found.compare("exponential").verdict
    'power law fits better'
    """
    tail = check_tail(tail)
    _check(xmin, top, discrete)
    values = as_source(source)
    data: TailData
    warnings = omissions(values, tail)
    if not isinstance(values, np.ndarray):
        if discrete:
            raise TypeError(f"source: expected an array of whole numbers, got {type(values).__name__}")
        histogram = values.magnitudes if isinstance(values, Summary) else values
        data, at = _of_bins(from_magnitudes(histogram, tail), xmin, top, warnings)
    else:
        data, at = _of_array(values, tail, xmin, top, discrete)
    cutoff: Literal["searched", "given", "rank"] = "given"
    how: Literal["exact", "coarse to fine", "none"] = "none"
    if top is None and xmin == "ks":
        at, alpha, ks, exact = search(data)
        cutoff, how = "searched", "exact" if exact else "coarse to fine"
    else:
        cutoff = "given" if top is None else "rank"
        alpha = float(data.alphas(np.array([at]))[0])
        ks = data.distance(at, alpha)[0]
    n_tail = int(data.n_tail(at))
    if top is not None and abs(n_tail - top) > _FAR_FROM_TOP * top:
        kept = "edge of a bin" if isinstance(data, Bins) else "tied value"
        warnings.append(f"top: {n_tail} values and not {top} lie above the nearest {kept}")
    if n_tail < _FEW:
        warnings.append(f"{n_tail} values from xmin on are few: a power law is hard to rule out")
    if isinstance(data, Points):
        copies = 1 - np.count_nonzero(data.count[at:]) / n_tail
        if copies > _TIED:
            whole = not np.any(data.values[at:] % 1)
            meant = "whole numbers want discrete=True" if whole else "a p-value expects none"
            warnings.append(f"ties: {100 * copies:.0f} % of the values from xmin on are copies; {meant}")
    return PowerLawFit(
        1 + alpha, data.stderr(at, alpha), float(data.values[at]), n_tail, data.n, ks, cutoff, how,
        data.form, tail, tuple(warnings), data, at,
    )  # fmt: skip


def _check(xmin: object, top: object, discrete: object) -> None:
    if not isinstance(discrete, (bool, np.bool_)):
        raise TypeError(f"discrete: expected a bool, got {type(discrete).__name__}")
    if isinstance(xmin, str):
        if xmin != "ks":
            raise ValueError(f"xmin: expected 'ks' or a positive number, got {xmin!r}")
    elif isinstance(xmin, bool) or not isinstance(xmin, (int, float, np.integer, np.floating)):
        raise TypeError(f"xmin: expected 'ks' or a positive number, got {type(xmin).__name__}")
    elif not 0 < xmin < math.inf:
        raise ValueError(f"xmin: expected 'ks' or a positive number, got {xmin}")
    if top is None:
        return
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)):
        raise TypeError(f"top: expected an int, got {type(top).__name__}")
    if top < 3:
        raise ValueError(f"top: expected at least 3, got {top}")
    if not isinstance(xmin, str):
        raise ValueError("top: expected None where xmin is a number, got both")


def _require(distinct_values: int, where: str) -> None:
    if distinct_values < 2:
        raise ValueError(
            f"source: expected at least 2 distinct nonzero values {where}, got {distinct_values}"
        )


def _of_array(
    x: npt.NDArray[Any], tail: Side, xmin: float | Literal["ks"], top: int | None, discrete: bool
) -> tuple[TailData, int]:
    size = np.abs(x) if tail == "both" else x if tail == "upper" else -x
    values = size[(size > 0) & (size < np.inf)]
    if discrete:
        odd = values[(values != np.rint(values)) | (values >= LARGEST)]
        if odd.size:
            raise ValueError(f"source: expected whole numbers below 2**53 where discrete=True, got {odd[0]}")
    n = values.size
    make = Integers if discrete else Points
    if top is not None:
        if top > n:
            raise ValueError(f"top: expected an int from 3 to {n}, got {top}")
        values = values[values >= np.partition(values, n - top)[n - top]]
    elif not isinstance(xmin, str):
        if discrete and xmin != int(xmin):
            raise ValueError(f"xmin: expected a whole number where discrete=True, got {xmin}")
        values = values[values >= np.array([xmin], np.float64)]  # which no short array rounds to its kind
    least, count = distinct(values)
    _require(least.size, "in all" if isinstance(xmin, str) else "from xmin on")
    if not isinstance(xmin, str) and least[0] > xmin:
        least, count = np.append(float(xmin), least), np.append(0.0, count)
    return make(least, count, n - values.size), 0


def _of_bins(
    data: Bins, xmin: float | Literal["ks"], top: int | None, warnings: list[str]
) -> tuple[Bins, int]:
    grid = data.grid
    if top is not None and top > data.n:
        raise ValueError(f"top: expected an int from 3 to {data.n}, got {top}")
    if top is not None or isinstance(xmin, str):
        _require(data.values.size, "in all")
    if top is not None:
        n_tail = data.n_tail(data.candidates)
        return data, int(np.abs(n_tail - top).argmin())
    if isinstance(xmin, str):
        return data, 0
    first = int(np.searchsorted(grid.least, xmin))
    if first == grid.least.size:
        raise ValueError(f"xmin: expected at most 2**128, got {xmin}")
    if grid.least[first] != xmin:
        warnings.append(f"xmin was moved from {xmin:.6g} to the next edge of a bin")
    at = int(np.searchsorted(data.index, first))
    _require(data.index.size - at, "from xmin on")
    if at < data.index.size and data.index[at] == first:
        return data, at
    count = np.append(0.0, data.count[at:])
    return Bins(grid, np.append(first, data.index[at:]), count, data.n - int(count.sum())), 0
