"""What hessian_spectrum refuses, and how it says so."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, small_net  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import hessian_spectrum  # noqa: E402


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"top": 0}, ValueError, "top: expected at least 1, got 0"),
        ({"top": 2.0}, TypeError, "top: expected an int, got float"),
        ({"top": 90}, ValueError, "top: expected at most the 89 elements of the parameters, got 90"),
        ({"tol": 0}, ValueError, "tol: expected a number between 0 and 1, got 0"),
        ({"operator": "fisher"}, ValueError, "operator: expected one of 'hessian', 'gauss_newton', "),
        ({"mode": "test"}, ValueError, "mode: expected None, 'train' or 'eval', got 'test'"),
        ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
        ({"seed": "a"}, TypeError, "seed: expected an int, got str"),
        ({"max_products": 0}, ValueError, "max_products: expected at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size: expected an int, got float"),
        ({"params": "none"}, ValueError, "params: expected a filter that some parameter passes, got 'none'"),
        ({"model": 3}, TypeError, "model: expected a torch.nn.Module, got int"),
        ({"model": nn.ReLU()}, ValueError, "model: expected parameters that require a gradient, got none"),
        ({"loss": "ce"}, TypeError, "loss: expected a callable, got str"),
        ({"loss": lambda o, t: o}, ValueError, r"loss: expected a scalar tensor, the mean .* got \(70, 3\)"),
        ({"loss": lambda o, t: 1.0}, ValueError, "loss: expected a scalar tensor, .* got float"),
        ({"loss": lambda o, t: o.detach().mean()}, ValueError, "loss: expected a value that depends on the"),
        ({"loss": lambda o, t: (o * np.nan).sum()}, ValueError, "data: expected finite derivatives of"),
        ({"data": 3}, TypeError, "data: expected a pair of tensors, an indexable data set or an iterable"),
        ({"data": []}, ValueError, "data: expected at least 1 example, got none"),
        ({"data": [torch.ones(3, 5)]}, TypeError, r"data: expected batches of \(inputs, t"),
        ({"data": (torch.ones(3, 5), torch.ones(2))}, ValueError, "data: expected as many inputs as targets"),
    ],
)  # fmt: skip
def test_refusals(net, given, error, message):
    model, data = net
    with pytest.raises(error, match=message):
        hessian_spectrum(**{"model": model, "loss": ce, "data": data, "top": 3, **given})


def test_ready_batches_have_their_size(net):
    model, data = net
    with pytest.raises(ValueError, match="batch_size: expected none where batches come ready"):
        hessian_spectrum(model, ce, [data], 3, batch_size=8)


def test_data_that_is_too_large_is_refused_while_it_comes():
    taken = []

    def batches():
        for _ in range(100):
            taken.append(1)
            yield torch.zeros(64, 5), torch.zeros(64, dtype=torch.int64)

    model, _ = small_net()
    with pytest.raises(ValueError, match=r"memory: expected room for the data, got .* batches exceed"):
        hessian_spectrum(model, ce, batches(), 2, memory="100KiB")
    assert len(taken) < 90


def test_memory_is_said_before_it_starts(capsys):
    model, data = small_net()
    found = hessian_spectrum(model, ce, data, 2, progress=True)
    said = capsys.readouterr().err.splitlines()[0]
    rows = found.provenance["memory"]["rows"]
    assert said.startswith("memory: at most ")
    assert "of the 4 GiB allowed: " in said
    assert f" for {rows} vectors, " in said
    hessian_spectrum(model, ce, data, 2, progress=False)
    assert not capsys.readouterr().err
