"""Whatever breaks inside the monitor, the model trains as if there were none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import batch, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.stream import GradientStream  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402

STEPS = 5
FAILS_AT = 2


def train(model: nn.Module, make: Callable[[nn.Module, Any], Monitor | None], how: str) -> Monitor | None:
    """Run the loop ``how``, by torch alone if ``make`` gives None."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=how == "fold")
    monitor = make(model, optimizer)
    hooks = []
    if how == "observe" and monitor is not None:
        hooks = [p.register_post_accumulate_grad_hook(monitor.observe) for p in model.parameters()]
    for step in range(STEPS):
        optimizer.zero_grad()
        for micro in range(1 if how == "observe" else 2):
            (model(batch(10 * step + micro)).square().mean() / 2).backward()
            if monitor is not None and how == "micro":
                monitor.micro_step()
        if monitor is None:
            if how in ("clip", "fold"):
                norm = torch.tensor(norm64(model))
                torch.nn.utils.clip_grads_with_norm_(model.parameters(), 0.05, norm)
        elif how == "clip":
            monitor.clip_(0.05)
        elif how == "fold":
            monitor.clip_(0.05, into=optimizer)
        elif how != "hook":
            monitor.step(loss=0.5)
        optimizer.step()
    for hook in hooks:
        hook.remove()
    return monitor


@pytest.mark.parametrize("how", ["step", "clip", "fold", "hook", "observe", "micro"])
@pytest.mark.parametrize("broken", ["update", "norm", "sketch", "nonfinite"])
def test_torch_a_failure_changes_no_parameter(how: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails(self: GradientStream, *arguments: Any, **more: Any) -> Any:
        calls.append(0)
        if len(calls) > FAILS_AT:
            raise MemoryError("out of it")
        return original(self, *arguments, **more)

    original = getattr(GradientStream, broken)
    monkeypatch.setattr(GradientStream, broken, fails)
    watched, plain = small_model(), small_model()
    when = "optimizer" if how == "hook" else "call"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monitor = train(watched, lambda model, optimizer: Monitor(model, optimizer, when=when), how)
    train(plain, lambda model, optimizer: None, how)
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    ours = [w for w in caught if "gradtail" in str(w.message)]
    assert len(ours) == (len(calls) > FAILS_AT)
    assert monitor.enabled == (not ours)
    if ours:
        assert "MemoryError: out of it; training is not affected" in str(ours[0].message)
        assert ours[0].filename == __file__


@pytest.mark.parametrize("how", ["step", "clip", "fold", "hook", "observe", "micro"])
def test_torch_switched_off_every_loop_is_that_of_torch(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADTAIL", "0")
    watched, plain = small_model(), small_model()
    when = "optimizer" if how == "hook" else "call"
    monitor = train(watched, lambda model, optimizer: Monitor(model, optimizer, when=when), how)
    train(plain, lambda model, optimizer: None, how)
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert monitor.stream.steps == 0
    assert monitor.scalars()
