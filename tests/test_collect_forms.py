"""Gradients at fixed parameters, from batches, layouts and values of every form."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from gradtail.torch import collect_gradients, hessian_spectrum  # noqa: E402
from gradtail.torch.batches import batches_of, numbers  # noqa: E402

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


def test_sparse_gradients_are_those_of_dense_ones():
    torch.manual_seed(3)
    data = torch.randint(0, 20, (30, 2)), torch.randn(30, 1)
    words = nn.Sequential(nn.Embedding(20, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    sparse = collect_gradients(words, mse, data, 6, 5, exact=True)
    words[0].sparse = False
    dense = collect_gradients(words, mse, data, 6, 5, exact=True)
    for kind in ("gradient", "noise"):
        assert sparse.matrix(kind) == pytest.approx(dense.matrix(kind), abs=1e-7)
    assert np.abs(dense.matrix()[:, :60]).max() > 0.01
    assert sparse.gradients.summary("0.weight").norm == pytest.approx(
        dense.gradients.summary("0.weight").norm
    )


def test_noise_of_short_kinds_is_taken_in_float32():
    x, y = regression()
    short = collect_gradients(
        nn.Linear(4, 1).to(torch.bfloat16), mse, (x.bfloat16(), y.bfloat16()), 24, 5, exact=True
    )
    noise, full = short.matrix("noise"), [g.reshape(-1).numpy() for g in short.full.values()]
    assert noise == pytest.approx(short.matrix() - np.concatenate(full), abs=1e-6)
    arrays = collect_gradients(nn.Linear(4, 1), mse, (x.numpy(), y.numpy()), 4, 8)
    assert arrays.provenance["examples"] == 60


def test_exact_gradients_keep_what_float32_cannot():
    x, y = regression()
    model = nn.Linear(4, 1).double()
    found, tiny = (
        collect_gradients(
            model, lambda o, t, scale=scale: scale * mse(o, t), (x.double(), y.double()), 4, 8, exact=True
        )
        for scale in (1.0, 1e-60)
    )
    assert tiny.matrix().dtype == np.float64
    for kind in ("gradient", "noise"):
        assert tiny.matrix(kind) * 1e60 == pytest.approx(found.matrix(kind), rel=1e-9)
    assert collect_gradients(nn.Linear(4, 1), mse, (x, y), 4, 8, exact=True).matrix().dtype == np.float32


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


class Dicts(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


def test_mappings_go_to_the_model_and_to_the_loss():
    x, y = regression(40)
    model = Named()
    pair = collect_gradients(model.linear, mse, (x, y), 5, 8, sampling="in order", exact=True)
    loss = lambda output, batch: mse(output, batch["y"])
    whole = collect_gradients(model, loss, Dicts(x, y), 5, 8, sampling="in order", exact=True)
    ready = collect_gradients(model, loss, torch.utils.data.DataLoader(Dicts(x, y), batch_size=8), exact=True)
    for found in (whole, ready):
        assert found.matrix() == pytest.approx(pair.matrix(), abs=1e-7)
    for data in ({"x": x, "y": y}, x, "text"):
        with pytest.raises(TypeError, match="data: expected a pair of tensors, an indexable data set or"):
            collect_gradients(model, loss, data, 5, 8)


LAST = [(41, 8, [8, 8, 8, 8, 9]), (9, 8, [9]), (3, 2, [3]), (42, 8, [8] * 5 + [2]), (1, 1, [1])]


@pytest.mark.parametrize(("n", "batch", "expected"), LAST)
def test_no_single_example_is_left_over_for_the_full_gradient(n, batch, expected):
    x, y = regression(n)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))
    drawn = batches_of((x, y), 2, batch, "replacement", True, 0)
    assert [one.size for one in drawn.full()] == expected
    assert drawn.in_full == len(expected)
    if n > 1:
        found = collect_gradients(model, mse, (x, y), 2, batch, sampling="replacement")
        assert found.full is not None


def test_checkpoints_of_both_kinds():
    x, y = regression(40)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

    class Checkpointed(nn.Module):
        def __init__(self, reentrant):
            super().__init__()
            self.inner, self.reentrant = model, reentrant

        def forward(self, x):
            return checkpoint(self.inner, x.requires_grad_(), use_reentrant=self.reentrant)

    plain = collect_gradients(model, mse, (x, y), 4, 8, exact=True)
    found = collect_gradients(Checkpointed(False), mse, (x, y), 4, 8, exact=True)
    assert found.matrix() == pytest.approx(plain.matrix(), abs=1e-7)
    with pytest.raises(ValueError, match="model: expected activation checkpointing with use_reentrant=False"):
        collect_gradients(Checkpointed(True), mse, (x, y), 4, 8)


def test_layers_are_tested_if_asked_for():
    found = collect_gradients(nn.Linear(4, 1), mse, regression(), 4, 8, layers=False)
    assert found.dimension_wise().ks.shape == (4,)
    with pytest.raises(ValueError, match=r"group: expected None \(layers=False tests no other\), got 'bias'"):
        found.dimension_wise(group="bias")
    with pytest.raises(ValueError, match="group: expected the name of a parameter, got 'x'"):
        found.dimension_wise(group="x")


@pytest.mark.parametrize(
    ("n", "sampling", "kind", "centred", "lost"),
    [
        (40, "shuffle", "gradient", True, 3), (40, "shuffle", "gradient", False, 2),
        (40, "shuffle", "noise", True, 3), (40, "shuffle", "noise", False, 3),
        (43, "shuffle", "noise", False, 0), (40, "replacement", "noise", False, 0),
        (40, "in order", "gradient", False, 13), (40, "in order", "gradient", True, 14),
        (40, "in order", "noise", False, 14), (43, "in order", "noise", False, 13),
        (43, "in order", "noise", True, 14),
    ],
)  # fmt: skip
def test_ranks_that_whole_epochs_lose(n, sampling, kind, centred, lost):
    """18 batches of 8 of 40 examples are three epochs and three more."""
    torch.manual_seed(0)
    x, y = regression(n)
    model = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    found = collect_gradients(
        model, mse, (x.double(), y.double()), 18, 8, sampling=sampling, exact=True, sketch=4096
    )
    values = np.linalg.svd(found.matrix(kind) - centred * found.matrix(kind).mean(axis=0), compute_uv=False)
    assert np.count_nonzero(values > 1e-4 * values[0]) == 18 - lost
    words = f"the last {lost} of 18 eigenvalues are 0"
    said = any(words in one for one in found.spectrum(kind, centred=centred, exact=True).warnings)
    assert said == (lost > int(centred))
    few = found.spectrum(kind, centred=centred, top=3)
    assert not any("eigenvalues are 0" in one for one in few.warnings)


SAID = "the batches are all of the data, and add up to the full gradient: the last 1 of 5 eigenvalues"


def ready(size=8, **options):
    x, y = regression(42)
    data = torch.utils.data.TensorDataset(x.double(), y.double())
    return torch.utils.data.DataLoader(data, batch_size=size, **options)


def own():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("loader", "batches", "lost"),
    [
        (ready(drop_last=True), None, 1), (ready(drop_last=True), 5, 1),
        (list(ready(drop_last=True)), None, 1), (ready(shuffle=True, drop_last=True), None, 1),
        (ready(14), None, 1), (ready(14, shuffle=True, generator=own()), None, 1),
        (ready(10), None, 1),  # of unequal size: their weighted sum is zero
        # Not all of them, and others in each pass.
        (ready(7), 5, 0),
        (ready(shuffle=True, drop_last=True, generator=own()), None, 0),
    ],
)  # fmt: skip
def test_ranks_that_a_pass_of_ready_batches_loses(loader, batches, lost):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    found = collect_gradients(model, mse, loader, batches, exact=True)
    values = np.linalg.svd(found.matrix("noise"), compute_uv=False)
    assert np.count_nonzero(values > 1e-4 * values[0]) == found.batches - lost
    words = SAID.replace("5", str(found.batches))
    said = [one for one in found.spectrum("noise", centred=False, exact=True).warnings if words in one]
    assert len(said) == lost
    assert not any("eigenvalues are 0" in one for one in found.spectrum(centred=False, exact=True).warnings)


def test_nothing_is_said_of_ranks_where_the_model_is_random():
    """Dropout makes every epoch another, batch normalisation every one with others in a batch."""
    x, y = regression(40)
    for part, lost in (
        (nn.Identity(), 3),
        (nn.Dropout(0.0), 3),
        (nn.Dropout(0.5), 0),
        (nn.BatchNorm1d(20), 0),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 20), part, nn.Tanh(), nn.Linear(20, 1)).double()
        found = collect_gradients(model, mse, (x.double(), y.double()), 18, 8, exact=True)
        values = np.linalg.svd(found.matrix("noise"), compute_uv=False)
        assert np.count_nonzero(values > 1e-4 * values[0]) == 18 - lost
        said = found.spectrum("noise", centred=False, exact=True).warnings
        assert any("unless dropout or statistics of batches" in one for one in said) == (lost > 0)
        model.eval()
        same = collect_gradients(model, mse, (x.double(), y.double()), 18, 8, exact=True)
        assert any("add up" in one for one in same.spectrum("noise", centred=False, exact=True).warnings)


def test_generators_of_cuda_are_left_alone_where_there_are_none(monkeypatch):
    """A seed given to CUDA before it is there would wait, and be its seed later."""
    queued = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    collect_gradients(nn.Linear(4, 1), mse, regression(), 4, 8)
    hessian_spectrum(nn.Linear(4, 1), mse, regression(), 2)
    hessian_spectrum(nn.Linear(4, 1), mse, regression(), 2, operator="covariance")
    assert not queued
