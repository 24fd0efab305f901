"""What streams keep besides summaries, and how they go back."""

from __future__ import annotations

import numpy as np
import pytest
from small_streams import SHAPES, assert_equal_states, filled, gradient, stream
from streams import assert_same_stream, assert_same_summary

from gradtail import GradientStream


def test_going_back(backend: str) -> None:
    found = filled(backend, range(12))
    assert found.rollback(50) == 11
    assert found.rollback(7) == 7
    assert found.counted == filled(backend, range(8)).counted
    assert max(found.history.steps) in (6, 7)  # the record is thinned
    assert found.summary(None, "newest").count == 0
    assert max(found.ring().steps) == 7
    assert max(found.tracks().steps) == 7
    for step in range(8, 12):
        found.update(gradient(step), step)
    expected = filled(backend, range(12))
    assert_same_rings(found, expected)
    for name in ("a.weight", "late"):
        assert found.summary(name).count == expected.summary(name).count
        assert found.coordinates(name).count.max() == 4
    assert found.first_nonfinite == expected.first_nonfinite
    assert found.rollback(1) == 1
    assert found.first_nonfinite is None
    assert found.rollback(-1) is None
    assert (found.steps, found.last_step) == (0, None)
    with pytest.raises(TypeError, match="step: expected an int, got 'x'"):
        found.rollback("x")  # type: ignore[arg-type]


def test_a_block_that_reaches_beyond_is_lost_as_a_whole(backend: str) -> None:
    found = filled(backend, range(70))  # blocks of four steps by now
    found.rollback(49)
    covered = [(block.first_step, block.last_step, block.steps) for block in found.blocks()]
    assert covered[-1] == (44, 47, 4)
    assert found.steps == 50


def assert_same_rings(found: GradientStream, expected: GradientStream) -> None:
    """Of the steps in both: going back makes a ring shorter."""
    a, b = found.ring(), expected.ring()
    steps = np.intersect1d(a.steps, b.steps)
    assert len(steps) >= 4
    rows = [np.searchsorted(ring.steps, steps) for ring in (a, b)]
    np.testing.assert_allclose(a.vectors[rows[0]], b.vectors[rows[1]], atol=1e-5)


def test_sketches_alone_count_nowhere(backend: str) -> None:
    found, expected = filled(backend, range(6)), filled(backend, range(6))
    arrays = gradient(9)
    alone = found.sketch(arrays)
    assert_equal_states(found, expected)
    found.update(arrays, 9)
    np.testing.assert_allclose(found.ring().vectors[-1], alone, atol=1e-6 * np.abs(alone).max())
    double = found.sketch({name: 2 * x for name, x in arrays.items()})
    np.testing.assert_allclose(double, 2 * alone, rtol=1e-6, atol=1e-6)
    with pytest.raises(
        ValueError, match="sketch: expected a stream that keeps sketches, got one with sketch=0"
    ):
        stream(backend, sketch=0).sketch(arrays)


def test_states_can_be_left_out(backend: str) -> None:
    found = filled(backend, range(5), sketch=0, tracks=0, coordinates=None)
    assert found.summary("a").count == 5 * 369
    assert found.ring().vectors.shape == (0, 0)
    assert found.tracks().values.shape[1] == 0
    assert found.coordinates("a.bias").count.size == 0
    again = GradientStream.from_state_dict(found.state_dict(), backend=backend)
    assert_same_stream(
        found.merge(filled(backend, range(5, 7), sketch=0, tracks=0, coordinates=None)),
        filled(backend, range(7), sketch=0, tracks=0, coordinates=None),
    )
    assert_equal_states(again, found)


def test_declared_arrays(backend: str) -> None:
    found = stream(backend)
    found.declare({name: int(np.prod(shape)) for name, shape in SHAPES.items()})
    found.update({"late": np.ones(100)})
    assert found.names == ["late"]
    assert len(found.tracks().index) == round(50 * 100 / 514)
    with pytest.raises(RuntimeError, match="declare: expected a call before the first update"):
        found.declare({})
    for wrong in ([3], {3: 3}, {"a": "x"}):
        with pytest.raises(TypeError, match="sizes: expected a mapping of names to ints"):
            stream(backend).declare(wrong)  # type: ignore[arg-type]


def test_every_array_is_tracked(backend: str) -> None:
    found = filled(backend, range(8))
    tracks = found.tracks()
    assert set(tracks.names) == set(SHAPES)
    for i, (name, index) in enumerate(zip(tracks.names, tracks.index, strict=True)):
        for row, step in enumerate(tracks.steps):
            x = gradient(int(step)).get(str(name))
            assert tracks.observed[row, i] == (x is not None)
            np.testing.assert_array_equal(tracks.values[row, i], np.nan if x is None else x.ravel()[index])


def test_coordinates_over_steps(backend: str) -> None:
    found = filled(backend, range(30), coordinates="dense")
    for name in ("a.weight", "a.bias"):
        x = np.stack([gradient(step)[name].ravel() for step in range(30)]).astype(float)
        own = found.coordinates(name)
        np.testing.assert_array_equal(own.index, np.arange(x.shape[1]))
        np.testing.assert_allclose(own.mean, x.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(own.variance, x.var(axis=0), rtol=1e-4)
        centred = x - x.mean(axis=0)
        sd = x.std(axis=0)
        np.testing.assert_allclose(own.skewness, (centred**3).mean(axis=0) / sd**3, atol=1e-3)
        np.testing.assert_allclose(own.excess_kurtosis, (centred**4).mean(axis=0) / sd**4 - 3, atol=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e25])
def test_any_scale(backend: str, scale: float) -> None:
    found = stream(backend, coordinates="dense")
    xs = [np.random.default_rng(step).standard_normal(200) * scale for step in range(20)]
    for x in xs:
        found.update({"w": x.astype(np.float32)})
    unit, x = found.ring().vectors / scale, np.stack(xs) / scale
    np.testing.assert_allclose((unit**2).sum(axis=1), (x[-5:] ** 2).sum(axis=1), rtol=0.5)
    own = found.coordinates("w")
    np.testing.assert_allclose(own.variance / scale / scale, x.var(axis=0), rtol=1e-4)
    assert np.isfinite(own.excess_kurtosis).all()


def test_norms_beyond_float32_are_not_called_nonfinite(backend: str) -> None:
    found = stream(backend)
    found.update({"huge": np.full(4, 1e200), "tiny": np.full(4, 1e-60), "zero": np.zeros(3)})
    norms = found.history.norms(3)[0]
    assert np.isfinite(norms).all()
    assert norms[0] > 1e38
    assert norms[1] > 0
    assert norms[2] == 0
    assert found.history.nonfinite[0] == 0


def test_small_coordinates_beside_large_ones_have_no_false_kurtosis(backend: str) -> None:
    rng = np.random.default_rng(0)
    scale = 10.0 ** -np.arange(0, 16, 0.25)
    x = rng.standard_normal((400, 64)) * scale
    found = stream(backend, coordinates="dense")
    for row in x.astype(np.float32):
        found.update({"w": row})
    own = found.coordinates("w")
    expected = ((x - x.mean(axis=0)) ** 4).mean(axis=0) / x.var(axis=0) ** 2 - 3
    known = np.isfinite(own.excess_kurtosis)
    assert known[:24].all()
    assert not known[-4:].any()
    np.testing.assert_allclose(own.excess_kurtosis[known], expected[known], atol=0.05)
    np.testing.assert_allclose(own.variance[:40], x.var(axis=0)[:40], rtol=1e-3)


def test_the_plan_is_what_comes(backend: str) -> None:
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    found = stream(backend, groups={"biases": "bias", "rest": "."})
    found.declare(sizes)
    plan = found.plan()
    assert plan["groups"] == {n: "biases" if "bias" in n else "rest" for n in SHAPES}
    for step in range(80):
        found.update(gradient(step), step)
    assert {name: found.group_of(name) for name in found.names} == plan["groups"]
    assert found.nbytes <= plan["bytes"]


def test_a_leap_in_scale_poisons_no_moments(backend: str) -> None:
    found = stream(backend, coordinates="dense")
    rng = np.random.default_rng(0)
    scales = [1e-12] * 3 + [1e6] + [1e-3] * 40
    xs = [(rng.standard_normal(64) * scale).astype(np.float32) for scale in scales]
    for x in xs:
        found.update({"w": x})
    own = found.coordinates("w")
    assert np.isfinite(own.sums).all()
    # The step of the leap itself is left out; the scale has followed it.
    kept = np.stack([x for x, scale in zip(xs, scales, strict=True) if scale != 1e6]).astype(float)
    np.testing.assert_array_equal(own.count, len(kept))
    np.testing.assert_allclose(own.variance, kept.var(axis=0), rtol=1e-3)


def test_a_step_that_was_broken_off_can_be_discarded(backend: str) -> None:
    found = filled(backend, range(6), coordinates=None)
    found.update({"a.bias": gradient(6)["a.bias"]}, 6)
    assert found.discard() == 5
    assert found.discard() == 5
    assert_same_stream_but_newest(found, filled(backend, range(6), coordinates=None))
    found.update(gradient(6), 6)
    assert_same_stream(found, filled(backend, range(7), coordinates=None))


def assert_same_stream_but_newest(found: GradientStream, expected: GradientStream) -> None:
    """All but the summary of the newest step, which went to the time line when the next one began."""
    for name in expected.names:
        assert_same_summary(found.summary(name), expected.summary(name))
    assert found.counted == expected.counted
    assert found.observed == expected.observed
