"""Monitors of models on a GPU: the numbers of the CPU, and a host that waits for nothing."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from gpu_device import DEVICE, busy, needed, no_waiting_in_torch

torch = pytest.importorskip("torch", reason="the monitor watches PyTorch models")

from monitor_models import same_summaries  # noqa: E402

from gradtail.experiments.gpt import GPT, GPTConfig  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402

pytestmark = needed
TINY = GPTConfig(layers=2, heads=2, width=32, context=16)


def two_models(dtype=torch.float32):
    """Return the same model on the CPU and on the device."""
    torch.manual_seed(0)
    here = GPT(TINY).to(dtype)
    return here, copy.deepcopy(here).to(DEVICE)


def tokens(seed, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(TINY.vocabulary, (batch, TINY.context + 1), generator=generator)


def give_gradients(here, there, seed):
    """Have both models hold the gradients of the one on the CPU."""
    here.zero_grad()
    here.loss(tokens(seed)).backward()
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        q.grad = p.grad.to(DEVICE, copy=True)


def train(model, optimizer, monitor, batch, max_norm=None):
    """Make a step of a loop on the device; ``max_norm`` clips."""
    optimizer.zero_grad(set_to_none=True)
    model.loss(batch).backward()
    if max_norm is None:
        monitor.step()
    else:
        monitor.clip_(max_norm, into=optimizer)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_monitor_on_the_cpu(dtype):
    here, there = two_models(dtype)
    monitors = [
        Monitor(here, on_error="raise", backend="numpy"),
        Monitor(there, on_error="raise"),
    ]
    for step in range(6):
        give_gradients(here, there, step)
        for monitor in monitors:
            monitor.step(step=step)
        assert float(monitors[1].grad_norm()) == pytest.approx(float(monitors[0].grad_norm()), rel=1e-6)
    expected, found = monitors
    same_summaries(found, expected, [name for name, _ in here.named_parameters()])
    np.testing.assert_allclose(found.history.norm, expected.history.norm, rtol=2e-6)
    np.testing.assert_array_equal(found.tracks().values, expected.tracks().values)
    a, b = found.stream.ring(), expected.stream.ring()
    np.testing.assert_allclose(a.vectors, b.vectors, rtol=0, atol=2e-6 * b.norms.max())
    assert found.stream.observed == expected.stream.observed


@pytest.mark.parametrize("into", [False, True])
def test_clips_as_torch_does(into):
    here, there = two_models()
    theirs = copy.deepcopy(there)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True) for model in (there, theirs)]
    monitor = Monitor(there, optimizers[0], on_error="raise")
    for step in range(5):
        give_gradients(here, there, step)
        for p, q in zip(there.parameters(), theirs.parameters(), strict=True):
            q.grad = p.grad.clone()
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        found = monitor.clip_(0.05, into=optimizers[0] if into else None)
        assert found.device.type == DEVICE
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
        for optimizer in optimizers:
            optimizer.step()
        for p, q in zip(there.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_step_is_left_out_and_located(bad):
    here, there = two_models()
    optimizer = torch.optim.AdamW(there.parameters(), lr=1e-3, fused=True)
    monitor = Monitor(there, optimizer, on_error="raise")
    for step in range(4):
        give_gradients(here, there, step)
        if step == 2:
            there.blocks[1].mlp.up.weight.grad[3, 5] = bad
        before = [p.detach().clone() for p in there.parameters()]
        monitor.clip_(1.0, into=optimizer)
        assert monitor.found_inf.device.type == DEVICE
        assert float(monitor.found_inf) == (step == 2)
        optimizer.step()
        same = [torch.equal(p, q) for p, q in zip(there.parameters(), before, strict=True)]
        assert all(same) if step == 2 else not any(same)
    (skipped,) = monitor.skipped
    where = (skipped.step, skipped.name, skipped.index)
    assert where == (2, "blocks.1.mlp.up.weight", 3 * TINY.width + 5)


@pytest.mark.parametrize("max_norm", [None, 1.0])
class TestHost:
    """Four steps at a time, a block of them at most, are enqueued while the device is busy."""

    def test_a_hundred_steps_wait_for_nothing(self, max_norm):
        _, model = two_models()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        monitor = Monitor(model, optimizer, on_error="raise")
        batch = tokens(0).to(DEVICE)
        for _ in range(12):
            train(model, optimizer, monitor, batch, max_norm)
        for _ in range(25):
            with busy(0.5) as event, no_waiting_in_torch():
                for _ in range(4):
                    train(model, optimizer, monitor, batch, max_norm)
                    monitor.note(accuracy=monitor.grad_norm())
                    assert monitor.latest() is not None
                assert not event.query(), "a monitored step has waited for the device"
        assert monitor.stream.steps == 112

    def test_memory_is_flat_after_the_first_steps(self, max_norm):
        _, model = two_models()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        monitor = Monitor(model, optimizer, on_error="raise")
        batch, seen = tokens(0).to(DEVICE), []
        for step in range(200):
            train(model, optimizer, monitor, batch, max_norm)
            if step in (60, 199):
                torch.cuda.synchronize()
                stats = torch.cuda.memory_stats()
                seen.append((stats["segment.all.allocated"], torch.cuda.mem_get_info()[0]))
        assert seen[0] == seen[1]


def test_latest_and_wait():
    here, there = two_models()
    monitor = Monitor(there, on_error="raise")
    for step in range(3):
        give_gradients(here, there, step)
        monitor.step(step=step)
    newest = monitor.wait()
    assert newest.step == 2
    assert newest.norm == pytest.approx(float(monitor.grad_norm()), rel=1e-6)
    give_gradients(here, there, 3)
    with busy() as event:
        monitor.step(step=3)
        assert monitor.latest() == newest
        assert not event.query()
        assert monitor.wait().step == 3
        assert event.query()


def test_report_has_the_time_of_the_device():
    here, there = two_models()
    monitor = Monitor(there, on_error="raise")
    for step in range(8):
        give_gradients(here, there, step)
        monitor.step(step=step)
        torch.cuda.synchronize()
    assert monitor.stream.extra_seconds() > 0
    assert monitor.overhead.calls == 8
