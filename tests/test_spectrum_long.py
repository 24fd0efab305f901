"""Long spectra: planted laws of the rank through a stream, and what a sketch does to the verdict."""

import numpy as np
import pytest
from scipy import fft
from tails import has

from gradtail import GradientStream
from gradtail.estimators.gram import jackknife, without_sketch_bias
from gradtail.estimators.spectrum import covariance_spectrum, rank_power_law
from gradtail.estimators.spectrum_sample import Sample


def planted(rng, law, n):
    """Rows whose sample covariance has just these eigenvalues, one more row than there are."""
    steps = len(law) + 1
    start = rng.standard_normal((steps, steps))
    start[:, 0] = 1.0
    scores = np.linalg.qr(start)[0][:, 1:] * np.sqrt(law * (steps - 1))
    signs = rng.choice([-1.0, 1.0], n)
    for row in scores:
        yield signs * fft.idct(np.pad(row, (1, n - len(row) - 1)), norm="ortho") + 0.01


def broken(k, at):
    return np.where(k < at, (k / at) ** -0.5, (k / at) ** -1.5)


SIZES = [
    pytest.param(500, 250, 20_000, id="small"),
    pytest.param(2000, 1000, 100_000, id="as the study", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("steps", "top", "n"), SIZES)
def test_planted_laws_of_the_rank(steps, top, n):
    """1/k is accepted with its slope, a broken law is rejected: through the pass and a sketch of 8 a step."""
    k = np.arange(1, steps)
    for law, accepted in ((1.0 / k, True), (broken(k, top // 3), False)):
        stream = GradientStream(
            window=steps, sketch=1 << (8 * steps - 1).bit_length(), tracks=0, coordinates=None, memory="1GiB"
        )
        for row in planted(np.random.default_rng(0), law, n):
            stream.update({"a": row[: n // 3].astype(np.float32), "b": row[n // 3 :].astype(np.float32)})
        spectrum = stream.spectrum(top=top)
        found = rank_power_law(spectrum)
        assert found.top == top
        assert found.rejected != accepted
        assert not found.is_open
        assert has(found, f"the spectrum of {steps} steps is that of a sample")
        assert found.verdict.startswith(f"power law {'not ' if accepted else ''}rejected at 5 %")
        assert "with the bias of the sketch" in found.verdict
        if accepted:
            assert found.slope == pytest.approx(rank_power_law(law, top).slope, abs=0.03)
            assert top < 1000 or found.slope == pytest.approx(1, abs=0.03)
            assert found.loglog_slope == pytest.approx(1, abs=0.03)
            assert abs(spectrum.eigenvalues * k[:top] - 1).max() < 0.2


def sketched_by_chance(rng, law, r):
    """Eigenvalues of G^(1/2) W G^(1/2) / r, with W of Wishart's law, by Bartlett's decomposition."""
    size = len(law)
    factor = np.tril(rng.standard_normal((size, size)), -1)
    factor[np.diag_indices(size)] = np.sqrt(rng.chisquare(r - np.arange(size)))
    rows = np.sqrt(law)[:, None] * factor
    return np.linalg.eigvalsh(rows @ rows.T / r)[::-1]


@pytest.mark.parametrize("s", [0.7, 1.3])
@pytest.mark.parametrize(("steps", "times"), [(200, 20), (400, 10), (600, 8)])
def test_the_error_of_the_slope_that_a_sketch_makes(s, steps, times):
    """Of the first few, of an eighth and of half of the eigenvalues, in eight sketches of each."""
    rng, r = np.random.default_rng(int(10 * s) + steps), times * steps
    law = np.arange(1, steps + 1) ** -s
    for top in (10, steps // 8, steps // 2):
        truth, found = rank_power_law(law, top), []
        for _ in range(8):
            sketch = np.sqrt(law)[:, None] * rng.standard_normal((steps, r)) / np.sqrt(r)
            spectrum = covariance_spectrum(sketch, sketched=True, centred=False, top=top)
            found.append(rank_power_law(spectrum, top))
        apart = np.array([one.slope - truth.slope for one in found])
        stated = np.array([one.slope_sketch_stderr for one in found])
        assert np.mean(apart**2) <= 2.1 * np.mean(stated**2)  # 1 % of chi-square of 8 degrees is above 2.5
        assert np.mean(apart**2) >= 0.02 * np.mean(stated**2)  # and it says something
        if top == steps // 2:
            assert np.abs(apart).max() < 0.03


def test_corrected_eigenvalues_are_nearer_than_sketched_ones():
    rng, size, r = np.random.default_rng(1), 500, 4000
    law = 1.0 / np.arange(1, size + 1)
    sketched = np.mean([sketched_by_chance(rng, law, r) for _ in range(6)], axis=0)
    corrected = without_sketch_bias(sketched, sketched, r)
    head = slice(20, size // 2)
    assert np.abs(corrected / law - 1)[head].max() < 0.6 * np.abs(sketched / law - 1)[head].max()


def test_verdicts_that_a_small_sketch_leaves_open():
    rng, size = np.random.default_rng(2), 600
    law = np.sqrt(np.arange(1, size + 1) ** -0.7)
    sketch = rng.standard_normal((size, size + 200)) / np.sqrt(size + 200)
    found = rank_power_law(covariance_spectrum(law[:, None] * sketch, sketched=True, centred=False), 300)
    assert found.is_open == ((found.uncorrected_ks >= found.critical()) != found.rejected)
    assert found.is_open
    assert "its correction alone decides: more buckets would tell" in found.verdict
    exact = rank_power_law(covariance_spectrum(law[:, None] * np.eye(size), centred=False), 300)
    assert (exact.slope_sketch_stderr, exact.is_open) == (0.0, False)
    assert "sketch" not in exact.verdict
    assert exact.uncorrected_ks == exact.ks


LAWS = {"white": np.ones(3000), "steep": np.arange(1, 3001) ** -1.3, "slow": np.arange(1, 3001) ** -0.5}


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", LAWS)
def test_errors_of_few_eigenvalues_are_those_by_all(name, centred):
    """The jackknife by one step of subspace iteration against the one by all eigenvalues of each part."""
    x = 0.3 + np.random.default_rng(3).standard_normal((500, 3000)) * np.sqrt(LAWS[name])
    found = covariance_spectrum(x, top=20, centred=centred)
    sample = Sample.of(x, None, None, centred, 20)

    def every(kept):
        values = np.linalg.eigvalsh(sample.part(sample.g, kept))[::-1][:20]
        return values / sample.dof(len(kept))

    expected = np.ldexp(jackknife(500, sample.edges, every), 2 * sample.exponent)
    assert found.sampling_stderr == pytest.approx(expected, rel=0.15 if name == "white" else 0.03)
    assert found.sampling_stderr.mean() == pytest.approx(
        expected.mean(), rel=0.06 if name == "white" else 0.01
    )
