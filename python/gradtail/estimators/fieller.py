"""Confidence sets of a ratio of two means, neither of which is negative."""

from __future__ import annotations

import math


def fieller(
    top: float, bottom: float, top_variance: float, covariance: float, bottom_variance: float, t: float
) -> tuple[float, float]:
    """Return the ends of Fieller's set for top / bottom within [0, inf].

    Parameters
    ----------
    top, bottom : float
        Two estimates.
    top_variance, covariance, bottom_variance : float
        Of both.
    t : float
        Quantile of Student's law, or of the normal.

    Returns
    -------
    low, high : float
        high is inf where the bottom may be 0. Of a set in two parts that leaves out a middle, 0 and inf.

    Notes
    -----
    Fieller (1954), J. Roy. Statist. Soc. B 16, 175: all x with
    (top - x bottom)**2 <= t**2 (V_tt - 2 x V_tb + x**2 V_bb).
    """
    unit_top = max(abs(top), math.sqrt(top_variance))
    unit_bottom = max(abs(bottom), math.sqrt(bottom_variance))
    if unit_top == 0 or unit_bottom == 0:
        return (0.0, 0.0) if unit_bottom > 0 else (0.0, math.inf)
    scale = unit_top / unit_bottom
    n, d = top / unit_top, bottom / unit_bottom
    a = d * d - t * t * bottom_variance / unit_bottom / unit_bottom
    b = n * d - t * t * covariance / unit_top / unit_bottom
    c = n * n - t * t * top_variance / unit_top / unit_top
    disc = b * b - a * c
    if disc < 0 or (a == 0 and b == 0):
        return 0.0, math.inf
    # both roots of a x**2 - 2 b x + c without loss of digits; one may be infinite
    q = b + math.copysign(math.sqrt(disc), b)
    ends = (c / q, q / a if a != 0 else math.copysign(math.inf, q)) if q != 0 else (0.0, 0.0)
    first, second = sorted(ends)
    if a > 0:
        return scale * max(first, 0.0), scale * max(second, 0.0)
    if a == 0:
        finite = first if math.isfinite(first) else second
        return (scale * max(finite, 0.0), math.inf) if b > 0 else (0.0, scale * max(finite, 0.0))
    return (0.0, math.inf) if first >= 0 else (scale * max(second, 0.0), math.inf)
