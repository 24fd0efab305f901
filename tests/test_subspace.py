"""The leading directions of two halves of the steps, against explicit eigenvectors and bounds."""

import numpy as np
import pytest
from tails import has

from gradtail import GradientStream
from gradtail.estimators.spectrum import SubspaceStability, subspace_stability


def steps_of(rng, steps=80, size=30, law=None):
    law = np.arange(1, size + 1) ** -1.5 if law is None else law
    return 2.0 + rng.standard_normal((steps, size)) * np.sqrt(law)


def explicit(x, top, centred):
    """Covariances of both halves, eigenvectors and angles, by numpy."""
    halves = np.array_split(x, [len(x) // 2])
    matrices = [np.cov(part.T) if centred else part.T @ part / len(part) for part in halves]
    (values, a), (_, b) = ((w[::-1], v[:, ::-1]) for w, v in (np.linalg.eigh(matrix) for matrix in matrices))
    sines, overlaps = [], []
    for j in range(1, top + 1):
        p, q = a[:, :j] @ a[:, :j].T, b[:, :j] @ b[:, :j].T
        sines.append(np.linalg.norm(p - q, 2))
        overlaps.append(np.trace(p @ q) / j)
    return sines, overlaps, np.linalg.norm(matrices[0] - matrices[1], 2), values, np.abs((a * b).sum(axis=0))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("steps", [80, 81])
def test_angles_are_those_of_explicit_covariances(centred, steps):
    x = steps_of(np.random.default_rng(0), steps)
    found = subspace_stability(x, top=6, centred=centred)
    sines, overlaps, difference, values, cosines = explicit(x, 6, centred)
    assert found.sine == pytest.approx(sines, abs=1e-6)
    assert found.overlap == pytest.approx(overlaps, abs=1e-9)
    assert found.perturbation == pytest.approx(difference, rel=1e-9)
    assert found.eigenvalues[0] == pytest.approx(values[:6], rel=1e-9)
    assert found.vector_sine == pytest.approx(np.sqrt(1 - cosines[:6] ** 2), abs=1e-6)
    assert found.bound == pytest.approx(2 * difference / -np.diff(values)[:6], rel=1e-6)
    above = np.append(np.inf, -np.diff(values)[:5])
    assert found.vector_bound == pytest.approx(
        2 * difference / np.minimum(above, -np.diff(values)[:6]), rel=1e-6
    )


def test_bounds_are_never_violated_and_not_idle():
    rng, told = np.random.default_rng(1), 0.0
    for _ in range(200):
        law = np.sort(rng.pareto(0.7, 12) + 0.1)[::-1]
        found = subspace_stability(steps_of(rng, 200, 12, law), top=5)
        assert (found.sine <= found.bound + 1e-9).all()
        assert (found.vector_sine <= found.vector_bound + 1e-9).all()
        told += np.mean(found.bound < 1)
    assert told / 200 > 0.1


def test_what_lasts_and_what_does_not():
    rng = np.random.default_rng(2)
    law = np.array([400.0, 50.0, *[0.1] * 998])
    found = subspace_stability(steps_of(rng, 200, 1000, law), top=4)
    assert (found.overlap[:2] > 0.9).all()
    assert found.overlap[3] < 0.55  # two of four are noise
    x = steps_of(rng, 200, 1000, law)
    x[100:] = x[100:, ::-1]  # the same law along other axes
    assert subspace_stability(x, top=2).overlap[0] < 0.05
    assert "the first 4 directions of two halves of 200 steps overlap by" in str(found)
    assert len(repr(found)) < 120


def test_sketches_and_streams():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((120, 5000)).astype(np.float32) * np.arange(1, 5001) ** -0.6
    stream = GradientStream(window=120, sketch=4096)
    for row in x:
        stream.update({"w": row.astype(np.float32)})
    exact, found = subspace_stability(x, top=3), stream.subspace_stability(top=3)
    assert found.sketched
    assert not exact.sketched
    assert found.overlap == pytest.approx(exact.overlap, abs=0.1)
    assert found.perturbation == pytest.approx(exact.perturbation, rel=0.15)


@pytest.mark.parametrize("exponent", [-300, 200])
def test_scale_changes_no_angle(exponent):
    x = steps_of(np.random.default_rng(4))
    one, other = subspace_stability(x), subspace_stability(np.ldexp(x, exponent))
    assert np.array_equal(one.sine, other.sine)
    assert np.array_equal(one.bound, other.bound)
    assert other.perturbation == np.ldexp(one.perturbation, 2 * exponent)


def test_steps_that_are_not_finite():
    x = steps_of(np.random.default_rng(5), 20)
    x[3, 0] = np.nan
    assert has(subspace_stability(x, top=3), "1 steps with NaN or infinite values are left out")


def test_beyond_the_rank_there_is_nothing_to_compare():
    rng = np.random.default_rng(6)
    low = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 30))
    found = subspace_stability(low, top=4)
    assert found.overlap[:2] == pytest.approx([1, 1], abs=0.3)
    for values in (found.sine, found.overlap, found.bound, found.vector_sine, found.vector_bound):
        assert np.isfinite(values[:2]).all()
        assert np.isnan(values[2:]).all()
    assert has(found, "the halves have 2 directions alone")
    assert str(found).startswith("the first 2 directions of two halves of 60 steps overlap by")
    still = subspace_stability(np.ones((40, 4)), top=2)
    assert np.isnan(still.overlap).all()
    assert "nan" in str(still)


def test_the_bound_is_told_up_to_the_first_rank_where_it_says_nothing():
    bound = np.array([0.2, 1.4, 0.3])
    found = SubspaceStability(bound, bound, bound, bound, bound, 1.0, np.ones((2, 3)), 10, False)
    assert "below 1 up to rank 1" in str(found)
    found = SubspaceStability(bound, bound, 1 + bound, bound, bound, 1.0, np.ones((2, 3)), 10, False)
    assert "at least 1 at the first rank" in str(found)


def test_refusals():
    x = steps_of(np.random.default_rng(5), 20)
    x[3, 0] = np.nan
    with pytest.raises(ValueError, match="top: expected an int from 1 to 7, less than half"):
        subspace_stability(x, top=8)
    with pytest.raises(TypeError, match="top: expected an int"):
        subspace_stability(x, top=1.5)
    with pytest.raises(ValueError, match="vectors: expected at least 6 steps with finite values, got 5"):
        subspace_stability(x[:6])
