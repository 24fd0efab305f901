"""Loops as people write them: accumulation, experts, checkpointing, several optimizers, step numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, batch, norm64, same_summaries, small_model  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def test_torch_accumulated_gradients_are_seen_once() -> None:
    model, whole = small_model(), small_model()
    monitor, reference = Monitor(model), Monitor(whole)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        model.zero_grad()
        for micro in range(4):
            (model(batch(10 * step + micro)).square().mean() / 4).backward()
        whole.load_state_dict(model.state_dict())
        whole.zero_grad()
        whole(torch.cat([batch(10 * step + micro) for micro in range(4)])).square().mean().backward()
        monitor.step()
        reference.step()
        assert float(monitor.grad_norm()) == pytest.approx(float(reference.grad_norm()), rel=1e-4)
        optimizer.step()
    assert monitor.stream.steps == 3
    assert monitor.summary().count == reference.summary().count


class Experts(nn.Module):
    """Each input goes to one of four experts; the last is never chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 3, bias=False) for _ in range(4)])

    def forward(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        return self.experts[expert](x)


def test_torch_experts_without_a_gradient_are_unobserved_and_those_never_chosen_pending() -> None:
    model = Experts()
    monitor = Monitor(model)
    for step in range(9):
        model.zero_grad()
        model(batch(step), step % 3 if step < 6 else 0).square().sum().backward()
        monitor.step()
    assert monitor.unobserved == {
        "experts.0.weight": 4,
        "experts.1.weight": 7,
        "experts.2.weight": 7,
    }
    assert monitor.pending == ["experts.3.weight"]
    for name, count in (("experts.0.weight", 5), ("experts.1.weight", 2)):
        assert monitor.summary(name).count == 18 * count
        assert monitor.summary(name).zeros == 0
    notes = monitor.report().data["notes"]
    assert "experts.1.weight: no gradient in 7 of 9 steps" in notes
    assert "experts.3.weight: no gradient yet in 9 steps" in notes


def test_torch_parameters_frozen_later_are_unobserved_from_then_on() -> None:
    model = small_model()
    monitor = Monitor(model)
    for step in range(4):
        if step == 2:
            model[0].requires_grad_(False)
            model[0].weight.grad = model[0].bias.grad = None
        backward(model, step)
        monitor.step()
    assert monitor.unobserved == {"0.weight": 2, "0.bias": 2}
    assert monitor.pending == []


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6, bias=False)
        self.b = nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor, reentrant: bool | None = None) -> torch.Tensor:
        if reentrant is None:
            return self.b(torch.relu(self.a(x)))
        hidden = checkpoint(lambda y: torch.relu(self.a(y)), x, use_reentrant=reentrant)
        return checkpoint(self.b, hidden, use_reentrant=reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_torch_checkpointing_changes_nothing(reentrant: bool) -> None:
    plain = Tied()
    saving = copy.deepcopy(plain)
    monitors = Monitor(plain), Monitor(saving)
    for step in range(3):
        for model, monitor, how in ((plain, monitors[0], None), (saving, monitors[1], reentrant)):
            model.zero_grad()
            model(batch(step).requires_grad_(), how).square().sum().backward()
            monitor.step()
    assert monitors[0].stream.names == monitors[1].stream.names == ["a.weight"]
    assert monitors[1].summary().count == 3 * 36
    same_summaries(*monitors, ["a.weight"])


class Adversaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(6, 6)
        self.critic = nn.Linear(6, 1)


def test_torch_two_optimizers_with_a_monitor_each() -> None:
    gan = Adversaries()
    parts = {"generator": gan.generator, "critic": gan.critic}
    optimizers = {name: torch.optim.SGD(part.parameters(), 0.1) for name, part in parts.items()}
    monitors = {name: Monitor(gan, optimizers[name], params=rf"^{name}\.") for name in optimizers}
    for step in range(4):
        for name, sign in (("critic", -1), ("critic", -1), ("generator", 1)):
            gan.zero_grad()
            (sign * gan.critic(gan.generator(batch(step))).mean()).backward()
            expected = norm64(parts[name])
            assert float(monitors[name].clip_(1e-3)) == pytest.approx(expected, rel=1e-6)
            optimizers[name].step()
    assert {name: m.stream.steps for name, m in monitors.items()} == {"generator": 4, "critic": 8}
    assert monitors["critic"].stream.names == ["critic.weight", "critic.bias"]


@pytest.mark.parametrize("when", ["call", "optimizer"])
def test_torch_two_optimizers_with_one_monitor(when: str) -> None:
    model = small_model()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.AdamW([*model[2].parameters(), *model[3].parameters()], 0.1)
    monitor = Monitor(model, [first, second], when=when)
    for step in range(3):
        backward(model, step)
        expected = norm64(model)
        if when == "call":
            monitor.step()
        first.step()
        second.step()
        assert float(monitor.grad_norm()) == pytest.approx(expected, rel=1e-6)
    assert monitor.stream.steps == 3
    assert set(monitor.stream.observed.values()) == {3}


def test_torch_step_numbers_may_be_given() -> None:
    model = small_model()
    monitor = Monitor(model, every=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(95, 131, 5):
        backward(model, step)
        monitor.clip_(1.0, loss=0.5, step=step)
        optimizer.step()
    assert monitor.stream.history.steps.tolist() == [100, 110, 120, 130]
    assert monitor.losses[0] == [100, 110, 120, 130]
    with pytest.raises(TypeError, match=r"step: expected an int, got 1.5"):
        monitor.step(step=1.5)
    backward(model, 0)
    for call in (monitor.step, monitor.micro_step, lambda step: monitor.clip_(1.0, step=step)):
        with pytest.raises(ValueError, match=r"step: expected a number above 130, got 7; call rollback\(6\)"):
            call(step=7)
    assert monitor.enabled
    monitor.step(step=140)
    assert monitor.stream.last_step == 140
    first = Monitor(model)
    first.step()
    with pytest.raises(ValueError, match=r"above 0, got 0; call load_state_dict\(\), or make a new Monitor"):
        first.step(step=0)


def test_torch_every_observation_is_tagged_with_its_moment() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model)
    for step in range(6):
        backward(model, step)
        if step < 2:
            monitor.step()
        elif step < 4:
            monitor.clip_(1.0)
        else:
            monitor.attach(optimizer)
        optimizer.step()
    assert monitor.when == [(0, "after backward"), (2, "before clipping"), (4, "before optimizer step")]
    assert "after backward, before clipping" in monitor.report().data["settings"]["when"]


def test_torch_the_loss_scale_of_the_batch_is_that_of_the_gradient() -> None:
    model = small_model()
    monitor = Monitor(model)
    for step in range(2):
        backward(model, 0, scale=1.0 + step)
        monitor.step()
    norms = monitor.stream.history.norm
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)
    np.testing.assert_array_equal(monitor.stream.history.steps, [0, 1])
