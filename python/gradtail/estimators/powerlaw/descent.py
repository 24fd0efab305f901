"""Newton's method for two parameters of which the second may run into an edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gradtail.states.magnitudes import FloatArray

Value: TypeAlias = tuple[float, FloatArray, FloatArray, float]
"""A function's value, gradient (2,), second derivatives (2, 2), and the size of the terms it is a sum of."""

Function: TypeAlias = Callable[[FloatArray], Value]

_SMALL = 2e-15  # of the terms: what half the square of a Newton step may leave to gain
_GOOD_ENOUGH = 1e-6  # of the value: where it tends to a limit as the parameters grow without end
_MOST_STEPS = 100
_SHRINK = 0.1  # the second parameter stays above this share of itself in one step

_TO_THE_EDGE = 1e-8  # below this share of its start the second parameter is on its way to the edge


@dataclass(frozen=True)
class Least:
    """Where a function is least.

    Attributes
    ----------
    at : ndarray of float64, shape (2,)
    edge : bool
        The second parameter is as small as it may be, or was left on its way there.
    converged : bool
    """

    at: FloatArray
    edge: bool
    converged: bool


def least(function: Function, first: float, edge: float, start: FloatArray | None = None) -> Least:
    """Minimise from a good guess of the first parameter at the edge of the second.

    Along the edge first; if the function rises from there the least is at the edge. Otherwise damped Newton
    steps, with the second derivatives made positive where they are not, whatever their scale.

    Parameters
    ----------
    function : callable
    first : float
        Guess of the first parameter.
    edge : float
        The least value of the second; above it if the function does not exist there.
    start : ndarray of float64, shape (2,), optional
        Where to begin, seen from the least along the edge, once it is known to leave that; there if None.

    Returns
    -------
    Least
    """
    along = descend(_held(function), np.array([first, edge]))
    if not function(along.at)[1][1] < 0:
        return Least(along.at, True, along.converged)
    found = descend(function, along.at if start is None else along.at + start, edge)
    return Least(along.at, True, along.converged) if found.edge or found.at[1] <= edge else found


def _held(function: Function) -> Function:
    """Hold the second parameter where it is."""

    def one(at: FloatArray) -> Value:
        value, gradient, second, size = function(at)
        return value, np.array([gradient[0], 0.0]), np.diag([second[0, 0], 1.0]), size

    return one


def least_of_first(function: Function, first: float, second: float) -> Least:
    """Minimise over the first parameter alone."""
    return descend(_held(function), np.array([first, second]))


def descend(function: Function, at: FloatArray, edge: float = 0.0) -> Least:
    """Take damped Newton steps until they gain nothing, or until the edge; see :func:`least`."""
    value, gradient, second, size = function(at)
    if not _finite(value, gradient, second):
        return Least(at, False, False)
    lowest = edge + _TO_THE_EDGE * (at[1] - edge)
    for _ in range(_MOST_STEPS):
        step = _direction(gradient, second)
        gain = -float(gradient @ step)
        if not gain / 2 > _SMALL * max(1.0, size):
            return Least(at, False, gain >= 0)
        if at[1] < lowest:
            return Least(at, True, False)
        room = (_SHRINK - 1) * (at[1] - edge)
        share = min(1.0, room / step[1]) if step[1] < room else 1.0
        for _ in range(40):
            trial = at + share * step
            new = function(trial)
            if new[0] <= value - 1e-4 * share * gain and _finite(*new[:3]):
                break
            share /= 2
        else:
            break
        at, (value, gradient, second, size) = trial, new
    return Least(at, False, gain < _GOOD_ENOUGH)


def _finite(value: float, gradient: FloatArray, second: FloatArray) -> bool:
    return bool(np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(second).all())


def _direction(gradient: FloatArray, second: FloatArray) -> FloatArray:
    """Newton's step, in scaled parameters; downhill even where the function is not convex."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(second)), 1e-300))
    root, axes = np.linalg.eigh(second / np.outer(scale, scale))
    root = np.maximum(np.abs(root), 1e-14)
    return np.asarray(-(axes @ ((axes.T @ (gradient / scale)) / root)) / scale)
