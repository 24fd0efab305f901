"""What is known of the newest step, in three numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Latest:
    """A step that was observed.

    Attributes
    ----------
    step : int
    norm : float
        Euclidean norm of what was observed in it: NaN if any value is NaN, infinite if any is infinite.
    nonfinite : int
        Values that are NaN or infinite.
    """

    step: int
    norm: float
    nonfinite: int
