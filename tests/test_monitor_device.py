"""Monitors of gradients that are taken for gradients on a GPU: the simulated device reads them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pretend
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, small_model  # noqa: E402
from pretend import Device  # noqa: E402
from streams import assert_same_history, assert_same_ring, assert_same_summary  # noqa: E402
from torch import nn  # noqa: E402

from gradtail import GradientStream  # noqa: E402
from gradtail.stream.on_device import DeviceNorm  # noqa: E402
from gradtail.torch import Monitor, observer  # noqa: E402


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    for lying in pretend.lying_on(simulated, monkeypatch):
        monkeypatch.setattr(observer, "taken", partial(taken, lying))
        yield lying


def taken(device: Device, norm: Any) -> torch.Tensor:
    """Read the memory in which the device leaves the norm, once it has; of a capture, that memory."""
    address = norm.__cuda_array_interface__["data"][0]
    live = torch.from_numpy(np.ctypeslib.as_array(ctypes.c_double.from_address(address)))
    if device.module.is_capturing(device.stream):
        return live
    device.advance()
    return live.clone()


class Two:
    """A model whose gradients lie on the device, one whose do not, and a monitor of each."""

    def __init__(self, device: Device, optimizer: Any = None, **options: Any) -> None:
        self.device = device
        self.models = small_model(), small_model()
        self.optimizers = [None if optimizer is None else optimizer(m.parameters()) for m in self.models]
        small = {"sketch": 256, "window": 8, "tracks": 40, "on_error": "raise", **options}
        self.there, self.here = (
            Monitor(model, one, **small) for model, one in zip(self.models, self.optimizers, strict=True)
        )

    def each(self, action: Any) -> tuple[Any, Any]:
        """Do something with (model, optimizer, monitor) of both."""
        first = action(self.models[0], self.optimizers[0], self.there)
        with self.device.host():
            return first, action(self.models[1], self.optimizers[1], self.here)

    def agree(self) -> None:
        found, wanted = self.there.stream, self.here.stream
        assert found.counted == wanted.counted
        assert found.observed == wanted.observed
        for group in (None, "0.weight", "3.bias"):
            assert_same_summary(found.summary(group), wanted.summary(group))
            assert_same_ring(found, wanted, group)
        assert_same_history(found, wanted)
        for (name, p), q in zip(self.models[0].named_parameters(), self.models[1].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7, msg=name)


def spoil(model: nn.Module, step: int) -> None:
    if step in (2, 5):
        model[0].bias.grad[1] = math.nan if step == 2 else math.inf


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, fused=True)


@pytest.mark.parametrize("fold", [True, False])
def test_torch_clipping(device: Device, fold: bool) -> None:
    two = Two(device, sgd)
    for step in range(9):
        bound = 1e3 if step % 3 == 1 else 0.05

        def action(model: nn.Module, optimizer: Any, monitor: Monitor, step: int = step) -> Any:
            backward(model, step)
            spoil(model, step)
            norm = monitor.clip_(bound, into=optimizer if fold else None)  # noqa: B023
            flag = monitor.found_inf
            if fold or not flag:
                optimizer.step()
            return float(norm), float(flag), float(monitor.grad_norm())

        found, wanted = two.each(action)
        assert found == pytest.approx(wanted, rel=1e-6, nan_ok=True)
        assert found[1] == (step in (2, 5))
    two.agree()
    a, b = two.there._clip.counts, two.here._clip.counts
    assert (a.calls, a.clipped, a.nonfinite) == (b.calls, b.clipped, b.nonfinite) == (9, 4, 2)
    assert [found.step for found in two.there.skipped] == [found.step for found in two.here.skipped] == [2, 5]
    first = two.there.skipped[0]
    assert (first.name, first.index) == ("0.bias", 1)
    scalars, expected = two.each(lambda model, optimizer, monitor: monitor.scalars())
    del scalars["monitor/overhead"], expected["monitor/overhead"]
    assert scalars == pytest.approx(expected, rel=1e-5, nan_ok=True)
    notes = [set(m.report().data["notes"]) for m in (two.there, two.here)]
    assert any("2 steps skipped for a NaN or infinity" in note for note in notes[0])
    assert two.there.latest().step == two.here.latest().step == 8


def test_torch_a_step_waits_for_nothing(device: Device) -> None:
    two = Two(device)
    for step in range(30):
        backward(two.models[0], step)
        if step < 6:
            two.there.step()
            continue
        with device.waits_for_nothing():
            two.there.step()
            two.there.latest()
            two.there.grad_norm()
            two.there.note(accuracy=0.5)
    assert two.there.wait().step == 29
    assert two.there.accuracies[0] == list(range(6, 30))


def test_torch_the_optimizer_within_backward(device: Device) -> None:
    two = Two(device)

    def action(step: int) -> Any:
        def run(model: nn.Module, _: Any, monitor: Monitor) -> float:
            model.zero_grad()
            handles = [
                p.register_post_accumulate_grad_hook(lambda p: monitor.observe(p)) for p in model.parameters()
            ]
            backward(model, step)
            for handle in handles:
                handle.remove()
            monitor.step()
            if step == 1:
                monitor.summary()
            return float(monitor.grad_norm())

        return run

    for step in range(5):
        found, wanted = two.each(action(step))
        assert found == pytest.approx(wanted, rel=1e-6)
    two.agree()


def test_torch_a_reading_within_a_step_that_is_seen_in_backward(device: Device) -> None:
    """The norm is of all of the step, not of what came after the reading."""
    two = Two(device)
    for step in range(3):

        def action(model: nn.Module, _: Any, monitor: Monitor, step: int = step) -> float:
            backward(model, step)
            for i, p in enumerate(model.parameters()):
                monitor.observe(p)
                if i == 2:
                    monitor.summary()
            monitor.step()
            return float(monitor.grad_norm())

        found, wanted = two.each(action)
        assert found == pytest.approx(wanted, rel=1e-6)
    two.agree()


def test_torch_micro_batches(device: Device) -> None:
    two = Two(device)
    for step in range(3):

        def action(model: nn.Module, _: Any, monitor: Monitor, step: int = step) -> None:
            model.zero_grad()
            for part in range(3):
                backward(model, 10 * step + part, zero=False)
                monitor.micro_step()
            monitor.step()

        two.each(action)
    for a, b in zip(two.there.micro.records, two.here.micro.records, strict=True):
        assert (a.step, a.batches) == (b.step, b.batches)
        assert a.mean_square == pytest.approx(b.mean_square, rel=1e-5)
        assert (a.sum_square, a.norm) == pytest.approx((b.sum_square, b.norm), rel=1e-5)
    assert len(two.there.micro.records) == 3
    two.agree()


class TestCapture:
    """Of a captured step only the pass is simulated; torch's part of it runs at the capture."""

    @pytest.mark.parametrize("every", [1, 3])
    def test_torch_replays_are_steps_of_the_monitor(self, device: Device, every: int) -> None:
        two = Two(device, every=every)
        model, monitor = two.models[0], two.there
        backward(model, 0)
        gradients = [p.grad for p in model.parameters()]

        def fill(step: int) -> None:
            device.advance()
            backward(two.models[1], step)
            for g, p in zip(gradients, two.models[1].parameters(), strict=True):
                g.copy_(p.grad)

        def counted() -> None:
            with device.host():
                two.here.step()

        for step in range(4):
            fill(step)
            monitor.step(step=step)
            counted()
        with device.captured() as graph:
            monitor.step(step=4)
        for step in range(4, 11):
            fill(step)
            device.replay(graph)
            counted()
        assert monitor.stream.last_step == 10 // every * every
        for step in range(11, 15):
            fill(step)
            monitor._turn.give_back()  # the gradients are written to without torch's notice in such loops
            monitor.step()
            counted()
        assert monitor._observer.last == 14
        for step in range(15, 20):
            fill(step)
            device.replay(graph)
            counted()
        two.agree()
        assert monitor.stream.history.steps.tolist() == list(range(0, 20, every))

    def test_torch_clipping_can_be_captured(self, device: Device) -> None:
        two = Two(device)
        model, monitor = two.models[0], two.there
        backward(model, 0)
        monitor.clip_(1.0, step=0)
        with device.captured() as graph:
            norm = monitor.clip_(1.0, step=1)
            monitor.found_inf  # noqa: B018
        assert graph
        device.replay(graph)
        device.advance()
        wanted = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
        assert float(norm) == pytest.approx(wanted, rel=1e-6)
        assert monitor.stream.steps == 2
        assert not monitor.skipped


class TestCost:
    def test_torch_time_on_the_device_is_part_of_the_overhead(
        self, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        two = Two(device)
        monitor = two.there
        for step in range(6):
            backward(two.models[0], step)
            monitor.step(step=step)
            device.advance()
        before = monitor.overhead
        monkeypatch.setattr(GradientStream, "extra_seconds", lambda self: 100.0)
        for step in range(6, 12):
            monitor.step(step=step)
        assert monitor.overhead.mean > 25 + before.mean
        assert monitor.overhead.p99 > 100
        shown = monitor.report().data["overhead"]
        assert shown["share"] == monitor.overhead.share > 1

    def test_torch_a_bound_on_it_makes_observation_rarer(
        self, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        two = Two(device, max_overhead=0.5)
        monitor = two.there
        backward(two.models[0], 0)
        monkeypatch.setattr(GradientStream, "extra_seconds", lambda self: 10.0)
        for step in range(40):
            monitor.step(step=step)
        assert monitor._observer.every > 1
        assert monitor.stream.steps < 40
        assert any("to keep within max_overhead" in note for note in monitor.report().data["notes"])

    def test_torch_events_are_not_asked_during_a_capture(self, device: Device) -> None:
        two = Two(device)
        monitor = two.there
        backward(two.models[0], 0)
        monitor.step(step=0)
        device.advance()
        with device.captured() as graph:
            assert monitor.stream.extra_seconds() == 0
        assert graph
        assert monitor.stream.extra_seconds() > 0


def test_torch_takes_the_norm_where_it_lies() -> None:
    """A build of torch without CUDA says that it has none, and has no word against the description."""

    class Engine:
        norm_address = 4096

    there = DeviceNorm(Engine(), 0)
    with pytest.raises((RuntimeError, AssertionError, TypeError)) as refused:
        torch.as_tensor(there, device=torch.device("cuda", there.device))
    assert "read only" not in str(refused.value)
