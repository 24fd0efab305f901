"""Which block of a whole parameter an array is, and the runs of element indices that it covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Span:
    """Part of a block: element i of it has index start + (i // run) * stride + i % run in the whole."""

    offset: int  # its first element within the block
    size: int
    start: int
    run: int
    stride: int


@dataclass(frozen=True)
class Place:
    """A block of a whole parameter.

    Attributes
    ----------
    full_shape : tuple of int
    offset : tuple of int
        Index of the block's first element along each axis.
    shape : tuple of int
        Of the block.
    """

    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of the block."""
        return math.prod(self.shape)

    @property
    def elements(self) -> int:
        """Elements of the whole."""
        return math.prod(self.full_shape)

    @property
    def is_whole(self) -> bool:
        """Whether the block is all there is."""
        return self.shape == self.full_shape

    def numbers(self) -> list[int]:
        """Return full shape, offset and shape, one after the other."""
        return [*self.full_shape, *self.offset, *self.shape]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int], axes: int) -> tuple[Place, Sequence[int]]:
        """Read a place of so many axes from the front of ``numbers``; return it and the rest."""
        parts = [tuple(numbers[i * axes : (i + 1) * axes]) for i in range(3)]
        if len(numbers) < 3 * axes:
            raise ValueError(f"state: expected {3 * axes} numbers of a place, got {len(numbers)}")
        if any(o < 0 or n < 0 or o + n > full for full, o, n in zip(*parts, strict=True)):
            raise ValueError(f"state: expected a block within its parameter, got {parts}")
        return cls(*parts), numbers[3 * axes :]

    def overlaps(self, other: Place) -> bool:
        """Whether two blocks of the same whole share an element."""
        if not self.size or not other.size:
            return False
        if (
            self.full_shape != other.full_shape
        ):  # the same elements in other words: only their number is known
            return True
        sides = zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        return all(max(a, c) < min(a + b, c + d) for a, b, c, d in sides)

    def spans(self) -> list[Span]:
        """Cut the block, in C order, into spans of regular runs; most blocks are one span.

        Notes
        -----
        Sharding along the first axis gives one run, along one more axis regular runs; for each further
        sharded axis one span an index of the axes before it.
        """
        if self.size == 0:
            return [Span(0, 0, 0, 1, 0)]
        full, shape, offset = self.full_shape, self.shape, self.offset
        cut = [axis for axis, (n, m) in enumerate(zip(full, shape, strict=True)) if n != m]
        if not cut:
            return [Span(0, self.size, 0, self.size, 0)]
        strides = [math.prod(full[axis + 1 :]) for axis in range(len(full))]
        inner = cut[-1]
        run = shape[inner] * strides[inner]
        outer = inner - 1  # the runs of axes outer, ..., inner - 1 follow each other at one distance
        while outer > 0 and shape[outer] == full[outer]:
            outer -= 1
        outer = max(outer, 0)
        base = sum(offset[axis] * strides[axis] for axis in range(len(full)))
        size = math.prod(shape[outer:])
        spans = []
        for number, index in enumerate(product(*(range(n) for n in shape[:outer]))):
            start = base + sum(i * strides[axis] for axis, i in enumerate(index))
            stride = 0 if size == run else strides[inner] * full[inner]
            spans.append(Span(number * size, size, start, run, stride))
        return spans


def whole(shape: Sequence[int]) -> Place:
    """Return the place of an array that is all of its parameter."""
    return Place(tuple(shape), (0,) * len(shape), tuple(shape))


def check_place(place: object, shape: Sequence[int], name: str) -> Place:
    """Return ``(full_shape, offset)`` of an array of ``shape`` as a Place; raise if it is none."""
    if isinstance(place, Place):
        place = (place.full_shape, place.offset)
    if not isinstance(place, (tuple, list)) or len(place) != 2:
        raise TypeError(f"{name}: expected (full_shape, offset), got {place!r}")
    full, offset = (_integers(part, name) for part in place)
    if not len(full) == len(offset) == len(shape):
        raise ValueError(
            f"{name}: expected a full shape and an offset of {len(shape)} axes as the array has, "
            f"got {full} and {offset}"
        )
    for axis, (n, o, m) in enumerate(zip(full, offset, shape, strict=True)):
        if o < 0 or o + m > n:
            raise ValueError(
                f"{name}: expected a block within the full shape {full}, got {o}..{o + m} along axis {axis}"
            )
    return Place(full, offset, tuple(int(n) for n in shape))


def _integers(values: object, name: str) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: expected (full_shape, offset) of ints, got {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name}: expected (full_shape, offset) of ints, got {values!r}")
    return tuple(int(value) for value in values)
