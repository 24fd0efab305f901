"""Spectral densities and traces: moments, and error bars that hold."""

import math
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, dense_gauss_newton, dense_hessian, small_net  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import density as density_module  # noqa: E402
from gradtail.torch import hessian_density, hessian_trace  # noqa: E402


@pytest.fixture(scope="module")
def net():
    model, data = small_net()
    return model, data, np.linalg.eigvalsh(dense_hessian(model, ce, data))


def test_moments_and_trace(net):
    model, data, values = net
    found = hessian_density(model, ce, data, probes=40, steps=6)
    truth = np.array([np.mean(values**k) for k in range(1, 5)])
    assert (np.abs(found.moments - truth) < 3 * found.moments_stderr).all()
    assert (found.moments_stderr < 0.3 * truth)[1::2].all()
    assert abs(found.trace - values.sum()) < 3 * found.trace_stderr
    assert found.trace == found.n * found.moments[0]
    assert (found.n, found.probes, found.products) == (89, 40, 240)
    assert found.nodes[0].shape == found.weights[0].shape == (6,)
    assert [w.sum() for w in found.weights] == pytest.approx(np.ones(40))


def test_error_bars_hold(net):
    """Of many estimates, about 95 % are within 1.96 errors, for moments and for the density."""
    model, data, values = net
    truth = np.array([np.mean(values**k) for k in range(1, 5)])
    grid, width = np.array([0.0, 0.1]), 0.05
    kernel = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).mean(axis=1) / (
        width * math.sqrt(2 * math.pi)
    )
    repeats, inside, near = 30, np.zeros(4), np.zeros(2)
    for seed in range(repeats):
        found = hessian_density(model, ce, data, probes=20, steps=12, seed=seed)
        inside += np.abs(found.moments - truth) < 1.96 * found.moments_stderr
        density, error = found.density(grid, width)
        near += np.abs(density - kernel) < 1.96 * error + 0.02 * kernel  # nodes are fewer than eigenvalues
    assert (inside >= 0.8 * repeats).all()
    assert (inside.sum() + near.sum()) < 6 * repeats  # bars that always hold are too wide
    assert (near >= 0.8 * repeats).all()


def test_all_steps_give_the_exact_density():
    """With as many steps as there are eigenvalues, each vector shows them all."""
    model, data = small_net(torch.float64)
    found = hessian_density(model, ce, data, probes=3, steps=200)
    exact = np.linalg.eigvalsh(dense_hessian(model, ce, data))
    for nodes in found.nodes:
        assert len(nodes) < 89  # a repeated zero is seen once, and the space closes
        nearest = np.abs(exact[:, None] - nodes).min(axis=1)
        assert nearest.max() < 1e-8
    grid = np.linspace(-1, 2, 3001)
    density, error = found.density(grid)
    assert density.sum() * 0.001 == pytest.approx(1, abs=1e-3)
    assert (error >= 0).all()
    assert error.max() > 0


def test_an_identity_has_one_node():
    x = torch.ones(4, 1)
    model = nn.Linear(1, 1, bias=False)
    found = hessian_density(model, nn.functional.mse_loss, (x, x), probes=2, steps=3)
    assert [nodes.tolist() for nodes in found.nodes] == [[2.0], [2.0]]
    assert found.moments.tolist() == [2, 4, 8, 16]
    assert found.trace_stderr == 0


@pytest.mark.parametrize("operator", ["hessian", "gauss_newton"])
def test_traces_and_their_errors(net, operator):
    model, data, _ = net
    truth = np.trace(
        {"hessian": dense_hessian, "gauss_newton": dense_gauss_newton}[operator](model, ce, data)
    )
    found = [hessian_trace(model, ce, data, products=45, operator=operator, seed=seed) for seed in range(40)]
    scores = np.array([(one.trace - truth) / one.stderr for one in found])
    assert np.mean(np.abs(scores) < 2.14) >= 0.85  # 14 degrees of freedom
    assert 0.6 < scores.std() < 1.7
    assert all(one.products == 45 for one in found)
    if operator == "gauss_newton":  # most of it lies in few directions
        plain = hessian_density(model, ce, data, probes=45, steps=3, operator=operator)
        assert np.median([one.stderr for one in found]) < 0.5 * plain.trace_stderr


def test_small_traces_are_exact(net):
    model, data, _ = net
    truth = np.trace(dense_hessian(model, ce, data, params=["4.bias"]))
    found = hessian_trace(model, ce, data, params=["4.bias"])
    assert found.trace == pytest.approx(truth, rel=1e-5)
    assert (found.stderr, found.products) == (0.0, 3)
    assert str(found).endswith("3 products")


def test_seeds_batches_and_what_results_say(net):
    model, data, _ = net
    one, same, other = (hessian_density(model, ce, data, probes=4, steps=5, seed=seed) for seed in (0, 0, 1))
    assert (one.moments == same.moments).all()
    assert not np.allclose(one.moments, other.moments)
    parts = hessian_density(model, ce, data, probes=4, steps=5, batch_size=32)
    assert parts.moments == pytest.approx(one.moments, rel=1e-4)
    assert repr(one).startswith("SpectralDensity(hessian, probes=4, trace=")
    assert "hessian of 89 parameters over 70 examples, 4 random vectors of 5 steps: trace" in str(one)
    known = {"probes": 4, "steps": 5, "seed": 0, "operator": "hessian", "examples": 70}
    assert {name: one.provenance[name] for name in known} == known
    assert {"seconds", "memory", "products_by", "torch"} <= set(one.provenance)


@pytest.fixture
def pressed(monkeypatch):
    """A real Ctrl-C in the middle of the n-th product."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    real, calls, at = density_module.Curvature.product, [], []

    def product(self, v):
        calls.append(1)
        if at and len(calls) == at[0]:
            signal.raise_signal(signal.SIGINT)
        return real(self, v)

    monkeypatch.setattr(density_module.Curvature, "product", product)
    yield at
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_whole_vectors(net, pressed):
    model, data, _ = net
    pressed.append(18)
    found = hessian_density(model, ce, data, probes=10, steps=5)
    assert (found.probes, found.interrupted) == (3, True)
    assert "interrupted" in repr(found)
    assert found.provenance["asked_for"] == 10


@pytest.mark.parametrize("call", [lambda *a: hessian_density(*a, probes=10, steps=5), hessian_trace])
def test_ctrl_c_before_there_is_anything(net, pressed, call):
    model, data, _ = net
    pressed.append(4)
    with pytest.raises(KeyboardInterrupt):
        call(model, ce, data)


def test_progress_is_shown(net, capsys):
    model, data, _ = net
    hessian_density(model, ce, data, probes=2, steps=3, progress=True)
    hessian_trace(model, ce, data, products=6, progress=True)
    shown = capsys.readouterr().err
    assert "random vectors: 2 done" in shown
    assert "products: 6 done" in shown


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"probes": 1}, ValueError, "probes: expected at least 2, got 1"),
        ({"steps": 2}, ValueError, "steps: expected at least 3, got 2"),
        ({"steps": 3.0}, TypeError, "steps: expected an int, got float"),
        ({"memory": "2KiB"}, ValueError, "memory: expected at least .* vectors of 89 elements; steps=50"),
        ({"operator": "x"}, ValueError, "operator: expected one of 'hessian'"),
        ({"loss": lambda o, t: (o * np.inf).sum()}, ValueError, "data: expected finite derivatives of"),
        ({"data": []}, ValueError, "data: expected at least 1 example, got none"),
    ],
)  # fmt: skip
def test_refusals(net, given, error, message):
    model, data, _ = net
    with pytest.raises(error, match=message):
        hessian_density(**{"model": model, "loss": ce, "data": data, **given})


def test_refusals_of_traces_and_grids(net):
    model, data, _ = net
    with pytest.raises(ValueError, match="products: expected at least 6, got 5"):
        hessian_trace(model, ce, data, products=5)
    found = hessian_density(model, ce, data, probes=2, steps=3)
    with pytest.raises(ValueError, match="width: expected a positive number, got 0"):
        found.density([0.0], 0)
    with pytest.raises(ValueError, match="grid: expected finite numbers"):
        found.density([np.nan])
    with pytest.raises(TypeError, match="grid: expected real numbers, got dtype"):
        found.density(["a"])
