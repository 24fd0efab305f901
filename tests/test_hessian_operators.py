"""Every operator and every way to take its products, beside dense matrices."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import (  # noqa: E402
    ce,
    dense_covariance,
    dense_gauss_newton,
    dense_hessian,
    dense_second_moment,
    largest,
    mse,
    small_net,
)  # fmt: skip
from torch import nn  # noqa: E402

from gradtail.torch import curvature as curvature_module  # noqa: E402
from gradtail.torch import hessian_spectrum, hessian_trace  # noqa: E402
from gradtail.torch.asked import batches_of_all, problem_of  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402

DENSE = {
    "hessian": dense_hessian, "gauss_newton": dense_gauss_newton, "second_moment": dense_second_moment,
    "covariance": dense_covariance,
}  # fmt: skip
KEPT = {
    "hessian": "kept graph", "gauss_newton": "kept graph", "second_moment": "kept gradients",
    "covariance": "kept gradients",
}  # fmt: skip


def as_matrix(model, loss, data, operator, *, batch_size=None, memory=0, params=None, mode=None):
    """Take the products with all axes."""
    problem = problem_of(model, loss, params, operator, mode, 0)
    curvature = Curvature(problem, batches_of_all(data, batch_size)[0], operator)
    curvature.keep(memory, 100)
    unit = torch.eye(curvature.n, dtype=curvature.dtype)
    return torch.stack([curvature.product(row) for row in unit]).double().numpy(), curvature


@pytest.fixture(scope="module")
def nets():
    """Classification and regression."""
    model, data = small_net()
    torch.manual_seed(5)
    other = nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 2))
    generator = torch.Generator().manual_seed(5)
    pair = torch.randn(30, 4, generator=generator), torch.randn(30, 2, generator=generator)
    return {"classes": (model, ce, data), "numbers": (other, mse, pair)}


@pytest.mark.parametrize("net", ["classes", "numbers"])
@pytest.mark.parametrize("operator", DENSE)
@pytest.mark.parametrize("way", ["recomputed", "kept", "traced"])
def test_products_are_those_of_the_dense_matrix(nets, net, operator, way, monkeypatch):
    model, loss, data = nets[net]
    if way == "traced":
        monkeypatch.setattr(curvature_module, "WORTH_TRACING", 0)
    expected = DENSE[operator](model, loss, data)
    memory = 0 if way == "recomputed" else 1 << 30
    found, curvature = as_matrix(model, loss, data, operator, batch_size=20, memory=memory)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-5 * scale
    assert np.abs(found - found.T).max() < 1e-5 * scale
    traced = (
        way == "traced"
        and operator in ("hessian", "gauss_newton")
        and (net, operator) != ("numbers", "hessian")
    )
    assert curvature.products_by == ("recomputed" if not memory else "traced" if traced else KEPT[operator])


@pytest.mark.parametrize("operator", DENSE)
def test_spectra_of_all_operators(nets, operator):
    model, loss, data = nets["classes"]
    truth = largest(DENSE[operator](model, loss, data), 8)
    found = hessian_spectrum(model, loss, data, 8, operator=operator, batch_size=32, vectors=True)
    assert found.eigenvalues == pytest.approx(truth, abs=1e-5 * truth[0])
    assert found.provenance["operator"] == operator
    if operator != "hessian":  # these are sums of squares
        assert (found.eigenvalues > -1e-6 * truth[0]).all()


def test_ranks_of_what_is_a_sum_of_few_squares(nets):
    """Three examples: three eigenvalues of the second moment, six of Gauss-Newton, and zeros."""
    model, loss, (x, y) = nets["classes"]
    for operator, rank in (("second_moment", 3), ("gauss_newton", 6)):
        found = hessian_spectrum(model, loss, (x[:3], y[:3]), 12, operator=operator)
        assert (found.eigenvalues > 1e-5 * found.eigenvalues[0]).sum() == rank
        assert found.eigenvalues[rank:] == pytest.approx(0, abs=1e-5 * found.eigenvalues[0])


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    model = nn.Linear(6, 3)
    both = [
        hessian_spectrum(model, ce, (x, y), 10, operator=operator) for operator in ("hessian", "gauss_newton")
    ]
    assert both[0].eigenvalues == pytest.approx(both[1].eigenvalues, rel=1e-4)


def test_the_second_moment_is_of_single_examples_whatever_the_batches(nets):
    model, loss, data = nets["classes"]
    matrices = [as_matrix(model, loss, data, "second_moment", batch_size=size)[0] for size in (9, 30, 70)]
    for other in matrices[1:]:
        assert other == pytest.approx(matrices[0], abs=1e-6 * np.abs(matrices[0]).max())


def test_the_second_moment_where_examples_cannot_be_mapped_over(nets):
    """A branch on a value, which vmap refuses: gradients one by one."""

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.Linear(5, 3)

        def forward(self, x):
            return self.inner(x) if float(x.detach().sum()) < 1e9 else x

    model, data = Branching(), nets["classes"][2]
    found, _ = as_matrix(model, ce, data, "second_moment")
    twin = nn.Linear(5, 3)
    twin.load_state_dict(model.inner.state_dict())
    expected = dense_second_moment(twin, ce, data)
    assert found == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())


# Traces.


class Net(nn.Module):
    """Convolutions, pooling, normalisation, a residual, a tied weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.pool = nn.MaxPool2d(2)
        self.a, self.b, self.c = nn.Linear(27, 27), nn.Linear(27, 27), nn.Linear(27, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        x = self.pool(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.c(x + torch.tanh(self.b(nn.functional.gelu(self.a(x)))))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("operator", ["hessian", "gauss_newton"])
def test_traces_of_a_net_with_everything(operator, mode, monkeypatch):
    model = Net()
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 1, 6, 6, generator=generator), torch.randint(0, 3, (20,), generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = hessian_spectrum(model, ce, data, 6, operator=operator, mode=mode)
    monkeypatch.setattr(curvature_module, "WORTH_TRACING", 0)
    traced = hessian_spectrum(model, ce, data, 6, operator=operator, mode=mode)
    expected = "traced" if mode == "eval" or operator == "gauss_newton" else "kept graph"
    assert (plain.provenance["products_by"], traced.provenance["products_by"]) == ("kept graph", expected)
    assert traced.eigenvalues == pytest.approx(plain.eigenvalues, rel=1e-4)
    assert traced.provenance["memory"]["graphs"] > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_traced_is_kept(nets, monkeypatch):
    """Dropout would drop other elements in a trace; a branch on a value ends one."""
    monkeypatch.setattr(curvature_module, "WORTH_TRACING", 0)
    data = nets["classes"][2]
    torch.manual_seed(0)
    dropping = nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.5), nn.Tanh(), nn.Linear(40, 3)).train()
    problem = problem_of(dropping, ce, None, "hessian", None, 0)
    curvature = Curvature(problem, batches_of_all(data, None)[0], "hessian")
    curvature.keep(1 << 30, 100)
    v = curvature.random(torch.Generator().manual_seed(0))
    assert torch.equal(curvature.product(v), curvature.product(v))
    recomputed = Curvature(problem, batches_of_all(data, None)[0], "hessian")
    assert torch.allclose(curvature.product(v), recomputed.product(v), atol=1e-5)


# Without second derivatives.


class OnceTanh(torch.autograd.Function):
    """A function with a first derivative alone."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class Once(nn.Module):
    def __init__(self, exact):
        super().__init__()
        self.layers = exact

    def forward(self, x):
        for layer in self.layers:
            x = OnceTanh.apply(x) if isinstance(layer, nn.Tanh) else layer(x)
        return x


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_differences_of_gradients_where_there_is_no_second_derivative(dtype, near):
    exact, data = small_net(dtype)
    model = Once(exact)
    before = [p.detach().clone() for p in model.parameters()]
    found = hessian_spectrum(model, ce, data, 5, batch_size=32)
    truth = hessian_spectrum(exact, ce, data, 5)
    assert found.eigenvalues == pytest.approx(truth.eigenvalues, abs=near * truth.eigenvalues[0])
    assert found.provenance["products_by"] == "finite differences"
    assert len(found.warnings) == 1
    assert "products are differences of gradients, exact to about" in str(found)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_gauss_newton_without_second_derivatives_is_refused():
    model, data = Once(small_net()[0]), small_net()[1]
    with pytest.raises(ValueError, match="operator: expected 'hessian' for a model that cannot be"):
        hessian_spectrum(model, ce, data, 3, operator="gauss_newton")
    found = hessian_spectrum(model, ce, data, 3, operator="second_moment")  # of first derivatives
    assert found.converged == 3


def test_other_errors_of_a_model_are_its_own():
    class Failing(nn.Linear):
        def forward(self, x):
            raise RuntimeError("from the model")

    with pytest.raises(RuntimeError, match="from the model"):
        hessian_trace(Failing(5, 3), ce, small_net()[1])


# Refusals.


def test_gauss_newton_needs_one_output():
    class Two(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.inner, self.how = nn.Linear(5, 3), how

        def forward(self, x):
            return self.how(self.inner(x))

    def loss(output, target):
        return ce(output[0] if isinstance(output, tuple) else output, target)

    data = small_net()[1]
    with pytest.raises(TypeError, match="model: expected an output that is one tensor for operator="):
        hessian_spectrum(Two(lambda z: (z, z)), loss, data, 3, operator="gauss_newton")
    with pytest.raises(ValueError, match="model: expected an output that depends on the parameters"):
        hessian_spectrum(Two(lambda z: z.detach()), loss, data, 3, operator="gauss_newton")


def test_parameters_are_real_and_on_one_device():
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="model: expected parameters of a real floating dtype, got torch"):
        hessian_spectrum(model, ce, small_net()[1], 3)
    apart = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match="model: expected all parameters on one device, got cpu and meta"):
        hessian_spectrum(apart, ce, small_net()[1], 3)
