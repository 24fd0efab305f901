"""Streams that are saved, go on, go back, and refuse what they should."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import assert_same_stream

from gradtail import GradientStream

SHAPES = {"a.weight": (40, 9), "a.bias": (9,), "b.weight": (3, 3, 5), "late": (100,)}


def gradient(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([step, 11])
    found = {n: rng.standard_t(3, shape).astype(np.float32) for n, shape in SHAPES.items()}
    if step == 3:
        found["b.weight"][1, 2, 3] = np.inf
    if step < 7:
        del found["late"]
    return found


def stream(backend: str, **settings: Any) -> GradientStream:
    small = {"sketch": 256, "tracks": 50, "window": 5, "history": 8, "coordinates": 2}
    return GradientStream(backend=backend, **{**small, **settings})  # type: ignore[arg-type]


def filled(backend: str, steps: range, **settings: Any) -> GradientStream:
    found = stream(backend, **settings)
    for step in steps:
        found.update(gradient(step), step)
    return found


def assert_equal_states(found: GradientStream, expected: GradientStream) -> None:
    """Equal to the bit."""
    a, b = found.state_dict(), expected.state_dict()
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("steps", [0, 1, 6, 33, 90])
def test_saved_and_read_again(backend: str, tmp_path: Path, steps: int) -> None:
    before = filled(backend, range(steps))
    before.save(tmp_path / "state")
    after = GradientStream.load(tmp_path / "state", backend=backend)
    assert_equal_states(after, before)
    assert_same_stream(after, before)
    assert after.settings == before.settings
    for part in (before, after):
        for step in range(steps, steps + 40):
            part.update(gradient(step), step)
    assert_same_stream(after, before)


@pytest.mark.parametrize("rule", [None, {"biases": "bias$", "rest": "weight"}])
def test_groups_are_saved(backend: str, rule: Any) -> None:
    before = filled(backend, range(4), groups=rule)
    after = GradientStream.from_state_dict(before.state_dict(), backend=backend)
    after.update(gradient(8), 8)
    before.update(gradient(8), 8)
    assert after.groups == before.groups
    assert [after.group_of(name) for name in after.names] == [before.group_of(name) for name in before.names]
    assert_same_stream(after, before)


def test_states_hold_no_objects(backend: str) -> None:
    file = io.BytesIO()
    np.savez(file, **filled(backend, range(9)).state_dict())
    file.seek(0)
    for name, value in np.load(file, allow_pickle=False).items():
        assert value.dtype.kind in "biufU", name


def test_states_that_are_none(backend: str) -> None:
    good = filled(backend, range(5)).state_dict()
    with pytest.raises(TypeError, match="state: expected a mapping, got list"):
        GradientStream.from_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"state: expected schema gradtail.GradientStream/1, got nothing"):
        GradientStream.from_state_dict({})
    with pytest.raises(ValueError, match=r"state: expected schema .*, got gradtail.GradientStream/9"):
        GradientStream.from_state_dict({**good, "schema": "gradtail.GradientStream/9"})
    for key in good:
        if key != "schema":
            missing = {k: v for k, v in good.items() if k != key}
            with pytest.raises(ValueError, match="state: expected "):
                GradientStream.from_state_dict(missing)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("newest/counts", lambda x: x + 1),
        ("newest/records", lambda x: x[:, :-1]),
        ("newest/low", lambda x: 10**6),
        ("timeline/blocks/0/counts", lambda x: x[:, :, :-1]),
        ("timeline/blocks/0/records", lambda x: np.where(np.arange(16) == 10, 10**9, x)),
        ("ring/vectors", lambda x: x[:, :, :-1]),
        ("ring/vectors", lambda x: x[0]),
        ("group_ring/steps", lambda x: x[::-1]),
        ("tracks/values", lambda x: x[:, :-1]),
        ("coordinates/sums", lambda x: x[:3]),
        ("log/steps", lambda x: x[::-1]),
        ("counted", lambda x: x[:, ::-1] - 5),
        ("sketch", lambda x: x[:-1]),
        ("groups/of", lambda x: np.array(["nowhere"] * len(x))),
        ("settings/sketch", lambda x: 100),
        ("settings/memory", lambda x: -1),
    ],
)
def test_damaged_states_are_refused(backend: str, key: str, change: Any) -> None:
    state = filled(backend, range(6)).state_dict()
    state[key] = change(state[key])
    with pytest.raises((ValueError, TypeError)):
        GradientStream.from_state_dict(state)


def test_going_back(backend: str) -> None:
    found = filled(backend, range(12))
    assert found.rollback(50) == 11
    assert found.rollback(7) == 7
    assert found.counted == filled(backend, range(8)).counted
    assert max(found.history.steps) in (6, 7)  # the record is thinned
    assert found.summary(None, "newest").count == 0
    assert max(found.ring().steps) == 7
    assert max(found.tracks().steps) == 7
    for step in range(8, 12):
        found.update(gradient(step), step)
    expected = filled(backend, range(12))
    assert_same_rings(found, expected)
    for name in ("a.weight", "late"):
        assert found.summary(name).count == expected.summary(name).count
        assert found.coordinates(name).count.max() == 4
    assert found.first_nonfinite == expected.first_nonfinite
    assert found.rollback(1) == 1
    assert found.first_nonfinite is None
    assert found.rollback(-1) is None
    assert (found.steps, found.last_step) == (0, None)
    with pytest.raises(TypeError, match="step: expected an int, got 'x'"):
        found.rollback("x")  # type: ignore[arg-type]


def test_a_block_that_reaches_beyond_is_lost_as_a_whole(backend: str) -> None:
    found = filled(backend, range(70))  # blocks of four steps by now
    found.rollback(49)
    covered = [(block.first_step, block.last_step, block.steps) for block in found.blocks()]
    assert covered[-1] == (44, 47, 4)
    assert found.steps == 50


def assert_same_rings(found: GradientStream, expected: GradientStream) -> None:
    """Of the steps in both: going back makes a ring shorter."""
    a, b = found.ring(), expected.ring()
    steps = np.intersect1d(a.steps, b.steps)
    assert len(steps) >= 4
    rows = [np.searchsorted(ring.steps, steps) for ring in (a, b)]
    np.testing.assert_allclose(a.vectors[rows[0]], b.vectors[rows[1]], atol=1e-5)


def test_a_step_counted_twice_changes_nothing(backend: str) -> None:
    found, expected = filled(backend, range(6)), filled(backend, range(6))
    x = gradient(5)
    with pytest.raises(
        ValueError, match=r"arrays: expected values not counted in step 5 before, got 'a.bias' again"
    ):
        found.update({"new": np.ones(3), "a.bias": x["a.bias"]}, 5)
    with pytest.raises(ValueError, match=r"got 'a.weight'\[0:2, 0:9\] again"):
        found.update({"a.weight": x["a.weight"][:2]}, 5, {"a.weight": ((40, 9), (0, 0))})
    with pytest.raises(ValueError, match="step: expected a number of at least 5, got 4"):
        found.update(x, 4)
    assert_equal_states(found, expected)
    found.update({"new": np.ones(3)}, 5)
    assert found.summary("new").count == 3
    assert found.steps == 6


@pytest.mark.parametrize(
    ("arrays", "places", "error", "message"),
    [
        (
            {"a.bias": np.ones(8)},
            None,
            ValueError,
            r"arrays\['a.bias'\]: expected 9 elements as before, got 8",
        ),
        ({"a.bias": np.ones((3, 3, 5))[0]}, {"a.bias": ((3, 6), (0, 0))}, ValueError, "axes|expected"),
        (
            {"b.weight": np.ones((5, 3, 3)).T},
            None,
            ValueError,
            r"expected the layout of before, shape \(3, 3, 5\)",
        ),
        (
            {"c": np.ones((5, 3)).T},
            {"c": ((6, 5), (0, 0))},
            ValueError,
            r"arrays\['c'\]: expected a block of a larger",
        ),
        ({"c": np.ones(3)}, {"d": ((3,), (0,))}, ValueError, r"places\['d'\]: expected the name of an array"),
        ({"c": np.ones(3)}, {"c": ((2,), (0,))}, ValueError, r"places\['c'\]: expected a block within"),
        ({"c": np.ones(3)}, 5, TypeError, "places: expected a mapping of names to places, got int"),
        ({"c": None}, None, TypeError, r"arrays\['c'\]: expected an array, got None"),
    ],
)
def test_refused_arrays_change_nothing(
    backend: str, arrays: Any, places: Any, error: type, message: str
) -> None:
    found, expected = filled(backend, range(6)), filled(backend, range(6))
    with pytest.raises(error, match=message):
        found.update(arrays, 6, places)
    assert_equal_states(found, expected)


def test_sketches_alone_count_nowhere(backend: str) -> None:
    found, expected = filled(backend, range(6)), filled(backend, range(6))
    arrays = gradient(9)
    alone = found.sketch(arrays)
    assert_equal_states(found, expected)
    found.update(arrays, 9)
    np.testing.assert_allclose(found.ring().vectors[-1], alone, atol=1e-6 * np.abs(alone).max())
    double = found.sketch({name: 2 * x for name, x in arrays.items()})
    np.testing.assert_allclose(double, 2 * alone, rtol=1e-6, atol=1e-6)
    with pytest.raises(
        ValueError, match="sketch: expected a stream that keeps sketches, got one with sketch=0"
    ):
        stream(backend, sketch=0).sketch(arrays)


def test_states_can_be_left_out(backend: str) -> None:
    found = filled(backend, range(5), sketch=0, tracks=0, coordinates=None)
    assert found.summary("a").count == 5 * 369
    assert found.ring().vectors.shape == (0, 0)
    assert found.tracks().values.shape[1] == 0
    assert found.coordinates("a.bias").count.size == 0
    again = GradientStream.from_state_dict(found.state_dict(), backend=backend)
    assert_same_stream(
        found.merge(filled(backend, range(5, 7), sketch=0, tracks=0, coordinates=None)),
        filled(backend, range(7), sketch=0, tracks=0, coordinates=None),
    )
    assert_equal_states(again, found)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"window": -1}, ValueError, "window: expected an int of at least 0, got -1"),
        ({"window": 2.5}, TypeError, "window: expected an int of at least 0, got 2.5"),
        ({"sketch": 1000}, ValueError, "sketch: expected a power of two from 128 to 65536, got 1000"),
        ({"tracks": -1}, ValueError, "tracks: expected an int of at least 0, got -1"),
        ({"coordinates": "all"}, ValueError, "coordinates: expected 'auto', 'dense', None or a power of two"),
        ({"coordinates": 3}, ValueError, "coordinates: expected 'auto', 'dense', None or a power of two"),
        ({"seed": -1}, ValueError, "seed: expected an int from 0"),
        (
            {"memory": "lots"},
            ValueError,
            "memory: expected a positive number of bytes such as '64MiB', got 'lots'",
        ),
        ({"memory": 0}, ValueError, "memory: expected a positive number"),
        ({"memory": 1.5}, TypeError, "memory: expected a positive number"),
        ({"history": 1}, ValueError, "history: expected an int of at least 2, got 1"),
        ({"bits": 11}, ValueError, "bits: expected an int from 0 to 10, got 11"),
    ],
)
def test_wrong_settings(settings: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        GradientStream(**settings)


def test_declared_arrays(backend: str) -> None:
    found = stream(backend)
    found.declare({name: int(np.prod(shape)) for name, shape in SHAPES.items()})
    found.update({"late": np.ones(100)})
    assert found.names == ["late"]
    assert len(found.tracks().index) == round(50 * 100 / 514)
    with pytest.raises(RuntimeError, match="declare: expected a call before the first update"):
        found.declare({})
    for wrong in ([3], {3: 3}, {"a": "x"}):
        with pytest.raises(TypeError, match="sizes: expected a mapping of names to ints"):
            stream(backend).declare(wrong)  # type: ignore[arg-type]


def test_every_array_is_tracked(backend: str) -> None:
    found = filled(backend, range(8))
    tracks = found.tracks()
    assert set(tracks.names) == set(SHAPES)
    for i, (name, index) in enumerate(zip(tracks.names, tracks.index, strict=True)):
        for row, step in enumerate(tracks.steps):
            x = gradient(int(step)).get(str(name))
            assert tracks.observed[row, i] == (x is not None)
            np.testing.assert_array_equal(tracks.values[row, i], np.nan if x is None else x.ravel()[index])


def test_coordinates_over_steps(backend: str) -> None:
    found = filled(backend, range(30), coordinates="dense")
    for name in ("a.weight", "a.bias"):
        x = np.stack([gradient(step)[name].ravel() for step in range(30)]).astype(float)
        own = found.coordinates(name)
        np.testing.assert_array_equal(own.index, np.arange(x.shape[1]))
        np.testing.assert_allclose(own.mean, x.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(own.variance, x.var(axis=0), rtol=1e-4)
        centred = x - x.mean(axis=0)
        sd = x.std(axis=0)
        np.testing.assert_allclose(own.skewness, (centred**3).mean(axis=0) / sd**3, atol=1e-3)
        np.testing.assert_allclose(own.excess_kurtosis, (centred**4).mean(axis=0) / sd**4 - 3, atol=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e25])
def test_any_scale(backend: str, scale: float) -> None:
    found = stream(backend, coordinates="dense")
    xs = [np.random.default_rng(step).standard_normal(200) * scale for step in range(20)]
    for x in xs:
        found.update({"w": x.astype(np.float32)})
    unit, x = found.ring().vectors / scale, np.stack(xs) / scale
    np.testing.assert_allclose((unit**2).sum(axis=1), (x[-5:] ** 2).sum(axis=1), rtol=0.5)
    own = found.coordinates("w")
    np.testing.assert_allclose(own.variance / scale / scale, x.var(axis=0), rtol=1e-4)
    assert np.isfinite(own.excess_kurtosis).all()


def test_a_leap_in_scale_poisons_no_moments(backend: str) -> None:
    found = stream(backend, coordinates="dense")
    rng = np.random.default_rng(0)
    scales = [1e-12] * 3 + [1e6] + [1e-3] * 40
    xs = [(rng.standard_normal(64) * scale).astype(np.float32) for scale in scales]
    for x in xs:
        found.update({"w": x})
    own = found.coordinates("w")
    assert np.isfinite(own.sums).all()
    # The step of the leap itself is left out; the scale has followed it.
    kept = np.stack([x for x, scale in zip(xs, scales, strict=True) if scale != 1e6]).astype(float)
    np.testing.assert_array_equal(own.count, len(kept))
    np.testing.assert_allclose(own.variance, kept.var(axis=0), rtol=1e-3)
