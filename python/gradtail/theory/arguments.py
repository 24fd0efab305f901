"""Arguments of closed forms and simulators, checked: numbers, counts, and where randomness comes from."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from gradtail.states.magnitudes import FloatArray


def number(
    value: object, name: str, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> float:
    """Return a finite float within bounds.

    Raises
    ------
    TypeError, ValueError
        No real number, or one out of bounds; the message names ``name`` and what was expected.
    """
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"of at least {least:g}"] * (least > -math.inf)
    bounds += [f"of at most {most:g}"] * (most < math.inf)
    expected = f"{name}: expected a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    found = float(value)
    if not (math.isfinite(found) and found > above and least <= found <= most):
        raise ValueError(f"{expected}, got {found:.12g}")
    return found


def whole(value: object, name: str, *, least: int = 1) -> int:
    """Return an int of at least ``least``."""
    expected = f"{name}: expected an int of at least {least}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{expected}, got {type(value).__name__}") from None
    if found < least:
        raise ValueError(f"{expected}, got {found}")
    return found


def stable_alpha(value: object) -> float:
    """Return the index of a stable law."""
    return number(value, "alpha", above=0.0, most=2.0)


def generator(seed: object) -> np.random.Generator:
    """Return a generator: the one given, or a new one from a seed."""
    if seed is None or isinstance(seed, np.random.Generator):
        return np.random.default_rng(seed)
    return np.random.default_rng(whole(seed, "seed", least=0))


def level_of(level: float) -> float:
    """Return the level of an interval."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    return float(level)


def real_array(values: Any, name: str, dimensions: int) -> FloatArray:
    """Return a finite array of float64 with so many dimensions, and at least one element."""
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers, got {values!r:.60}") from error
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {x.dtype}")
    if x.ndim != dimensions or not x.size:
        raise ValueError(f"{name}: expected {dimensions} dimensions and some values, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return x.astype(np.float64)
