"""One gradient split into shards, steps and both: the merged streams equal that of the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import assert_same_stream

from gradtail import GradientStream

SHAPES: dict[str, tuple[int, ...]] = {
    "block.weight": (37, 29),
    "block.bias": (11,),
    "conv": (6, 5, 3, 3),
    "scale": (),
    "long": (5000,),
}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}

Arrays = dict[str, np.ndarray]
Places = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def gradient(step: int, *, broken: bool = False) -> Arrays:
    rng = np.random.default_rng([step, 7])
    found = {
        name: (rng.standard_t(3, shape) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    if broken:
        found["conv"][2, 3, 1, 1] = np.nan
        found["long"][[4000, 77]] = np.inf, -np.inf
    return found


def stream(backend: str, **settings: Any) -> GradientStream:
    return GradientStream(
        backend=backend, sketch=512, tracks=300, window=6, history=8, coordinates=4, **settings
    )


def whole(backend: str, steps: range) -> GradientStream:
    found = stream(backend)
    for step in steps:
        found.update(gradient(step, broken=step == 5), step)
    return found


def cut(x: np.ndarray, axis: int, edges: list[int]) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """Blocks of an array between edges along an axis, with their offsets."""
    parts = []
    for low, high in zip([0, *edges], [*edges, x.shape[axis]], strict=True):
        index = tuple(slice(low, high) if i == axis else slice(None) for i in range(x.ndim))
        offset = tuple(low if i == axis else 0 for i in range(x.ndim))
        parts.append((np.ascontiguousarray(x[index]), offset))
    return parts


def shards(arrays: Arrays, axis: int, fractions: list[float]) -> list[tuple[Arrays, Places]]:
    """Split every array that has such an axis; the others belong to the first shard alone."""
    found: list[tuple[Arrays, Places]] = [({}, {}) for _ in range(len(fractions) + 1)]
    for name, x in arrays.items():
        if x.ndim <= axis:
            found[0][0][name] = x
            continue
        edges = sorted(round(f * x.shape[axis]) for f in fractions)
        for (some, places), (part, offset) in zip(found, cut(x, axis, edges), strict=True):
            some[name], places[name] = part, (x.shape, offset)
    return found


def merged(streams: list[GradientStream], order: list[int]) -> GradientStream:
    """Merge pair by pair, as ``order`` says, not always from the left."""
    pending = [streams[i] for i in order]
    while len(pending) > 1:
        pending = [*pending[2:], pending[0].merge(pending[1])]
    return pending[0]


def orders(n: int) -> list[list[int]]:
    rng = np.random.default_rng(n)
    return [list(range(n)), list(range(n))[::-1], rng.permutation(n).tolist()]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("fractions", [[0.31], [0.0, 0.47, 0.47, 0.93], [1.0]])
def test_shards_along_an_axis(backend: str, axis: int, fractions: list[float]) -> None:
    steps = range(9)
    parts = [stream(backend) for _ in range(len(fractions) + 1)]
    for step in steps:
        for part, (arrays, places) in zip(
            parts, shards(gradient(step, broken=step == 5), axis, fractions), strict=True
        ):
            if arrays:
                part.update(arrays, step, places)
    expected = whole(backend, steps)
    for order in orders(len(parts)):
        assert_same_stream(merged(parts, order), expected)


def test_blocks_of_two_axes(backend: str) -> None:
    parts = [stream(backend) for _ in range(4)]
    for step in range(4):
        arrays = gradient(step)
        weight = arrays.pop("block.weight")
        quarters = [
            (block, (rows[1][0], offset[1]))
            for rows in cut(weight, 0, [13])
            for block, offset in cut(rows[0], 1, [9])
        ]
        for i, (part, (block, offset)) in enumerate(zip(parts, quarters, strict=True)):
            some = {"block.weight": block, **(arrays if i == 2 else {})}
            part.update(
                {n: some[n] for n in SHAPES if n in some}, step, {"block.weight": (weight.shape, offset)}
            )
    assert_same_stream(merged(parts, [3, 1, 0, 2]), whole(backend, range(4)))


@pytest.mark.parametrize("splits", [[1], [4], [3, 4, 8]])
def test_runs_of_steps(backend: str, splits: list[int]) -> None:
    edges = [0, *splits, 12]
    parts = [whole(backend, range(a, b)) for a, b in pairwise(edges)]
    expected = whole(backend, range(12))
    for order in orders(len(parts)):
        assert_same_stream(merged(parts, order), expected)


def test_steps_in_turns(backend: str) -> None:
    parts = [stream(backend), stream(backend)]
    for step in range(11):
        parts[step % 2].update(gradient(step), step)
    expected = stream(backend)
    for step in range(11):
        expected.update(gradient(step), step)
    assert_same_stream(parts[1].merge(parts[0]), expected)
    assert_same_stream(parts[0].merge(parts[1]), expected)


def test_shards_over_steps(backend: str) -> None:
    """Two shards, each from two processes that took over from one another at different steps."""
    parts = [stream(backend) for _ in range(4)]
    for step in range(10):
        for shard, (arrays, places) in enumerate(shards(gradient(step), 0, [0.4])):
            parts[2 * shard + (step >= (3, 6)[shard])].update(arrays, step, places)
    expected = stream(backend)
    for step in range(10):
        expected.update(gradient(step), step)
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [3, 0, 2, 1]):
        assert_same_stream(merged(parts, order), expected)


def test_parameters_apart(backend: str) -> None:
    """A pipeline: each process has parameters of its own."""
    parts = [stream(backend), stream(backend)]
    for part in parts:
        part.declare(SIZES)
    expected = stream(backend)
    for step in range(5):
        arrays = gradient(step)
        expected.update(arrays, step)
        parts[0].update({name: arrays[name] for name in list(SHAPES)[:2]}, step)
        parts[1].update({name: arrays[name] for name in list(SHAPES)[2:]}, step)
    assert_same_stream(parts[0].merge(parts[1]), expected)
    assert_same_stream(parts[1].merge(parts[0]), expected)


def test_parts_of_a_step_one_by_one(backend: str) -> None:
    """What an optimizer in the backward pass does: one update a parameter, then the next step."""
    found, expected = stream(backend), stream(backend)
    found.declare(SIZES)
    for step in range(6):
        arrays = gradient(step, broken=step == 5)
        expected.update(arrays, step)
        for name, x in arrays.items():
            found.update({name: x}, step)
    assert_same_stream(found, expected)


@given(st.data())
def test_any_split_of_a_long_array(backend: str, data: st.DataObject) -> None:
    x = gradient(3)["long"]
    edges = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=5)))
    expected = stream(backend)
    expected.update({"long": x}, 3)
    parts = []
    for part, offset in cut(x, 0, edges):
        parts.append(stream(backend))
        parts[-1].update({"long": part}, 3, {"long": (x.shape, offset)})
    order = data.draw(st.permutations(range(len(parts))))
    assert_same_stream(merged(parts, order), expected)


def test_an_empty_stream_changes_nothing(backend: str) -> None:
    expected = whole(backend, range(7))
    assert_same_stream(expected.merge(stream(backend)), expected)
    assert_same_stream(stream(backend).merge(expected), expected)
    assert stream(backend).merge(stream(backend)).steps == 0


def test_merging_changes_neither(backend: str) -> None:
    a, b = whole(backend, range(4)), whole(backend, range(4, 9))
    before = [part.state_dict() for part in (a, b)]
    a.merge(b)
    for old, part in zip(before, (a, b), strict=True):
        for key, value in part.state_dict().items():
            np.testing.assert_array_equal(value, old[key], err_msg=key)


def test_a_merged_stream_goes_on(backend: str) -> None:
    found = whole(backend, range(4)).merge(whole(backend, range(4, 9)))
    for step in range(9, 40):
        found.update(gradient(step), step)
    assert_same_stream(found, whole(backend, range(40)))


def test_what_both_have_counted_is_refused(backend: str) -> None:
    a, b = whole(backend, range(6)), whole(backend, range(5, 9))
    with pytest.raises(
        ValueError, match=r"other: expected values not counted here, got 'block.weight' in step 5"
    ):
        a.merge(b)
    x = gradient(0)["block.weight"]
    left, right = stream(backend), stream(backend)
    left.update({"w": x[:20]}, 0, {"w": (x.shape, (0, 0))})
    right.update({"w": np.ascontiguousarray(x[:, 7:])}, 0, {"w": (x.shape, (0, 7))})
    with pytest.raises(ValueError, match=r"got 'w'\[0:37, 7:29\] in step 0, counted by both"):
        left.merge(right)
    later = stream(backend)
    later.update({"w": np.ascontiguousarray(x[:, 7:])}, 1, {"w": (x.shape, (0, 7))})
    assert left.merge(later).steps == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "other: expected a stream of seed=0, got seed=1"),
        ({"bits": 5}, "other: expected a stream of bits=4, got bits=5"),
        ({"groups": {"all": "."}}, "other: expected array 'w' in group 'w', got 'all'"),
    ],
)
def test_streams_that_do_not_fit_are_refused(backend: str, settings: dict, message: str) -> None:
    a, b = stream(backend), stream(backend, **settings)
    a.update({"w": np.ones(3)}, 0)
    b.update({"w": np.ones(3)}, 1)
    with pytest.raises(ValueError, match=message):
        a.merge(b)
    with pytest.raises(TypeError, match="other: expected a GradientStream, got int"):
        a.merge(3)  # type: ignore[arg-type]


def test_blocks_of_streams_that_did_not_begin_together_fit(backend: str) -> None:
    """A rank that missed a step, or came a step later, must not blur the time line."""
    parts = [stream(backend), stream(backend)]
    for step in range(260):
        for i, part in enumerate(parts):
            if (i, step) not in {(1, 0), (1, 9)}:
                part.update({f"w{i}": np.ones(3)}, step)
    blocks = parts[0].merge(parts[1]).blocks()
    assert len(blocks) >= 14
    assert max(block.steps for block in blocks) <= 16
    assert sum(block.steps for block in blocks) == 260


def test_merged_settings_and_places_do_not_depend_on_the_order(backend: str) -> None:
    a = GradientStream(backend=backend, window=8, history=64, sketch=256)
    b = GradientStream(backend=backend, window=4, history=32, sketch=256)
    a.update({"x": np.array([1.0, np.nan])}, 0)
    b.update({"y": np.array([np.inf, 1.0])}, 0)
    one, two = a.merge(b), b.merge(a)
    assert one.first_nonfinite == two.first_nonfinite
    assert one.settings == two.settings
    assert one.settings["window"] == 4
