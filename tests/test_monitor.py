"""Monitor: on real small models, against torch's own numbers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def test_torch_step_sees_every_gradient(backend: str) -> None:
    model = small_model()
    monitor = Monitor(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: dict[str, list[np.ndarray]] = {name: [] for name, _ in model.named_parameters()}
    for step in range(5):
        loss = backward(model, step)
        for name, p in model.named_parameters():
            seen[name].append(p.grad.numpy().copy())
        monitor.step(loss)
        assert float(monitor.grad_norm()) == pytest.approx(norm64(model), rel=1e-6)
        optimizer.step()
    assert monitor.stream.names == list(seen)
    for name, values in seen.items():
        summary = monitor.summary(name)
        everything = np.concatenate([v.ravel() for v in values]).astype(float)
        assert summary.count == everything.size
        assert summary.norm == pytest.approx(np.linalg.norm(everything), rel=1e-6)
        assert summary.max_abs == np.abs(everything).max()
    assert monitor.summary("2").count == 5 * 72
    assert len(monitor.losses[1]) == 5


def test_torch_gradients_that_are_none_are_unobserved() -> None:
    model = small_model()
    monitor = Monitor(model)
    for step in range(4):
        backward(model, step)
        if step % 2:
            model[3].weight.grad = None
        monitor.step()
    assert monitor.unobserved == {"3.weight": 2}
    assert monitor.summary("3.weight").count == 2 * 24
    assert monitor.summary("3.weight").zeros == 0


def test_torch_no_gradient_at_all() -> None:
    monitor = Monitor(small_model())
    monitor.micro_step()
    monitor.step()
    with pytest.warns(RuntimeWarning, match=r"clip_: expected gradients, got none.*after backward\(\)"):
        assert float(monitor.clip_(1.0)) == 0.0
    assert float(monitor.clip_(1.0)) == 0.0  # said once
    assert monitor.enabled
    assert monitor.stream.steps == 0
    assert monitor.report().data["settings"]["clip_calls"] == 0
    assert "clip/rate" not in monitor.scalars()


def test_torch_tied_and_frozen_parameters_count_once_or_not_at_all() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embedding.weight
            self.frozen = nn.Linear(4, 4).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.frozen(self.embedding(x)))

    model = Tied()
    monitor = Monitor(model)
    model(torch.tensor([1, 2])).square().sum().backward()
    monitor.step()
    assert monitor.stream.names == ["embedding.weight"]
    assert monitor.summary().count == 40
    assert float(monitor.grad_norm()) == pytest.approx(norm64(model), rel=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_torch_other_dtypes(backend: str, dtype: str) -> None:
    model = small_model().to(getattr(torch, dtype))
    monitor = Monitor(model, backend=backend)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p.dtype)
    monitor.step()
    assert float(monitor.grad_norm()) == pytest.approx(norm64(model), rel=1e-6)


def test_torch_model_stays_as_it_is() -> None:
    model = small_model()
    keys = set(vars(model))
    monitor = Monitor(model)
    backward(model, 0)
    monitor.step()
    assert set(vars(model)) == keys
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))


def test_torch_names_are_those_of_the_bare_model() -> None:
    class OptimizedModule(nn.Module):  # what torch.compile wraps a model in, by name and attribute
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self._orig_mod = model

    def first(model: nn.Module) -> str:
        return Monitor(model).plan().rows[0].name

    assert first(OptimizedModule(small_model())) == "0.weight"
    assert first(nn.DataParallel(small_model())) == "0.weight"
    assert first(OptimizedModule(nn.DataParallel(small_model()))) == "0.weight"
