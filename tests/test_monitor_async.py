"""A norm that stays on the device: the same clipping and the same counts, and no look at any number."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from monitor_unread import READING_OPS, asynchronous, nothing_is_read, pair  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters()]


def same_gradients(a: nn.Module, b: nn.Module, ulps: float = 1.0) -> None:
    for x, y in zip(gradients(a), gradients(b), strict=True):
        rtol = ulps * torch.finfo(x.dtype).eps
        torch.testing.assert_close(x, y, rtol=rtol, atol=0, equal_nan=True)


def same_counts(one: Monitor, two: Monitor) -> None:
    a, b = one._clip.counts, two._clip.counts
    assert (a.calls, a.clipped, a.nonfinite, a.max_norm) == (b.calls, b.clipped, b.nonfinite, b.max_norm)
    assert a.factor == pytest.approx(b.factor, rel=1e-12, nan_ok=True)


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("read", [float, bool, lambda t: t.item(), lambda t: t.tolist(), torch.nonzero])
def test_torch_the_guard_of_these_tests_sees_a_read(read: Any) -> None:
    with nothing_is_read(), pytest.raises(AssertionError, match="read by"):
        read(torch.ones(()))
    assert float(torch.ones(())) == 1


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("dtype", "ulps"), [("float32", 1), ("float64", 1), ("bfloat16", 2), ("float16", 2)])
def test_torch_clipping_reads_nothing_and_does_the_same(
    backend: str, dtype: str, ulps: float, every: int
) -> None:
    ours, theirs, one, two = pair(backend=backend, every=every)
    for step in range(7):
        max_norm = 1e3 if step % 3 == 1 else 0.05
        for model in (ours, theirs):
            model.float()
            backward(model, step)
            for p in model.parameters():  # gradients as a model of that dtype would have them
                g = p.grad.to(getattr(torch, dtype))
                p.data = p.data.to(g.dtype)
                p.grad = g
        with asynchronous():
            found = one.clip_(max_norm)
            again = one.grad_norm()
        expected = two.clip_(max_norm)
        assert found.dtype == torch.float64
        assert found.shape == again.shape == ()
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
        assert float(again) == float(found)
        same_gradients(ours, theirs, ulps)
    same_counts(one, two)
    assert (one._clip.counts.calls, one._clip.counts.clipped) == (7, 5)
    assert one.stream.history.steps.tolist() == two.stream.history.steps.tolist()


@pytest.mark.parametrize(("value", "norm"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf")])
@pytest.mark.parametrize("every", [1, 2])
def test_torch_nonfinite_gradients_are_left_alone_unread(value: float, norm: str, every: int) -> None:
    ours, theirs, one, two = pair(every=every)
    for step in range(4):
        for model in (ours, theirs):
            backward(model, step)
            if step % 2:
                model[0].bias.grad[3] = value
        before = [g.clone() for g in gradients(ours)]
        with asynchronous():
            found = one.clip_(1e-6)
            flag = one.found_inf
        two.clip_(1e-6)
        assert (flag.dtype, float(flag)) == (torch.float32, float(step % 2))
        if step % 2:
            assert str(float(found)) == norm
            for g, kept in zip(gradients(ours), before, strict=True):
                torch.testing.assert_close(g, kept, rtol=0, atol=0, equal_nan=True)
        same_gradients(ours, theirs)
        same_counts(one, two)
        counts = one._clip.counts
        assert (counts.calls, counts.clipped, counts.nonfinite) == (step + 1, step // 2 + 1, (step + 1) // 2)
        assert math.isnan(counts.factor) == bool(step % 2)


def test_torch_a_norm_is_not_written_to_again() -> None:
    ours, theirs, one, two = pair()
    found, expected = [], []
    for step in range(5):
        backward(ours, step)
        backward(theirs, step)
        with asynchronous():
            found.append(one.clip_(1.0))
        expected.append(float(two.clip_(1.0)))
    assert [float(norm) for norm in found] == expected
    assert len(set(expected)) == 5


@pytest.mark.parametrize("how", ["clip", "found_inf"])
def test_torch_a_fused_optimizer_gets_factor_and_flag_unread(how: str) -> None:
    ours, theirs, one, two = pair()
    optimizers = [torch.optim.AdamW(m.parameters(), 1e-2, fused=True) for m in (ours, theirs)]
    for step in range(9):
        for model in (ours, theirs):
            backward(model, step, 30.0 if step % 3 == 0 else 0.1)
            if step in (4, 5, 7):
                model[2][0].weight.grad[3, 5] = math.nan
        for monitor, optimizer, context in (
            (one, optimizers[0], asynchronous()),
            (two, optimizers[1], warnings.catch_warnings()),
        ):
            with context:
                if how == "clip":
                    monitor.clip_(0.5, into=optimizer)
                else:
                    monitor.step()
                    optimizer.found_inf = monitor.found_inf
        for optimizer in optimizers:
            optimizer.step()
            vars(optimizer).pop("found_inf", None)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
            assert torch.isfinite(a).all()
    assert not hasattr(optimizers[0], "grad_scale")
    assert [(s.step, s.reason) for s in one.skipped] == [(s.step, s.reason) for s in two.skipped]
    assert [s.step for s in one.skipped] == [4, 5, 7]
    # where the value lay is in the stream for the first one, and nobody has looked for the others
    assert [(s.name, s.index) for s in one.skipped] == [("2.0.weight", 29), (None, None), (None, None)]
    assert one.scalars()["monitor/skipped"] == 3
    settings = [m.report().data["settings"] for m in (one, two)]
    assert settings[0] == settings[1]


def test_torch_counts_by_step_are_those_of_the_host() -> None:
    ours, theirs, one, two = pair()
    for monitor in (one, two):
        monitor._clip._log._most = 8
    for step in range(30):
        for model in (ours, theirs):
            backward(model, step)
            if step % 7 == 3:
                model[0].bias.grad[0] = math.inf
        with asynchronous():
            one.clip_(0.05 if step % 2 else 1e3)
        two.clip_(0.05 if step % 2 else 1e3)
        assert len(one._clip._log) <= 8
    ours_dict, theirs_dict = one.state_dict()["clip"], two.state_dict()["clip"]
    assert ours_dict["steps"] == theirs_dict["steps"]
    np.testing.assert_allclose(ours_dict["values"], theirs_dict["values"], rtol=1e-12)
    assert (one._clip.counts.calls, one._clip.counts.nonfinite) == (30, 4)
    last = ours_dict["steps"][-3]
    for monitor in (one, two):
        monitor.rollback(last)
    same_counts(one, two)
    same_counts(one, two)
    for model in (ours, theirs):
        backward(model, 1)
    with asynchronous():
        one.clip_(0.05, step=last + 1)
    two.clip_(0.05, step=last + 1)
    same_counts(one, two)


def test_torch_a_run_may_change_between_host_and_device() -> None:
    ours, theirs, one, two = pair()
    for step in range(9):
        if step == 4:  # and go through a checkpoint
            state = through_a_file(one.state_dict())
            one = Monitor(ours, on_error="raise")
            one.load_state_dict(state)
        for model in (ours, theirs):
            backward(model, step)
        if step in (0, 1, 4, 5, 8):
            with asynchronous():
                one.clip_(0.05 if step % 2 else 1e3)
        else:
            one._observer._asynchronous = False
            one.clip_(0.05 if step % 2 else 1e3)
        two.clip_(0.05 if step % 2 else 1e3)
        same_counts(one, two)
    assert pickle.loads(pickle.dumps(one))._clip.counts == two._clip.counts
    values = [monitor.state_dict()["clip"]["values"] for monitor in (one, two)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


def test_torch_a_step_without_gradients_is_zero_unread() -> None:
    model = small_model()
    monitor = Monitor(model, on_error="raise")
    backward(model, 0)
    with asynchronous():
        monitor.clip_(1.0)
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with asynchronous():
            found = monitor.clip_(1.0)
    assert float(found) == 0
    assert monitor._clip.counts.calls == 1


def test_torch_an_overflow_is_read_once_a_step() -> None:
    model = small_model()
    halves = [list(model[0].parameters()), [*model[2].parameters(), *model[3].parameters()]]
    optimizers = [torch.optim.SGD(half, 0.01) for half in halves]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = Monitor(model, optimizers, scaler=scaler, on_error="raise")
    reads = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            reads.append(func.overloadpacket.__name__ in READING_OPS)
            return func(*args, **(kwargs or {}))

    for step, overflows in enumerate((False, True, False)):
        model.zero_grad()
        loss = scaler.scale(model(torch.ones(2, 6)).square().mean())
        loss.backward()
        if overflows:
            model[3].bias.grad[0] = math.inf
        reads.clear()
        with Count():
            monitor._unscale()
        assert sum(reads) == (2 if overflows else 1)  # the scale is read to be noted
        monitor.step(step=step)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
    assert [found.step for found in monitor.skipped] == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_torch_clipping_on_a_gpu_waits_for_nothing(fused: bool) -> None:
    ours, theirs = small_model().cuda(), small_model()
    monitors = [Monitor(model) for model in (ours, theirs)]
    for monitor in monitors:
        monitor.enabled = False  # norms of the monitor's own: what there is where nothing observes
    optimizer = torch.optim.SGD(ours.parameters(), 0.0, fused=True)
    for step in range(5):
        theirs.load_state_dict(ours.state_dict())
        backward(theirs, step)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = q.grad.cuda()
        expected = monitors[1].clip_(0.05)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = monitors[0].clip_(0.05, into=optimizer if fused else None)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        assert found.is_cuda
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
        if not fused:
            assert norm64(ours) == pytest.approx(norm64(theirs), rel=1e-6)
        optimizer.step()
    assert monitors[0]._clip.counts == monitors[1]._clip.counts
