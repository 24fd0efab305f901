"""The map of the sketch, "rot8": which bucket and which sign every coordinate of a parameter has.

This is the specification; ``csrc/core/projection.hpp`` has the same arithmetic for host and device.
The sketch is a random linear map of R^n to R^r with one entry of +1 or -1 a column (a count sketch,
Charikar, Chen and Farach-Colton 2002), so that E |Sx|^2 = |x|^2 with a relative standard deviation of
about sqrt(2 / r). Groups of 8 neighbours stay together: position p of block j (blocks of r elements)
goes to bucket ``((p // 8 + s_j) % (r // 8)) * 8 + (p % 8 + j + h) % 8``, where s_j hashes (key, j) and
h hashes (key, j // 8). One bit of a hashed 32-bit word for every 32 elements is the sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.hashing import LANE_STREAM, SHIFT_STREAM, hash32, hash64, mix64

LANES = 8
"""Neighbours that stay together."""

LEAST_BUCKETS, MOST_BUCKETS = 128, 65536


def check_buckets(r: object, argument: str = "sketch") -> int:
    """Return the number of buckets as an int: a power of two from 128 to 65536."""
    expected = f"{argument}: expected a power of two from {LEAST_BUCKETS} to {MOST_BUCKETS}"
    if isinstance(r, bool) or not isinstance(r, (int, np.integer)):
        raise TypeError(f"{expected}, got {r!r}")
    n = int(r)
    if not LEAST_BUCKETS <= n <= MOST_BUCKETS or n & (n - 1):
        raise ValueError(f"{expected}, got {r}")
    return n


def sketch_map(key: int, index: Any, r: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return bucket and sign of coordinates.

    Parameters
    ----------
    key : int
        Of the parameter; see :func:`gradtail.states.hashing.tensor_key`.
    index : array_like of int, shape (n,)
        Indices in the whole parameter.
    r : int
        Buckets; checked by :func:`check_buckets`.

    Returns
    -------
    bucket : ndarray of int64, shape (n,)
    sign : ndarray of float64, shape (n,)
        +1 or -1.
    """
    i = np.asarray(index, np.int64)
    blocks, which = np.unique(i // r, return_inverse=True)
    which = which.reshape(i.shape)
    p = i % r
    word = hash64(key, 0, blocks)  # of a block: 64 bits that its shift and its signs are made of
    shift = (mix64(word ^ np.uint64(SHIFT_STREAM)) >> np.uint64(32)).astype(np.int64)
    turn = (hash64(key, LANE_STREAM, blocks // 8) >> np.uint64(61)).astype(np.int64)
    group = (p // LANES + shift[which]) % (r // LANES)
    lane = (p % LANES + (blocks + turn)[which]) % LANES
    low, high = word.astype(np.uint32), (word >> np.uint64(32)).astype(np.uint32)
    bits = hash32(low[which], high[which], p // 32) >> (p % 32).astype(np.uint32)
    return group * LANES + lane, 1.0 - 2.0 * (bits & np.uint32(1)).astype(np.float64)


def fold(sketch: npt.NDArray[np.float64], buckets: int) -> npt.NDArray[np.float64]:
    """Join bucket b with bucket b mod ``buckets``: the sketch of the same vector with fewer buckets.

    Parameters
    ----------
    sketch : ndarray of float64, shape (..., r)
    buckets : int
        A power of two from 8 to r.

    Returns
    -------
    ndarray of float64, shape (..., buckets)
    """
    folded: npt.NDArray[np.float64] = sketch.reshape(*sketch.shape[:-1], -1, buckets).sum(axis=-2)
    return folded
