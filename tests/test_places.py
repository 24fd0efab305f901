"""Blocks of a parameter: the indices of their elements, against NumPy's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.states.places import Place, check_place, whole


@st.composite
def places(draw: Any) -> Place:
    full = tuple(draw(st.lists(st.integers(1, 6), max_size=4)))
    offset = tuple(draw(st.integers(0, n)) for n in full)
    shape = tuple(draw(st.integers(0, n - o)) for n, o in zip(full, offset, strict=True))
    return Place(full, offset, shape)


def elements(place: Place) -> list[int]:
    """Index of each element of a block within the whole, in C order."""
    index = np.arange(place.elements).reshape(place.full_shape)
    for axis, (o, n) in enumerate(zip(place.offset, place.shape, strict=True)):
        index = np.take(index, range(o, o + n), axis)
    return [int(i) for i in index.ravel()]


@given(places())
def test_spans_cover_the_block_in_order(place: Place) -> None:
    found = []
    for span in place.spans():
        assert span.offset == len(found)
        i = np.arange(span.size)
        found += [int(x) for x in span.start + i // span.run * span.stride + i % span.run]
    assert found == elements(place)


@given(places(), st.data())
def test_overlap_is_that_of_the_elements(place: Place, data: Any) -> None:
    offset = tuple(data.draw(st.integers(0, n)) for n in place.full_shape)
    shape = tuple(data.draw(st.integers(0, n - o)) for n, o in zip(place.full_shape, offset, strict=True))
    other = Place(place.full_shape, offset, shape)
    expected = bool({*elements(place)} & {*elements(other)})
    assert place.overlaps(other) == other.overlaps(place) == expected


@given(places())
def test_numbers_and_back(place: Place) -> None:
    assert Place.from_numbers([*place.numbers(), 1, 2], len(place.shape)) == (place, [1, 2])


def test_shards_along_one_or_two_axes_are_one_span() -> None:
    for place in (
        Place((64, 64), (8, 0), (8, 64)),
        Place((64, 64), (0, 8), (64, 8)),
        Place((64, 64), (8, 8), (8, 8)),
        Place((8, 8, 3, 3), (0, 2, 0, 0), (8, 4, 3, 3)),
        whole((4, 5)),
        whole(()),
        Place((4, 5), (4, 0), (0, 5)),
    ):
        assert len(place.spans()) == 1, place
    assert math.prod(whole(()).shape) == 1


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (3, TypeError, r"p: expected \(full_shape, offset\), got 3"),
        (((3,),), TypeError, r"p: expected \(full_shape, offset\)"),
        (((3, "x"), (0, 0)), TypeError, r"p: expected \(full_shape, offset\) of ints"),
        (((3, 3), (0,)), ValueError, r"p: expected a full shape and an offset of 2 axes"),
        (
            ((3, 3), (2, 0)),
            ValueError,
            r"p: expected a block within the full shape \(3, 3\), got 2..4 along axis 0",
        ),
        (((3, 3), (-1, 0)), ValueError, r"p: expected a block within the full shape \(3, 3\), got -1..1"),
    ],
)
def test_wrong_places(place: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check_place(place, (2, 3), "p")
