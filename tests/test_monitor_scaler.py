"""Loss scaling: what is recorded is unscaled, overflows are located and not counted."""

from __future__ import annotations

import math
import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import batch, norm64, same_summaries, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402

STEPS = 7
OVERFLOW = 3


def optimizer_of(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)


def scaled_backward(model: nn.Module, scaler: torch.amp.GradScaler, step: int) -> None:
    model.zero_grad()
    loss = model(batch(step)).square().mean()
    if step == OVERFLOW:
        loss = loss * 1e36  # overflows by the scale, not by itself
    scaler.scale(loss).backward()


def train_by_torch(scale: float, max_norm: float | None) -> tuple[nn.Module, list[float]]:
    """Return the model and the norms that a loop as torch documents it finds."""
    model = small_model()
    optimizer, scaler = optimizer_of(model, False), torch.amp.GradScaler("cpu", init_scale=scale)
    norms = []
    for step in range(STEPS):
        scaled_backward(model, scaler, step)
        scaler.unscale_(optimizer)
        norms.append(norm64(model))
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()
    return model, norms


@pytest.mark.parametrize("scale", [65536.0, 50000.0])
@pytest.mark.parametrize("by_user", [False, True])
@pytest.mark.parametrize("how", ["step", "clip", "fold"])
def test_torch_scaled_gradients_are_recorded_unscaled(scale: float, by_user: bool, how: str) -> None:
    max_norm = None if how == "step" else 0.05
    reference, norms = train_by_torch(scale, max_norm)
    model = small_model()
    optimizer, scaler = optimizer_of(model, how == "fold"), torch.amp.GradScaler("cpu", init_scale=scale)
    monitor = Monitor(model, optimizer, scaler=scaler)
    for step in range(STEPS):
        scaled_backward(model, scaler, step)
        if by_user:
            scaler.unscale_(optimizer)
        if how == "step":
            monitor.step()
        else:
            monitor.clip_(0.05, into=optimizer if how == "fold" else None)
        norm = float(monitor.grad_norm())
        if step == OVERFLOW:
            assert not math.isfinite(norm)
        else:
            assert norm == pytest.approx(norms[step], rel=1e-4)
        scaler.step(optimizer)
        scaler.update()
        assert not hasattr(optimizer, "grad_scale")
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert monitor.enabled
    assert monitor.stream.history.steps.tolist() == [step for step in range(STEPS) if step != OVERFLOW]
    assert monitor.stream.first_nonfinite is None
    (skipped,) = monitor.skipped
    assert (skipped.step, skipped.reason, skipped.scale) == (OVERFLOW, "overflow", scale)
    assert skipped.name in dict(model.named_parameters())
    assert skipped.index is not None


@pytest.mark.parametrize("fused", [False, True])
def test_torch_scaled_gradients_in_the_hook_of_the_optimizer(fused: bool) -> None:
    reference, norms = train_by_torch(1024.0, None)
    model = small_model()
    optimizer, scaler = optimizer_of(model, fused), torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = Monitor(model, optimizer, when="optimizer", scaler=scaler)
    for step in range(STEPS):
        scaled_backward(model, scaler, step)
        scaler.step(optimizer)
        scaler.update()
        if step != OVERFLOW:
            assert float(monitor.grad_norm()) == pytest.approx(norms[step], rel=1e-4)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert monitor.stream.steps == STEPS - 1
    assert len(monitor.skipped) == fused  # else the scaler does not call the optimizer at all


def test_torch_an_overflow_between_the_steps_of_a_cadence_is_listed() -> None:
    model = small_model()
    optimizer, scaler = optimizer_of(model, False), torch.amp.GradScaler("cpu", init_scale=65536.0)
    monitor = Monitor(model, optimizer, scaler=scaler, every=2)
    shift = 1 - OVERFLOW % 2  # so that the overflow has an odd number
    for step in range(STEPS):
        scaled_backward(model, scaler, step)
        monitor.step(step=step + shift)
        scaler.step(optimizer)
        scaler.update()
    (skipped,) = monitor.skipped
    assert skipped.step == OVERFLOW + shift
    assert skipped.step % 2 == 1
    assert skipped.name is not None


def test_torch_the_hook_refuses_gradients_scaled_by_nobody_it_knows() -> None:
    model = small_model()
    optimizer, scaler = optimizer_of(model, True), torch.amp.GradScaler("cpu", init_scale=1024.0)
    Monitor(model, optimizer, when="optimizer")
    monitor = Monitor(model, optimizer, when="optimizer")
    scaled_backward(model, scaler, 0)
    with pytest.warns(RuntimeWarning, match="scaler: expected the GradScaler to be given"):
        scaler.step(optimizer)
    assert not monitor.enabled


@pytest.mark.parametrize("by_user", [False, True])
def test_torch_a_scaler_that_was_not_given_is_noticed_with_fused_optimizers(by_user: bool) -> None:
    model = small_model()
    optimizer, scaler = optimizer_of(model, True), torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = Monitor(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            scaled_backward(model, scaler, step)
            if by_user:
                scaler.unscale_(optimizer)
            monitor.clip_(0.05)
            scaler.step(optimizer)
            scaler.update()
        scaled_backward(model, scaler, 0)
        scaler.unscale_(optimizer)
        monitor.clip_(0.05, into=optimizer)  # its own factor is no scale
        optimizer.step()
    messages = [str(w.message) for w in caught]
    assert len(messages) == (not by_user)
    assert by_user or "scaler: expected the GradScaler to be given, Monitor(" in messages[0]


def test_torch_a_monitor_that_is_off_still_clips_what_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADTAIL", "0")
    reference, _ = train_by_torch(1024.0, 0.05)
    model = small_model()
    optimizer, scaler = optimizer_of(model, False), torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = Monitor(model, optimizer, scaler=scaler)
    for step in range(STEPS):
        scaled_backward(model, scaler, step)
        monitor.clip_(0.05)
        scaler.step(optimizer)
        scaler.update()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_torch_a_scaler_that_is_switched_off_changes_nothing() -> None:
    scaled, plain = small_model(), small_model()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = optimizer_of(scaled, False)
    one, two = Monitor(scaled, optimizer, scaler=scaler), Monitor(plain)
    for model in (scaled, plain):
        scaled_backward(model, scaler, 0)
    one.step()
    two.step()
    same_summaries(one, two, one.stream.names)


def test_torch_a_scaler_needs_its_optimizer() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="scaler: expected the optimizer to be given with it, got none"):
        Monitor(model, scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(TypeError, match=r"scaler: expected a torch.amp.GradScaler, got float"):
        Monitor(model, optimizer_of(model, False), scaler=1024.0)
