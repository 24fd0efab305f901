"""What goes wrong in the monitor does not go wrong in training."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def test_torch_an_error_disables_the_monitor_and_not_the_training() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    monitor = Monitor(model)
    model(torch.tensor([1, 1, 4])).sum().backward()
    with pytest.warns(RuntimeWarning, match=r"monitoring is off from step 0 .*got layout torch.sparse_coo"):
        monitor.step()
    assert not monitor.enabled
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.step()  # silent from here on
    dense = small_model()
    monitor = Monitor(dense)
    backward(dense, 0)
    monitor.enabled = False
    expected = norm64(dense)
    assert float(monitor.clip_(1e-3)) == pytest.approx(expected, rel=1e-6)
    assert norm64(dense) == pytest.approx(1e-3, rel=1e-2)


def test_torch_sparse_gradients_are_refused_and_clipped() -> None:
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Linear(3, 2))
    monitor = Monitor(model)
    model(torch.tensor([1, 1, 4])).square().sum().backward()
    gradients = [p.grad.to_dense().clone() for p in model.parameters()]
    expected = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    with pytest.warns(
        RuntimeWarning,
        match=r"0\.weight: expected a dense real gradient, got layout torch.sparse_coo; .*params=lambda name",
    ):
        norm = monitor.clip_(1e-2)
    assert float(norm) == pytest.approx(expected, rel=1e-6)
    for p, before in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad.to_dense(), before * (1e-2 / expected), rtol=1e-4, atol=0)


def test_torch_complex_gradients_are_refused_and_clipped() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    model.weight.grad = torch.tensor([3 + 4j, 0 + 12j])
    monitor = Monitor(model)
    with pytest.warns(RuntimeWarning, match=r"weight: .*, got dtype torch.complex64; .*training is not"):
        norm = monitor.clip_(1.0)
    assert float(norm) == 13.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([3 + 4j, 0 + 12j]) / 13)


def test_torch_a_bad_loss_is_left_out_and_nothing_else() -> None:
    model = small_model()
    monitor = Monitor(model)
    for step, loss in enumerate((1.5, "x", torch.ones(3), torch.tensor(0.5), 2)):
        backward(model, step)
        if step == 1:
            with pytest.warns(RuntimeWarning, match="loss: expected a number or a tensor of one, got 'x'"):
                monitor.step(loss)
        else:
            monitor.step(loss)
    assert monitor.enabled
    assert monitor.losses == ([0, 3, 4], [1.5, 0.5, 2.0])


def test_torch_losses_are_numbers_of_any_library() -> None:
    model = small_model()
    monitor = Monitor(model)
    losses = (np.float32(0.5), np.array(1.5), np.int64(2), torch.tensor([2.5]), torch.tensor(1 + 2j), 1j)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, loss in enumerate(losses):
            backward(model, step)
            monitor.step(loss)
    (message,) = [str(w.message) for w in caught]
    assert message.endswith("got a tensor of shape () and dtype complex64; it is left out")
    assert monitor.enabled
    assert monitor.stream.steps == 6
    assert monitor.losses == ([0, 1, 2, 3], [0.5, 1.5, 2.0, 2.5])


def test_torch_a_loss_is_not_an_alias() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, hooked = Monitor(model), Monitor(model, optimizer, when="optimizer")
    loss = torch.tensor(1.0)
    backward(model, 0)
    monitor.step(loss)
    hooked.step(loss)
    loss += 1
    optimizer.step()
    assert monitor.losses == hooked.losses == ([0], [1.0])


def test_torch_numbers_of_any_library() -> None:
    model = small_model()
    monitor = Monitor(model, every=np.int64(2))
    for step, bound in enumerate((np.float32(0.5), torch.tensor(0.5), np.int64(1), torch.tensor(1))):
        backward(model, step)
        monitor.micro_step(step=np.int64(2 * step))
        monitor.clip_(bound, step=np.int32(2 * step))
        assert norm64(model) <= float(bound) * (1 + 1e-5)
    assert monitor.stream.history.steps.tolist() == [0, 2, 4, 6]
    assert monitor.micro.log.steps == [0, 2, 4, 6]
    assert monitor.rollback(np.int64(2)) == 2
    for bad in (True, np.bool_(True), np.float64(3.0), torch.ones(2)):
        with pytest.raises(TypeError, match="step: expected an int"):
            monitor.step(step=bad)
    for bad in (True, np.array([1.0]), 1j, torch.ones(2)):
        with pytest.raises(TypeError, match="max_norm: expected a positive number"):
            monitor.clip_(bad)


@pytest.mark.parametrize("method", ["step", "clip_", "observe"])
def test_torch_a_refused_gradient_takes_no_number(method: str) -> None:
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Linear(3, 2))
    monitor = Monitor(model, on_error="raise")
    p = model[0].weight

    def call() -> None:
        if method == "clip_":
            monitor.clip_(1e6, loss=0.5)
            return
        if method == "observe":
            monitor.observe(p)
        monitor.step(loss=0.5)

    for _ in range(2):  # the same gradients may be shown again
        model.zero_grad()
        model(torch.tensor([1, 1, 4])).square().sum().backward()
        for _ in range(2):
            with pytest.raises(TypeError, match="expected a dense real gradient"):
                call()
    assert monitor.losses == ([], [])
    p.grad = p.grad.to_dense()
    call()
    assert monitor.stream.history.steps.tolist() == [0]
    assert monitor.losses == ([0], [0.5])


def test_torch_the_report_says_what_went_wrong() -> None:
    model = small_model()
    monitor = Monitor(model)
    model[0].weight.grad = torch.full_like(model[0].weight, math.nan)
    monitor.step()
    text = str(monitor.report())
    assert "newest 0" not in text
    silent = Monitor(small_model())
    silent.step()
    assert "call between backward() and zero_grad()" in str(silent.report())
    sparse = nn.Embedding(10, 3, sparse=True)
    broken = Monitor(sparse)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.warns(RuntimeWarning, match="monitoring is off"):
        broken.step()
    (note,) = broken.report().data["notes"]
    assert "monitoring is off from step 0" in note


def test_torch_errors_can_be_raised() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    monitor = Monitor(model, on_error="raise")
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(
        TypeError, match=r"weight: expected a dense real gradient, got layout .* name not in \['weight'\]"
    ):
        monitor.step()


def test_torch_switched_off_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADTAIL", "0")
    model = small_model()
    monitor = Monitor(model)
    backward(model, 0)
    monitor.step()
    monitor.step()
    norm = norm64(model)
    assert float(monitor.grad_norm()) == pytest.approx(norm, rel=1e-6)
    monitor.clip_(1e-3)
    assert norm64(model) == pytest.approx(1e-3, rel=1e-2)
    assert float(monitor.grad_norm()) == pytest.approx(norm, rel=1e-6)
    assert monitor.stream.steps == 0
