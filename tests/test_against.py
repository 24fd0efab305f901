"""The gradient covariance beside the Hessian: dense matrices, and laws in which they are proportional."""

import signal
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, dense_covariance, dense_hessian, mse, small_net  # noqa: E402
from torch import nn  # noqa: E402

from gradtail.torch import collect_gradients, covariance_against_hessian  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402


def press_at(monkeypatch, product):
    """Send a real Ctrl-C in the middle of a product; returns a list that grows by each."""
    real, calls = Curvature.product, []

    def pressing(self, v):
        calls.append(1)
        if len(calls) == product:
            signal.raise_signal(signal.SIGINT)
        return real(self, v)

    monkeypatch.setattr(Curvature, "product", pressing)
    return calls


@pytest.fixture
def default_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_everything_is_that_of_dense_matrices():
    model, data = small_net()
    h, c = dense_hessian(model, ce, data), dense_covariance(model, ce, data)
    (lead, u), (m, w) = ((values[::-1], vectors[:, ::-1]) for values, vectors in map(np.linalg.eigh, (h, c)))
    found = covariance_against_hessian(model, ce, data, 6, batch_size=32)
    assert found.hessian.eigenvalues == pytest.approx(lead[:6], rel=1e-4)
    assert found.covariance.eigenvalues == pytest.approx(m[:6], rel=1e-4)
    overlap = [np.linalg.norm(u[:, :j].T @ w[:, :j]) ** 2 / j for j in range(1, 7)]
    assert found.overlap == pytest.approx(overlap, abs=5e-3)
    along = np.diag(u.T @ c @ u)[:6]
    assert found.along == pytest.approx(along, abs=1e-3 * along.max())
    x, y = np.log(lead[:6]), np.log(along)
    slope, residual, *_ = np.polyfit(x, y, 1, full=True)
    assert found.slope == pytest.approx(slope[0], abs=0.02)
    error = np.sqrt(residual[0] / 4 / ((x - x.mean()) ** 2).sum())
    assert found.slope_stderr == pytest.approx(error, rel=0.05)
    assert found.of_batches(10) == pytest.approx(m[:6] / 10, rel=1e-4)
    assert str(found).count("\n") >= 5
    assert "u'Cu goes as l to the power of" in str(found)
    assert len(repr(found)) < 100


@pytest.fixture(scope="module")
def least_squares():
    """A regression with noise of variance s**2: C = 2 s**2 H of the squared error near its minimum."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([4.0, 2.0, 1.5, 1.0, 0.7, 0.5])
    x = torch.randn(20_000, 6, generator=generator) * scale
    y = x.sum(dim=1, keepdim=True) + 0.5 * torch.randn(20_000, 1, generator=generator)
    model = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    return model, (x, y)


def test_at_a_minimum_the_covariance_is_proportional_to_the_hessian(least_squares):
    model, data = least_squares
    found = covariance_against_hessian(model, nn.functional.mse_loss, data, 6, batch_size=5000)
    error = np.sqrt(8 / 20_000)  # of the mean of (residual x)**2 over that of x**2, both normal
    assert found.ratio == pytest.approx(2 * 0.25, rel=4 * error)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert (found.overlap > 0.97).all()


def test_minibatches_have_the_part_that_is_said(least_squares):
    """Eigenvalues of collected gradients of batches of B, beside those of single examples over B."""
    model, data = least_squares
    found = covariance_against_hessian(model, nn.functional.mse_loss, data, 3, batch_size=5000)
    collected = collect_gradients(
        model, nn.functional.mse_loss, data, 400, 25, sampling="replacement", exact=True, centre=False
    ).spectrum(top=3, exact=True)
    assert np.abs(collected.eigenvalues - found.of_batches(25)) == pytest.approx(
        0, abs=4 * collected.stderr.max()
    )
    assert collected.eigenvalues == pytest.approx(found.of_batches(25), rel=0.3)


def test_too_few_for_a_line():
    model, data = small_net()
    found = covariance_against_hessian(model, ce, data, 2)
    assert np.isnan(found.slope)
    str(found)


def test_rounding_is_no_part_of_a_law():
    torch.manual_seed(0)
    x, y = torch.randn(20, 60) / torch.arange(1, 61.0).sqrt(), torch.randn(20, 1)
    found = covariance_against_hessian(nn.Linear(60, 1, bias=False), mse, (x, y), 40)
    lead, along = np.log(found.hessian.eigenvalues[:20]), np.log(found.along[:20])
    assert found.slope == pytest.approx(np.polyfit(lead, along, 1)[0], rel=1e-6)
    assert str(found).count("may be zero") == 2


def test_equal_eigenvalues_are_shown():
    model = nn.Linear(4, 1, bias=False)
    data = 2 * torch.eye(4).repeat(2, 1), torch.zeros(8, 1)
    found = covariance_against_hessian(model, mse, data, 4)
    flat = np.full(4, found.hessian.eigenvalues[0])
    shown = str(replace(found, hessian=replace(found.hessian, eigenvalues=flat)))
    assert "Hessian: " not in shown
    assert "covariance: power law" in shown


def test_data_may_be_read_once():
    model, data = small_net()
    whole = covariance_against_hessian(model, ce, data, 3, batch_size=35)
    halves = [(data[0][:35], data[1][:35]), (data[0][35:], data[1][35:])]
    mappings = [{"x": x, "y": y} for x, y in halves]

    class OfMappings(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, batch):
            return self.net(batch["x"])

    for found in (
        covariance_against_hessian(model, ce, iter(halves), 3),
        covariance_against_hessian(OfMappings(), lambda out, batch: ce(out, batch["y"]), iter(mappings), 3),
    ):
        assert found.along == pytest.approx(whole.along, rel=1e-4)
        assert found.overlap == pytest.approx(whole.overlap, rel=1e-4)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_in_the_search_for_the_covariance_leaves_what_both_have(monkeypatch):
    model, data = small_net()
    before = covariance_against_hessian(model, ce, data, 20)
    press_at(monkeypatch, before.hessian.products + 15)
    found = covariance_against_hessian(model, ce, data, 20)
    count = found.along.size
    assert 0 < count < 20
    assert found.covariance.interrupted
    for one in (found.hessian, found.covariance):
        assert one.eigenvalues.shape == one.residuals.shape == found.overlap.shape == (count,)
        assert (one.vectors.shape, one.converged) == ((89, count), count)
    assert found.along == pytest.approx(before.along[:count], rel=1e-4)
    assert f"{count:>6}" in str(found)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_in_the_search_for_the_hessian_ends_all(monkeypatch):
    model, data = small_net()
    calls = press_at(monkeypatch, 30)
    with pytest.raises(KeyboardInterrupt):
        covariance_against_hessian(model, ce, data, 40)
    assert len(calls) < 35


def test_refusals_are_those_of_the_spectrum():
    model, data = small_net()
    with pytest.raises(ValueError, match="top: expected at least 1, got 0"):
        covariance_against_hessian(model, ce, data, 0)
    with pytest.raises(ValueError, match="memory: expected at least"):
        covariance_against_hessian(model, ce, data, 3, memory="1KiB")
