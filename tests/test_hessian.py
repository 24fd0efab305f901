"""The largest eigenvalues of a model's Hessian, beside those of the dense matrix."""

import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, dense_hessian, largest, mse, small_net  # noqa: E402
from model_states import everything, same  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from gradtail.torch import hessian_spectrum  # noqa: E402
from gradtail.torch import lanczos_file as file_module  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402
from gradtail.torch.lanczos import Lanczos  # noqa: E402


@pytest.fixture(scope="module")
def net():
    model, data = small_net()
    return model, data, dense_hessian(model, ce, data)


# Against the dense matrix.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top", [1, 10, 60, 89])
def test_the_hessian_of_a_small_net(dtype, top):
    model, data = small_net(dtype)
    matrix = dense_hessian(model, ce, data)
    found = hessian_spectrum(model, ce, data, top, vectors=True, batch_size=32)
    truth = largest(matrix, top)
    scale = np.abs(np.linalg.eigvalsh(matrix)).max()
    assert len(matrix) == 89
    assert truth[-1] < 0 or top <= 10
    near = 1e-4 if dtype == torch.float32 else 1e-6
    assert found.eigenvalues == pytest.approx(truth, abs=near * scale)
    large = np.abs(truth) > 0.01 * scale
    assert found.eigenvalues[large] == pytest.approx(truth[large], rel=near)
    assert found.eigenvalues.dtype == np.float64
    assert (found.converged, found.interrupted, found.vectors.shape) == (top, False, (89, top))
    assert found.vectors.dtype == dtype
    vectors = found.vectors.double().numpy()
    residuals = np.linalg.norm(matrix @ vectors - vectors * found.eigenvalues, axis=0)
    assert residuals.max() <= 1e-3 * scale
    assert (residuals <= 3 * found.residuals + 3e-6 * scale).all()
    assert np.abs(vectors.T @ vectors - np.eye(top)).max() < 1e-5
    assert found.warnings == ()


def test_a_quadratic_with_a_known_spectrum():
    """The loss x'Ax / 2 over one linear layer."""
    values = np.r_[[7.0, 7.0, 3.0, 1.0, 0.5], -np.arange(1, 36.0) / 10]
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    a = torch.tensor((q * values) @ q.T)
    model = nn.Linear(40, 1, bias=False).double()

    def loss(output, target):
        w = model.weight[0]
        return w @ (a @ w) / 2 + 0 * output.mean()

    found = hessian_spectrum(model, loss, (torch.zeros(3, 40).double(), torch.zeros(3)), 8, vectors=True)
    assert found.eigenvalues == pytest.approx(np.sort(values)[::-1][:8], abs=1e-6)
    in_space = np.linalg.norm(q[:, :2].T @ found.vectors[:, :2].numpy(), 2)
    assert in_space == pytest.approx(1, abs=1e-8)  # both copies, in the plane that they span
    assert found.vector(2)["weight"].shape == (1, 40)
    assert abs(found.vector(2)["weight"].numpy()[0] @ q[:, 2]) == pytest.approx(1, abs=1e-8)


def test_batches_of_unequal_size(net):
    model, data, matrix = net
    truth = pytest.approx(largest(matrix, 5), abs=1e-5 * largest(matrix, 1)[0])
    for batch_size in (1, 32, 69, 70, 1000):
        assert hessian_spectrum(model, ce, data, 5, batch_size=batch_size).eigenvalues == truth
    batches = [(data[0][:50], data[1][:50]), (data[0][50:], data[1][50:])]
    loader = DataLoader(TensorDataset(*data), batch_size=48, shuffle=True)
    for ready in (batches, iter(batches), loader):
        assert hessian_spectrum(model, ce, ready, 5).eigenvalues == truth
    of_a_set = hessian_spectrum(model, ce, TensorDataset(*data), 5, batch_size=48)
    assert of_a_set.eigenvalues == truth
    assert (of_a_set.provenance["examples"], of_a_set.provenance["batches"]) == (70, 2)


@pytest.mark.parametrize("params", [r"^4\.", r"weight", ["2.bias"]])
def test_some_parameters_are_a_block_of_the_dense_matrix(net, params):
    model, data, matrix = net
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    chosen = {r"^4\.": ["4.weight", "4.bias"], "weight": names[::2]}.get(str(params), params)
    inside = np.concatenate([np.full(n, name in chosen) for name, n in zip(names, sizes, strict=True)])
    block = matrix[np.ix_(inside, inside)]
    found = hessian_spectrum(model, ce, data, 4, params)
    assert found.eigenvalues == pytest.approx(largest(block, 4), abs=1e-5 * largest(matrix, 1)[0])
    assert found.names == [name for name in names if name in chosen]
    assert found.provenance["parameters"] == len(block)


def test_a_parameter_without_a_part_has_no_curvature():
    model, data = small_net(torch.float64)
    model.register_parameter("unused", nn.Parameter(torch.ones(4, dtype=torch.float64)))
    matrix = dense_hessian(model, ce, data)
    found = hessian_spectrum(model, ce, data, 93)
    assert found.eigenvalues == pytest.approx(largest(matrix, 93), abs=1e-6 * largest(matrix, 1)[0])


def test_a_loss_that_is_linear_in_the_parameters():
    found = hessian_spectrum(
        nn.Linear(3, 1), lambda output, target: output.mean(), (torch.ones(4, 3), torch.ones(4)), 2
    )
    assert (found.eigenvalues == 0).all()


# The model, and what a result says.


def odd_model():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)),
    )  # fmt: skip
    model[0].weight.grad = torch.ones(6, 5)
    return model


@pytest.mark.parametrize("mode", [None, "train", "eval"])
def test_the_model_is_as_it_was(mode):
    model, (_, data) = odd_model(), small_net()
    before, grad = everything(model), model[0].weight.grad
    found = hessian_spectrum(model, ce, data, 3, mode=mode, batch_size=40)
    same(before, everything(model))
    assert model[0].weight.grad is grad
    assert found.provenance["mode"] == (mode or "train")
    calls = []

    def failing(output, target):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("from the loss")
        return ce(output, target)

    with pytest.raises(RuntimeError, match="from the loss"):
        hessian_spectrum(model, failing, data, 3, mode=mode, batch_size=20)
    same(before, everything(model))


def test_dropout_is_the_same_in_every_product():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 30), nn.Dropout(0.5), nn.Tanh(), nn.Linear(30, 3))
    data = small_net()[1]
    kept = hessian_spectrum(model, ce, data, 5, batch_size=20)
    again = hessian_spectrum(model, ce, data, 5, batch_size=20, memory="160KiB")
    assert kept.provenance["products_by"] == "kept graph"
    assert "recomputed" in again.provenance["products_by"]
    assert kept.eigenvalues == pytest.approx(again.eigenvalues, rel=1e-4)
    other = hessian_spectrum(model, ce, data, 5, batch_size=20, seed=1)
    assert not np.allclose(kept.eigenvalues, other.eigenvalues, rtol=1e-3)
    assert kept.warnings == again.warnings == ()


def test_what_a_result_says(net):
    model, data, _ = net
    found = hessian_spectrum(model, ce, data, 5, tol=1e-3, seed=3)
    assert repr(found).startswith("HessianSpectrum(hessian, 5 of 5, largest ")
    assert "hessian of 89 parameters over 70 examples: 5 eigenvalues from" in str(found)
    expected = {
        "operator": "hessian", "examples": 70, "batch_size": 70, "batches": 1, "mode": "train", "seed": 3,
        "parameters": 89, "dtype": ["float32"], "device": "cpu", "top": 5, "tol": 1e-3, "model": "Sequential",
        "loss": "cross_entropy", "precision": "float32",
    }  # fmt: skip
    assert {name: found.provenance[name] for name in expected} == expected
    assert {"torch", "numpy", "gradtail", "seconds", "memory", "products_by"} <= set(found.provenance)
    assert found.gaps() == pytest.approx(-np.diff(found.eigenvalues))
    law = found.power_law()
    assert (law.top, law.loglog_slope > 0) == (5, True)
    assert found.sizes == {name: p.numel() for name, p in model.named_parameters()}
    assert found != hessian_spectrum(model, ce, data, 5)
    with pytest.raises(ValueError, match="vectors: expected a spectrum taken with vectors=True, got none"):
        found.vector(0)
    with pytest.raises(IndexError, match="i: expected a rank below 5, got 5"):
        hessian_spectrum(model, ce, data, 5, vectors=True).vector(5)


def test_no_power_law_is_fitted_to_rounding():
    """Of 40 eigenvalues 20 are zero, but for rounding, which makes some of them positive."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 60) / torch.arange(1, 61.0).sqrt(), torch.randn(20, 1)
    found = hessian_spectrum(nn.Linear(60, 1, bias=False), mse, (x, y), 40)
    positive = int(np.count_nonzero(found.eigenvalues > 0))
    assert found.surely_positive == 20 < positive
    law = found.power_law()
    assert (law.top, law.slope) == (20, found.power_law(20).slope)
    assert law.slope < 3
    assert f"{positive - 20} positive eigenvalues were left out: from rank 21 on they may be zero" in str(law)
    assert found.power_law(20).warnings == law.warnings[:-1]
    with pytest.raises(ValueError, match="eigenvalues: expected at least 21 positive ones, got 20"):
        found.power_law(21)
    with pytest.raises(ValueError, match="eigenvalues: expected at least 3 positive ones, got 0"):
        hessian_spectrum(nn.Linear(3, 1), lambda out, _: out.mean(), (x[:, :3], y), 4).power_law()


def test_the_same_arguments_give_the_same_bits(net):
    model, data, _ = net
    a, b = (hessian_spectrum(model, ce, data, 5, vectors=True) for _ in range(2))
    assert (a.eigenvalues == b.eigenvalues).all()
    assert torch.equal(a.vectors, b.vectors)


# Memory, Ctrl-C, files.


def test_memory_is_stated_and_held_to(net):
    model, data, matrix = net
    with pytest.raises(
        ValueError, match=r"memory: expected at least .*KiB \(.* vectors of 89 elements; top=20, "
    ):
        hessian_spectrum(model, ce, data, 20, memory="10KiB")
    with pytest.raises(ValueError, match=r"for the graph of a batch; top=5.* got 64 KiB; fewer params"):
        hessian_spectrum(
            model, ce, (data[0].repeat(50, 1), data[1].repeat(50)), 5, memory="64KiB", batch_size=3500
        )
    with pytest.raises(ValueError, match="for the data"):
        hessian_spectrum(model, ce, [(data[0].repeat(50, 1), data[1].repeat(50))], 5, memory="64KiB")
    with pytest.raises(
        ValueError, match="memory: expected a positive number of bytes such as '64MiB', got 'x'"
    ):
        hessian_spectrum(model, ce, data, 20, memory="x")
    few = hessian_spectrum(model, ce, data, 5, memory="46KiB", batch_size=20)
    much = hessian_spectrum(model, ce, data, 5)
    assert few.eigenvalues == pytest.approx(much.eigenvalues, abs=1e-5 * largest(matrix, 1)[0])
    assert few.provenance["products_by"] == "recomputed"
    plan = few.provenance["memory"]
    assert plan["rows"] * plan["row"] + plan["graphs"] <= plan["allowed"] == 46 << 10


def test_some_batches_are_kept_and_others_not(net):
    model, data, matrix = net
    found = hessian_spectrum(model, ce, data, 5, batch_size=20, memory="64KiB")
    assert found.provenance["products_by"] == "kept graph (2), recomputed (2)"
    assert found.eigenvalues == pytest.approx(largest(matrix, 5), abs=1e-5 * largest(matrix, 1)[0])


def press_at(monkeypatch, product):
    """Send a real Ctrl-C in the middle of a product."""
    real, calls = Curvature.product, []

    def pressing(self, v):
        calls.append(1)
        if len(calls) == product:
            signal.raise_signal(signal.SIGINT)
        return real(self, v)

    monkeypatch.setattr(Curvature, "product", pressing)


@pytest.fixture
def default_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_keeps_what_has_converged(net, monkeypatch):
    model, data, matrix = net
    press_at(monkeypatch, 30)
    found = hessian_spectrum(model, ce, data, 40, vectors=True)
    assert found.products == 30
    assert found.interrupted
    assert 0 < found.converged < 40
    assert found.eigenvalues.shape == found.residuals.shape == (found.converged,)
    assert found.vectors.shape == (89, found.converged)
    assert found.eigenvalues == pytest.approx(
        largest(matrix, found.converged), abs=1e-4 * largest(matrix, 1)[0]
    )
    assert "interrupted" in repr(found)
    assert "stopped before the search for eigenvalues that were missed" in str(found)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_before_anything_has_converged(monkeypatch):
    model, (_, data) = odd_model(), small_net()
    before = everything(model)
    press_at(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        hessian_spectrum(model, ce, data, 40)
    same(before, everything(model))


def test_products_have_a_limit(net):
    model, data, _ = net
    found = hessian_spectrum(model, ce, data, 40, max_products=25)
    assert (found.products, found.interrupted) == (25, False)
    assert 0 < found.converged < 40
    assert f"max_products=25 ended the search: {found.converged} of 40" in str(found)
    with pytest.raises(
        ValueError, match="max_products: expected enough for one eigenvalue to converge, got 1"
    ):
        hessian_spectrum(model, ce, data, 40, max_products=1)


def test_a_search_goes_on_from_its_file(net, tmp_path, monkeypatch):
    model, data, _ = net
    whole = hessian_spectrum(model, ce, data, 30, tol=1e-5)
    path = tmp_path / "state.pt"
    first = hessian_spectrum(model, ce, data, 30, tol=1e-5, checkpoint=path, max_products=20)
    assert first.converged < 30
    monkeypatch.setattr(file_module, "_EVERY", 0.0)
    second = hessian_spectrum(model, ce, data, 30, tol=1e-5, checkpoint=path)
    assert (second.eigenvalues == whole.eigenvalues).all()
    assert second.products == whole.products
    third = hessian_spectrum(model, ce, data, 30, tol=1e-5, checkpoint=path)
    assert (third.eigenvalues == whole.eigenvalues).all()
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_file_of_another_problem_is_refused(net, tmp_path):
    model, data, _ = net
    path = tmp_path / "state.pt"
    hessian_spectrum(model, ce, data, 5, checkpoint=path)
    saved = path.read_bytes()
    other, _ = small_net()
    with torch.no_grad():
        other[0].bias += 1
    for change, name in [
        ({"top": 6}, "top"), ({"seed": 1}, "seed"), ({"operator": "gauss_newton"}, "operator"),
        ({"params": "weight"}, "parameters"), ({"tol": 1e-3}, "tol"),
        ({"model": other}, "length of a product"),
        ({"data": (data[0] + 1, data[1])}, "length of a product"),
    ]:  # fmt: skip
        arguments = {"model": model, "loss": ce, "data": data, "top": 5, "checkpoint": path, **change}
        with pytest.raises(
            ValueError, match=f"checkpoint: expected one of the same problem, got another {name}"
        ):
            hessian_spectrum(**arguments)
        assert path.read_bytes() == saved
    with pytest.raises(ValueError, match="checkpoint: expected a file in a folder that exists, got"):
        hessian_spectrum(model, ce, data, 5, checkpoint=tmp_path / "none" / "state.pt")
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="checkpoint: expected a file of an earlier search, got"):
        hessian_spectrum(model, ce, data, 5, checkpoint=path)


def test_a_file_of_another_matrix_is_refused_where_the_gradient_is_zero(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Linear(6, 1, bias=False), torch.randn(50, 6)
    path = tmp_path / "state.pt"

    def take(inputs, noise=0.0):
        targets = model(inputs).detach() + noise * torch.randn(len(inputs), 1)
        return hessian_spectrum(model, mse, (inputs, targets), 3, checkpoint=path)

    found = take(x)
    assert (take(x, 1e-6).eigenvalues == found.eigenvalues).all()  # a gradient of rounding, and another one
    with pytest.raises(ValueError, match="the same problem, got another length of a product"):
        take(3 * x)


def test_residuals_that_are_wrong_are_blamed_on_the_right_cause(net, monkeypatch):
    model, data, _ = net
    monkeypatch.setattr(Lanczos, "check", lambda self, count: (1.0, 1e-6))
    assert "1e-06: products do not repeat, or are not symmetric" in str(hessian_spectrum(model, ce, data, 3))
    monkeypatch.setattr(Curvature, "_asymmetry", lambda self, product: 1.0)
    found = hessian_spectrum(model, ce, data, 3)
    assert "1e-06: products are finite differences, whose error is more than was assumed" in str(found)
    assert "do not repeat" not in str(found)


def test_progress_is_shown(net, capsys):
    model, data, _ = net
    hessian_spectrum(model, ce, data, 10, progress=True)
    shown = capsys.readouterr().err
    assert "eigenvalues: 10 done in 0:0" in shown
    hessian_spectrum(model, ce, data, 10)
    assert capsys.readouterr().err == ""


def test_regression():
    torch.manual_seed(0)
    x, y = torch.randn(50, 4), torch.randn(50, 1)
    model = nn.Linear(4, 1)
    wide = torch.cat([x, torch.ones(50, 1)], dim=1).double()
    truth = np.linalg.eigvalsh((2 * wide.T @ wide / 50).numpy())[::-1]
    assert hessian_spectrum(model, mse, (x, y), 5, batch_size=7).eigenvalues == pytest.approx(truth, rel=1e-5)
