"""Which coordinates of a parameter are followed step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.states.hashing import TRACK_STREAM, UIntArray, hash64

SORTED_UP_TO = 1 << 16
"""Parameters up to this size are permuted by sorting hashes; larger ones by a Feistel network."""

_ROUNDS = 6


@dataclass(frozen=True)
class TrackList:
    """Values to pick out of views during a pass.

    Attributes
    ----------
    first : ndarray of int64, shape (n_views + 1,)
        Those of view v are ``first[v], ..., first[v + 1] - 1``.
    offset : ndarray of int64, shape (m,)
        Element offset within the view's memory, ascending within each view.
    value : ndarray of float32, shape (m,)
        Overwritten by the pass; non-finite values as they are, float64 rounded.
    """

    first: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]

    @classmethod
    def of(cls, offsets: Sequence[npt.NDArray[np.int64]]) -> TrackList:
        """Make the list for one array of ascending offsets a view."""
        first = np.zeros(len(offsets) + 1, np.int64)
        np.cumsum([len(part) for part in offsets], out=first[1:])
        joined = np.concatenate(offsets).astype(np.int64) if len(offsets) else np.zeros(0, np.int64)
        return cls(first, joined, np.zeros(len(joined), np.float32))


def tracked_indices(key: int, size: int, m: int) -> npt.NDArray[np.int64]:
    """Choose coordinates of a parameter, without repetition and nested in ``m``.

    They are the first m values of a hashed permutation of 0, ..., size - 1, so a smaller m picks a subset.

    Parameters
    ----------
    key : int
        Of the parameter; see :func:`gradtail.states.hashing.tensor_key`.
    size : int
        Its number of elements.
    m : int
        How many are wanted.

    Returns
    -------
    ndarray of int64, shape (min(m, size),)
        Ascending.

    Notes
    -----
    O(size log size) up to 65536 elements, O(m log m) above.
    """
    m = min(m, size)
    if size <= SORTED_UP_TO:
        order = np.argsort(hash64(key, TRACK_STREAM, np.arange(size, dtype=np.uint64)), kind="stable")
        chosen = order[:m].astype(np.int64)
    else:
        chosen = _permuted(key, size, m)
    chosen.sort()
    return chosen


def local_offsets(
    index: npt.NDArray[np.int64], start: int, run: int, stride: int, size: int
) -> npt.NDArray[np.int64]:
    """Return the offsets within a view of those indices that lie in it, ascending.

    Parameters
    ----------
    index : ndarray of int64
        Indices in the whole parameter, ascending.
    start, run, stride, size : int
        Where the view lies, as in :data:`gradtail.buffers.VIEW`.
    """
    if size == 0:
        return np.zeros(0, np.int64)
    beyond = index - start
    beyond = beyond[beyond >= 0]
    if size <= run:
        return beyond[beyond < size]
    q, within = beyond // stride, beyond % stride
    offset = q * run + within
    return offset[(within < run) & (offset < size)]


def _permuted(key: int, size: int, m: int) -> npt.NDArray[np.int64]:
    """First m values of a permutation of 0, ..., size - 1.

    A balanced Feistel network permutes the next power of four; what falls outside is sent through
    again until it is inside (cycle walking, Black and Rogaway 2002), fewer than four times on average.
    """
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    x = _feistel(key, np.arange(m, dtype=np.uint64), half)
    outside = np.flatnonzero(x >= size)
    while len(outside):
        x[outside] = _feistel(key, x[outside], half)
        outside = outside[x[outside] >= size]
    return x.astype(np.int64)


def _feistel(key: int, x: UIntArray, half: np.uint64) -> UIntArray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for i in range(_ROUNDS):
        left, right = right, left ^ (hash64(key, TRACK_STREAM + 1 + i, right) & mask)
    return left << half | right
