"""Gradients at fixed parameters: what is collected, and its tests."""

import math

import numpy as np
import pytest
import scipy

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from gradtail import powerlaw  # noqa: E402
from gradtail.estimators.structure import LEVEL  # noqa: E402
from gradtail.torch import collect_gradients  # noqa: E402

mse = nn.functional.mse_loss


def regression(n=60, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    y = x @ torch.randn(d, 1, generator=generator) + torch.randn(n, 1, generator=generator)
    torch.manual_seed(seed)
    return nn.Linear(d, 1), (x, y)


def each_gradient(model, x, y):
    """Gradient of every example, by hand."""
    with torch.no_grad():
        residual = 2 * (model(x) - y)
        return torch.cat([residual * x, residual], dim=1).double().numpy()


def in_order(found, collection):
    return np.concatenate([np.asarray(found[name]).reshape(-1) for name in collection.gradients.names])


# What is collected.


def test_covariance_of_minibatches_of_a_linear_regression():
    """C = (E gg' - LL') / B for examples drawn with replacement, and the mean of the columns is L."""
    model, (x, y) = regression()
    each = each_gradient(model, x, y)
    full = each.mean(axis=0)
    t, b = 2000, 20
    found = collect_gradients(
        model, mse, (x, y), t, b, sampling="replacement", exact=True, tracks=0, sketch=0
    )
    columns = found.matrix().astype(np.float64)
    assert in_order(found.full, found) == pytest.approx(full, abs=1e-6)
    one = np.cov(each.T, ddof=0)
    truth, spread = one / b, np.sqrt(np.diag(one / b))
    assert np.abs(columns.mean(axis=0) - full).max() < 4.5 * (spread / math.sqrt(t)).max()
    found_covariance = np.cov(columns.T)
    squares = (each - full) ** 2
    fourth = (
        squares.T @ squares / len(each) + (b - 1) * (np.outer(np.diag(one), np.diag(one)) + 2 * one**2)
    ) / b**3
    error = (found_covariance - truth) / np.sqrt((fourth - truth**2) / t)
    assert np.abs(error).max() < 4.5  # of 15 entries
    trace_error = math.sqrt((fourth.sum() - np.trace(truth) ** 2) / t)
    assert abs(np.trace(found_covariance) - np.trace(truth)) < 3.5 * trace_error
    # Without replacement the trace is less by (b - 1) / (n - 1), which that would notice.
    assert 3.5 * trace_error < (b - 1) / (len(each) - 1) * np.trace(truth) / 2
    noise = found.matrix("noise")
    assert noise == pytest.approx(columns - full, abs=1e-5)


def test_shuffled_epochs_add_up_to_the_full_gradient():
    model, data = regression()
    found = collect_gradients(model, mse, data, 24, 5, exact=True)
    epochs = found.matrix().reshape(2, 12, -1).mean(axis=1)
    assert epochs == pytest.approx(np.tile(in_order(found.full, found), (2, 1)), abs=1e-5)
    assert found.matrix("noise").reshape(2, 12, -1).sum(axis=1) == pytest.approx(0, abs=1e-4)
    again = collect_gradients(model, mse, data, 24, 5, exact=True)
    assert (again.matrix() == found.matrix()).all()
    other = collect_gradients(model, mse, data, 24, 5, exact=True, seed=1)
    assert not np.allclose(other.matrix(), found.matrix())


def test_batches_in_order_come_again():
    model, (x, y) = regression(n=33)
    found = collect_gradients(model, mse, (x, y), 12, 8, sampling="in order", exact=True)
    each = each_gradient(model, x, y)
    expected = [each[8 * (i % 4) : 8 * (i % 4) + 8].mean(axis=0) for i in range(12)]
    assert found.matrix() == pytest.approx(np.array(expected), abs=1e-5)


class Squares(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def test_data_in_every_form():
    model, (x, y) = regression(n=40)
    pair = collect_gradients(model, mse, (x, y), 5, 8, sampling="in order", exact=True)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    forms = {
        "data set": lambda: collect_gradients(
            model, mse, Squares(x, y), 5, 8, sampling="in order", exact=True
        ),
        "list of batches": lambda: collect_gradients(model, mse, batches, exact=True),
        "loader": lambda: collect_gradients(model, mse, DataLoader(Squares(x, y), batch_size=8), exact=True),
    }
    for form, collect in forms.items():
        found = collect()
        assert found.matrix() == pytest.approx(pair.matrix(), abs=1e-7), form
        assert found.matrix("noise") == pytest.approx(pair.matrix("noise"), abs=1e-7), form
    once = collect_gradients(model, mse, iter(batches), 4, centre=False, exact=True)
    assert once.matrix() == pytest.approx(pair.matrix()[:4], abs=1e-7)
    assert (once.noise, once.full, once.batches) == (None, None, 4)
    unequal = collect_gradients(model, mse, [(x[:30], y[:30]), (x[30:], y[30:])])
    assert in_order(unequal.full, unequal) == pytest.approx(in_order(pair.full, pair), abs=1e-6)


def test_some_parameters():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    _, data = regression()
    found = collect_gradients(model, mse, data, 4, 8)
    assert found.gradients.names == ["0.weight", "1.weight", "1.bias"]
    assert not model[0].bias.requires_grad
    only = collect_gradients(model, mse, data, 4, 8, params=r"^1\.")
    assert only.gradients.names == ["1.weight", "1.bias"]
    assert only.provenance["parameters"] == 4


def test_provenance_holds_what_the_numbers_depend_on():
    model, data = regression()
    known = collect_gradients(model, mse, data, 4, 8, sampling="replacement", seed=7, mode="eval").provenance
    expected = {
        "batches": 4, "batch_size": 8, "examples": 60, "sampling": "replacement", "centre": True,
        "mode": "eval", "seed": 7, "parameters": 5, "dtype": ["float32"], "top": 1000, "cutoff": "rank",
        "level": LEVEL, "model": "Linear", "loss": "mse_loss", "random": [], "scipy": scipy.__version__,
    }  # fmt: skip
    assert {name: known[name] for name in expected} == expected
    assert {"torch", "numpy", "gradtail", "backend", "seconds", "sketch", "bits"} <= set(known)


# Tests of columns and rows.


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(2)
    x, y = torch.randn(600, 30), torch.randint(0, 10, (600,))
    model = nn.Sequential(nn.Linear(30, 120), nn.ReLU(), nn.Linear(120, 10))
    return collect_gradients(model, nn.functional.cross_entropy, (x, y), 120, 20, exact=True, top=200)


@pytest.mark.parametrize("kind", ["gradient", "noise"])
def test_columns_are_tested_as_they_come(net, kind):
    found = net.dimension_wise(kind)
    columns = net.matrix(kind)
    raw = [powerlaw.fit(column, top=200) for column in columns]
    assert found.ks == pytest.approx([one.ks for one in raw], abs=0.02)
    assert found.exponent == pytest.approx([one.exponent for one in raw], rel=0.02)
    assert found.mean_ks == pytest.approx(np.mean([one.ks for one in raw]), abs=0.003)
    assert found.power_law_rate.value == pytest.approx(
        np.mean([one.ks < one.critical() for one in raw]), abs=0.06
    )
    assert found.power_law_rate.hits <= found.printed_power_law_rate.hits
    assert (found.of, found.gaussian_rate.tested) == ("columns", 120)
    part = net.dimension_wise(kind, "2.weight")
    assert part.ks.shape == (120,)
    assert (part.n_tail[np.isfinite(part.ks)] < 200).all()  # a tenth of 1,200
    assert np.isnan(net.dimension_wise(kind, "2.bias").ks).all()  # ten values are too few


def test_rows_are_the_tracked_coordinates(net):
    found = net.iteration_wise("noise", top=50)
    tracks = net.noise.tracks()
    assert found.pvalue.shape == (len(tracks.index),)
    matrix = dict(zip(net.noise.names, np.split(net.matrix("noise"), np.cumsum(
        [net.noise.sizes[name] for name in net.noise.names])[:-1], axis=1), strict=True))  # fmt: skip
    for i in range(0, len(tracks.index), 97):
        row = matrix[str(tracks.names[i])][:, tracks.index[i]]
        assert (tracks.values[:, i] == row).all()
        if np.isfinite(found.ks[i]):
            raw = powerlaw.fit(row, top=50)
            assert (found.ks[i], found.exponent[i]) == (pytest.approx(raw.ks), pytest.approx(raw.exponent))
            assert found.critical[i] == pytest.approx(raw.critical())
    everything = net.all_coordinates("noise")
    assert everything.pvalue.size + 0 == net.provenance["parameters"]
    assert len(net.iteration_wise("noise", ["0.bias"]).pvalue) < found.pvalue.size
    assert "across steps, of one parameter" in str(found)


def test_spectra_with_and_without_sketches(net):
    sketched, exact = net.spectrum("noise", top=10), net.spectrum("noise", top=10, exact=True)
    assert sketched.eigenvalues == pytest.approx(
        exact.eigenvalues, rel=3 * math.sqrt(2 / net.provenance["sketch"])
    )
    noise = net.matrix("noise").astype(np.float64)
    dense = np.linalg.svd(noise - noise.mean(axis=0), compute_uv=False)[:10] ** 2 / (len(noise) - 1)
    assert exact.eigenvalues == pytest.approx(dense, rel=1e-5)
    with pytest.raises(ValueError, match="top: expected fewer than the 120 batches, got 120"):
        net.spectrum("noise", top=120)


def test_what_was_not_collected_is_refused(net):
    model, data = regression()
    bare = collect_gradients(model, mse, data, 4, 8, centre=False)
    with pytest.raises(ValueError, match="kind: expected 'gradient', as centre=False has kept no noise"):
        bare.dimension_wise("noise")
    with pytest.raises(ValueError, match="kind: expected gradients collected with exact=True"):
        bare.matrix()
    with pytest.raises(ValueError, match="kind: expected 'gradient' or 'noise', got 'both'"):
        net.iteration_wise("both")
    with pytest.raises(ValueError, match="group: expected the name of a parameter, got 'x'"):
        net.dimension_wise(group="x")
    assert "gradient across parameters" in str(net)
    assert str(bare).startswith("GradientCollection(4 batches of 8)")
