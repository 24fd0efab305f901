"""What lies in the memory of a CUDA device, as NumPy dtypes; ``csrc/cuda/layout.hpp`` has the same bytes."""

from __future__ import annotations

import numpy as np

TRACK = np.dtype([("offset", np.int64), ("view", np.int32), ("unused", np.int32)])
"""A coordinate that is followed: where its value lies; view -1: not in this update."""

DEVICE_PIECE = np.dtype(
    [
        ("state", np.uint64),  # address of float32 (cells, 4, 8); 0: none
        ("count", np.uint64),  # address of uint32 (cells,)
        ("exponent", np.uint64),  # address of int32
        ("cells_per_run", np.int64),
        ("elements", np.int64),  # of the whole parameter
        ("first_cell", np.int64),  # filled in by the engine
        ("cell", np.int32),  # groups of a cell, a power of two
        ("unused", np.int32),
    ]
)
"""CoordinateMoments of one view: :data:`gradtail.states.coordinates.PIECE`, its exponent on the device."""

UNSCALED = np.iinfo(np.int32).min
"""Exponent of a piece that has seen no value but zeros."""

CONTROL = np.dtype(
    [
        ("step", np.int64),  # newest
        ("steps", np.int64),  # begun so far
        ("calls", np.int64),
        ("sequence", np.int64),  # updates so far
        ("parity", np.int32),  # of the tables of the newest step
        ("every", np.int32),
        ("queue", np.uint32),
        ("finished", np.uint32),
        ("norm", np.float64),
        ("fresh", np.int32),
        ("unused", np.int32),
    ]
)
"""What changes from update to update."""
