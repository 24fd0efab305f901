"""CoordinateMoments whose live memory lies on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradtail.backends.device import DEVICE_PIECE, UNSCALED
from gradtail.states.coordinate_moments import CoordinateMoments, LivePiece
from gradtail.states.coordinates import LANES, cells_of
from gradtail.states.places import Place

_ALIGNED = 256


class DevicePiece(LivePiece):
    """The memory that the pass updates for one block of a parameter.

    Parameters
    ----------
    place : Place
    key : int
    cell : int
    allocate : callable
        Makes zeroed memory of so many bytes on the device: ``address``, ``read(array)``, ``write(array)``.
    """

    def __init__(self, place: Place, key: int, cell: int, allocate: Callable[[int], Any]) -> None:
        self._spans = [span for span in place.spans() if span.size]
        self._key = key
        self._cells = [cells_of(s.start, s.size, s.run, s.stride, cell) for s in self._spans]
        self.pieces = np.zeros(len(place.spans()), DEVICE_PIECE)
        self.scaled = np.ones(len(self.pieces), bool)  # the device sees to it
        self._exponents = allocate(4 * max(len(self._spans), 1))
        self._exponents.write(np.full(max(len(self._spans), 1), UNSCALED, np.int32))
        self._counts = allocate(max(sum(_padded(4 * cells) for _, cells in self._cells), _ALIGNED))
        self._states = allocate(max(sum(_padded(16 * LANES * cells) for _, cells in self._cells), _ALIGNED))
        state, count, exponent = self._states.address, self._counts.address, self._exponents.address
        for i, (per_run, cells) in enumerate(self._cells):
            self.pieces[i] = (state, count, exponent + 4 * i, per_run, place.elements, 0, cell, 0)
            state, count = state + _padded(16 * LANES * cells), count + _padded(4 * cells)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return int(self._states.nbytes + self._counts.nbytes + self._exponents.nbytes)

    def rescale(self, exponents: Any, nonzero: Any) -> None:
        """Nothing to do: the kernels take their own scales."""

    def moments(self) -> CoordinateMoments:
        """Return what has been gathered; waits for the device."""
        exponents = np.zeros(max(len(self._spans), 1), np.int32)
        self._exponents.read(exponents)
        exponents[exponents == UNSCALED] = 0
        states, counts = np.zeros(self._states.nbytes, np.uint8), np.zeros(self._counts.nbytes, np.uint8)
        self._states.read(states)
        self._counts.read(counts)
        memory, state, count = [], 0, 0
        for _, cells in self._cells:
            own = states[state : state + 16 * LANES * cells].view(np.float32).reshape(cells, 4, LANES)
            memory.append((own, counts[count : count + 4 * cells].view(np.uint32)))
            state, count = state + _padded(16 * LANES * cells), count + _padded(4 * cells)
        return self._gathered(memory, exponents.tolist())


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
