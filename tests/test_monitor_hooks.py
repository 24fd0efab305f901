"""Observation from hooks: before the optimizer's step, or within backward."""

from __future__ import annotations

import gc
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, batch, norm64, same_summaries, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks)


def test_torch_a_hook_observes_before_each_step_of_the_optimizer() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, when="optimizer", every=2)
    norms = []
    for step in range(5):
        backward(model, step)
        norms.append(norm64(model))
        optimizer.step()
    assert monitor.stream.history.steps.tolist() == [0, 2, 4]
    assert monitor.stream.history.norm.tolist() == pytest.approx(norms[::2], rel=1e-6)


def test_torch_attaching_twice_observes_once() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    old = Monitor(model, optimizer, when="optimizer")
    monitor = Monitor(model, optimizer, when="optimizer")
    monitor.attach(optimizer).attach(optimizer)
    assert hooks_of(optimizer) == 1
    backward(model, 0)
    optimizer.step()
    assert (old.stream.steps, monitor.stream.steps) == (0, 1)
    part = Monitor(model, optimizer, when="optimizer", params="weight")  # of other parameters: both
    assert hooks_of(optimizer) == 2
    monitor.detach()
    monitor.detach()
    assert hooks_of(optimizer) == 1
    backward(model, 1)
    optimizer.step()
    assert (monitor.stream.steps, part.stream.steps) == (1, 1)


def test_torch_hooks_go_with_their_monitor() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    monitor = Monitor(model, optimizer, when="optimizer")
    backward(model, 0)
    monitor.clip_(1.0, into=optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    optimizer.step()
    del monitor
    gc.collect()
    assert hooks_of(optimizer) == len(optimizer._optimizer_step_post_hooks) == 0
    with Monitor(model).attach(optimizer) as monitor:
        backward(model, 0)
        optimizer.step()
        assert hooks_of(optimizer) == 1
    assert hooks_of(optimizer) == 0
    assert monitor.stream.steps == 1


def test_torch_a_loop_that_clips_after_all_is_observed_before_clipping() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, when="optimizer")
    for step in range(3):
        backward(model, step)
        expected = norm64(model)
        assert float(monitor.clip_(1e-3)) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
    assert monitor.stream.steps == 3
    assert monitor.when == [(0, "before clipping")]


def train_in_backward(model: nn.Module, monitor: Monitor | None, steps: int) -> None:
    optimizers = {p: torch.optim.SGD([p], 0.1) for p in model.parameters()}

    def hook(p: Any) -> None:
        if monitor is not None:
            monitor.observe(p)
        optimizers[p].step()
        p.grad = None

    handles = [p.register_post_accumulate_grad_hook(hook) for p in model.parameters()]
    for step in range(steps):
        loss = model(batch(step)).square().mean()
        loss.backward()
        if monitor is not None:
            monitor.step(loss)
    for handle in handles:
        handle.remove()


def test_torch_optimizer_in_backward() -> None:
    model, plain = small_model(), small_model()
    monitor, reference = Monitor(model), Monitor(plain)
    train_in_backward(model, monitor, 4)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for step in range(4):
        reference.step(backward(plain, step))
        optimizer.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert monitor.enabled
    assert monitor.stream.steps == 4
    names = sorted(reference.stream.names)
    assert sorted(monitor.stream.names) == names
    for name in names:
        assert monitor.summary(name).norm == pytest.approx(reference.summary(name).norm, rel=1e-5)
    assert monitor.stream.history.norm == pytest.approx(reference.stream.history.norm, rel=1e-5)
    assert monitor.losses[0] == [0, 1, 2, 3]
    assert monitor.when == [(0, "in backward")]
    assert float(monitor.grad_norm()) == pytest.approx(float(reference.grad_norm()), rel=1e-5)
    with pytest.raises(RuntimeError, match="clip_: expected gradients that are all there at once"):
        monitor.clip_(1.0)


def test_torch_in_backward_at_a_cadence() -> None:
    model = small_model()
    monitor = Monitor(model, every=2)
    train_in_backward(model, monitor, 5)
    assert monitor.stream.history.steps.tolist() == [0, 2, 4]
    assert monitor.overhead.calls == 5


def test_torch_in_backward_with_more_parameters_than_are_remembered() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(150)))
    monitor = Monitor(model, on_error="raise")
    for step in range(3):
        for p in model.parameters():
            p.grad = torch.full_like(p, step + 1.0)
            monitor.observe(p)
            p.grad = None
        monitor.step()
    assert monitor.stream.steps == 3
    assert set(monitor.stream.observed.values()) == {3}
    assert monitor.summary().count == 3 * 150 * 12


def test_torch_what_backward_did_not_show_is_seen_at_the_step() -> None:
    model, plain = small_model(), small_model()
    monitor, reference = Monitor(model), Monitor(plain)
    backward(model, 0)
    backward(plain, 0)
    monitor.observe(model[0].weight)
    monitor.step()
    reference.step()
    same_summaries(monitor, reference, reference.stream.names)


def test_torch_a_parameter_seen_twice_in_backward_is_no_observation() -> None:
    model = small_model()
    monitor = Monitor(model)
    backward(model, 0)
    monitor.observe(model[0].weight)
    with pytest.warns(RuntimeWarning, match=r"observe: expected each parameter once .*got 0.weight a second"):
        monitor.observe(model[0].weight)
    assert not monitor.enabled
    with pytest.raises(ValueError, match="p: expected a watched parameter of the model"):
        monitor.observe(nn.Parameter(torch.ones(2)))
