"""How exact products are: second derivatives that are missing or wrong, differences, and short floats."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, small_net  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from gradtail.experiments.gpt import GPT, GPTConfig  # noqa: E402
from gradtail.torch import curvature as curvature_module  # noqa: E402
from gradtail.torch import hessian_spectrum, hessian_trace  # noqa: E402
from gradtail.torch.asked import batches_of_all, problem_of  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402


def curvature_of(model, loss, data, params=None, operator="hessian", mode=None, batch_size=None):
    problem = problem_of(model, loss, params, operator, mode, 0)
    return Curvature(problem, batches_of_all(data, batch_size)[0], operator)


def of_tokens(output, target):
    return ce(output.flatten(0, 1), target.flatten())


def small_gpt():
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=1, heads=2, width=8, context=8, vocabulary=16))
    generator = torch.Generator().manual_seed(0)
    return model, tuple(torch.randint(0, 16, (4, 8), generator=generator) for _ in range(2))


# Attention.


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("operator", ["hessian", "gauss_newton"])
def test_attention_can_be_differentiated_twice(operator, traced, monkeypatch):
    if traced:
        monkeypatch.setattr(curvature_module, "WORTH_TRACING", 0)
    model, data = small_gpt()
    name = "blocks.0.attention.out.weight"
    found = curvature_of(model, of_tokens, data, [name], operator)
    found.keep(1 << 30, 100)
    assert found.products_by == ("traced" if traced else "kept graph")
    assert not found.warnings
    if operator == "hessian":
        matrix = torch.stack([found.product(row) for row in torch.eye(found.n)]).double().numpy()
        x, y = data
        with sdpa_kernel(SDPBackend.MATH):
            expected = torch.autograd.functional.hessian(
                lambda w: of_tokens(torch.func.functional_call(model, {name: w.view(8, 8)}, (x,)), y),
                model.get_parameter(name).detach().reshape(-1),
            ).numpy()
        assert np.abs(matrix - expected).max() < 1e-4 * np.abs(expected).max()


# Second derivatives that are wrong in silence.


class Fused(torch.autograd.Function):
    """A cross-entropy that saves its gradient: to a second pass this is a constant."""

    @staticmethod
    def forward(ctx, z, y):
        p = torch.softmax(z, 1)
        at = torch.arange(len(z)), y
        gradient = p.clone()
        gradient[at] -= 1
        ctx.save_for_backward(gradient / len(z))
        return -torch.log(p[at]).mean()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


class OwnTanh(torch.autograd.Function):
    """A function whose backward pass can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Own(nn.Module):
    def forward(self, x):
        return OwnTanh.apply(x)


@pytest.mark.parametrize("linear", [False, True])
def test_a_fused_loss_is_noticed(linear):
    model, data = small_net()
    if linear:
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
    found = hessian_spectrum(model, Fused.apply, data, 5)
    truth = hessian_spectrum(model, ce, data, 5)
    assert found.eigenvalues == pytest.approx(truth.eigenvalues, abs=2e-3 * truth.eigenvalues[0])
    assert found.provenance["products_by"] == "finite differences"
    (said,) = found.warnings
    assert "its second derivatives are not those of its gradient" in said
    with pytest.raises(ValueError, match="operator: expected 'hessian' for a model that cannot be"):
        hessian_spectrum(model, Fused.apply, data, 3, operator="gauss_newton")


@pytest.mark.parametrize("operator", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("kind", ["own", "relu", "own and relu", "pooling", "norm", "dropout", "linear loss"])
def test_second_derivatives_that_are_right_are_trusted(kind, operator):
    torch.manual_seed(0)
    between = {
        "own": [Own()], "relu": [nn.ReLU()], "own and relu": [nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), Own()],
        "pooling": [nn.Unflatten(1, (1, 40)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 40)],
        "norm": [nn.BatchNorm1d(40), nn.ReLU(), Own()], "dropout": [nn.Dropout(0.5), Own()],
        "linear loss": [Own()],
    }[kind]  # fmt: skip
    model = nn.Sequential(nn.Linear(5, 40), *between, nn.Linear(40, 3)).train()
    loss = (lambda o, t: OwnTanh.apply(ce(o, t))) if kind == "own" else ce
    if kind == "linear loss":
        loss = lambda o, t: o.mean()
    for data in (small_net()[1], small_net(examples=500)[1]):
        found = curvature_of(model, loss, data, operator=operator)
        assert found.products_by == "recomputed"
        assert not [said for said in found.warnings if "differences" in said]


# Differences say how exact they are.


@pytest.mark.parametrize("between", [nn.Tanh, nn.ReLU])
def test_the_error_of_differences_is_as_measured(between):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 30), between(), nn.Linear(30, 30), between(), nn.Linear(30, 5))
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(256, 30, generator=generator), torch.randint(0, 5, (256,), generator=generator)
    exact, found = curvature_of(model, ce, data), curvature_of(model, ce, data)
    found._differentiate_by_steps("a test")
    (said,) = found.warnings
    stated = float(said.split("exact to about ")[1].split()[0])
    assert stated < (1e-3 if between is nn.Tanh else 0.2)
    top = hessian_spectrum(model, ce, data, 2, vectors=True)
    for v in (*torch.as_tensor(top.vectors.T), exact.random(torch.Generator().manual_seed(7))):
        error = (found.product(v) - exact.product(v)).norm() / v.norm() / top.eigenvalues[0]
        assert error < 4 * stated


# Statistics of batches.


@pytest.mark.parametrize("operator", ["second_moment", "covariance"])
def test_statistics_of_single_examples_are_refused(operator):
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), small_net()[1]
    expected = (
        f"mode: expected 'eval' for operator='{operator}', as batch normalisation in training mode.* got"
    )
    with pytest.raises(ValueError, match=f"{expected} 'train'"):
        hessian_spectrum(model, ce, data, 3, operator=operator)
    assert hessian_spectrum(model, ce, data, 3, operator=operator, mode="eval").provenance["mode"] == "eval"
    model[0].eval()
    with pytest.raises(ValueError, match=f"{expected} 'mixed'"):
        hessian_spectrum(model, ce, data, 3, operator=operator)


def test_statistics_of_batches_are_said_to_depend_on_their_size():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), small_net()[1]
    (said,) = hessian_spectrum(model, ce, data, 3, batch_size=35).warnings
    assert said.endswith("statistics of each batch: what is found depends on batch_size=35")
    model[1].eval()
    found = hessian_spectrum(model, ce, data, 3)
    assert found.warnings == ()
    assert found.provenance["mode"] == "mixed"
    assert hessian_trace(model, ce, data, products=20).provenance["mode"] == "mixed"


# Short floats.


@pytest.mark.parametrize(("kind", "limit"), [("bfloat16", 0.16), ("float16", 0.02)])
def test_short_floats_say_what_they_cost(kind, limit):
    model, (x, y) = small_net()
    truth = hessian_spectrum(model, ce, (x, y), 3)
    assert truth.warnings == ()
    model, data = model.to(getattr(torch, kind)), (x.to(getattr(torch, kind)), y)

    def loss(output, target):
        return ce(output.float(), target)

    found = hessian_spectrum(model, loss, data, 3)
    expected = f"{kind} lets eigenvalues be told apart to about {limit} of the largest alone"
    (said,) = [one for one in found.warnings if "told apart" in one]
    assert said.startswith(expected)
    assert "float32 (model.float(), no autocast) would to 2e-06" in said
    assert found.eigenvalues[0] == pytest.approx(truth.eigenvalues[0], rel=limit)
    assert "and some be missed" in said
    assert expected in hessian_trace(model, loss, data, products=10).warnings[0]


class Auto(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).float()


@pytest.mark.parametrize("loss", [ce, Fused.apply])
def test_autocast_is_noticed_by_what_it_costs(loss):
    model, data = small_net()
    truth = hessian_spectrum(model, ce, data, 1)
    found = hessian_spectrum(Auto(model), loss, data, 1)
    assert found.warnings[0].startswith("bfloat16 lets eigenvalues be told apart to about 0.16")
    assert found.provenance["products_by"] == ("kept graph" if loss is ce else "finite differences")
    assert found.eigenvalues[0] == pytest.approx(truth.eigenvalues[0], rel=0.2)


def test_short_floats_below_the_chosen_parameters_cost_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    auto, data = nn.Sequential(Auto(model[:2]), model[2]), small_net()[1]
    assert hessian_spectrum(auto, ce, data, 3, ["1.weight"]).warnings == ()
