"""clip_(into=optimizer): the factor goes to a fused optimizer, and the gradients stay as they are."""

from __future__ import annotations

import gc
import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402

FUSED = {
    "AdamW": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "SGD": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, fused=True),
}


def clip_by_torch(model: nn.Module, max_norm: float) -> None:
    """clip_grad_norm_ with the norm in float64."""
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, torch.tensor(norm64(model)))


@pytest.mark.parametrize("kind", FUSED)
def test_torch_folded_clip_equals_a_clip_by_torch(kind: str, backend: str) -> None:
    ours, theirs = small_model(), small_model()
    monitor = Monitor(ours, backend=backend)
    optimizer, reference = FUSED[kind](ours.parameters()), FUSED[kind](theirs.parameters())
    clipped = 0
    for step in range(12):
        scale = 30.0 if step % 3 == 0 else 0.1
        backward(ours, step, scale)
        backward(theirs, step, scale)
        before = [p.grad.clone() for p in ours.parameters()]
        norm = monitor.clip_(0.5, into=optimizer)
        clipped += float(norm) > 0.5
        assert all(torch.equal(p.grad, b) for p, b in zip(ours.parameters(), before, strict=True))
        clip_by_torch(theirs, 0.5)
        optimizer.step()
        reference.step()
        assert not hasattr(optimizer, "grad_scale")
        assert not hasattr(optimizer, "found_inf")
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert 0 < clipped < 12


def test_torch_folded_clip_leaves_out_a_step_that_is_not_finite() -> None:
    model = small_model()
    monitor = Monitor(model)
    optimizer = FUSED["AdamW"](model.parameters())
    for step in range(4):
        backward(model, step)
        if step == 2:
            model[2][0].weight.grad[3, 5] = math.nan
        before = [p.detach().clone() for p in model.parameters()]
        norm = monitor.clip_(1.0, into=optimizer)
        optimizer.step()
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
        assert same == (step == 2) == math.isnan(norm)
        assert not hasattr(optimizer, "found_inf")
    (skipped,) = monitor.skipped
    assert (skipped.step, skipped.reason, skipped.name, skipped.index) == (2, "found_inf", "2.0.weight", 29)
    assert "1 steps skipped" in str(monitor.report())


def test_torch_a_factor_that_was_not_used_is_taken_back() -> None:
    model = small_model()
    monitor = Monitor(model)
    optimizer = FUSED["Adam"](model.parameters())
    backward(model, 0)
    monitor.clip_(1e-3, into=optimizer)  # the loop skips the step of the optimizer
    backward(model, 1)
    monitor.clip_(1e-3)
    assert not hasattr(optimizer, "grad_scale")
    assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
    optimizer.step()


def test_torch_a_factor_outlives_its_monitor() -> None:
    ours, theirs = small_model(), small_model()
    optimizer, reference = FUSED["SGD"](ours.parameters()), FUSED["SGD"](theirs.parameters())
    backward(ours, 0)
    backward(theirs, 0)
    Monitor(ours).clip_(1e-3, into=optimizer)
    gc.collect()
    optimizer.step()
    clip_by_torch(theirs, 1e-3)
    reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert not hasattr(optimizer, "grad_scale")
    assert not optimizer._optimizer_step_post_hooks


def test_torch_folded_clip_works_with_the_monitor_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADTAIL", "0")
    ours, theirs = small_model(), small_model()
    monitor = Monitor(ours)
    optimizer, reference = FUSED["AdamW"](ours.parameters()), FUSED["AdamW"](theirs.parameters())
    for step in range(3):
        backward(ours, step)
        backward(theirs, step)
        monitor.clip_(1e-2, into=optimizer)
        clip_by_torch(theirs, 1e-2)
        optimizer.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert monitor.stream.steps == 0


def test_torch_optimizers_that_would_not_read_the_factor_are_refused() -> None:
    model, other = small_model(), small_model()
    monitor = Monitor(model)
    backward(model, 0)
    plain = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=r"into: expected an optimizer that reads grad_scale .*got AdamW"):
        monitor.clip_(1.0, into=plain)
    with pytest.raises(TypeError, match=r"into: expected a torch.optim.Optimizer, got int"):
        monitor.clip_(1.0, into=3)
    few = FUSED["AdamW"](model[0].parameters())
    with pytest.raises(ValueError, match=r"into: expected an optimizer of all watched .* without 4 of them"):
        monitor.clip_(1.0, into=few)
    many = FUSED["AdamW"]([*model.parameters(), *other.parameters()])
    with pytest.raises(ValueError, match=r"into: expected an optimizer of watched .* with 6 others"):
        monitor.clip_(1.0, into=many)
    assert monitor.stream.steps == 0
    monitor.clip_(1.0, into=FUSED["AdamW"](model.parameters()))
    assert monitor.stream.steps == 1


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_torch_found_inf_skips_a_bad_step(kind: str) -> None:
    model = small_model()
    monitor = Monitor(model)
    optimizer = FUSED[kind](model.parameters())
    for step in range(3):
        backward(model, step)
        if step == 1:
            model[0].bias.grad[0] = math.inf
        monitor.step()
        flag = monitor.found_inf
        assert (flag.shape, flag.dtype, flag.device) == ((), torch.float32, model[0].weight.device)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.found_inf = flag
        optimizer.step()
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
        assert same == (step == 1) == bool(flag)
        assert float(monitor.found_inf) == float(flag)
    (skipped,) = monitor.skipped
    assert (skipped.step, skipped.reason, skipped.name, skipped.index) == (1, "found_inf", "0.bias", 0)
