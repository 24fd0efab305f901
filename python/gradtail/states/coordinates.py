"""The live memory of CoordinateMoments: which groups of 8 coordinates are followed, and where they lie.

A parameter is cut into cells of ``cell`` groups of 8 elements; in each cell one group is followed. With
one group a cell every coordinate is. The choice follows from (key, cell id) alone, so that shards and the
whole parameter follow the same coordinates. ``csrc/core/coordinates.hpp`` has the same arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.hashing import CELL_STREAM, hash64

LANES = 8
"""Elements of a group."""

MOST_SCALED = 2.0**30
"""Of x / 2**exponent. A group with a larger value, or one that is not finite, is left out of the step: a few
such fourth powers would overflow float32."""

PIECE = np.dtype(
    [
        (
            "state",
            np.uint64,
        ),  # address of float32 (cells, 4, 8): mean, M2, M3, M4 of x / 2**exponent; 0: none
        ("count", np.uint64),  # address of uint32 (cells,): steps in which the group was finite
        ("cells_per_run", np.int64),
        ("elements", np.int64),  # of the whole parameter
        ("exponent", np.int32),
        ("cell", np.int32),  # groups of a cell, a power of two
    ]
)
"""CoordinateMoments of one view. Run q of the view owns the cells q * cells_per_run, ...; within a run they
follow the cell ids, and the first is that of the run's first element."""


def cells_of(start: int, size: int, run: int, stride: int, cell: int) -> tuple[int, int]:
    """Return (cells_per_run, cells) of the memory that a view needs.

    Parameters
    ----------
    start, size, run, stride : int
        Where the view lies, as in :data:`gradtail.buffers.VIEW`.
    cell : int
        Groups of a cell.
    """
    if size == 0:
        return 0, 0
    runs, width = -(-size // run), LANES * cell
    length = min(run, size)
    if runs == 1 or stride % width == 0:
        per_run = (start % width + length - 1) // width + 1
    else:  # runs begin anywhere within a cell
        per_run = (width - 1 + length - 1) // width + 1
    return per_run, runs * per_run


def chosen_group(key: int, cell_id: Any, cell: int, elements: int) -> npt.NDArray[np.int64]:
    """Return the group (index // 8 in the whole parameter) that is followed in each cell.

    Parameters
    ----------
    key : int
        Of the parameter; see :func:`gradtail.states.hashing.tensor_key`.
    cell_id : array_like of int
        ``index // 8 // cell``.
    cell, elements : int
        Groups of a cell; elements of the whole parameter. In the last, short cell the choice is
        among the groups that exist, so every parameter has at least one.
    """
    ids = np.asarray(cell_id, np.int64)
    groups = -(-elements // LANES)
    there = np.minimum(cell, groups - ids * cell)
    return ids * cell + (hash64(key, CELL_STREAM, ids) % there.astype(np.uint64)).astype(np.int64)


def view_cells(
    start: int, size: int, run: int, stride: int, piece: Any, key: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (row, group) of every state row that has elements of this view.

    Parameters
    ----------
    start, size, run, stride : int
        Where the view lies.
    piece : PIECE
        Its ``cells_per_run``, ``elements`` and ``cell`` are read.
    key : int

    Returns
    -------
    row : ndarray of int64, shape (n,)
        Row of the state.
    group : ndarray of int64, shape (n,)
        The followed group, as index // 8 in the whole parameter; some of its 8 elements may lie outside.
    """
    if size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cell, per_run = int(piece["cell"]), int(piece["cells_per_run"])
    q = np.arange(-(-size // run), dtype=np.int64)
    first = start + q * stride
    last = first + np.minimum(run, size - q * run) - 1
    width = LANES * cell
    ids = (first // width)[:, None] + np.arange(per_run, dtype=np.int64)
    row = (q * per_run)[:, None] + np.arange(per_run, dtype=np.int64)
    inside = ids <= (last // width)[:, None]
    group = np.zeros_like(ids)
    group[inside] = chosen_group(key, ids[inside], cell, int(piece["elements"]))
    inside &= (group * LANES + LANES > first[:, None]) & (group * LANES <= last[:, None])
    return row[inside], group[inside]


def followed(
    start: int, size: int, run: int, stride: int, piece: Any, key: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (row, lane, index) of every followed coordinate of a view; each index appears once.

    Parameters
    ----------
    start, size, run, stride, piece, key
        As for :func:`view_cells`.

    Returns
    -------
    row, lane : ndarray of int64, shape (n,)
        Its moments are ``state[row, :, lane]``, its number of steps is ``count[row]``.
    index : ndarray of int64, shape (n,)
        In the whole parameter.
    """
    row, group = view_cells(start, size, run, stride, piece, key)
    q = row // max(int(piece["cells_per_run"]), 1)
    index = group[:, None] * LANES + np.arange(LANES)
    within = index - (start + q * stride)[:, None]  # two runs may have parts of one group, each with a row
    inside = (within >= 0) & (within < np.minimum(run, size - q * run)[:, None])
    lane = np.broadcast_to(np.arange(LANES, dtype=np.int64), index.shape)
    return np.broadcast_to(row[:, None], index.shape)[inside], lane[inside], index[inside]
