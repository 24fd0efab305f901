"""Cosines of steps: exact rows, the error of a sketch, gaps."""

import numpy as np
import pytest
from test_autocorrelation import rot8

from gradtail import GradientStream, step_cosines


def test_exact_rows_and_gaps():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 5)) * 2.0 ** np.array([-500, 0, 500, 3, 0, -3, 0, 0, 9])[:, None]
    x[4] = 0
    steps = np.array([0, 1, 3, 4, 5, 6, 9, 10, 12])
    found = step_cosines(x, steps=steps, lag=3)
    assert found.steps.tolist() == [3, 4, 6, 9, 12]
    unit = np.array([row / np.abs(row).max() if row.any() else row for row in x])
    with np.errstate(invalid="ignore"):
        unit /= np.linalg.norm(unit, axis=1)[:, None]
    pairs = [(2, 0), (3, 1), (5, 2), (6, 5), (8, 6)]
    assert found.cosines == pytest.approx([unit[i] @ unit[j] for i, j in pairs])
    assert not found.stderr.any()
    assert np.isnan(step_cosines(x, steps=steps).cosines[2])
    assert "pairs (exact rows)" in str(found)
    assert str(step_cosines(x, lag=20)) == "no two steps 20 apart"


def test_error_of_the_sketch():
    """Over maps the error is as said; intervals hold the cosine."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4000))
    for share in (0.0, 0.7):
        y = np.array([x[0], share * x[0] + (1 - share) * x[1]])
        norms = np.linalg.norm(y, axis=1)
        truth = y[0] @ y[1] / norms.prod()
        found = [step_cosines(rot8(seed, y, 64), sketched=True) for seed in range(300)]
        z = np.array([(one.cosines[0] - truth) * 8 / (1 - truth**2) for one in found])
        assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.13)  # 3 errors of 300
        held = [low[0] <= truth <= high[0] for low, high in (one.ci() for one in found)]
        assert np.mean(held) >= 0.92


def test_of_a_stream():
    rng = np.random.default_rng(2)
    stream, rows = GradientStream(sketch=1024), rng.standard_normal((20, 600)) + 1
    for row in rows:
        stream.update({"a": row[:500], "b": row[500:]})
    for group, part in ((None, slice(None)), ("b", slice(500, 600))):
        found = stream.cosines(group, lag=2)
        exact = step_cosines(rows[:, part], lag=2)
        assert np.array_equal(found.steps, exact.steps)
        assert np.all(np.abs(found.cosines - exact.cosines) <= 4.5 * found.stderr)
        assert found.buckets == (1024 if group is None else 128)
    with pytest.raises(ValueError, match="lag: expected a positive int, got 0"):
        stream.cosines(lag=0)
    with pytest.raises(TypeError, match=r"lag: expected a positive int, got 1\.0"):
        stream.cosines(lag=1.0)
