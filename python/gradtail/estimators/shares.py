"""How sure a share is, of which the hits were counted."""

from __future__ import annotations

from scipy import special


def clopper_pearson(hits: int, tested: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share (1934, Biometrika 26, 404), for independent trials.

    Parameters
    ----------
    hits, tested : int
    level : float in (0, 1)

    Returns
    -------
    low, high : float
        (0, 1) without trials.

    Raises
    ------
    ValueError
        ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    tail = (1 - level) / 2
    low = float(special.betaincinv(hits, tested - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, tested - hits, 1 - tail)) if hits < tested else 1.0
    return low, high
