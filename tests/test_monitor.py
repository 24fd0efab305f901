"""Monitor: on real small models, against torch's own numbers."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402
from gradtail.torch.overhead import Stopwatch  # noqa: E402


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3)
    )


def backward(model: nn.Module, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    loss = scale * model(torch.randn(16, 6, generator=generator)).square().mean()
    loss.backward()
    return loss


def norm64(model: nn.Module) -> float:
    return math.sqrt(
        sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    )


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


def test_torch_second_call_in_a_step_is_refused() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer)
    backward(model, 0)
    monitor.step()
    with pytest.raises(RuntimeError, match=r"clip_: expected one call a step, got a second one"):
        monitor.clip_(1.0)
    optimizer.step()
    monitor.step()
    assert monitor.stream.steps == 2


def test_torch_a_skipped_step_is_no_offence() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer)
    for step in range(6):
        backward(model, step)
        monitor.clip_(1e-3)
        if step % 2:
            optimizer.step()
    model(torch.ones(1, 6)).sum().backward()  # accumulates onto gradients that were seen
    monitor.clip_(1e-3)
    assert monitor.stream.steps == 7
    with pytest.raises(RuntimeError, match="expected one call a step"):
        monitor.clip_(1e-3)


def test_torch_an_optimizer_of_master_copies_ends_a_step() -> None:
    model = small_model()
    copies = [p.detach().clone().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(copies, lr=0.1)
    monitor = Monitor(model, optimizer)
    backward(model, 0)
    for _ in range(3):
        monitor.step()
        optimizer.step()
    assert monitor.stream.steps == 3


def test_torch_monitors_leave_no_hooks_behind() -> None:
    from torch.optim import optimizer as hooks

    before = len(hooks._global_optimizer_post_hooks)
    for _ in range(5):
        Monitor(small_model())
    gc.collect()
    assert len(hooks._global_optimizer_post_hooks) == before


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


def test_torch_steps_are_told_apart_without_being_given_the_optimizer() -> None:
    model, other = small_model(), small_model()
    monitor = Monitor(model)
    optimizer, stranger = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other))
    backward(model, 0)
    monitor.step()
    optimizer.step()
    monitor.step()  # the same gradients, of another step
    stranger.step()  # steps other parameters: the turn is still ours
    with pytest.raises(RuntimeError, match="expected one call a step"):
        monitor.step()


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
    monitor.step()
    assert float(monitor.clip_(1.0)) == 0.0
    assert monitor.stream.steps == 0


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
    assert any("monitoring is off from step 0" in note for note in broken.report().data["notes"])


def test_torch_errors_can_be_raised() -> None:
    model = nn.Embedding(10, 3, sparse=True)
    monitor = Monitor(model, on_error="raise")
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="expected a dense array"):
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

    assert Monitor(OptimizedModule(small_model()))._parameters[0][0] == "0.weight"
    assert Monitor(nn.DataParallel(small_model()))._parameters[0][0] == "0.weight"
    assert Monitor(OptimizedModule(nn.DataParallel(small_model())))._parameters[0][0] == "0.weight"


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
