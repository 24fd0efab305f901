"""Weights along given directions by a plain loop, and gradients of single examples along them."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402

import gradtail.torch as gt  # noqa: E402

CROSS_ENTROPY = nn.functional.cross_entropy


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    x, y = torch.randn(40, 5), torch.randint(0, 3, (40,))
    return model, x, y


def some_directions(n, k=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64))[0].to(dtype)


def flat(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def train(model, x, y, steps, monitor, call="step", optimizer=None, kept=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for i in range(steps):
        optimizer.zero_grad()
        CROSS_ENTROPY(model(x[i % 8 :: 8]), y[i % 8 :: 8]).backward()
        if kept is not None:
            kept.append(flat(model))
        if call == "clip_":
            monitor.clip_(0.5)
        elif call == "step":
            monitor.step()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("call", ["step", "clip_", "hook"])
def test_weights_are_those_of_a_plain_loop(problem, call):
    """Before the optimizer moves them, whoever calls, whatever `every` says."""
    model, x, y = problem
    v, kept = some_directions(57), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    when = "optimizer" if call == "hook" else "call"
    monitor = gt.Monitor(model, optimizer, directions=v, every=5, when=when)
    train(model, x, y, 30, monitor, call, optimizer, kept)
    expected = (torch.stack(kept) - kept[0]) @ v.double()
    found = monitor.directions
    assert found.steps.tolist() == list(range(30))
    np.testing.assert_allclose(found.weights(), expected.numpy(), atol=3e-7)
    assert found.weights().dtype == np.float64
    assert monitor.stream.steps == 6


def test_two_optimizers_with_hooks_are_one_step(problem):
    model, x, y = problem
    optimizers = [torch.optim.SGD(model[i].parameters(), 0.1) for i in (0, 2)]
    monitor = gt.Monitor(model, optimizers, directions=some_directions(57), when="optimizer")
    for i in range(4):
        CROSS_ENTROPY(model(x[i::4]), y[i::4]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert monitor.directions.steps.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(problem, dtype):
    model, x, y = problem
    model, x = model.to(dtype), x.to(dtype)
    v, kept = some_directions(57), []
    monitor = gt.Monitor(model, directions=v)
    train(model, x, y, 10, monitor, kept=kept)
    expected = (torch.stack(kept) - kept[0]) @ v.double()
    np.testing.assert_allclose(monitor.directions.weights(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_moves_of_large_weights(dtype):
    """1e-9 beside 100 is below what float32 directions can hold, but not the difference."""
    model = nn.Linear(12, 1, bias=False, dtype=torch.float64)
    p = model.weight
    p.data += 100
    v = some_directions(12, 3, dtype)
    monitor = gt.Monitor(model, directions=v)
    moves = torch.randn(6, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 1e-9
    kept = []
    for move in moves:
        p.data.add_(move)
        p.grad = torch.ones_like(p)
        kept.append(p.detach().clone())
        monitor.step()
    along = (torch.cat(kept) - kept[0]) @ v.double()
    assert along.abs().max() > 1e-10
    np.testing.assert_allclose(monitor.directions.weights(), along.numpy(), atol=2e-15)


def test_a_spectrum_brings_its_parameters_and_curvatures(problem):
    model, x, y = problem
    kept = []
    spectrum = gt.hessian_spectrum(model, CROSS_ENTROPY, (x, y), 4, "2.weight", vectors=True)
    monitor = gt.Monitor(model, directions=spectrum)
    train(model, x, y, 5, monitor, kept=kept)
    weight = (torch.stack(kept) - kept[0])[:, 36:54]
    np.testing.assert_allclose(
        monitor.directions.weights(), (weight @ spectrum.vectors.double()).numpy(), atol=3e-7
    )
    train(model, x, y, 80, monitor)
    found = monitor.directions.variances(eta=0.1, beta=0.9, M=8, weight_decay=0.5, newest=80)
    np.testing.assert_allclose(found.curvature, spectrum.eigenvalues + 0.5)
    assert (found.epochs, found.M) == (10, 8)
    np.testing.assert_allclose(found.weight, monitor.directions.weights()[-80:].var(axis=0), rtol=1e-9)


def test_memory_bounds_the_series(problem):
    model, x, y = problem
    kept = []
    monitor = gt.Monitor(model, directions=gt.Directions(some_directions(57), memory=7 * 8 * 40))
    before = monitor.directions.nbytes
    train(model, x, y, 95, monitor, kept=kept)
    found = monitor.directions
    assert 30 <= len(found) <= 40
    assert found.steps.tolist() == list(range(95 - len(found), 95))
    expected = ((torch.stack(kept) - kept[0]) @ some_directions(57).double()).numpy()
    np.testing.assert_allclose(found.weights(), expected[-len(found) :], atol=1e-6)
    assert found.nbytes <= before + 57 * 4 + 7 * 8 * 40
    assert before == (7 + 1) * 57 * 4


def test_it_goes_back_and_starts_anew(problem):
    model, x, y = problem
    monitor = gt.Monitor(model, directions=gt.Directions(some_directions(57), memory=7 * 8 * 1000))
    train(model, x, y, 20, monitor)
    whole = monitor.directions.weights()
    state = monitor.state_dict()
    monitor.rollback(11)
    assert monitor.directions.steps.tolist() == list(range(12))
    np.testing.assert_array_equal(monitor.directions.weights(), whole[:12])
    train(model, x, y, 3, monitor)
    assert monitor.directions.steps.tolist() == list(range(15))
    np.testing.assert_array_equal(monitor.directions.weights()[:12], whole[:12])
    monitor.load_state_dict(state)
    assert monitor.directions.weights().shape == (0, 7)
    train(model, x, y, 2, monitor)
    assert monitor.directions.steps.tolist() == [20, 21]
    np.testing.assert_array_equal(monitor.directions.weights()[0], 0)  # from where it is now
    assert copy.deepcopy(monitor).directions is None
    assert gt.Monitor(model).directions is None


def test_only_steps_without_a_gap_are_compared(problem):
    model, x, y = problem
    monitor = gt.Monitor(model, directions=some_directions(57))
    optimizer = train(model, x, y, 20, monitor)
    CROSS_ENTROPY(model(x), y).backward()
    monitor.step(step=50)
    optimizer.step()
    train(model, x, y, 80, monitor, optimizer=optimizer)
    found = monitor.directions.variances(eta=0.1, beta=0.9, M=8, curvature=np.ones(7))
    assert found.epochs == 10
    with pytest.raises(ValueError, match="curvature: expected that of each direction"):
        monitor.directions.variances(eta=0.1, beta=0.9, M=8)
    with pytest.raises(ValueError, match="newest: expected a positive int"):
        monitor.directions.variances(eta=0.1, beta=0.9, M=8, curvature=np.ones(7), newest=0)


def test_examples_along_directions(problem):
    model, x, y = problem
    before = flat(model)
    v = some_directions(57)
    found = gt.project_examples(model, CROSS_ENTROPY, (x, y), v, batch_size=7)
    for i in range(40):
        gradient = torch.autograd.grad(CROSS_ENTROPY(model(x[i : i + 1]), y[i : i + 1]), model.parameters())
        expected = torch.cat([g.flatten() for g in gradient]).double() @ v.double()
        np.testing.assert_allclose(found[i], expected.numpy(), atol=1e-6)
    assert torch.equal(flat(model), before)
    spectrum = gt.hessian_spectrum(model, CROSS_ENTROPY, (x, y), 3, ["2.bias"], vectors=True)
    part = gt.project_examples(model, CROSS_ENTROPY, (x, y), spectrum)
    logits = torch.softmax(model(x), dim=1) - nn.functional.one_hot(y, 3)
    np.testing.assert_allclose(part, (logits @ spectrum.vectors).detach().numpy(), atol=1e-6)


def test_examples_of_batch_normalisation_are_refused(problem):
    _, x, y = problem
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    v = some_directions(sum(p.numel() for p in model.parameters()))
    with pytest.raises(ValueError, match="model: expected gradients of single examples"):
        gt.project_examples(model, CROSS_ENTROPY, (x, y), v)
    assert gt.project_examples(model, CROSS_ENTROPY, (x, y), v, mode="eval").shape == (40, 7)


@pytest.mark.parametrize(
    ("directions", "error", "said"),
    [
        (lambda m: torch.zeros(56, 2), ValueError, "vectors of 57 elements.*got 56"),
        (lambda m: torch.zeros(57), ValueError, r"shape \(n, k\), got \(57,\)"),
        (lambda m: torch.zeros(57, 2, dtype=torch.int64), TypeError, "real floating dtype"),
        (lambda m: torch.full((57, 2), torch.nan), ValueError, "finite vectors"),
        (lambda m: [[1.0]], TypeError, "got list"),
        (lambda m: np.zeros((56, 2)), ValueError, "57 elements"),
    ],
)
def test_refusals(problem, directions, error, said):
    model, *_ = problem
    with pytest.raises(error, match=f"directions: expected .*{said}|directions: expected {said}"):
        gt.Monitor(model, directions=directions(model))


def test_refusals_of_spectra_and_memory(problem):
    model, x, y = problem
    bare = gt.hessian_spectrum(model, CROSS_ENTROPY, (x, y), 2)
    with pytest.raises(ValueError, match="directions: expected a spectrum taken with vectors=True"):
        gt.Monitor(model, directions=bare)
    spectrum = gt.hessian_spectrum(model, CROSS_ENTROPY, (x, y), 2, vectors=True)
    with pytest.raises(ValueError, match=r"directions of watched parameters, got 0\.weight"):
        gt.Monitor(model, params="2", directions=spectrum)
    other = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    with pytest.raises(ValueError, match=r"directions: expected shape \(7, 5\) for 0\.weight, got \(6, 5\)"):
        gt.Monitor(other, directions=spectrum)
    with pytest.raises(ValueError, match="memory: expected at least 56 bytes"):
        gt.Directions(some_directions(57), memory=55)
