"""Groups: by array, by rule, or by module where there is no room for more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.states.groups import OTHER, Groups

EXPERTS = [f"layers.{i}.experts.{j}.{w}" for i in range(4) for j in range(8) for w in ("w1", "w2")]


def assigned(groups: Groups, names: list[str], most: int) -> dict[str, str]:
    groups.begin(names, most)
    return groups.assign(names)


def test_each_array_is_its_own_group_where_there_is_room() -> None:
    assert assigned(Groups(), EXPERTS, 64) == {name: name for name in EXPERTS}


@pytest.mark.parametrize(("most", "groups"), [(63, 32), (31, 4), (4, 4), (3, 1), (1, 1)])
def test_modules_where_there_is_not(most: int, groups: int) -> None:
    found = assigned(Groups(), EXPERTS, most)
    assert len(set(found.values())) == groups
    for name, group in found.items():
        assert name.startswith(group)


def test_neighbours_where_names_have_no_modules() -> None:
    names = [f"p{i}" for i in range(100)]
    found = assigned(Groups(), names, 7)
    assert next(iter(found.values())) == "p0 ... p14"
    assert len(set(found.values())) == 7


def test_neighbours_where_modules_have_very_many_parts() -> None:
    names = [f"layers.{i}.{w}" for i in range(500) for w in ("up", "down")]
    found = assigned(Groups(), names, 50)
    assert len(set(found.values())) == 50
    assert found["layers.0.up"] == found["layers.9.down"] == "layers.0 ... layers.9"


@given(st.lists(st.sampled_from(EXPERTS), unique=True, min_size=1), st.integers(1, 70))
def test_never_more_than_there_is_room_for(names: list[str], most: int) -> None:
    groups = Groups()
    found = assigned(groups, names, most)
    assert set(found) == set(names)
    assert len(set(found.values())) <= most
    groups.of.update(found)
    groups.of.update(groups.assign([f"late.{i}" for i in range(100)]))
    assert len(groups.names) <= most + 1
    late = {group for group in groups.of.values() if group not in found.values()}
    assert all(group == OTHER or group.startswith("late") for group in late)


def test_rules() -> None:
    rule = {"attention": r"\.attn\.", "mlp": r"\.mlp\.", "first": r"^layers\.0\."}
    found = assigned(Groups(rule), ["layers.0.attn.q", "layers.1.mlp.up", "layers.0.norm", "head"], 9)
    assert list(found.values()) == ["attention", "mlp", "first", OTHER]
    found = assigned(Groups(lambda name: name.split(".")[0]), EXPERTS, 1)
    assert set(found.values()) == {"layers"}


def test_saved_groups_go_on_alike() -> None:
    for rule, most in ((None, 3), (None, 31), ({"one": r"\.1\."}, 9)):
        groups = Groups(rule)
        groups.of.update(assigned(groups, EXPERTS[:20], most))
        again = Groups()
        again.load_state_dict(groups.state_dict())
        assert again.of == groups.of
        assert again.assign(EXPERTS[20:]) == groups.assign(EXPERTS[20:]) == groups.copy().assign(EXPERTS[20:])


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (3, TypeError, "groups: expected a mapping of names to regular expressions or a callable, got int"),
        ({1: "x"}, TypeError, "groups: expected names of type str, got 1"),
        ({"a": 1}, TypeError, r"groups\['a'\]: expected a regular expression, got 1"),
        ({"a": "("}, ValueError, r"groups\['a'\]: expected a regular expression, got '\('"),
    ],
)
def test_wrong_rules(rule: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Groups(rule)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="groups: expected a callable that returns str, got 3 for 'a'"):
        Groups(lambda name: 3).assign(["a"])  # type: ignore[arg-type, return-value]
