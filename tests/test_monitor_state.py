"""Checkpoints: a monitor resumes, goes back, and does not stand in the way of copies of the model."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, same_summaries, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.report import Report  # noqa: E402
from gradtail.states.table import RECORD  # noqa: E402
from gradtail.torch import Monitor, merge_states  # noqa: E402
from gradtail.torch.packing import pack, unpack  # noqa: E402


def run(model: nn.Module, monitor: Monitor, steps: range) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in steps:
        loss = backward(model, step)
        monitor.micro_step()
        monitor.clip_(0.3, loss)
        optimizer.step()


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_torch_a_resumed_monitor_knows_what_an_uninterrupted_one_does(backend: str) -> None:
    straight, broken = small_model(), small_model()
    one, two = Monitor(straight, backend=backend), Monitor(broken, backend=backend)
    run(straight, one, range(12))
    run(broken, two, range(7))
    checkpoint = through_a_file({"model": broken.state_dict(), "monitor": two.state_dict()})
    resumed = small_model(1)
    resumed.load_state_dict(checkpoint["model"])
    three = Monitor(resumed, backend=backend)
    three.load_state_dict(checkpoint["monitor"])
    run(resumed, three, range(7, 12))
    same_summaries(one, three, one.stream.names)
    assert three.stream.steps == 12
    assert three.losses == one.losses
    assert three.micro.log.values == one.micro.log.values
    np.testing.assert_array_equal(three.stream.ring().vectors, one.stream.ring().vectors)
    settings = [monitor.report().data["settings"] for monitor in (one, three)]
    assert settings[0] == settings[1]


def test_torch_loading_replaces_what_was_there() -> None:
    model = small_model()
    monitor = Monitor(model, every=2)
    run(model, monitor, range(4))
    state = monitor.state_dict()
    run(model, monitor, range(4, 9))
    monitor.load_state_dict(state)
    assert monitor.stream.history.steps.tolist() == [0, 2]
    run(model, monitor, range(4, 6))
    assert monitor.stream.history.steps.tolist() == [0, 2, 4]
    before = monitor.state_dict()
    for bad, message in (
        ({}, "state: expected the state_dict of a Monitor, got a mapping with nothing"),
        ({**state, "version": 99}, "state: expected version 1, got 99"),
        (model.state_dict(), r"expected the state_dict of a Monitor, got .* '0.weight', .*, \.\.\."),
        ({"version": 1, "stream": {}}, "state: expected the part 'clip', got none of that name"),
        ({**state, "stream": {}}, "state"),
    ):
        with pytest.raises(ValueError, match=message):
            monitor.load_state_dict(bad)
    assert monitor.state_dict().keys() == before.keys()
    assert monitor.stream.history.steps.tolist() == [0, 2, 4]


def test_torch_a_refused_state_changes_nothing() -> None:
    model = small_model()
    monitor = Monitor(model)
    run(model, monitor, range(3))
    state, before = monitor.state_dict(), monitor.stream
    steps = {"steps": [0, 1], "counts": [1, 2]}
    for key, bad in (
        ("last", "abc"),
        ("last", 2.5),
        ("losses", {"steps": [0]}),
        ("losses", {**steps, "values": [1.0]}),
        ("losses", {"steps": [1, 0], "counts": [1, 2], "values": [1.0, 2.0]}),
        ("losses", {**steps, "values": ["x", 1.0]}),
        ("accuracies", {**steps, "values": ["x", 1.0]}),
        ("skipped", {**steps, "values": [{}, {}]}),
        ("skipped", None),
        ("micro", {"increments": np.zeros((0, 0))}),
        ("micro", {**state["micro"], "increments": 3}),
        ("clip", {**steps, "values": [[1], [2]]}),
        ("parameters", []),
        ("parameters", {"0.weight": "many"}),
        ("stream", {**state["stream"], "elements": "x"}),
        ("stream", 7),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^state: expected "):
            monitor.load_state_dict({**state, key: bad})
        assert monitor.stream is before
    run(model, monitor, range(3, 5))
    assert monitor.stream.steps == 5


def test_torch_a_rule_for_groups_outlives_a_resumption() -> None:
    rule = lambda name: "tail" if name.startswith("3") else "body"
    model = small_model()
    monitor = Monitor(model, groups=rule)
    backward(model, 0)
    model[3].weight.grad = model[3].bias.grad = None
    monitor.step()
    resumed = Monitor(model, groups=rule)
    resumed.load_state_dict(through_a_file(monitor.state_dict()))
    backward(model, 1)
    resumed.step()
    assert resumed.stream.groups == ["body", "tail"]


def test_torch_skipped_steps_are_counted_though_not_all_are_kept() -> None:
    model = small_model()
    monitor = Monitor(model)
    log = monitor._observer.skipped
    log._most = 8
    model[0].weight.grad = torch.full_like(model[0].weight, float("nan"))
    for step in range(21):
        monitor.step(step=step)
        monitor.found_inf  # noqa: B018
    assert len(monitor.skipped) <= 8
    assert monitor.scalars()["monitor/skipped"] == 21
    assert any(note.startswith("21 steps skipped") for note in monitor.report().data["notes"])
    other = Monitor(small_model())
    other.load_state_dict(through_a_file(monitor.state_dict()))
    assert other._observer.skipped.total == 21
    other.rollback(20)
    assert other._observer.skipped.total == 21
    other.rollback(3)
    assert 1 <= other._observer.skipped.total <= 4


def test_torch_ranks_with_the_same_gradients_are_not_merged() -> None:
    model = small_model()
    ranks = [Monitor(model) for _ in range(2)]
    for step in range(3):
        backward(model, step)
        for monitor in ranks:
            monitor.step()
    with pytest.raises(
        ValueError, match=r"^states\[1\]: expected .*, got '0.weight' in step .*merge only one"
    ):
        merge_states(monitor.state_dict() for monitor in ranks)
    assert merge_states([ranks[0].state_dict()]).steps == 3


def test_torch_steps_divided_among_processes_are_those_of_one() -> None:
    whole, parts = small_model(), [small_model(), small_model()]
    one, two = Monitor(whole), [Monitor(model) for model in parts]
    for step in range(12):
        backward(whole, step)
        one.step(step=step)
        backward(parts[step % 2], step)
        two[step % 2].step(step=step)
    merged = merge_states(through_a_file(monitor.state_dict()) for monitor in two)
    assert merged.history.steps.tolist() == list(range(12))
    np.testing.assert_allclose(merged.history.norm, one.history.norm, rtol=1e-12)
    for name in (None, *one.stream.names):
        a, b = merged.summary(name), one.summary(name)
        assert (a.count, a.zeros, a.nan, a.max_abs) == (b.count, b.zeros, b.nan, b.max_abs)
        assert a.norm == pytest.approx(b.norm, rel=1e-12)
    np.testing.assert_array_equal(merged.ring().steps, one.stream.ring().steps)
    np.testing.assert_allclose(merged.ring().vectors, one.stream.ring().vectors, atol=1e-12)
    reports = [Report.from_stream(stream).data for stream in (merged, one.stream)]
    same_numbers(*reports)


def same_numbers(a: Any, b: Any, where: str = "") -> None:
    """Compare the data of two reports; sums may have been taken in another order."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in LEFT_OUT:
                same_numbers(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same_numbers(x, y, f"{where}[{i}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-6, nan_ok=True), where
    else:
        assert a == b, where


LEFT_OUT: tuple[str, ...] = ()


def test_torch_rollback_cuts_what_came_later() -> None:
    model = small_model()
    monitor = Monitor(model)
    run(model, monitor, range(10))
    assert monitor.rollback(5) == 5
    assert monitor.losses[0] == list(range(6))
    assert monitor.stream.last_step == 5
    assert monitor.micro.log.steps == list(range(6))
    assert monitor.report().data["settings"]["clip_calls"] == 6
    run(model, monitor, range(6, 8))
    assert monitor.stream.history.steps.tolist() == list(range(8))
    assert monitor.losses[0] == list(range(8))
    with pytest.raises(ValueError, match="step: expected an int of at least 0, got -1"):
        monitor.rollback(-1)
    assert monitor.stream.steps == 8
    assert monitor.rollback(0) == 0
    run(model, monitor, range(1, 3))
    assert monitor.stream.history.steps.tolist() == [0, 1, 2]


def test_torch_the_state_of_another_model_is_refused() -> None:
    model = small_model()
    monitor = Monitor(model)
    run(model, monitor, range(2))
    other = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 4))
    wide, part = Monitor(other), Monitor(small_model(), params="weight")
    with pytest.raises(ValueError, match=r"3\.weight: 32 elements here, 24 elements in the state"):
        wide.load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match=r"0\.bias: none of that name here, 8 elements in the state"):
        part.load_state_dict(monitor.state_dict())
    with pytest.raises(ValueError, match=r"0\.bias: 8 elements here, none of that name in the state"):
        monitor.load_state_dict(part.state_dict())
    assert (wide.stream.steps, part.stream.steps, monitor.stream.steps) == (0, 0, 2)


def test_torch_a_model_that_holds_its_monitor_copies_and_pickles() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    model.monitor = Monitor(model, optimizer, when="optimizer", groups=lambda name: name.split(".")[0])
    for step in range(3):
        backward(model, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        assert other.monitor.stream.steps == 3
        same_summaries(other.monitor, model.monitor, model.monitor.stream.groups)
        backward(other, 7)
        other.monitor.step()
        assert (other.monitor.stream.steps, model.monitor.stream.steps) == (4, 3)
        assert float(other.monitor.grad_norm()) > 0
    copy.deepcopy(optimizer)
    pickle.loads(pickle.dumps(optimizer))


def test_torch_a_watched_model_copies_and_pickles_as_before() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    monitor = Monitor(model, optimizer, when="optimizer")
    backward(model, 0)
    monitor.clip_(1.0, into=optimizer)
    optimizer.step()
    keys = set(vars(model))
    other = pickle.loads(pickle.dumps(model))
    assert set(vars(other)) == set(vars(copy.deepcopy(model))) == keys
    backward(other, 1)
    torch.optim.SGD(other.parameters(), 0.1).step()
    assert monitor.stream.steps == 1


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3, RECORD),
        np.arange(6, dtype=np.uint64).reshape(2, 3) + 2**63,
        np.array([], np.float32),
        np.array(["a", "bc"]),
        np.array(2.5),
        {"a": (1, [2.5, None, True], "x"), "b": np.float32(1.5)},
    ],
)
def test_torch_states_are_packed_without_loss(value: Any) -> None:
    back = unpack(through_a_file(pack(value)))
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype
        np.testing.assert_array_equal(back, value)
    else:
        assert back == value
