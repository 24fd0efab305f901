"""The exponent that makes counts of bins likeliest, for many tails at once.

The log likelihood is -alpha * places + sum over bins of count * log(1 - exp(-alpha w)), where w is the log
width of a bin and places the sum of log(low / xmin) over the values. It is concave. From Hill's estimate
with every value in the middle of its bin, Newton's method climbs to the maximum without overshooting:
w / (exp(alpha w) - 1) >= 1 / alpha - w / 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray

_ITERATIONS = 60
_CLOSE = 1e-13

# w / (exp(alpha w) - 1) = sum over n of B_n / n! alpha**(n - 1) w**n, Bernoulli's numbers (Abramowitz and
# Stegun 23.1.1), to 1e-12 of its second term and on where alpha w <= 1
_ORDERS = np.array([0, 1, 2, 4, 6, 8, 10, 12])
_BERNOULLI = np.array(
    [1, -1 / 2, 1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000]
)
_FAR = 1.0


def powers(width: FloatArray) -> FloatArray:
    """Powers of log widths for :func:`by_powers`, shape (m, 8); none of a bin without upper end or width."""
    counts = np.isfinite(width) & (width > 0)
    w = np.where(counts, width, 0.0)[:, None]
    return np.where(counts[:, None], w**_ORDERS, 0.0)


def by_powers(
    places: FloatArray, sums: FloatArray, widest: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Maximise by the sums of :func:`powers` over the values of each tail: cheap, for bins that are narrow.

    Parameters
    ----------
    places : shape (s,)
    sums : shape (s, 8)
    widest : shape (s,)
        Largest finite log width in each tail.

    Returns
    -------
    alpha : shape (s,)
    sure : ndarray of bool, shape (s,)
        Whether alpha times the widest bin stayed small enough for the series.
    """
    terms = sums * _BERNOULLI
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        alpha: FloatArray = sums[:, 0] / (places + 0.5 * sums[:, 1])
        for _ in range(_ITERATIONS):
            series = terms * alpha[:, None] ** (_ORDERS - 1.0)
            slope = series.sum(axis=1) - places
            curvature = -(series @ (_ORDERS - 1.0)) / alpha
            step = slope / curvature
            step[~np.isfinite(step)] = 0.0
            alpha = np.minimum(alpha + step, 2 * alpha)
            if not np.any((np.abs(step) > _CLOSE * alpha) & (alpha * widest <= 2 * _FAR)):
                break
        return alpha, alpha * widest <= _FAR


def by_widths(places: FloatArray, by_width: FloatArray, widths: FloatArray) -> FloatArray:
    """Maximise by how many values of each tail lie in bins of each width.

    Parameters
    ----------
    places : shape (s,)
    by_width : shape (s, r)
    widths : shape (r,)
        May hold infinity, of a bin without upper end, and 0, of bins that hold no value.
    """
    finite = np.isfinite(widths) & (widths > 0)
    w, m = widths[finite], by_width[:, finite]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        alpha: FloatArray = m.sum(axis=1) / (places + 0.5 * (m @ w))
        for _ in range(_ITERATIONS):
            grown = np.expm1(alpha[:, None] * w)
            part = m * w / grown
            slope = part.sum(axis=1) - places
            step = slope / (part * w * (1 + 1 / grown)).sum(axis=1)
            step[~np.isfinite(step)] = 0.0  # all values in the first bin: alpha has no upper limit
            alpha = alpha + step
            if not np.any(np.abs(step) > _CLOSE * alpha):
                break
    return alpha
