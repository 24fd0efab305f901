"""Streams that are saved, copied and read again, and files that are refused."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_streams import assert_equal_states, filled, gradient
from streams import assert_same_stream

from gradtail import GradientStream


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
        if key not in ("schema", "settings/stable"):  # the latter older versions did not write
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
        ("timeline/most", lambda x: 1),
        ("timeline/pace", lambda x: 3),
        ("timeline/ranges", lambda x: x[::-1]),
        ("log/stride", lambda x: 0),
        ("ledger/members", lambda x: x + 99),
        ("known/places", lambda x: -x),
        ("tracks/index", lambda x: x - 10**6),
    ],
)
def test_damaged_states_are_refused(backend: str, key: str, change: Any) -> None:
    state = filled(backend, range(6)).state_dict()
    state[key] = change(state[key])
    with pytest.raises((ValueError, TypeError)):
        GradientStream.from_state_dict(state)


def test_a_saved_state_does_not_change_with_the_stream(backend: str) -> None:
    found = filled(backend, range(6))
    state = found.state_dict()
    before = {key: np.copy(value) for key, value in state.items()}
    for step in range(6, 50):
        found.update(gradient(step), step)
    for key, value in before.items():
        np.testing.assert_array_equal(state[key], value, err_msg=key)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"nothing", None])
def test_files_that_are_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.npz"
    if content is None:
        np.save(tmp_path / "array.npy", np.ones(3))
        path = tmp_path / "array.npy"
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: expected a file that GradientStream.save wrote"):
        GradientStream.load(path)
    with pytest.raises(OSError, match="none"):
        GradientStream.load(tmp_path / "none.npz")


def test_saving_replaces_a_file_when_the_new_one_is_whole(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.npz"
    filled(backend, range(3)).save(path)
    before = path.read_bytes()

    def broken(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space left"):
        filled(backend, range(5)).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_streams_are_copied_and_pickled(backend: str) -> None:
    found = filled(backend, range(6))
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert_equal_states(again, found)
        again.update(gradient(6), 6)
        assert found.steps == 6
    assert repr(found) == "GradientStream(3 arrays in 3 groups, 6 steps, newest 5)"


def test_a_rule_that_is_a_callable_goes_on_if_it_is_given_again(backend: str) -> None:
    rule = lambda name: name.split(".")[0]
    before = filled(backend, range(4), groups=rule)
    for groups, expected in ((rule, "late"), (None, "late")):
        again = GradientStream.from_state_dict(before.state_dict(), groups=groups, backend=backend)
        again.update({"late.x": np.ones(3)}, 4)
        assert again.group_of("late.x") == (expected if groups else "late.x")
