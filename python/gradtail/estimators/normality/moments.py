"""Tests from skewness and kurtosis: D'Agostino's K2 and that of Jarque and Bera."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from gradtail.estimators.normality.driver import Found, Recipe, run
from gradtail.estimators.normality.sources import IntArray, Rows
from gradtail.states.magnitudes import FloatArray

FEWEST = 8
"""Values that these tests take at least."""

_FEW = 20
_ENOUGH_FOR_CHI2 = 2000


def dagostino(source: object, *, axis: int | None = None) -> Any:
    r"""D'Agostino's K2 test, of skewness and kurtosis against those of a normal law.

    .. math:: K^2 = Z(\sqrt{b_1})^2 + Z(b_2)^2

    with each transformed so as to have the standard normal law under the null.

    Parameters
    ----------
    source : array, Tracks, CoordinateMoments, Summary or Moments
        An array is anything that NumPy reads as real numbers, or a torch tensor on the CPU.
    axis : int, optional
        Of an array, the axis along which the values of one sample lie; one test for each place along
        the others. Default: all values are one sample.

    Returns
    -------
    NormalityTest or NormalityTests
        The latter with ``axis`` (shape of the array without it), of Tracks (a test a coordinate, over
        steps) and of CoordinateMoments, both of shape (m,). Values that are not finite are left out;
        there is no test, and NaN, where fewer than 8 are left or all are equal.

    Raises
    ------
    TypeError
        Another kind of source, or an ``axis`` with a state.
    ValueError
        An axis that is not there; or a single sample with fewer than 8 finite values, of equal ones,
        or of which the power sums of a Summary have lost the kurtosis.

    Notes
    -----
    The transforms are those of D'Agostino (1970), Biometrika 57, 679 (skewness) and of Anscombe and
    Glynn (1983), Biometrika 70, 227 (kurtosis); their sum of squares has the chi-square law with 2
    degrees of freedom (D'Agostino and Pearson 1973, Biometrika 60, 613), nearly so from 20 values on.
    O(values) for arrays, O(1) a sample from moments; arrays are read in pieces of a few
    MiB along ``axis``, a sample of its own in float64 at once.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> print(dagostino(rng.standard_t(3, 1000)))
    not normal (p = 1e-25); D'Agostino's K2 115.1 of 1000 values
    >>> tests = dagostino(rng.normal(size=(1000, 500)), axis=0)
    >>> tests.pvalue.shape, round(tests.rate().gaussian_rate, 2)
    ((500,), 0.94)
    """
    return run(_DAGOSTINO, source, axis)


def jarque_bera(source: object, *, axis: int | None = None) -> Any:
    r"""Jarque and Bera's test, from skewness and kurtosis alone.

    .. math:: JB = \frac n6 \left(g_1^2 + \frac{g_2^2}4\right)

    with g1 the skewness and g2 the excess kurtosis.

    Parameters
    ----------
    source, axis
        As for :func:`dagostino`.

    Returns
    -------
    NormalityTest or NormalityTests
        As for :func:`dagostino`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`dagostino`.

    Notes
    -----
    Jarque and Bera (1980), Economics Letters 6, 255. The chi-square law with 2 degrees of freedom is
    the limit for many values, and slow to come. Measured size of the 5 % test: 2.4 % of 20 values,
    4.4 % of 100, 4.8 % of 1000 (40,000 normal samples each, so to 0.1 %); small p-values are too small, as
    the kurtosis of few values is skewed. :func:`dagostino` keeps 5.5, 5.3 and 5.1 %. O(values) for
    arrays, O(1) a sample from moments.

    Examples
    --------
    >>> import numpy as np
    >>> from gradtail import summarize
    >>> found = jarque_bera(summarize(np.random.default_rng(0).laplace(size=10_000)))
    >>> found.rejected, found.n
    (True, 10000)
    """
    return run(_JARQUE_BERA, source, axis)


def k2(n: IntArray, skewness: FloatArray, kurtosis: FloatArray) -> Found:
    """D'Agostino's statistic and its p-value; ``kurtosis`` in excess of 3, n at least 8."""
    m = n.astype(np.float64)
    with np.errstate(divide="ignore"):
        statistic = skewness_score(m, skewness) ** 2 + kurtosis_score(m, kurtosis) ** 2
    return statistic, special.chdtrc(2, statistic)


def jb(n: IntArray, skewness: FloatArray, kurtosis: FloatArray) -> Found:
    """Jarque and Bera's statistic and its p-value."""
    statistic = n / 6 * (skewness**2 + kurtosis**2 / 4)
    return statistic, special.chdtrc(2, statistic)


def skewness_score(n: FloatArray, skewness: FloatArray) -> FloatArray:
    """Transform the skewness of n normal values to a standard normal variable.

    D'Agostino (1970): with beta2 the kurtosis of the skewness, W**2 = sqrt(2 (beta2 - 1)) - 1,
    delta = 1 / sqrt(log W), alpha = sqrt(2 / (W**2 - 1)), it is delta asinh(Y / alpha), where Y is the
    skewness over its standard error. beta2 - 3 and W**2 - 1 are taken without cancellation.
    """
    y = skewness * np.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    beyond = 36 * (((n - 5) * n - 19) * n + 35) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))  # beta2 - 3
    w = 2 * beyond / (np.sqrt(4 + 2 * beyond) + 2)  # W**2 - 1
    return np.asarray(np.sqrt(2 / np.log1p(w)) * np.arcsinh(y * np.sqrt(w / 2)))


def kurtosis_score(n: FloatArray, kurtosis: FloatArray) -> FloatArray:
    """Transform the excess kurtosis of n normal values to a standard normal variable.

    Anscombe and Glynn (1983): the cube root (Wilson and Hilferty) of a linear function of a
    reciprocal chi-square with A degrees of freedom, matched by the first three moments.
    """
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (kurtosis + 6 / (n + 1)) / np.sqrt(variance)
    skewness = 6 * (n * (n - 5) + 2) / ((n + 7) * (n + 9))
    skewness = skewness * np.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    a = 6 + 8 / skewness * (2 / skewness + np.sqrt(1 + 4 / skewness**2))
    root = np.cbrt((1 - 2 / a) / (1 + x * np.sqrt(2 / (a - 4))))
    return np.asarray((1 - 2 / (9 * a) - root) / np.sqrt(2 / (9 * a)))


def _of_rows(rows: Rows) -> tuple[FloatArray, FloatArray]:
    skewness = rows.mean_power(3) / rows.variance**1.5
    return skewness, rows.mean_power(4) / rows.variance**2 - 3


def _warn_dagostino(n: int) -> list[str]:
    return [f"{n} values are few: the p-value is rough below {_FEW}"] if n < _FEW else []


def _warn_jarque_bera(n: int) -> list[str]:
    if n >= _ENOUGH_FOR_CHI2:
        return []
    return [f"{n} values are few: the chi-square law is approximate below {_ENOUGH_FOR_CHI2}"]


_DAGOSTINO = Recipe(
    "D'Agostino's K2", FEWEST, lambda rows: k2(rows.n, *_of_rows(rows)), _warn_dagostino, moments=k2
)
_JARQUE_BERA = Recipe(
    "Jarque-Bera", FEWEST, lambda rows: jb(rows.n, *_of_rows(rows)), _warn_jarque_bera, moments=jb
)
