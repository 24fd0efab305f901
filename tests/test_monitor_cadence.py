"""max_overhead: the monitor observes more rarely while it costs too much, and more often once it does not."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail import GradientStream  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402
from gradtail.torch.cadence import Cadence  # noqa: E402

Cost = Callable[[int], float]


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cost: Cost = lambda step: 0.0  # of the pass, by the number of the step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("gradtail.torch.overhead.time.perf_counter", lambda: clock.now)
    update = GradientStream.update

    def timed(self: GradientStream, arrays: Any, step: int, **more: Any) -> None:
        clock.now += clock.cost(step)
        update(self, arrays, step, **more)

    monkeypatch.setattr(GradientStream, "update", timed)
    return clock


def model_with_gradients() -> nn.Module:
    model = nn.Linear(3, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return model


def run(monitor: Monitor, clock: Clock, steps: range, *, length: float = 1.0) -> None:
    for step in steps:
        monitor.step(step=step)
        clock.now += length


def course(monitor: Monitor) -> list[tuple[int, int]]:
    changes = monitor._observer.cadence.changes
    return list(zip(changes.steps, changes.values, strict=True))


def expected_steps(monitor: Monitor, last: int) -> list[int]:
    """Multiples of what held at each step, by the recorded course."""
    spans = [*course(monitor), (last + 1, 0)]
    return [
        step
        for (first, every), (end, _) in itertools.pairwise(spans)
        for step in range(first, end)
        if step % every == 0
    ]


@pytest.mark.parametrize("base", [1, 3])
def test_torch_the_cadence_follows_the_cost(clock: Clock, base: int) -> None:
    monitor = Monitor(model_with_gradients(), every=base, max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.1 if step < 900 else 1e-4
    run(monitor, clock, range(900))
    # a pass of 0.1 in steps of 1 is 1 % of ten steps
    slower = {1: [1, 2, 4, 8, 16], 3: [3, 6, 12]}[base]
    assert [every for _, every in course(monitor)] == slower
    run(monitor, clock, range(900, 1500))
    assert [every for _, every in course(monitor)] == [*slower, *slower[-2::-1]]
    assert monitor.stream.history.steps.tolist() == expected_steps(monitor, 1499)
    # statistics go by the numbers of steps
    assert sum(block.steps for block in monitor.stream.blocks()) == monitor.stream.steps
    assert monitor.summary().count == 8 * monitor.stream.steps
    assert monitor.stream.counted.runs <= 2 * len(course(monitor))
    assert np.all(np.diff(monitor.stream.ring().steps) > 0)
    assert monitor.suggest_clip().threshold == pytest.approx(8**0.5)


def test_torch_a_cost_near_the_bound_changes_nothing(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.015 if step < 100 else 0.0085
    run(monitor, clock, range(600))
    assert [every for _, every in course(monitor)] == [1, 2]  # twice the share is 0.85 of the bound
    clock.cost = lambda step: 0.006
    run(monitor, clock, range(600, 700))
    assert monitor._observer.every == 1


@pytest.mark.parametrize("hiccup", [range(40, 41), range(40, 43)])
def test_torch_a_hiccup_changes_nothing(clock: Clock, hiccup: range) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 100.0 if step in hiccup else 0.005
    run(monitor, clock, range(200))
    assert course(monitor) == [(0, 1)]


def test_torch_eight_observed_steps_decide(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 1.0
    run(monitor, clock, range(8))
    assert monitor._observer.every == 1  # the eighth has not ended
    run(monitor, clock, range(8, 10))
    assert course(monitor) == [(0, 1), (9, 2)]


def test_torch_a_clock_that_stands_still_is_no_error(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    run(monitor, clock, range(30), length=0.0)
    assert course(monitor) == [(0, 1)]


def test_torch_without_a_bound_the_cadence_stays(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), every=2, on_error="raise")
    clock.cost = lambda step: 10.0
    run(monitor, clock, range(60))
    assert course(monitor) == [(0, 2)]
    assert "max_overhead" not in monitor.report().data["settings"]
    assert not any(note.startswith("observed:") for note in monitor.report().data["notes"])


def test_torch_steps_in_between_are_clipped_on_the_account_of_the_loop(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradtail.torch import gradients

    norm = gradients._norm

    def slow(found: Any) -> float:
        clock.now += 0.05
        return norm(found)

    monkeypatch.setattr(gradients, "_norm", slow)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    monitor = Monitor(model, max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.015
    for step in range(100):
        backward(model, step)
        monitor.clip_(1e-3)
        assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
        optimizer.step()
        clock.now += 1.0
    assert [every for _, every in course(monitor)] == [1, 2]  # with those norms it would be 8
    assert monitor.stream.steps < 60


def test_torch_time_of_the_device_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientStream, "extra_seconds", lambda self: 0.015, raising=False)
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    run(monitor, clock, range(12))
    assert monitor._observer.every == 2
    assert monitor.overhead.share == pytest.approx(0.015)


def test_torch_all_parts_of_a_step_are_observed_or_none(clock: Clock) -> None:
    model = small_model()
    optimizers = [torch.optim.SGD(part.parameters(), 0.01) for part in (model[0], model[2], model[3])]
    monitor = Monitor(model, optimizers, when="optimizer", max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.05
    for step in range(200):
        backward(model, step)
        monitor.micro_step()
        for optimizer in optimizers:
            optimizer.step()
        clock.now += 1.0
    assert monitor._observer.every == 16  # three passes a step
    assert set(monitor.stream.observed.values()) == {monitor.stream.steps}
    assert monitor.stream.history.steps.tolist() == expected_steps(monitor, 199)
    assert set(monitor.micro.log.steps) <= set(monitor.stream.history.steps.tolist())


def test_torch_gradients_seen_in_backward_follow_the_cadence(clock: Clock) -> None:
    model = small_model()
    monitor = Monitor(model, max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.01
    for step in range(120):
        backward(model, step)
        for p in model.parameters():
            monitor.observe(p)
        monitor.step()
        clock.now += 1.0
    assert monitor._observer.every == 8  # six passes a step
    assert set(monitor.stream.observed.values()) == {monitor.stream.steps}
    assert monitor.stream.history.steps.tolist() == expected_steps(monitor, 119)


def test_torch_numbers_that_meet_no_multiple_are_observed_all_the_same(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.1
    for step in range(1, 400, 2):
        monitor.step(step=step)
        clock.now += 1.0
    assert [every for _, every in course(monitor)] == [1, 2, 1]
    assert monitor.stream.steps > 190


def test_torch_the_cadence_is_saved_and_gone_back_from(clock: Clock) -> None:
    model = model_with_gradients()
    monitor = Monitor(model, max_overhead=0.01, on_error="raise")
    clock.cost = lambda step: 0.1
    run(monitor, clock, range(300))
    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    found = {}
    for name, settings in {
        "same": {"max_overhead": 0.01}, "fixed": {}, "third": {"every": 3, "max_overhead": 0.01},
        "slower": {"every": 4, "max_overhead": 0.5},
    }.items():  # fmt: skip
        other = Monitor(model, on_error="raise", **settings)
        other.load_state_dict(state)
        assert course(other) == course(monitor)
        run(other, clock, range(300, 301))
        found[name] = other._observer.every
        assert course(other)[-1][1] == other._observer.every
    assert found == {"same": 16, "fixed": 1, "third": 3, "slower": 16}
    for other in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert repr(other) == repr(monitor)
        assert other._observer.cadence.base == 1
        assert course(other) == course(monitor)
    kept = monitor.rollback(20)
    assert kept is not None
    assert course(monitor) == [(step, every) for step, every in course(other) if step <= 20]
    run(monitor, clock, range(21, 60))
    assert course(monitor)[-1] == (21, 16)
    assert [step for step in monitor.stream.history.steps if step > 20] == [32, 48]
    del state["cadence"]
    other.load_state_dict(state)  # as written before there was one
    assert other._observer.every == 1


@pytest.mark.parametrize(
    "bad",
    [
        3,
        {"every": 0, "changes": {"steps": [], "values": [], "counts": []}},
        {"every": "x", "changes": {"steps": [], "values": [], "counts": []}},
        {"every": 2},
        {"every": 2, "changes": {"steps": [0], "values": ["x"], "counts": [1]}},
    ],
)
def test_torch_a_cadence_that_is_none_is_refused(bad: Any) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    monitor.step()
    state = monitor.state_dict()
    state["cadence"] = bad
    with pytest.raises(ValueError, match=r"^state: expected "):
        monitor.load_state_dict(state)
    assert (monitor._observer.every, monitor.stream.steps) == (1, 1)


def test_torch_the_cadence_is_told(clock: Clock) -> None:
    monitor = Monitor(model_with_gradients(), max_overhead=0.01, on_error="raise")
    assert repr(monitor) == "Monitor(2 parameters, nothing observed, every=1, given 1 and max_overhead=0.01)"
    clock.cost = lambda step: 0.03
    run(monitor, clock, range(60))
    assert repr(monitor).endswith(", every=4, given 1 and max_overhead=0.01)")
    assert str(monitor.plan()).endswith(", every=4, given 1 and max_overhead=0.01")
    data = monitor.report().data
    assert (data["settings"]["every"], data["settings"]["max_overhead"]) == (4, 0.01)
    told = (
        "observed: every step, every 2nd step from step 9 on, every 4th step from step 27 on, to keep within"
    )
    assert [note for note in data["notes"] if note.startswith(told)] == [f"{told} max_overhead=0.01"]


def test_torch_many_changes_are_told_in_short() -> None:
    cadence = Cadence(1, 0.01)
    for i in range(21):
        cadence.changes.add(10 * i, 1 + i % 2)
    assert cadence.told is not None
    assert cadence.told.startswith("observed: every step, 14 changes, then every 2nd step from step 150 on, ")
    assert len(cadence.told) < 300


@pytest.mark.parametrize("bad", ["1%", [0.1], True])
def test_torch_a_bound_is_a_number(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^max_overhead: expected None or a number between 0 and 1, got "):
        Monitor(small_model(), max_overhead=bad)


@pytest.mark.parametrize("bad", [0, 1, 1.5, -0.1, float("nan"), float("inf")])
def test_torch_a_bound_is_a_share(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_overhead: expected None or a number between 0 and 1, got "):
        Monitor(small_model(), max_overhead=bad)
