"""step(batch=), clip_(batch=) and sampling(): the examples of each step."""

from __future__ import annotations

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import batch  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def trained(monitor, model, batches, optimizer, clip=False, start=0):
    for step, ids in enumerate(batches, start):
        optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        if clip:
            monitor.clip_(1.0, batch=ids)
        else:
            monitor.step(batch=ids)
        optimizer.step()


def epochs(count):
    rng = np.random.default_rng(0)
    return [ids for _ in range(count) for ids in rng.permutation(200).reshape(10, 20)]


@pytest.mark.parametrize(("clip", "when"), [(False, "call"), (True, "call"), (False, "optimizer")])
def test_torch_sampling_of_a_run(clip: bool, when: str) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=2, when=when)
    trained(monitor, model, [torch.from_numpy(ids) for ids in epochs(3)], optimizer, clip)
    found = monitor.sampling(period=10, examples=200)
    assert (found.verdict, found.steps, found.phase, found.unseen) == ("reshuffle", 30, 0, 0)
    trained(monitor, model, [list(range(20))] * 2, optimizer, clip, 30)
    assert monitor.sampling(period=10).verdict == "broken"


def test_torch_sampling_goes_on_from_a_checkpoint() -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer)
    with pytest.raises(RuntimeError, match=r"sampling: expected step\(batch=...\) or clip_"):
        monitor.sampling()
    batches = epochs(3)
    trained(monitor, model, batches[:20], optimizer)
    monitor.rollback(14)
    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    other = Monitor(model, optimizer)
    other.load_state_dict(torch.load(file, weights_only=True))
    trained(other, model, batches[15:], optimizer, start=15)
    found = other.sampling(period=10)
    assert (found.verdict, found.steps, found.repeated) == ("reshuffle", 30, 0)
    old = monitor.state_dict()
    del old["batches"]
    other.load_state_dict(old)
    with pytest.raises(RuntimeError, match="sampling: expected"):
        other.sampling()


def test_torch_batches_that_are_none() -> None:
    model = nn.Linear(6, 3)
    monitor = Monitor(model)
    model(batch(0)).sum().backward()
    with pytest.raises(
        TypeError, match="batch: expected the indices of the examples as ints, got dtype float32"
    ):
        monitor.step(batch=batch(0))
    with pytest.raises(ValueError, match="batch: expected indices in host memory, got a tensor on meta"):
        monitor.clip_(1.0, batch=torch.zeros(3, dtype=torch.long, device="meta"))
    assert monitor.stream.steps == 0
    monitor.step(batch=torch.arange(3))
    assert monitor.sampling().draws == 3


def test_torch_sampling_of_a_run_that_went_on_in_a_new_epoch() -> None:
    rng = np.random.default_rng(3)
    order = [ids for _ in range(8) for ids in rng.permutation(2000).reshape(100, 20)]
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor, other = (Monitor(model, optimizer, every=100) for _ in range(2))
    trained(monitor, model, order[:340], optimizer)
    other.load_state_dict(monitor.state_dict())
    trained(other, model, order[400:700], optimizer, start=340)
    found = other.sampling(period=100)
    assert (found.verdict, found.steps) == (None, 640)
    assert "epochs that were broken off" in str(found)
