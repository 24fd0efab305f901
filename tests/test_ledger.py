"""The ledger of what was counted, and the logs and rings that merge with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.states.ledger import MOST_COHORTS, Ledger
from gradtail.states.places import Place, whole
from gradtail.states.record_log import RecordLog
from gradtail.states.ring import SketchRing
from gradtail.states.track_ring import TrackRing


def ledger(*rows: tuple[str, int]) -> Ledger:
    found = Ledger()
    for name, step in rows:
        found.add(((name, whole((4,))),), step)
    return found


def test_overlap_is_named() -> None:
    a, b = ledger(("x", 0), ("x", 2), ("y", 3)), ledger(("x", 1), ("x", 2))
    assert a.overlap(b) == "'x' in step 2"
    assert b.overlap(a) == "'x' in step 2"
    assert a.overlap(ledger(("x", 3), ("y", 0))) is None
    half = Ledger()
    half.add((("x", Place((4,), (2,), (2,))),), 2)
    assert a.overlap(half) == "'x'[2:4] in step 2"
    nothing = Ledger()
    nothing.add((("x", Place((4,), (2,), (0,))),), 2)
    assert a.overlap(nothing) is None


def test_observed_counts_steps_not_blocks() -> None:
    found = Ledger()
    for step in range(5):
        found.add((("x", Place((4,), (0,), (2,))), ("y", whole((3,)))), step)
    shard = Ledger()
    for step in range(3, 9):
        shard.add((("x", Place((4,), (2,), (2,))),), step)
    assert found.merge(shard).observed(["x", "y", "z"]) == {"x": 9, "y": 5, "z": 0}


def test_experts_in_turns_are_remembered_within_bounds() -> None:
    rng = np.random.default_rng(0)
    found, times = Ledger(), dict.fromkeys((f"expert{i}" for i in range(64)), 0)
    for step in range(3000):
        chosen = sorted(rng.choice(64, 4, replace=False).tolist())
        found.add(tuple((f"expert{i}", whole((5,))) for i in chosen), step)
        for i in chosen:
            times[f"expert{i}"] += 1
    state = found.state_dict()
    assert len(state["cohorts"]) <= MOST_COHORTS
    again = Ledger.from_state_dict(state)
    for ledger in (found, again):
        assert ledger.observed(times) == times  # exactly, though steps are forgotten
    twice = Ledger()
    twice.add((("expert0", whole((5,))),), 1500)
    assert again.overlap(twice) is not None
    later = Ledger()
    for step in range(3000, 3010):
        later.add((("expert0", whole((5,))),), step)
    assert again.overlap(later) is None
    assert again.merge(later).observed(["expert0"]) == {"expert0": times["expert0"] + 10}


def test_archived_shards_are_counted_once() -> None:
    rng = np.random.default_rng(1)
    halves, times = [Ledger(), Ledger()], dict.fromkeys((f"expert{i}" for i in range(30)), 0)
    for step in range(1500):
        chosen = sorted(rng.choice(30, 3, replace=False).tolist())
        for half, ledger in enumerate(halves):
            ledger.add(tuple((f"expert{i}", Place((8,), (4 * half,), (4,))) for i in chosen), step)
        for i in chosen:
            times[f"expert{i}"] += 1
    assert halves[0].overlap(halves[1]) is None
    assert halves[0].merge(halves[1]).observed(times) == times


def filled_log(steps: list[int], most: int = 8) -> RecordLog:
    log = RecordLog(most)
    for step in steps:
        log.add(step, np.array([3.0 + step, np.nan]), 5.0 + step, 0)
    return log


STEPS = st.lists(st.integers(0, 300), unique=True, max_size=60).map(sorted)


@given(STEPS, STEPS)
def test_logs_merge_to_what_one_log_would_hold(a: list[int], b: list[int]) -> None:
    b = [step for step in b if step not in a]
    expected = filled_log(sorted([*a, *b]))
    index = np.arange(2)
    for one, two in ((a, b), (b, a)):
        found = filled_log(one).merge(filled_log(two), index, index, 2)
        assert found.stride == expected.stride
        np.testing.assert_array_equal(found.steps, expected.steps)
        np.testing.assert_array_equal(found.norm, expected.norm)
        np.testing.assert_array_equal(found.norms(2), expected.norms(2))


@given(STEPS)
def test_a_log_is_never_empty_of_recent_steps(steps: list[int]) -> None:
    log = filled_log(steps)
    assert len(log) <= 8
    if steps:
        assert log.steps[0] == steps[0]
        assert log.steps[-1] >= steps[-1] // log.stride * log.stride
        assert len(log) * log.stride * 2 >= min(len(steps), 4)


def test_equal_steps_of_logs_add() -> None:
    a, b = RecordLog(8), RecordLog(8)
    a.add(3, np.array([3.0, np.nan]), 3.0, 0)
    b.add(3, np.array([4.0, np.inf]), 4.0, 2)
    found = a.merge(b, np.array([0, 1]), np.array([0, 2]), 3)
    np.testing.assert_allclose(found.norms(3), [[5, np.nan, np.nan]])
    assert np.isnan(found.norm[0])
    assert found.nonfinite[0] == 2


def test_rings_keep_the_newest_and_add_equal_steps() -> None:
    a, b = SketchRing(3, 1, 8), SketchRing(3, 1, 8)
    for step in range(5):
        a.store(step, np.full((1, 8), 10.0**step), np.array([1.0]))
    for step in range(3, 7):
        b.store(step, np.full((1, 8), 1.0), np.array([np.inf if step == 6 else 2.0]))
    one = np.zeros(1, int)
    found = a.merge(b, one, one, 1).ring([0])
    np.testing.assert_array_equal(found.steps, [4, 5])
    assert found.nonfinite == 1
    np.testing.assert_allclose(found.vectors[:, 0], [10001.0, 1.0])
    np.testing.assert_allclose(found.norms, [np.sqrt(5), 2.0])


@pytest.mark.parametrize("scale", [1e-250, 1.0, 1e250])
def test_rings_hold_any_scale(scale: float) -> None:
    ring = SketchRing(4, 2, 8)
    x = np.random.default_rng(0).standard_normal((2, 8)) * scale
    ring.store(0, x, np.array([scale, scale]))
    np.testing.assert_allclose(ring.ring([0]).vectors[0], x[0], rtol=1e-6)
    np.testing.assert_allclose(ring.ring([0, 1]).norms, [np.sqrt(2) * scale])


def test_tracks_followed_by_both_stay() -> None:
    a, b = TrackRing(4, 20, 0), TrackRing(4, 50, 0)
    for ring, step in ((a, 0), (b, 1)):
        ring.expect(1000)
        ring.add({"x": 1000})
        first, index = ring.index("x")
        ring.store(step, first + np.arange(len(index)), index.astype(np.float32))
    found = b.merge(a).tracks()
    assert len(found.index) == 20
    np.testing.assert_array_equal(found.steps, [0, 1])
    np.testing.assert_array_equal(found.values, np.tile(found.index.astype(np.float32), (2, 1)))
