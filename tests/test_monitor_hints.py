"""What a monitor says once when a loop does what it hardly means to do."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def test_torch_clipping_some_parameters_is_said_once() -> None:
    model = small_model()
    monitor = Monitor(model, params=r"^3\.")
    backward(model, 0)
    rest = norm64(model[0])
    with pytest.warns(
        RuntimeWarning, match=r"clips the watched .* 0\.weight, 0\.bias, 2\.0\.weight and 1 oth"
    ):
        monitor.clip_(1e-3)
    assert norm64(model[3]) == pytest.approx(1e-3, rel=1e-2)
    assert norm64(model[0]) == rest
    backward(model, 1)
    monitor.clip_(1e-3)


@pytest.mark.parametrize("how", ["frozen", "of another optimizer", "folded"])
def test_torch_clipping_all_that_is_trained_here_is_not_worth_a_word(how: str) -> None:
    model = small_model()
    if how == "frozen":
        for part in (model[0], model[2]):
            part.requires_grad_(False)
    optimizer = torch.optim.AdamW(model[3].parameters(), fused=True)
    monitor = Monitor(model, None if how != "of another optimizer" else optimizer, params=r"^3\.")
    backward(model, 0)
    monitor.clip_(1e-3, into=optimizer if how == "folded" else None)


def test_torch_gradients_that_were_used_are_pointed_out_once() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model)
    backward(model, 0)
    optimizer.step()
    with pytest.warns(RuntimeWarning, match=r"call clip_ between backward\(\) and optimizer.step\(\)"):
        monitor.clip_(1.0)
    for step in range(2):
        backward(model, step)
        optimizer.step()
        monitor.step()
    assert monitor.stream.steps == 3


def test_torch_accumulating_onto_used_gradients_is_no_offence() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model)
    for step in range(3):
        backward(model, step, zero=False)
        monitor.step()
        optimizer.step()


def test_torch_a_loss_may_be_given_where_a_hook_observes() -> None:
    for late in (False, True):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        monitor = Monitor(model, optimizer, when="optimizer", every=2)
        losses = []
        for step in range(5):
            losses.append(backward(model, step).item())
            if not late:
                monitor.step(losses[-1])
            optimizer.step()
            if late and step % 2:
                optimizer.zero_grad()
            if late:
                monitor.step(losses[-1])
        assert monitor.losses == ([0, 2, 4], losses[::2])
        assert monitor.when == [(0, "before optimizer step")]
        assert monitor.stream.steps == 3
        with pytest.raises(ValueError, match="step: expected no number where a hook observes"):
            monitor.step(0.5, step=9)
        monitor.detach()
        backward(model, 9)
        monitor.step(0.25, step=10)
        assert monitor.stream.last_step == 10


def test_torch_a_model_with_nothing_to_watch_is_pointed_out() -> None:
    with pytest.warns(RuntimeWarning, match="expected parameters to watch, got a module without any"):
        monitor = Monitor(nn.Tanh())
    monitor.step()
    assert "call between" not in str(monitor.report())
    frozen = small_model().requires_grad_(False)
    with pytest.warns(
        RuntimeWarning, match=r"require a gradient, got none that does \(0.weight, .* 3 others"
    ):
        monitor = Monitor(frozen)
    monitor.step()
    (note,) = monitor.report().data["notes"]
    assert note == "no watched parameter requires a gradient, so there was nothing to observe"
    monitor.plan()


def test_torch_parameters_without_memory_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"model: .* got weight on the meta device; .* after to_empty"):
        Monitor(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: lazy modules are new
        lazy = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="model: expected parameters with a shape, got weight uninitialized"):
        Monitor(lazy)
