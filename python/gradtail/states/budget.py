"""How a stated amount of memory is divided among the states of a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

FOLD = 128
"""Buckets of a group's own sketch."""
GROUP_WINDOW = 64
"""Steps of a group's own ring."""

LOG_SLOTS = 1024
"""Steps of which a device keeps the norms."""

COORDINATE_BYTES = 132
"""Eight coordinates with four moments each in float32, and their count."""

_PER_ARRAY = 640  # record, view, name, place, key
_LOGS = 192  # block sums of a group, beside each of its records
_TOUCHED = 12 << 10  # of a group's 64 KiB of bins (bits = 4), those that values of 30 binades reach, twice
_PACKED = 4 << 10  # the same at rest: what a block of steps keeps
_BLOCKS = (32, 16, 8)


@dataclass(frozen=True)
class Sizes:
    """What was asked of a stream, as far as it costs memory."""

    bits: int
    window: int
    sketch: int
    tracks: int
    history: int
    on_device: bool = False


@dataclass(frozen=True)
class Plan:
    """How the memory is spent.

    Attributes
    ----------
    groups : int
        Most groups that histograms, a ring and a column of the log are kept for.
    blocks : int
        Most blocks of steps of each.
    cell : int
        CoordinateMoments of one group of 8 elements in so many; 0 for none.
    """

    groups: int
    blocks: int
    cell: int


def parse_memory(memory: object) -> int:
    """Return bytes of "64MiB", "1 GB" or an int.

    Raises
    ------
    TypeError
        Neither text nor int.
    ValueError
        Not a positive amount.
    """
    expected = "expected a positive number of bytes such as '64MiB'"
    if isinstance(memory, int) and not isinstance(memory, bool):
        if memory <= 0:
            raise ValueError(f"memory: {expected}, got {memory}")
        return memory
    if not isinstance(memory, str):
        raise TypeError(f"memory: {expected}, got {memory!r}")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", memory)
    if match is None or match[2].upper() not in UNITS or float(match[1]) <= 0:
        raise ValueError(f"memory: {expected}, got {memory!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def format_bytes(size: float) -> str:
    """Write a number of bytes for people."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"


def divide(
    memory: int, sizes: Sizes, elements: Sequence[int], groups: int, coordinates: str | int | None
) -> Plan:
    """Divide ``memory`` bytes.

    Parameters
    ----------
    memory : int
    sizes : Sizes
    elements : sequence of int
        Elements of each whole parameter known at the first update.
    groups : int
        Groups that are wanted.
    coordinates : {"auto", "dense"}, int or None
        "auto" is one group of 8 in 64, or fewer if that takes more than a quarter of the memory.

    Raises
    ------
    ValueError
        Not even one group finds room.
    """
    cell = _cell(memory, elements, coordinates)
    fixed = fixed_bytes(sizes, elements, cell)
    left = memory - fixed
    plan = Plan(0, _BLOCKS[-1], cell)
    for blocks in _BLOCKS:
        most = left // group_bytes(sizes, blocks)
        plan = Plan(max(most, 0), blocks, cell)
        if most >= groups or blocks == _BLOCKS[1]:
            break
    if plan.groups < 1:
        least = fixed + group_bytes(sizes, _BLOCKS[1])
        tracks = _tracks(sizes, elements)
        raise ValueError(
            f"memory: expected at least {format_bytes(least)} for a window of {sizes.window} steps, "
            f"a sketch of {sizes.sketch}, {tracks} tracks and coordinates={coordinates!r}, "
            f"got {format_bytes(memory)}"
        )
    return plan


def fixed_bytes(sizes: Sizes, elements: Sequence[int], cell: int) -> int:
    """Return the memory of what does not depend on groups."""
    rings = sizes.window * (4 * sizes.sketch + 5 * _tracks(sizes, elements)) + 8 * sizes.sketch
    if sizes.on_device:  # partial sums of chains: csrc/cuda/plan.cpp
        rings += min(max(sum(elements) >> 18, 256), 1024) * 4 * max(sizes.sketch, 4096)
    return rings + _PER_ARRAY * len(elements) + (_moment_bytes(elements, cell) if cell else 0)


def group_bytes(sizes: Sizes, blocks: int) -> int:
    """Return the memory of one group with so many blocks of steps."""
    if sizes.on_device:  # every bin: two tables of 32-bit counters, one of 64
        return (2 << (8 + sizes.bits)) * 16 + 1024 + 3 * _LOGS + _ring_bytes(sizes) + 8 * LOG_SLOTS
    bins: int = (2 * _TOUCHED + blocks * _PACKED) * (1 << sizes.bits) // 16
    return bins + 256 + (2 + blocks) * _LOGS + _ring_bytes(sizes) + 4 * sizes.history


def _ring_bytes(sizes: Sizes) -> int:
    return min(sizes.window, GROUP_WINDOW) * (4 * min(FOLD, sizes.sketch) + 16)


def _tracks(sizes: Sizes, elements: Sequence[int]) -> int:
    return max(sizes.tracks, len(elements)) if sizes.tracks else 0


def _cell(memory: int, elements: Sequence[int], coordinates: str | int | None) -> int:
    if coordinates is None:
        return 0
    if coordinates != "auto":
        return 1 if coordinates == "dense" else int(coordinates)
    cell = 64
    while _moment_bytes(elements, cell) > memory // 4 and cell < 1 << 24:
        cell *= 2
    return cell


def _moment_bytes(elements: Sequence[int], cell: int) -> int:
    return sum(-(-size // (8 * cell)) for size in elements) * COORDINATE_BYTES
