"""The sketches of the newest steps: a map from step to vectors, of which the newest W stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.slots import Slots, joined_steps

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

_STEPS_AT_ONCE = 64  # of a ring that are widened, so that its copy is all that it takes


@dataclass(frozen=True, repr=False)
class Ring:
    """Sketches of one set of values over the newest steps.

    Attributes
    ----------
    steps : ndarray of int64, shape (W,)
        Rising; steps with non-finite values, or without any, are left out.
    vectors : ndarray of float64, shape (W, r)
        The sketch of each step.
    norms : ndarray of float64, shape (W,)
        Exact Euclidean norm of what was sketched.
    nonfinite : int
        Steps left out because of a non-finite value.
    """

    steps: npt.NDArray[np.int64]
    vectors: FloatArray
    norms: FloatArray
    nonfinite: int

    def __repr__(self) -> str:
        return f"Ring({len(self.steps)} steps, {self.vectors.shape[1]} buckets)"


class SketchRing:
    """Sketches of ``rows`` sets of values over the newest ``window`` steps.

    Vectors are kept in float32, divided by a power of two of their own, so that neither 1e-300 nor 1e+300
    leaves its range.

    Parameters
    ----------
    window : int
        Steps kept.
    rows, buckets : int
    """

    def __init__(self, window: int, rows: int, buckets: int) -> None:
        self._slots = Slots(window)
        self._vectors = np.zeros((window, rows, buckets), np.float32)
        self._exponents = np.zeros((window, rows), np.int32)
        self._norms = np.full((window, rows), np.nan)  # inf: not finite; NaN: not observed

    @property
    def window(self) -> int:
        """Steps kept."""
        return self._slots.window

    @property
    def rows(self) -> int:
        """Sets of values."""
        return int(self._vectors.shape[1])

    @property
    def buckets(self) -> int:
        """Length of a sketch."""
        return int(self._vectors.shape[2])

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return self._vectors.nbytes + self._exponents.nbytes + self._norms.nbytes + self._slots.nbytes

    def __len__(self) -> int:
        return len(self._slots)

    def grow(self, rows: int) -> None:
        """Add sets of values that no step has had so far."""
        more = rows - self.rows
        if more <= 0:
            return
        pad = ((0, 0), (0, more))
        self._vectors = np.pad(self._vectors, (*pad, (0, 0)))
        self._exponents = np.pad(self._exponents, pad)
        self._norms = np.pad(self._norms, pad, constant_values=np.nan)

    def store(self, step: int, vectors: FloatArray, norms: FloatArray) -> None:
        """Keep the sketches of a step, in place of the oldest one; the newest step again is kept anew.

        Parameters
        ----------
        vectors : ndarray of float64, shape (rows, buckets)
        norms : ndarray of float64, shape (rows,)
            inf where any value is not finite, NaN where there is none.
        """
        if not self.window:
            return
        slot, _ = self._slots.take(step)
        largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
        exponents = np.frexp(largest)[1]
        self._vectors[slot] = np.ldexp(vectors, -exponents[:, None])
        self._exponents[slot] = exponents
        self._norms[slot] = norms

    def store_scaled(
        self,
        step: int,
        vectors: npt.NDArray[np.float32],
        exponents: npt.NDArray[np.int32],
        norms: FloatArray,
    ) -> None:
        """Keep sketches of a step that are divided by powers of two already; see :meth:`store`."""
        if self.window:
            slot, _ = self._slots.take(step)
            self._vectors[slot], self._exponents[slot], self._norms[slot] = vectors, exponents, norms

    def ring(self, rows: IndexArray | list[int]) -> Ring:
        """Return the sketches of some sets together, over the steps where any was observed."""
        slots = self._slots.order()
        norms = self._norms[slots][:, rows]
        finite = ~np.isinf(norms).any(axis=1)
        observed = ~np.isnan(norms).all(axis=1)
        slots, norms = slots[finite & observed], norms[finite & observed]
        vectors = np.zeros((len(slots), self.buckets))
        for start in range(0, len(slots), _STEPS_AT_ONCE):
            some = slots[start : start + _STEPS_AT_ONCE]
            for row in rows:
                part = self._vectors[some, row].astype(np.float64)
                vectors[start : start + len(some)] += np.ldexp(part, self._exponents[some, row, None])
        return Ring(self._slots.steps(slots), vectors, _root_of_squares(norms), int(np.sum(~finite)))

    def merge(self, other: SketchRing, mine: IndexArray, theirs: IndexArray, rows: int) -> SketchRing:
        """Unite two rings; sketches of equal steps add, and the newest steps stay.

        Parameters
        ----------
        other : SketchRing
            Of as many buckets.
        mine, theirs : ndarray of int
            Where each row of either ring goes among the ``rows`` of the result.
        """
        new = SketchRing(min(self.window, other.window), rows, self.buckets)
        a, b = self._slots.by_step(), other._slots.by_step()
        for step in joined_steps(self._slots, other._slots, new.window):
            vectors = np.zeros((rows, self.buckets))
            norms = np.full(rows, np.nan)
            for ring, slots, index in ((self, a, mine), (other, b, theirs)):
                if step not in slots:
                    continue
                slot = slots[step]
                vectors[index] += np.ldexp(
                    ring._vectors[slot].astype(np.float64), ring._exponents[slot][:, None]
                )
                old, own = norms[index], ring._norms[slot]
                norms[index] = np.where(np.isnan(old), own, np.where(np.isnan(own), old, np.hypot(old, own)))
            new.store(step, vectors, norms)
        return new

    def cut(self, last: int) -> None:
        """Forget the steps after ``last``."""
        self._slots.cut(last)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays, oldest step first."""
        slots = self._slots.order()
        return {
            "window": self.window,
            "steps": self._slots.steps(slots),
            "vectors": self._vectors[slots],
            "exponents": self._exponents[slots],
            "norms": self._norms[slots],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> SketchRing:
        """Rebuild a ring."""
        vectors = np.asarray(state["vectors"], np.float32)
        steps = np.asarray(state["steps"], np.int64)
        exponents, norms = np.asarray(state["exponents"], np.int32), np.asarray(state["norms"], np.float64)
        window = int(state["window"])
        if vectors.ndim != 3 or len(steps) > window or np.any(np.diff(steps) <= 0):
            raise ValueError(
                f"state: expected at most {window} rising steps of sketches, got {vectors.shape}"
            )
        if not vectors.shape[:2] == exponents.shape == norms.shape or len(steps) != len(vectors):
            raise ValueError(
                f"state: expected exponents and norms of shape {vectors.shape[:2]}, "
                f"got {exponents.shape} and {norms.shape}"
            )
        new = cls(window, vectors.shape[1], vectors.shape[2])
        n = len(steps)
        new._slots = Slots.of(window, steps)
        new._vectors[:n], new._exponents[:n], new._norms[:n] = vectors, exponents, norms
        return new


def _root_of_squares(norms: FloatArray) -> FloatArray:
    """Joint norm of the observed sets of each step, without overflow on the way."""
    norms = np.nan_to_num(norms, nan=0.0)
    largest = norms.max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(np.sqrt(np.sum((norms / scale[:, None]) ** 2, axis=1)) * scale)
