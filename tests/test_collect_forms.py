"""Gradients at fixed parameters, from batches, layouts and values of every form."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402

from gradtail.torch import collect_gradients  # noqa: E402
from gradtail.torch.batches import numbers  # noqa: E402

mse = nn.functional.mse_loss


def regression(n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return x, x @ torch.randn(4, 1, generator=generator) + torch.randn(n, 1, generator=generator)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, inputs):
        return self.linear(inputs["x"])


def test_sizes_of_ready_batches_are_those_of_their_tensors():
    x, y = regression(61)
    model = Named()
    batches = [({"x": x[:50], "scale": torch.tensor(1.0)}, {"y": y[:50]}), ({"x": x[50:]}, {"y": y[50:]})]
    found = collect_gradients(model, lambda o, t: mse(o, t["y"]), batches)
    whole = torch.autograd.grad(mse(model({"x": x}), y), list(model.parameters()))
    for full, expected in zip(found.full.values(), whole, strict=True):
        assert full.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    with pytest.raises(TypeError, match="data: expected tensors in each batch, got str without any"):
        collect_gradients(model, mse, [("a", "b")] * 3)


class Sometimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x):
        return self.a(x) + (self.b(x) if x[0, 0] > 0 else 0)


def test_parameters_that_a_batch_does_not_reach_have_a_gradient_of_zero():
    found = collect_gradients(Sometimes(), mse, regression(80), 10, 8, sampling="in order", exact=True)
    assert np.abs(found.matrix("noise").mean(axis=0)).max() < 1e-6
    assert not found.full["c.weight"].any()
    assert np.isfinite(found.spectrum(exact=True).eigenvalues).all()
    assert found.dimension_wise().ks.shape == (10,)


def test_gradients_of_any_layout():
    torch.manual_seed(3)
    x = torch.randn(40, 3, 6, 6).to(memory_format=torch.channels_last)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))
    net[0].weight.data = net[0].weight.data.to(memory_format=torch.channels_last)
    y = torch.randint(0, 2, (40,))
    found = collect_gradients(net, nn.functional.cross_entropy, (x, y), 6, 8, exact=True)
    tracks = found.gradients.tracks(["0.weight"])
    assert (tracks.values == found.matrix()[:, tracks.index]).all()
    words = nn.Sequential(nn.Embedding(20, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    sparse = collect_gradients(words, mse, (torch.randint(0, 20, (30, 2)), torch.randn(30, 1)), 6, 5)
    assert sparse.gradients.names[0] == "0.weight"


def test_noise_of_short_kinds_is_taken_in_float32():
    x, y = regression()
    short = collect_gradients(
        nn.Linear(4, 1).to(torch.bfloat16), mse, (x.bfloat16(), y.bfloat16()), 24, 5, exact=True
    )
    noise, full = short.matrix("noise"), [g.reshape(-1).numpy() for g in short.full.values()]
    assert noise == pytest.approx(short.matrix() - np.concatenate(full), abs=1e-6)
    arrays = collect_gradients(nn.Linear(4, 1), mse, (x.numpy(), y.numpy()), 4, 8)
    assert arrays.provenance["examples"] == 60


def test_values_that_are_not_finite():
    x, y = regression()
    y[3] = math.nan
    model = nn.Linear(4, 1)
    with pytest.raises(ValueError, match="data: expected a finite full-batch gradient, got another"):
        collect_gradients(model, mse, (x, y), 4, 8)
    found = collect_gradients(model, mse, (x, y), 4, 8, sampling="in order", centre=False)
    assert found.gradients.first_nonfinite.step == 0
    assert found.dimension_wise().skipped_constant == 0


@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "in order"])
def test_who_is_in_each_batch(sampling):
    drawn = list(numbers(sampling, 23, 5, 40, seed=3))
    assert all(index.shape == (5,) and index.min() >= 0 and index.max() < 23 for index in drawn)
    epochs = np.array(drawn).reshape(10, 20)
    if sampling == "replacement":
        counts = np.bincount(epochs.reshape(-1), minlength=23)
        assert ((counts - 200 / 23) ** 2 / (200 / 23)).sum() < 50  # chi-square of 22 degrees
        assert any(len(set(epoch)) < 20 for epoch in epochs.tolist())
        return
    assert all(len(set(epoch)) == 20 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == (10 if sampling == "shuffle" else 1)
