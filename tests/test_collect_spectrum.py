"""Covariance spectra of the gradients of a real network: sketched against exact, and batches of B and 4 B."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (the extra gradtail[test])")

from published import FOLDER  # noqa: E402
from torch import nn  # noqa: E402

from gradtail import GradientStream  # noqa: E402
from gradtail.estimators.spectrum import covariance_spectrum, rank_power_law  # noqa: E402
from gradtail.experiments.classifiers import Training, evaluate, train  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.networks import LeNet  # noqa: E402
from gradtail.torch import collect_gradients  # noqa: E402

loss = nn.functional.cross_entropy


@pytest.fixture(scope="module")
def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return torch.tensor(x / 16.0, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y)


def trained(model, data, steps, rate=0.05, batch=32):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for _ in range(steps):
        index = torch.randint(0, len(data[0]), (batch,), generator=generator)
        optimizer.zero_grad()
        loss(model(data[0][index]), data[1][index]).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def collected(digits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 64, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    found = collect_gradients(
        trained(model, digits, 100), loss, digits, 300, 10, sampling="replacement", centre=False, exact=True,
        coordinates=None, tracks=0, layers=False,
    )  # fmt: skip
    assert found.provenance["parameters"] == 281_674
    return found, found.spectrum(exact=True, top=100)


def sketched(found, buckets, seed, top):
    """The spectrum of the same gradients by another map."""
    stream = GradientStream(window=300, sketch=buckets, tracks=0, coordinates=None, seed=seed)
    names = found.gradients.names
    cuts = np.cumsum([found.gradients.sizes[name] for name in names])[:-1]
    for row in found.matrix():
        stream.update(dict(zip(names, np.split(row, cuts), strict=True)))
    return stream.spectrum(top=top)


def test_sketched_against_exact(collected):
    found, exact = collected
    assert found.provenance["sketch"] == 4096
    slope = rank_power_law(exact, 50)
    for one in (found.spectrum(top=100), sketched(found, 4096, 7, 100)):
        assert one.eigenvalues[:50] == pytest.approx(exact.eigenvalues[:50], rel=0.1)
        law = rank_power_law(one, 50)
        assert law.slope == pytest.approx(slope.slope, abs=0.02)
        assert law.loglog_slope == pytest.approx(slope.loglog_slope, abs=0.02)
        assert law.rejected == slope.rejected


def test_the_error_of_a_sketch_falls_with_its_size(collected):
    found, exact = collected
    sizes, errors, held = (512, 1024, 2048, 4096, 8192), [], []
    for buckets in sizes:
        apart = []
        for seed in range(10):
            one = sketched(found, buckets, seed, 50)
            apart.append(one.eigenvalues / exact.eigenvalues[:50] - 1)
            held.append(
                np.abs(one.eigenvalues - exact.eigenvalues[:50])[:10] <= 1.96 * one.sketch_stderr[:10]
            )
        errors.append(np.sqrt(np.mean(np.array(apart)[:, :10] ** 2)))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.12)
    level = np.array(errors) / np.sqrt(2 / np.array(sizes))
    assert np.all((level > 1 / 1.5) & (level < 1.5))
    assert 0.90 <= np.mean(held) <= 0.98


def test_four_times_the_batch_is_a_quarter_of_the_covariance(digits):
    torch.manual_seed(0)
    model = LeNet(8)
    train(model, digits, Training(60, batch=64, rate=0.02), seed=0, progress=False)
    assert evaluate(model, digits)[1] > 0.95
    spectra = [
        collect_gradients(
            model, loss, digits, 400, batch, sampling="replacement", centre=False, coordinates=None,
            tracks=0, layers=False, seed=batch,
        ).spectrum(top=50)
        for batch in (16, 64)
    ]  # fmt: skip
    small, large = (one.eigenvalues[:10] for one in spectra)
    ratio = large / small
    error = ratio * np.hypot(*(one.stderr[:10] / one.eigenvalues[:10] for one in spectra))
    assert np.all(np.abs(ratio - 0.25) < 3 * error)
    assert np.all(error < 0.08)
    assert ratio.mean() == pytest.approx(0.25, rel=0.1)
    trace = spectra[1].trace / spectra[0].trace
    errors = [one.trace_stderr / one.trace for one in spectra]
    assert trace == pytest.approx(0.25, abs=3 * trace * np.hypot(*errors))
    slopes = [rank_power_law(one, 50) for one in spectra]
    apart = slopes[0].slope - slopes[1].slope
    assert abs(apart) < 0.15  # of 1.7; the error of independent draws would allow 0.7


def test_eigenvalues_are_those_of_the_dense_covariance(collected):
    found, _ = collected
    columns = found.matrix()[:, ::200].astype(np.float64)  # of 1,409 coordinates
    dense = np.linalg.eigvalsh(np.cov(columns.T))[::-1]
    assert covariance_spectrum(columns).eigenvalues[:250] == pytest.approx(dense[:250], rel=1e-5)
    with pytest.raises(ValueError, match="top: expected fewer than the 300 batches, got 300"):
        found.spectrum(top=300)
    stability = found.subspace_stability(top=5)
    exact = found.subspace_stability(top=5, exact=True)
    assert stability.overlap == pytest.approx(exact.overlap, abs=0.1)
    assert (exact.sine <= exact.bound).all()
    assert stability.perturbation == pytest.approx(exact.perturbation, rel=0.1)


@pytest.mark.slow
def test_directions_of_the_study_on_mnist():
    """Heavy tails across parameters and none across batches, before training."""
    folder = FOLDER / "mnist"
    if not folder.is_dir():
        pytest.skip(f"needs the published data, expected in {folder}")
    images = load_images(folder)
    torch.manual_seed(0)
    model = LeNet()
    found = collect_gradients(model, loss, images.train, 300, 100, coordinates=None, layers=False)
    columns, rows = found.dimension_wise(), found.iteration_wise()
    assert columns.power_law_rate.value > 0.5
    assert columns.gaussian_rate.value < 0.05
    assert rows.power_law_rate.value < 0.05
    assert rows.gaussian_rate.value > 0.3
    assert found.provenance["examples"] == 60_000
