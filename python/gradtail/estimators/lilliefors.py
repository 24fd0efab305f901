"""Null laws of Kolmogorov-Smirnov distances whose parameters were fitted to the same sample."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.lilliefors_table import FIRST_OF_SURFACE, LEVELS, SMALL, SURFACES
from gradtail.estimators.order import IntArray
from gradtail.states.magnitudes import FloatArray

Law: TypeAlias = Literal["exponential", "exponential_rank", "normal"]

PRINTED = {0.2: 1.07, 0.15: 1.14, 0.1: 1.22, 0.05: 1.36, 0.01: 1.63}
"""sqrt(n) times the distance at a level, for a law that is known and not fitted (Kolmogorov)."""

_FEWEST = {law: min(SMALL[law]) for law in get_args(Law)}
_SCALE: FloatArray = -special.ndtri(np.array(LEVELS))  # on it a distance is nearly a straight line
_TABLES = {law: np.array(list(SMALL[law].values())) for law in get_args(Law)}
_COEFFICIENTS = {law: np.array(SURFACES[law]) for law in get_args(Law)}


@overload
def critical(law: Law, n: float, level: float) -> float: ...
@overload
def critical(law: Law, n: float, level: npt.NDArray[Any]) -> FloatArray: ...
@overload
def critical(law: Law, n: npt.NDArray[Any], level: npt.ArrayLike) -> FloatArray: ...


def critical(law: Law, n: npt.ArrayLike, level: npt.ArrayLike) -> float | FloatArray:
    r"""Return the distance that is exceeded with a given probability, parameters being fitted.

    Parameters
    ----------
    law : {"exponential", "exponential_rank", "normal"}
        Of the n values and of the distance; none depends on the true parameters.

        "exponential": y = log(x / xmin) of n values above a given xmin has an exponential law with
        rate n / sum(y): a power law. The distance is Clauset's, the largest \|i/n - F(y_i)\|,
        i = 0..n-1, y ascending.

        "exponential_rank": the same, but the n values are the n largest and the smallest of them is
        xmin: y_0 = 0 and n - 1 others.

        "normal": mean and standard deviation (with n - 1) are fitted, the distance is the ordinary
        one, from both sides of each step.
    n : whole number, or array of them
        From 2, 3 and 3 on, without an upper limit.
    level : float in (0, 1), or array of them
        Broadcast against ``n``.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    ValueError
        An unknown law, n too small or not whole, or a level not between 0 and 1.

    Notes
    -----
    Lilliefors (1967), J. Am. Stat. Assoc. 62, 399, for the normal law and (1969) 64, 387, for the
    exponential one, whose distance is there the ordinary two-sided one; Clauset, Shalizi and Newman
    (2009), SIAM Rev. 51, 661, section 3.3.

    The numbers are quantiles of up to 8 million simulated distances: each n below 10 by itself, beyond
    it by a polynomial in 1 / sqrt(n) at each level (MacKinnon 1994, J. Bus. Econ. Stat. 12, 167) fitted
    to 18 n from 10 to 20,000; between levels distances are linear in the normal quantile of the level.
    Below a level of 1e-4 that line goes on, log p being nearly quadratic in the distance.

    Percent rejected in other simulations, lowest and highest of the three laws, and standard errors:

    ====================  =====================  =======================  =========================
    n                     5 % test               1 % test                 0.01 % test
    ====================  =====================  =======================  =========================
    5, 6, 7, 9            4.98 to 5.01 +- 0.01   0.990 to 1.010 +- 0.004  0.0089 to 0.0106 +- 0.0004
    10, 13, 18, 38        4.99 to 5.01 +- 0.01   0.995 to 1.003 +- 0.004  0.0093 to 0.0107 +- 0.0004
    150, 450              4.99 to 5.02 +- 0.02   1.003 to 1.012 +- 0.01   0.0086 to 0.0111 +- 0.001
    1500, 10,000          4.92 to 5.02 +- 0.04   0.992 to 1.009 +- 0.02   0.0079 to 0.0107 +- 0.002
    100,000               5.00 to 5.11 +- 0.13   0.99 to 1.03 +- 0.06     0.007 to 0.017 +- 0.006
    ====================  =====================  =======================  =========================

    As n grows without limit, the size of the 5 % test has a standard error of 0.02 from the fit itself.
    From n = 9 on a p-value of 1e-5 came 0.6 to 1.7e-5 of the time (+- 0.1 to 0.4e-5, growing with n).
    At smaller n it came less often: the largest possible distance is near, and p-values beyond the table
    are too large.

    Examples
    --------
    >>> round(critical("exponential_rank", 1000, 0.05), 4)
    0.0339
    """
    size, wanted = _whole(law, n), np.asarray(level, np.float64)
    bad = ~((wanted > 0) & (wanted < 1))
    if bad.any():
        raise ValueError(f"level: expected probabilities between 0 and 1, got {wanted[bad].flat[0]:g}")
    size, wanted = np.broadcast_arrays(size, wanted)
    scale = -special.ndtri(wanted)
    i = np.clip(np.searchsorted(_SCALE, scale, "right") - 1, 0, _SCALE.size - 2)
    rows, row = _quantiles(law, size)
    low, high = rows[row, i], rows[row, i + 1]
    at = low + (scale - _SCALE[i]) * (high - low) / (_SCALE[i + 1] - _SCALE[i])
    return _as_given(np.clip(at / np.sqrt(size), 0.0, 1.0))


@overload
def pvalue(law: Law, n: float, distance: float) -> float: ...
@overload
def pvalue(law: Law, n: float, distance: npt.NDArray[Any]) -> FloatArray: ...
@overload
def pvalue(law: Law, n: npt.NDArray[Any], distance: npt.ArrayLike) -> FloatArray: ...


def pvalue(law: Law, n: npt.ArrayLike, distance: npt.ArrayLike) -> float | FloatArray:
    """Return the probability of a larger distance, parameters being fitted.

    Parameters
    ----------
    law, n
        As for :func:`critical`.
    distance : float, or array of them
        Broadcast against ``n``; NaN has a p-value of NaN.

    Returns
    -------
    float, or ndarray of float64

    Raises
    ------
    ValueError
        An unknown law, or n too small or not whole.

    Notes
    -----
    The inverse of :func:`critical`, which says how good it is. O(m log levels) for m distances.

    Examples
    --------
    >>> round(pvalue("normal", 20, 0.192), 3)
    0.05
    """
    size, found = np.broadcast_arrays(_whole(law, n), np.asarray(distance, np.float64))
    at = found * np.sqrt(size)
    rows, row = _quantiles(law, size)
    i, beyond = np.zeros(at.shape, np.int64), np.full(at.shape, _SCALE.size - 1)
    for _ in range(_SCALE.size.bit_length()):  # rows differ, so that no searchsorted serves
        middle = np.maximum((i + beyond) // 2, i)
        above = rows[row, middle] <= at
        i, beyond = np.where(above, middle, i), np.where(above, beyond, middle)
    low, high = rows[row, i], rows[row, i + 1]
    scale = _SCALE[i] + (at - low) * (_SCALE[i + 1] - _SCALE[i]) / (high - low)
    return _as_given(np.where(at <= 0, 1.0, special.ndtr(-scale)))


@overload
def printed(n: float, level: float) -> float: ...
@overload
def printed(n: npt.NDArray[Any], level: float) -> FloatArray: ...


def printed(n: npt.ArrayLike, level: float) -> float | FloatArray:
    """Return the critical distance printed for large samples, which takes no account of the fit.

    Parameters
    ----------
    n : whole number, or array of them
    level : {0.2, 0.15, 0.1, 0.05, 0.01}

    Returns
    -------
    float, or ndarray of float64
        1.07, 1.14, 1.22, 1.36 or 1.63 over sqrt(n).

    Raises
    ------
    ValueError
        Another level, or n not whole or below 1.

    Notes
    -----
    Kolmogorov's values for a law known beforehand. Of the n = 1000 largest values of a power law whose
    exponent is fitted, the one for 5 % rejects 0.47 %, the one for 1 % 0.03 %, and the one for 20 %
    5.2 % (400,000 repeats, standard errors 0.01, 0.003 and 0.04).

    Examples
    --------
    >>> round(printed(1000, 0.05), 4), round(pvalue("exponential_rank", 1000, printed(1000, 0.05)), 4)
    (0.043, 0.0046)
    """
    if level not in PRINTED:
        raise ValueError(f"level: expected one of {', '.join(map(str, PRINTED))}, got {level!r}")
    return _as_given(np.asarray(PRINTED[level] / np.sqrt(_whole_from(n, 1))))


def _whole(law: Law, n: npt.ArrayLike) -> FloatArray:
    """Refuse an unknown law and an n that it does not have."""
    if law not in _FEWEST:
        raise ValueError(f"law: expected {', '.join(map(repr, _FEWEST))}, got {law!r}")
    return _whole_from(n, _FEWEST[law])


def _whole_from(n: npt.ArrayLike, fewest: int) -> FloatArray:
    size = np.asarray(n, np.float64)
    bad = ~(np.isfinite(size) & (size >= fewest) & (size == np.floor(size)))
    if bad.any():
        raise ValueError(f"n: expected whole numbers of at least {fewest}, got {size[bad].flat[0]:g}")
    return size


def _quantiles(law: Law, size: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return sqrt(n) times the distance at every level, a row for each distinct n, and each one's row."""
    distinct, row = np.unique(size, return_inverse=True)
    powers = distinct[:, None] ** (-0.5 * np.arange(len(_COEFFICIENTS[law])))
    rows: FloatArray = powers @ _COEFFICIENTS[law]
    small = distinct < FIRST_OF_SURFACE
    rows[small] = _TABLES[law][distinct[small].astype(np.int64) - _FEWEST[law]]
    return rows, row.reshape(size.shape)


def _as_given(values: FloatArray) -> float | FloatArray:
    """Return a float for numbers, an array for arrays."""
    return values if values.ndim else float(values)
