"""What is read only when it is asked for: skipped steps, micro-batches, and norms of sharded gradients."""

from __future__ import annotations

import io
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, small_model  # noqa: E402
from monitor_unread import asynchronous, give_norms_as_tensors, nothing_is_read, pair  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402
from gradtail.torch import skips as skips_module  # noqa: E402


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_torch_steps_that_wait_to_be_read_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skips_module, "MOST", 6)
    model = small_model()
    monitor = Monitor(model, on_error="raise")
    bad = [2, 3, 11, 12, 19]
    for step in range(20):
        backward(model, step)
        if step in bad:
            model[0].bias.grad[0] = math.nan
        with asynchronous():
            monitor.step()
            monitor.found_inf  # noqa: B018
            monitor.found_inf  # noqa: B018
            assert len(monitor._observer.skips._waiting) <= 6
    assert monitor.scalars()["monitor/skipped"] == 5
    kept = [found.step for found in monitor.skipped]
    assert kept == [step for step in bad if step in kept]
    assert kept[-1] == 19
    assert any(note.startswith("5 steps skipped") for note in monitor.report().data["notes"])
    other = Monitor(small_model())
    other.load_state_dict(through_a_file(monitor.state_dict()))
    assert other.scalars()["monitor/skipped"] == 5
    assert other.skipped == monitor.skipped
    other.rollback(10)
    assert not other.skipped


def test_torch_skipped_steps_without_a_listed_one_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skips_module, "MOST", 4)
    model = small_model()
    monitor = Monitor(model, on_error="raise")
    for step in range(12):
        backward(model, step)
        if step == 1:
            model[0].bias.grad[0] = math.inf
        with asynchronous():
            monitor.step()
            monitor.found_inf  # noqa: B018
    assert monitor.skipped == []
    assert monitor.scalars()["monitor/skipped"] == 1
    assert "1 steps skipped for a NaN or infinity" in monitor.report().data["notes"]
    state = through_a_file(monitor.state_dict())
    other = Monitor(small_model())
    other.load_state_dict(state)
    assert other.scalars()["monitor/skipped"] == 1
    backward(model, 12)
    model[0].bias.grad[0] = math.inf
    monitor.step()
    with asynchronous():
        monitor.found_inf  # noqa: B018
    assert monitor.scalars()["monitor/skipped"] == 2
    assert [found.step for found in monitor.skipped] == [12]


def test_torch_micro_batches_wait_for_their_norm() -> None:
    ours, theirs, one, two = pair()
    for step in range(4):
        for model, monitor in ((ours, one), (theirs, two)):
            model.zero_grad()
            for part in range(3):
                backward(model, 10 * step + part, zero=False)
                if step == 2 and part == 2:
                    model[0].bias.grad[0] = math.nan
                monitor.micro_step()
        with asynchronous():
            one.step()
        two.step()
    for a, b in zip(one.micro.records, two.micro.records, strict=True):
        assert (a.step, a.batches, a.mean_square, a.sum_square) == (
            b.step,
            b.batches,
            b.mean_square,
            b.sum_square,
        )
        assert a.norm == pytest.approx(b.norm, rel=1e-12)
    assert [record.step for record in one.micro.records] == [0, 1, 3]
    np.testing.assert_array_equal(one.micro.increments, two.micro.increments)


def ranks_work(rank: int, folder: str) -> None:
    """Clip sharded gradients with norms of both kinds, in one of two processes."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        mesh, found = init_device_mesh("cpu", (2,)), []
        whole = torch.arange(24.0).reshape(8, 3)
        for plain, every in ((False, 1), (False, 2), (True, 1)):
            models = []
            for _ in range(2):
                model = nn.Module()
                model.weight = nn.Parameter(distribute_tensor(torch.ones(8, 3), mesh, [Shard(0)]))
                if plain:
                    model.bias = nn.Parameter(torch.ones(3))
                models.append(model)
            monitors = [Monitor(model, every=every, on_error="raise") for model in models]
            for step, scale in enumerate((1.0, 1e-3, math.nan, 1e30, 1.0)):
                for model in models:
                    model.weight.grad = distribute_tensor(whole * scale, mesh, [Shard(0)])
                    if plain:
                        model.bias.grad = torch.full((3,), 2.0)
                with pytest.MonkeyPatch.context() as patch:
                    give_norms_as_tensors(patch)
                    # DTensor works out in small tensors where a block lies, which is remembered
                    with nothing_is_read() if step else nullcontext():
                        norm = monitors[0].clip_(1.0, step=step)
                        flag = monitors[0].found_inf
                expected = monitors[1].clip_(1.0, step=step)
                grads = [model.weight.grad.to_local() for model in models]
                found.append([float(norm), float(expected), float(flag), torch.equal(*grads) or bool(flag)])
        torch.save(found, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_torch_sharded_norms_add_up_unread(tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed.tensor", reason="needs DTensor (torch 2.5 or newer)")
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("needs torch.distributed with gloo")
    import torch.multiprocessing as multiprocessing

    multiprocessing.spawn(ranks_work, (str(tmp_path),), nprocs=2)
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    np.testing.assert_array_equal(*(np.array(found)[:, 0] for found in both))
    for norm, expected, flag, same in both[0]:
        assert norm == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert flag == (not math.isfinite(norm))
        assert same
    assert both[0][0][0] == pytest.approx(math.sqrt(sum(i * i for i in range(24))))
    assert math.isnan(both[0][2][0])
