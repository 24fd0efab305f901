"""One observation a step."""

from __future__ import annotations

import gc
import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def test_torch_second_call_in_a_step_is_refused() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer)
    backward(model, 0)
    monitor.step()
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="step: expected gradients that no optimizer has used yet"):
        monitor.step()
    with pytest.raises(RuntimeError, match=r"clip_: expected one call a step, got a second one"):
        monitor.clip_(1.0)
    monitor.clip_(1.0, step=7)  # a number of its own settles it
    assert monitor.stream.history.steps.tolist() == [0, 1, 7]


def test_torch_gradients_that_torch_does_not_see_written_are_no_offence() -> None:
    model = small_model()
    monitor = Monitor(model)
    norms = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(4):
            for p in model.parameters():
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
                p.grad.data.fill_(1.0 + step)  # and what steps is no optimizer of torch
            norms.append(norm64(model))
            assert float(monitor.clip_(1e6)) == pytest.approx(norms[-1], rel=1e-6)
    (message,) = [str(w.message) for w in caught]
    assert message.startswith("gradtail: clip_: expected new gradients, or a step of a torch optimizer")
    assert monitor.stream.history.norm.tolist() == pytest.approx(norms, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbered = Monitor(model)
        for step in range(3):
            numbered.step(step=step)
    assert numbered.stream.steps == 3


def test_torch_a_skipped_step_is_no_offence() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer)
    for step in range(6):
        backward(model, step)
        monitor.clip_(1e-3)
        if step % 2:
            optimizer.step()
    model(torch.ones(1, 6)).sum().backward()  # accumulates onto gradients that were seen
    monitor.clip_(1e-3)
    assert monitor.stream.steps == 7
    with pytest.raises(RuntimeError, match="expected one call a step"):
        monitor.clip_(1e-3)


def test_torch_an_optimizer_of_master_copies_ends_a_step() -> None:
    model = small_model()
    copies = [p.detach().clone().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(copies, lr=0.1)
    monitor = Monitor(model, optimizer)
    backward(model, 0)
    for _ in range(3):
        monitor.step()
        optimizer.step()
    assert monitor.stream.steps == 3


def test_torch_monitors_leave_no_hooks_behind() -> None:
    from torch.optim import optimizer as hooks

    gc.collect()
    before = len(hooks._global_optimizer_post_hooks)
    for _ in range(5):
        Monitor(small_model())
    gc.collect()
    assert len(hooks._global_optimizer_post_hooks) <= before


def test_torch_steps_are_told_apart_without_being_given_the_optimizer() -> None:
    model, other = small_model(), small_model()
    monitor = Monitor(model)
    optimizer, stranger = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other))
    backward(model, 0)
    monitor.step()
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="no optimizer has used yet"):
        monitor.step()  # the same gradients, of another step
    stranger.step()  # steps other parameters: the turn is still ours
    with pytest.raises(RuntimeError, match="expected one call a step"):
        monitor.step()
