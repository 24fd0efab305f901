"""Critical distances of the Kolmogorov-Smirnov test, as printed and calibrated."""

from __future__ import annotations

from gradtail.estimators import lilliefors


def critical_value(n: int, level: float = 0.05, *, calibrated: bool = True, rank: bool = False) -> float:
    """Distance that a power law fitted to n continuous values exceeds with probability ``level``.

    Parameters
    ----------
    n : int
        Values from xmin on.
    level : float in (0, 1)
        Of the printed values one of 0.2, 0.15, 0.1, 0.05, 0.01.
    calibrated : bool
        With account of the exponent that was fitted to the same values. False: the value as printed in
        the studies, of which the true size is far smaller than ``level``.
    rank : bool
        Whether xmin is the n-th largest value itself (``top=n``) and not a number given beforehand.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        An argument is out of range.

    Notes
    -----
    Printed: 1.36 / sqrt(n) at 5 %, as in Tang et al. (2025). Their result tables for n = 50 use 0.176,
    which belongs to n = 60; 1.36 / sqrt(50) is 0.192. No printed verdict changes by that.

    Examples
    --------
    >>> round(critical_value(1000, calibrated=False), 4), round(critical_value(50, calibrated=False), 4)
    (0.043, 0.1923)
    >>> round(critical_value(1000, rank=True), 3)
    0.034
    """
    if not calibrated:
        return float(lilliefors.printed(n, level))
    return float(lilliefors.critical("exponential_rank" if rank else "exponential", n, level))
