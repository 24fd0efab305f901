"""GradientStream: what it keeps equals what a list of all gradients would say."""

from __future__ import annotations

import numpy as np
import pytest
from streams import assert_same_summary

from gradtail import GradientStream, summarize
from gradtail.states.record_log import RecordLog

MOST_BLOCKS = 32  # where memory is not short

SIZES = {"body.0.weight": 300, "body.0.bias": 5, "body.1.weight": 70, "head": 11}


def gradients(steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)

    def one(size: int) -> np.ndarray:
        return rng.standard_t(3, size).astype(np.float32) * 10.0 ** rng.integers(-3, 3)

    return [{name: one(size) for name, size in SIZES.items()} for _ in range(steps)]


def fill(backend: str, steps: list[dict[str, np.ndarray]]) -> GradientStream:
    stream = GradientStream(backend=backend)
    for arrays in steps:
        stream.update(arrays)
    return stream


@pytest.mark.parametrize("steps", [1, 2, MOST_BLOCKS - 1, MOST_BLOCKS, 3 * MOST_BLOCKS + 5])
def test_all_steps_equal_one_summary_of_everything(backend: str, steps: int) -> None:
    data = gradients(steps)
    stream = fill(backend, data)
    for name in SIZES:
        assert_same_summary(stream.summary(name), summarize([step[name] for step in data], backend=backend))
    assert_same_summary(
        stream.summary(), summarize([x for step in data for x in step.values()], backend=backend)
    )


def test_newest_is_the_last_step_alone(backend: str) -> None:
    data = gradients(5)
    stream = fill(backend, data)
    for name in SIZES:
        assert_same_summary(stream.summary(name, "newest"), summarize(data[-1][name], backend=backend))
    squares = [np.sum(x.astype(float) ** 2) for x in data[-1].values()]
    assert stream.norm() == pytest.approx(np.sqrt(sum(squares)))


def test_a_module_is_the_join_of_its_parameters(backend: str) -> None:
    data = gradients(7)
    stream = fill(backend, data)
    body = [step[name] for step in data for name in SIZES if name.startswith("body.")]
    assert_same_summary(stream.summary("body"), summarize(body, backend=backend))
    assert stream.summary("body.0").count == 7 * 305
    with pytest.raises(ValueError, match=r"group: expected .*, got 'bod'"):
        stream.summary("bod")


def test_blocks_cover_every_step_once(backend: str) -> None:
    data = gradients(2 * MOST_BLOCKS + 9)
    stream = fill(backend, data)
    blocks = stream.blocks("head")
    assert [b.first_step for b in blocks] == [0, *(b.last_step + 1 for b in blocks[:-1])]
    assert blocks[-1].last_step == len(data) - 1
    assert len({b.steps for b in blocks[:-1]}) == 1
    assert len(blocks) <= MOST_BLOCKS
    for block in blocks:
        part = [step["head"] for step in data[block.first_step : block.last_step + 1]]
        assert_same_summary(block.summary, summarize(part, backend=backend))


def test_an_array_that_is_missing_was_not_observed(backend: str) -> None:
    data = gradients(40)
    for step in data[:10]:
        del step["head"]
    for step in data[35:]:
        del step["body.1.weight"]
    stream = fill(backend, data)
    assert stream.observed == {"body.0.weight": 40, "body.0.bias": 40, "body.1.weight": 35, "head": 30}
    assert stream.summary("head").count == 30 * 11
    assert stream.summary("body.1.weight", "newest").count == 0
    norms = stream.history.norms(4)
    head = stream.names.index("head")
    assert np.isnan(norms[:10, head]).all()
    assert (norms[10:, head] > 0).all()
    weight = stream.names.index("body.1.weight")
    assert np.isnan(norms[35:, weight]).all()


def test_a_name_that_is_also_a_prefix_means_itself(backend: str) -> None:
    stream = GradientStream(backend=backend)
    stream.update({"a": np.ones(3), "a.b": np.ones(2)})
    assert (stream.summary("a").count, stream.summary("a.b").count, stream.summary().count) == (3, 2, 5)


def test_history_holds_the_norms(backend: str) -> None:
    data = gradients(6)
    stream = fill(backend, data)
    expected = [[np.linalg.norm(step[name].astype(float)) for name in stream.names] for step in data]
    np.testing.assert_allclose(stream.history.norms(len(SIZES)), expected, rtol=2e-6)
    np.testing.assert_allclose(stream.history.norm, np.linalg.norm(expected, axis=1), rtol=2e-6)
    np.testing.assert_array_equal(stream.history.steps, np.arange(6))


def test_the_first_nonfinite_value_is_located(backend: str) -> None:
    data = gradients(8)
    data[3]["body.1.weight"][[40, 17]] = np.nan, -np.inf
    data[5]["head"][0] = np.inf
    stream = fill(backend, data)
    found = stream.first_nonfinite
    assert found is not None
    assert (found.step, found.name, found.index) == (3, "body.1.weight", 17)
    np.testing.assert_array_equal(stream.history.nonfinite, [0, 0, 0, 2, 0, 1, 0, 0])
    np.testing.assert_array_equal(np.isnan(stream.history.norm), stream.history.nonfinite > 0)
    norms = stream.history.norms(4)
    assert [tuple(cell) for cell in np.argwhere(np.isnan(norms))] == [
        (3, stream.names.index("body.1.weight")),
        (5, stream.names.index("head")),
    ]


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"a": np.ones(4), "b": np.ones(2)}, ValueError, r"\['a'\]: expected 3 elements as before, got 4"),
        ({"b": np.ones(2), "c": np.ones(2, int)}, TypeError, r"arrays\['c'\]: expected a dtype"),
        ({"b": np.ones(3)}, ValueError, r"arrays\['b'\]: expected 2 elements"),
        ({}, ValueError, "arrays: expected at least one array"),
        ({1: np.ones(3)}, TypeError, "arrays: expected names of type str, got 1"),
        (None, TypeError, "arrays: expected a mapping or list of arrays, got NoneType"),
    ],
)
def test_a_refused_update_changes_nothing(backend: str, arrays: dict, error: type, message: str) -> None:
    stream = GradientStream(backend=backend)
    stream.update({"a": np.ones(3), "b": np.ones(2)})
    before = [stream.summary(n, w).state_dict() for n in ("a", "b") for w in ("all", "newest")]
    with pytest.raises(error, match=message):
        stream.update(arrays)
    after = [stream.summary(n, w).state_dict() for n in ("a", "b") for w in ("all", "newest")]
    for x, y in zip(before, after, strict=True):
        for key in x:
            np.testing.assert_array_equal(x[key], y[key])
    assert (stream.steps, stream.names, stream.last_step) == (1, ["a", "b"], 0)


def test_steps_must_rise(backend: str) -> None:
    stream = GradientStream(backend=backend)
    stream.update([np.ones(3)], step=10)
    stream.update([np.ones(3)], step=20)
    stream.update([np.ones(3)])
    assert stream.last_step == 21
    with pytest.raises(ValueError, match="step: expected a number of at least 21, got 20"):
        stream.update([np.ones(3)], step=20)
    with pytest.raises(
        ValueError, match="arrays: expected values not counted in step 21 before, got '0' again"
    ):
        stream.update([np.ones(3)], step=21)
    for bad in ("x", float("nan"), 22.5):
        with pytest.raises(TypeError, match="step: expected an int, got "):
            stream.update([np.ones(3)], step=bad)
    assert stream.steps == 3


def test_log_thins_out_evenly() -> None:
    log = RecordLog(8)
    for step in range(100):
        log.add(step, np.array([step], float), float(step), 0)
    assert len(log) <= 8
    assert log.stride == 16
    np.testing.assert_array_equal(log.steps, np.arange(0, 100, 16))
    np.testing.assert_array_equal(log.norms(1)[:, 0], log.steps)
    with pytest.raises(ValueError, match="history: expected an int of at least 2, got 1"):
        RecordLog(1)


def test_scales_beyond_float32_have_norms(backend: str) -> None:
    stream = GradientStream(backend=backend)
    stream.update({"huge": np.array([3e300, 4e300]), "tiny": np.array([3e-300, 4e-300])})
    assert stream.norm() == pytest.approx(5e300)
    stream = GradientStream(backend=backend)
    stream.update({"tiny": np.array([3e-300, 4e-300]), "zero": np.zeros(3)})
    assert stream.norm() == pytest.approx(5e-300)
    assert stream.summary("tiny").norm == pytest.approx(5e-300)
