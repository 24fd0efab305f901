"""What a stream refuses, and what breaks off, leaves it as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_streams import assert_equal_states, filled, gradient, stream
from streams import assert_same_stream

from gradtail import GradientStream


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


class Interrupted(BaseException):
    """As a signal raises it: at any line."""


@pytest.mark.parametrize(
    "where", ["gradtail.stream.observation._note", "gradtail.states.ring.SketchRing.store"]
)
@pytest.mark.parametrize("steps", [0, 5])
def test_a_step_that_is_broken_off_leaves_nothing(
    backend: str, monkeypatch: pytest.MonkeyPatch, where: str, steps: int
) -> None:
    def broken(*_: Any) -> None:
        raise Interrupted

    found = filled(backend, range(steps), coordinates=None)
    with monkeypatch.context() as patch:
        patch.setattr(where, broken)
        with pytest.raises(Interrupted):
            found.update(gradient(steps), steps)
    assert found.steps == steps
    assert found.summary().count == filled(backend, range(steps)).summary().count if steps else True
    for step in range(steps, 12):
        found.update(gradient(step), step)
    assert_same_stream(found, filled(backend, range(12), coordinates=None))


def test_an_update_that_breaks_off_in_the_pass_can_be_made_again(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stream(backend)
    with monkeypatch.context() as patch:
        patch.setattr(found._backend, "observe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            found.update(gradient(0), 0)
    for step in range(3):
        found.update(gradient(step), step)
    assert_same_stream(found, filled(backend, range(3)))


@pytest.mark.parametrize("step", [-1, 2**62, 2**63, 2**70])
def test_steps_out_of_range_change_nothing(backend: str, step: int) -> None:
    found, expected = filled(backend, range(6)), filled(backend, range(6))
    with pytest.raises(ValueError, match=r"step: expected an int from 0 to 2\*\*62 - 1, got"):
        found.update(gradient(6), step)
    assert_equal_states(found, expected)


def test_places_are_checked_at_every_step(backend: str) -> None:
    found, x = stream(backend), np.ones((4, 3), np.float32)
    for step in range(40):
        found.update({"w": x}, step, {"w": ([8, 3], [4, 0])} if step % 2 else {"w": ((8, 3), (4, 0))})
    assert sum(map(len, found._state.arrangements.values())) == 1
    with pytest.raises(ValueError, match=r"places\['v'\]: expected the name of an array"):
        found.update({"w": x}, 40, {"w": ((8, 3), (4, 0)), "v": ((8, 3), (4, 0))})
    with pytest.raises(TypeError, match="places: expected a mapping of names to places, got list"):
        found.update({"w": x}, 40, ["junk"])  # type: ignore[arg-type]
    found.update({"w": x[:2]}, 40, {"w": ((8, 3), (4, 0))})  # a smaller block at the same offset
    assert found.summary("w", "newest").count == 6
    assert found.sizes == {"w": 12}
    for step in range(41, 60):  # blocks that move are not remembered for ever
        found.update(
            {"w": x[:1]}, step, {"w": ((80, 3), (step, 0))} if step < 41 else {"w": ((8, 3), (step % 8, 0))}
        )
    assert sum(map(len, found._state.arrangements.values())) <= 8


def test_groups_by_rule_keep_to_the_memory(backend: str) -> None:
    names = {f"p{i}": 4 for i in range(2000)}
    found = stream(backend, groups=lambda name: name, memory="8MiB")
    with pytest.raises(ValueError, match=r"groups: expected at most \d+ groups in memory=8 MiB, got 2000"):
        found.declare(names)
    late = stream(backend, groups=lambda name: name, memory="4MiB")
    late.update({"first": np.ones(3)})
    for i in range(60):
        late.update({f"late{i}": np.ones(3)})
    assert len(late.groups) <= late.settings["most_groups"] + 1
    assert late.group_of("late59") == "other"


def test_names_that_cannot_be_saved_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"arrays: expected names without NUL, got 'a\\x00'"):
        stream(backend).update({"a\0": np.ones(3)})


def test_wrong_readings(backend: str) -> None:
    found = filled(backend, range(3), tracks=0)
    assert found.tracks(["a.bias"]).values.shape == (0, 0)
    with pytest.raises(TypeError, match=r"names: expected a sequence of names, got the str 'a.bias'"):
        found.tracks("a.bias")
    with pytest.raises(ValueError, match="name: expected that of an array seen before, got 'c'"):
        found.coordinates("c")
    grouped = filled(backend, range(3), groups={"all": "."})
    with pytest.raises(ValueError, match=r"group: expected one of stream.groups, got 'a', .* within 'all'"):
        grouped.summary("a")
