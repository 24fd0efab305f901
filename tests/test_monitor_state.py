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

from gradtail.states.table import RECORD  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402
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
        ({}, "state: expected version 1, got None"),
        ({**state, "version": 99}, "state: expected version 1, got 99"),
        ({"version": 1, "stream": {}}, "state: expected the part 'clip', got none of that name"),
        ({**state, "stream": {}}, "state"),
    ):
        with pytest.raises(ValueError, match=message):
            monitor.load_state_dict(bad)
    assert monitor.state_dict().keys() == before.keys()
    assert monitor.stream.history.steps.tolist() == [0, 2, 4]


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
    monitor.rollback(-1)
    assert monitor.losses == ([], [])
    run(model, monitor, range(2))
    assert monitor.stream.history.steps.tolist() == [0, 1]


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
