"""Observation from hooks: before the optimizer's step, or within backward."""

from __future__ import annotations

import gc
import warnings
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
    assert hooks_of(optimizer) == 2
    backward(model, 0)
    optimizer.step()
    assert (old.stream.steps, monitor.stream.steps) == (1, 1)  # monitors do not take off one another
    monitor.detach()
    monitor.detach()
    assert hooks_of(optimizer) == 1
    backward(model, 1)
    optimizer.step()
    assert (old.stream.steps, monitor.stream.steps) == (2, 1)
    for _ in range(2):  # a notebook cell that runs twice
        again = Monitor(model, optimizer, when="optimizer")
        gc.collect()
        assert hooks_of(optimizer) == 2
    assert again.stream.steps == 0


def test_torch_optimizers_that_need_a_closure_have_no_hook() -> None:
    model = small_model()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    with pytest.raises(
        ValueError, match=r"optimizer: expected one whose step\(\) needs no closure, got LBFGS"
    ):
        Monitor(model, optimizer, when="optimizer")
    with pytest.raises(ValueError, match="call step"):
        Monitor(model).attach(optimizer)
    assert hooks_of(optimizer) == 0
    monitor, norms = Monitor(model, optimizer), []

    def closure() -> Any:
        loss = backward(model, 0)
        norms.append(norm64(model))
        monitor.step(loss)
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert monitor.enabled
    assert len(norms) > 2
    assert monitor.stream.history.norm.tolist() == pytest.approx(norms, rel=1e-6)


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


def test_torch_clipping_is_refused_only_while_a_step_is_open_in_backward() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    backward(model, 0)
    monitor.observe(model[0].weight)
    with pytest.raises(RuntimeError, match=r"clip_: expected .*; call step\(\) to close the step"):
        monitor.clip_(1.0)
    monitor.step()
    optimizer.step()
    backward(model, 1)
    expected = norm64(model)
    assert float(monitor.clip_(1e-3)) == pytest.approx(expected, rel=1e-6)
    assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
    monitor.observe(model[2][0].weight)
    monitor.enabled = False
    monitor.clip_(1e-3)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("zero", [True, False])
def test_torch_a_backward_that_broke_off_is_forgotten(every: int, zero: bool) -> None:
    model, plain = small_model(), small_model()
    monitor, reference = Monitor(model, every=every), Monitor(plain, every=every)
    for step in range(6):
        if step in (2, 3):  # an error half-way in backward, and the loop leaves the batch out
            backward(model, 100 + step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for p in list(model.parameters())[:1:-1]:
                    monitor.observe(p)
            backward(model, step, zero=zero)
            for p, q in zip(model.parameters(), plain.parameters(), strict=True):
                q.grad = p.grad.clone()
        else:
            backward(model, step)
            backward(plain, step)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for p in list(model.parameters())[::-1]:
                monitor.observe(p)
        assert len(caught) == 0 or "expected step() after backward" in str(caught[0].message)
        monitor.step(loss=1.0)
        reference.step(loss=1.0)
    assert monitor.enabled
    same_summaries(monitor, reference, reference.stream.names)
    assert monitor.losses == reference.losses
    assert monitor.stream.history.steps.tolist() == reference.stream.history.steps.tolist()
    assert monitor.stream.history.norm.tolist() == pytest.approx(reference.stream.history.norm.tolist())
    monitor.state_dict()


def test_torch_a_backward_that_broke_off_does_not_stand_in_the_way_of_clipping() -> None:
    model = small_model()
    monitor = Monitor(model)
    backward(model, 0)
    monitor.observe(model[0].weight)
    backward(model, 1)
    expected = norm64(model)
    with pytest.warns(RuntimeWarning, match="observe: .* what was observed as step 0 .* is left out"):
        assert float(monitor.clip_(1.0)) == pytest.approx(expected, rel=1e-6)
    assert monitor.stream.history.steps.tolist() == [0]
    assert monitor.stream.norm() == pytest.approx(expected, rel=1e-6)


def test_torch_in_backward_with_numbers_of_steps() -> None:
    model = small_model()
    monitor = Monitor(model)
    for step in (3, 8):
        backward(model, step)
        for p in model.parameters():
            monitor.observe(p, step=step)
        with pytest.raises(ValueError, match=f"step: expected {step}, whose gradients are being seen, got 1"):
            monitor.step(step=1)
        monitor.step(step=step)
    with pytest.raises(ValueError, match="step: expected a number above 8, got 8"):
        monitor.observe(model[0].weight, step=8)
    assert monitor.stream.history.steps.tolist() == [3, 8]


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
