"""Counter-based hashes: what belongs to a coordinate follows from (seed, name, index) alone.

``csrc/core/hash.hpp`` has the same functions for host and device; tests compare the two. The finalisers
are those of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, with the constants of Stafford's variant 13)
and of a 32-bit hash found by exhaustive search (Wellons' "lowbias32").
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

UIntArray = npt.NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: successive counters times this are far apart."""

# What a key is used for. Streams of different purpose share no counter.
SHIFT_STREAM = 0x243F6A8885A308D3
LANE_STREAM = 0x13198A2E03707344
TRACK_STREAM = 0xA4093822299F31D0
CELL_STREAM = 0x082EFA98EC4E6C89

_WORD = 2**64 - 1


def mix64(x: Any) -> UIntArray:
    """Scramble 64-bit words; a bijection.

    Parameters
    ----------
    x : array_like of uint64

    Returns
    -------
    ndarray of uint64
    """
    z = np.array(x, np.uint64)
    with np.errstate(over="ignore"):
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def hash64(key: int, stream: int, counter: Any) -> UIntArray:
    """Hash counters under a key, for one purpose (``stream``); the same words on every machine."""
    counters = np.asarray(counter).astype(np.uint64)
    with np.errstate(over="ignore"):
        return mix64(counters * np.uint64(GOLDEN) + np.uint64((key ^ stream) & _WORD))


def hash32(low: Any, high: Any, counter: Any) -> npt.NDArray[np.uint32]:
    """Hash 32-bit counters under the two halves of a 64-bit word."""
    with np.errstate(over="ignore"):
        x = np.asarray(counter).astype(np.uint32) * np.uint32(0x9E3779B1) + np.asarray(low).astype(np.uint32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x = x + np.asarray(high).astype(np.uint32)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return x


def tensor_key(seed: int, name: str) -> int:
    """Return the key of a parameter: 64 bits of BLAKE2b of its name, keyed with the seed.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    name : str

    Raises
    ------
    TypeError, ValueError
        A seed that is no int, or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed: expected an int from 0 to 2**64 - 1, got {seed!r}")
    if not 0 <= int(seed) <= _WORD:
        raise ValueError(f"seed: expected an int from 0 to 2**64 - 1, got {seed}")
    data = name.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8, key=int(seed).to_bytes(8, "little"), person=b"gradtail")
    return int.from_bytes(digest.digest(), "little")
