"""micro_step(): the gradients of micro-batches, from the sketch of what accumulates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import batch  # noqa: E402
from torch import nn  # noqa: E402

from gradtail import noise_scale  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402
from gradtail.torch.micro import MicroSteps  # noqa: E402


def wide_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))


def flat(model: nn.Module) -> np.ndarray:
    return torch.cat([p.grad.double().flatten() for p in model.parameters()]).numpy()


def accumulate(model: nn.Module, monitor: Monitor, step: int, batches: int, scale: float = 1.0) -> np.ndarray:
    """Run the micro-batches of a step; return the gradient of each, shape (batches, d)."""
    model.zero_grad()
    increments, before = [], 0.0
    for micro in range(batches):
        (scale * model(batch(100 * step + micro)).square().mean() / batches).backward()
        monitor.micro_step()
        now = flat(model)
        increments.append((now - before) / scale)
        before = now
    return np.array(increments)


def test_torch_micro_steps_are_the_sketches_of_increments(backend: str) -> None:
    model = wide_model()
    monitor = Monitor(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(3):
        batches = step + 2
        increments = accumulate(model, monitor, step, batches)
        monitor.step()
        optimizer.step()
        record = monitor.micro.records[-1]
        assert (record.step, record.batches) == (step, batches)
        assert record.norm == pytest.approx(np.linalg.norm(increments.sum(axis=0)), rel=1e-5)
        exact = np.mean(np.sum(increments**2, axis=1))
        spread = 6 * np.sqrt(2 / 4096)  # of a sketched square, six standard deviations
        assert record.mean_square == pytest.approx(exact, rel=spread)
        assert record.sum_square == pytest.approx(record.norm**2, rel=spread)
        assert monitor.micro.increments.shape == (batches, 4096)
        sketched = np.sum(monitor.micro.increments**2, axis=1)
        assert np.mean(sketched) == pytest.approx(record.mean_square)
        assert np.sum(monitor.micro.increments, axis=0) @ np.sum(
            monitor.micro.increments, axis=0
        ) == pytest.approx(record.sum_square)
    assert monitor.micro.log.steps == [0, 1, 2]
    assert monitor.stream.steps == 3
    assert repr(monitor.micro).startswith("MicroSteps(3 steps, newest MicroRecord(step=2, batches=4, mean_")
    assert repr(Monitor(model).micro) == "MicroSteps(empty)"
    (note,) = [note for note in monitor.report().data["notes"] if "micro" in note]
    assert note.startswith("micro-steps: 2 to 4 micro-batches a step; over the newest 3 steps with a record ")


def test_torch_the_sketch_of_an_increment_is_that_of_the_gradient_alone() -> None:
    model = wide_model()
    monitor = Monitor(model)
    accumulate(model, monitor, 0, 3)
    monitor.clip_(1e-3)
    lone = wide_model()
    other = Monitor(lone)
    (lone(batch(2)).square().mean() / 3).backward()
    other.micro_step()
    other.step()
    np.testing.assert_allclose(monitor.micro.increments[2], other.micro.increments[0], atol=1e-7)


def test_torch_micro_steps_under_a_loss_scale() -> None:
    plain, scaled = wide_model(), wide_model()
    optimizer = torch.optim.SGD(scaled.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))
    one, two = Monitor(plain), Monitor(scaled, optimizer, scaler=scaler)
    accumulate(plain, one, 0, 3)
    one.step()
    accumulate(scaled, two, 0, 3, scale=1024.0)
    two.step()
    a, b = one.micro.log.newest(), two.micro.log.newest()
    assert b.mean_square == pytest.approx(a.mean_square, rel=1e-5)
    assert b.norm == pytest.approx(a.norm, rel=1e-5)


def test_torch_micro_steps_of_a_bad_step_leave_no_record() -> None:
    model = wide_model()
    monitor = Monitor(model)
    accumulate(model, monitor, 0, 2)
    model[0].weight.grad[0, 0] = float("nan")
    monitor.step()
    assert not len(monitor.micro.log)
    accumulate(model, monitor, 1, 2)
    monitor.step()
    assert monitor.micro.log.steps == [1]


def test_torch_micro_steps_keep_the_cadence() -> None:
    model = wide_model()
    monitor = Monitor(model, every=2)
    for step in range(4):
        accumulate(model, monitor, step, 2)
        monitor.step()
    assert monitor.micro.log.steps == [0, 2]
    model(batch(0)).sum().backward()
    monitor.micro_step(step=10)
    monitor.step(step=10)
    assert monitor.micro.log.steps == [0, 2, 10]


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("at", [1, 3])
def test_torch_micro_batches_that_were_thrown_away_do_not_count(to_none: bool, at: int) -> None:
    model, plain = wide_model(), wide_model()
    monitor, reference = Monitor(model), Monitor(plain)
    for step in range(5):
        for one, seen in ((model, monitor), (plain, reference)):
            one.zero_grad(set_to_none=to_none)
            for micro in range(2):
                if one is model and step == at and micro == 1:  # a bad loss: begin again
                    model.zero_grad(set_to_none=to_none)
                    (one(batch(100 * step)).square().mean() / 2).backward()
                    seen.micro_step()
                (one(batch(100 * step + micro)).square().mean() / 2).backward()
                seen.micro_step()
            seen.step()
    assert monitor.micro.log.steps == reference.micro.log.steps == list(range(5))
    for a, b in zip(monitor.micro.records, reference.micro.records, strict=True):
        assert a.batches == b.batches == 2
        assert a.mean_square == pytest.approx(b.mean_square, rel=1e-5)


def test_torch_micro_batches_without_their_step_leave_no_record() -> None:
    model = wide_model()
    monitor = Monitor(model)
    accumulate(model, monitor, 0, 2)
    model.zero_grad()
    model(batch(1)).square().mean().backward()
    monitor.step()
    assert monitor.micro.records == []


@pytest.mark.filterwarnings("ignore:Using backward")
def test_torch_micro_batches_with_a_graph_of_their_gradients() -> None:
    model = wide_model()
    monitor = Monitor(model)
    model.zero_grad()
    for micro in range(3):
        model(batch(micro)).square().mean().backward(create_graph=True)
        monitor.micro_step()
    monitor.step()
    assert [record.batches for record in monitor.micro.records] == [3]
    model.zero_grad()


def test_torch_micro_steps_need_a_sketch() -> None:
    model = wide_model()
    monitor = Monitor(model, sketch=0)
    model(batch(0)).sum().backward()
    with pytest.warns(RuntimeWarning, match="monitoring is off from step 0"):
        monitor.micro_step()
    monitor.step()


def test_torch_noise_scale_of_groups_from_micro_batches(backend: str) -> None:
    """Against the exact squares of the same increments: each group, a prefix of two, and the whole."""
    model = wide_model()
    monitor = Monitor(model, backend=backend)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    ends = np.cumsum(list(sizes.values()))
    parts = {name: slice(end - n, end) for (name, n), end in zip(sizes.items(), ends, strict=True)}
    steps = []
    for step in range(24):
        steps.append(4 * accumulate(model, monitor, step, 4))
        monitor.step()
    micro = np.array(steps)
    wanted = {**parts, "2": slice(parts["2.weight"].start, parts["2.bias"].stop), None: slice(None)}
    for group, part in wanted.items():
        g = micro[:, :, part]
        exact = noise_scale(
            np.sum(g**2, axis=2).mean(axis=1), np.sum(g.mean(axis=1) ** 2, axis=1), small=8, big=32
        )
        found = monitor.noise_scale(group, batch_size=8)
        assert (found.samples, found.sketched) == (24, True)
        off = np.sqrt(2 / (4096 if group is None else 128))
        assert found.trace == pytest.approx(exact.trace, rel=5 * off)
        low, high = found.ci(0.999)
        assert low <= exact.value <= high
        by_default = monitor.noise_scale(group)
        assert by_default.value == pytest.approx(found.value / 8)
        assert (by_default.unit, found.unit) == ("micro-batches", "examples")
        assert " micro-batches (95 %" in str(by_default)
        assert " examples (95 %" in str(found)
    assert sorted(monitor.micro.groups) == sorted(sizes)
    with pytest.raises(ValueError, match="group: expected a group of which micro-batches were seen, got '7'"):
        monitor.noise_scale("7")
    other = Monitor(model, backend=backend)
    other.load_state_dict(monitor.state_dict())
    assert other.noise_scale("2.weight") == monitor.noise_scale("2.weight")
    monitor.rollback(19)
    assert monitor.noise_scale("2.weight").samples == 20
    (note,) = [note for note in monitor.report().data["notes"] if "micro" in note]
    assert "; noise scale " in note
    cosines = monitor.cosines()
    exact = micro.mean(axis=1)[:20]
    norms = np.linalg.norm(exact, axis=1)
    truth = np.sum(exact[1:] * exact[:-1], axis=1) / (norms[1:] * norms[:-1])
    assert np.all(np.abs(cosines.cosines - truth) <= 4.5 * (1 - truth**2) / 64)
    assert monitor.autocorrelation(centred=False).correlation[1] == pytest.approx(
        np.mean(cosines.cosines * norms[1:] * norms[:-1]) / np.mean(norms**2), abs=1e-6
    )


def test_torch_groups_that_come_later_and_go() -> None:
    steps = MicroSteps()
    for step, names in enumerate((["a"], ["a", "b"], ["b"])):
        for part in (1.0, 3.0):  # increments of 1 and 2
            steps.add(part * np.ones(8), {name: part * np.ones(4) for name in names})
        steps.close(step, 1.0, {})
    a, b = steps.of_group("a"), steps.of_group("b")
    assert [record.step for record in a] == [0, 1]
    assert [record.step for record in b] == [1, 2]
    assert {(r.batches, r.mean_square, r.sum_square) for r in a + b} == {(2, 4 * 2.5, 4 * 9.0)}
