"""Which parameters are watched, in which groups; the plan, the memory, and numbers for a logger."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, same_summaries, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


@pytest.mark.parametrize(
    "chosen",
    [
        r"^2\.0\.",
        re.compile(r"^2\.0\."),
        lambda name, p: name.startswith("2") and p.requires_grad,
        ["2.0.bias", "2.0.weight"],
        lambda name, p: p.shape in ((8, 8),) or name == "2.0.bias",
    ],
)
def test_torch_filters_choose_parameters(chosen: object) -> None:
    model = small_model()
    monitor = Monitor(model, params=chosen)
    backward(model, 0)
    monitor.step()
    assert monitor.stream.names == ["2.0.weight", "2.0.bias"]
    assert float(monitor.grad_norm()) == pytest.approx(norm64(model[2]), rel=1e-6)


def test_torch_filters_may_be_parameters_themselves() -> None:
    model = small_model()
    monitor = Monitor(model, params=model[3].parameters())
    backward(model, 0)
    monitor.step()
    assert monitor.stream.names == ["3.weight", "3.bias"]


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ("(", ValueError, r"params: expected a regular expression, got '\('"),
        ("nothing", ValueError, "params: expected a filter that some parameter passes, got 'nothing'"),
        (3, TypeError, "params: expected a regular expression, a callable, or an iterable .*, got int"),
        (["x"], ValueError, r"params\[0\]: expected the name of a parameter, got 'x'"),
        ([3], TypeError, r"params\[0\]: expected a name or a parameter, got int"),
        ([nn.Parameter(torch.ones(1))], ValueError, r"params\[0\]: expected a parameter of the model"),
    ],
)
def test_torch_filters_that_choose_nothing_are_refused(chosen: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Monitor(small_model(), params=chosen)


def test_torch_groups_by_pattern() -> None:
    model = small_model()
    monitor = Monitor(model, groups={"first": r"^0\.", "matrices": "weight$"})
    other = Monitor(model)
    backward(model, 0)
    monitor.step()
    other.step()
    assert sorted(monitor.stream.groups) == ["first", "matrices", "other"]
    joined = other.summary("2.0.weight").merge(other.summary("3.weight"))
    assert monitor.summary("matrices").count == joined.count
    assert monitor.summary("matrices").norm == pytest.approx(joined.norm, rel=1e-6)
    plan = {row.name: row.group for row in monitor.plan().rows}
    assert plan["0.weight"] == "first"
    assert plan["3.bias"] == "other"


def test_torch_the_plan_says_how_each_parameter_is_watched() -> None:
    model = small_model().to(torch.bfloat16)
    model[0].weight.requires_grad_(False)
    monitor = Monitor(model)
    first = monitor.plan().rows[0]
    assert (first.name, first.source, first.group) == ("0.weight", "none (frozen)", "-")
    assert (first.when, first.state_bytes) == ("at step() or clip_()", 0)
    planned = {row.name: row.group for row in monitor.plan().rows}
    assert all(planned[name] == name for name in planned if name != "0.weight")
    assert all(row.state_bytes > 0 for row in monitor.plan().rows[1:])
    assert re.search(r"6 parameters in 5 groups, .* MiB expected$", str(monitor.plan()))
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    monitor.step()
    plan = monitor.plan()
    row = plan.rows[1]
    assert (row.name, row.source, row.dtype, row.place) == ("0.bias", ".grad", "bfloat16", "whole")
    assert (row.scale, row.scope, row.when, row.group) == (
        "as it is",
        "local",
        "after backward",
        "0.bias",
    )
    assert 0 < sum(row.state_bytes for row in plan.rows) <= monitor.stream.nbytes
    lines = str(plan).splitlines()
    assert lines[0].split() == [
        "name", "source", "dtype", "place", "scale", "scope", "when", "group", "state_bytes",
    ]  # fmt: skip
    assert len(lines) == 8
    assert re.fullmatch(r"6 parameters in 5 groups, .* MiB of state", lines[-1])
    assert repr(plan) == str(plan)


def test_torch_the_plan_shows_groups_before_anything_runs() -> None:
    for groups in ({"first": r"^0\.", "matrices": "weight$"}, lambda name: name.split(".")[0]):
        model = small_model()
        monitor = Monitor(model, groups=groups)
        before = {row.name: row.group for row in monitor.plan().rows}
        backward(model, 0)
        monitor.step()
        assert {row.name: row.group for row in monitor.plan().rows} == before
        assert "other" in before.values() or "0" in before.values()


def test_torch_patterns_that_match_nothing_are_named() -> None:
    with pytest.raises(ValueError, match=r"groups: expected patterns found in names .*, got a='x', b='y'"):
        Monitor(small_model(), groups={"a": "x", "b": "y"})
    with pytest.warns(RuntimeWarning, match=r"groups: found in the name of no watched parameter: b='y'"):
        Monitor(small_model(), groups={"a": "weight", "b": "y"})


def test_torch_memory_is_bounded_as_asked() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(300)))
    monitor = Monitor(model, memory="16MiB")
    for step in range(3):
        for i, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 * step + i))
        monitor.step()
    assert monitor.enabled
    assert monitor.stream.nbytes <= 16 << 20
    assert monitor.summary().count == 3 * 300 * 20
    with pytest.raises(ValueError, match="memory: expected at least"):
        Monitor(model, memory="1MiB")


def test_torch_groups_do_not_depend_on_which_gradients_come_first() -> None:
    groups, planned = [], []
    for order in (1, -1):
        model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(200)))
        monitor = Monitor(model, memory="24MiB", on_error="raise")
        planned.append({row.name: row.group for row in monitor.plan().rows})
        for part in list(model)[::order]:
            for p in part.parameters():
                p.grad = torch.ones_like(p)
            monitor.step()
        groups.append({name: monitor.stream.group_of(name) for name in sorted(monitor.stream.names)})
    assert groups[0] == groups[1] == dict(sorted(planned[0].items())) == dict(sorted(planned[1].items()))
    assert len(set(groups[0].values())) < 800


def test_torch_at_most_twenty_scalars_a_step() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))
    monitor = Monitor(model)
    assert monitor.scalars() == {"monitor/skipped": 0.0}
    for _ in range(2):
        model.zero_grad()
        loss = model(torch.ones(1, 4)).sum()
        loss.backward()
        norm = norm64(model)
        monitor.clip_(1e-3, loss)
        scalars = monitor.scalars()
        assert all(type(value) is float for value in scalars.values())
        assert len(scalars) == 20
    assert scalars["grad/norm"] == pytest.approx(norm, rel=1e-6)
    assert scalars["loss"] == pytest.approx(loss.item())
    assert scalars["clip/rate"] == 1.0
    assert scalars["clip/factor"] == pytest.approx(1e-3 / norm, rel=1e-3)
    assert scalars["grad/nonfinite"] == 0.0
    norms = [value for name, value in scalars.items() if re.fullmatch(r"grad/\d+\..*/norm", name)]
    assert norms
    assert norms == sorted(norms, reverse=True)
    assert len(monitor.scalars(limit=100)) > 60
    assert len(monitor.scalars(limit=3)) == 3
    with pytest.raises(ValueError, match="limit: expected a positive int, got 0"):
        monitor.scalars(limit=0)


def test_torch_monitors_of_disjoint_parameters_merge() -> None:
    model, whole = small_model(), small_model()
    monitors = [Monitor(model, params=rf"^{i}\.") for i in (0, 2, 3)]
    everything = Monitor(whole)
    for step in range(3):
        backward(model, step)
        backward(whole, step)
        everything.step()
        for monitor in monitors:
            monitor.step()
    merged = monitors[2].stream.merge(monitors[0].stream).merge(monitors[1].stream)
    same_summaries(merged, everything, everything.stream.names)
    assert merged.history.norm == pytest.approx(everything.stream.history.norm, rel=1e-6)
