"""What the monitor says that it costs."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, small_model  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402
from gradtail.torch.overhead import Stopwatch  # noqa: E402


def test_torch_overhead_is_measured() -> None:
    model = small_model()
    monitor = Monitor(model)
    assert math.isnan(monitor.overhead.share)
    for step in range(4):
        backward(model, step)
        monitor.step()
    overhead = monitor.overhead
    assert overhead.calls == 4
    assert 0 < overhead.p50 <= overhead.p99
    assert 0 < overhead.share < 1


def test_torch_overhead_counts_the_steps_that_were_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("gradtail.torch.overhead.time.perf_counter", lambda: clock[0])
    watch = Stopwatch()
    for step in range(31):
        with watch:
            clock[0] += 0.9 if step % 3 == 0 else 0.0
        clock[0] += 2.1 if step % 3 == 0 else 3.0
    assert watch.overhead().share == pytest.approx(0.1)
    assert watch.overhead().p50 == 0.0
