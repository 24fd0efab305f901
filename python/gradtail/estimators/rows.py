"""The arguments of a covariance spectrum, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray


def checked(
    vectors: object, norms: object, steps: object
) -> tuple[npt.NDArray[Any], FloatArray | None, npt.NDArray[np.int64], int]:
    """Return the finite rows, their norms and numbers, and how many rows were not finite."""
    x = _real(vectors, "vectors")
    if x.ndim != 2 or (len(x) and not x.shape[1]):
        raise ValueError(f"vectors: expected shape (steps, m) with m of at least 1, got {x.shape}")
    numbers = np.arange(len(x)) if steps is None else np.asarray(steps)
    if numbers.dtype.kind not in "iu" and numbers.size:
        raise TypeError(f"steps: expected an array of ints, got dtype {numbers.dtype}")
    if numbers.shape != x.shape[:1]:
        raise ValueError(f"steps: expected shape {x.shape[:1]}, got {numbers.shape}")
    finite = np.isfinite(x).all(axis=1)
    exact: FloatArray | None = None
    if norms is not None:
        exact = _real(norms, "norms").astype(np.float64)
        if exact.shape != x.shape[:1]:
            raise ValueError(f"norms: expected shape {x.shape[:1]}, got {exact.shape}")
        if np.any(exact < 0):
            raise ValueError(f"norms: expected numbers of at least 0, got {exact[exact < 0][0]}")
        finite &= np.isfinite(exact)
        exact = exact[finite]
    left_out = int(finite.size - np.count_nonzero(finite))
    if finite.size - left_out < 2:
        others = f", and {left_out} with NaN or infinite values" if left_out else ""
        raise ValueError(
            f"vectors: expected at least 2 steps with finite values, got {finite.size - left_out}{others}"
        )
    return (x if left_out == 0 else x[finite]), exact, numbers[finite].astype(np.int64), left_out


def _real(values: object, name: str) -> npt.NDArray[Any]:
    try:
        x = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers, got {values!r:.60}") from error
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {x.dtype}")
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def check_top(top: object, rank: int, what: str = "the rank of these steps") -> int:
    """Return how many eigenvalues are wanted."""
    if top is None:
        return rank
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)):
        raise TypeError(f"top: expected an int from 1 to {rank}, got {top!r}")
    if not 1 <= top <= rank:
        raise ValueError(f"top: expected an int from 1 to {rank}, {what}, got {top}")
    return int(top)


def check_dimension(dimension: object, columns: int | None) -> float:
    """Return how many directions there can be."""
    most = math.inf if columns is None else float(columns)
    if dimension is None:
        return most
    if isinstance(dimension, bool) or not isinstance(dimension, (int, np.integer)):
        raise TypeError(f"dimension: expected a positive int, got {dimension!r}")
    if dimension < 1:
        raise ValueError(f"dimension: expected a positive int, got {dimension}")
    return min(most, float(dimension))
