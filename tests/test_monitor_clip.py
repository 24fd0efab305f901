"""Clipping by the monitor, against torch's own."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
def test_torch_clip_equals_torch(backend: str, max_norm: float) -> None:
    ours, theirs = small_model(), small_model()
    monitor = Monitor(ours, backend=backend)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.01)
    for step in range(6):
        theirs.load_state_dict(ours.state_dict())  # so that rounding does not add up over the steps
        backward(ours, step)
        backward(theirs, step)
        found = monitor.clip_(max_norm)
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=2e-6, atol=0)
        optimizer.step()


@pytest.mark.parametrize(("value", "norm"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf")])
def test_torch_clip_leaves_nonfinite_gradients_alone(value: float, norm: str) -> None:
    model = small_model()
    monitor = Monitor(model)
    backward(model, 0)
    model[0].bias.grad[3] = value
    before = [p.grad.clone() for p in model.parameters()]
    assert str(float(monitor.clip_(1e-6))) == norm
    for p, kept in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.grad, kept) or (torch.isnan(kept).any() and p.grad.isnan().sum() == 1)
    found = monitor.stream.first_nonfinite
    assert found is not None
    assert (found.step, found.name, found.index) == (0, "0.bias", 3)


def test_torch_parameters_unfrozen_later_are_seen_and_clipped() -> None:
    model = small_model()
    model[0].requires_grad_(False)
    monitor = Monitor(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for step in range(4):
        model[0].requires_grad_(step >= 2)
        backward(model, step)
        expected = norm64(model)
        assert float(monitor.clip_(1e-3)) == pytest.approx(expected, rel=1e-6)
        assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
        optimizer.step()
    assert monitor.stream.observed["0.weight"] == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_torch_the_norm_does_not_depend_on_the_cadence(dtype: str) -> None:
    model = nn.Linear(400, 400, bias=False).to(getattr(torch, dtype))
    big = {"float16": 200.0, "bfloat16": 1.003, "float32": 1e30}[dtype]
    monitor = Monitor(model, every=2)
    norms = []
    for _ in range(2):
        model.weight.grad = torch.full((400, 400), big, dtype=model.weight.dtype)
        norms.append(float(monitor.clip_(1.0)))
        assert float(model.weight.grad.double().norm()) == pytest.approx(1.0, rel=0.05)
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


def test_torch_clip_is_not_recorded_by_autograd() -> None:
    model = small_model()
    monitor = Monitor(model, every=2)
    for step in range(2):
        model.zero_grad()
        loss = model(torch.ones(2, 6)).square().sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss.backward(create_graph=True)
        grad = model[0].weight.grad
        function = grad.grad_fn
        norm = monitor.clip_(1e-3)
        assert not norm.requires_grad
        assert model[0].weight.grad.grad_fn is function, step


def test_torch_cadence_observes_one_in_so_many_and_clips_all() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, every=3)
    for step in range(7):
        backward(model, step)
        norm = monitor.clip_(1e-3)
        assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
        assert float(norm) > 1e-2
        optimizer.step()
    np.testing.assert_array_equal(monitor.stream.history.steps, [0, 3, 6])
