"""Sets of steps, against Python's own sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.states.steps import Run, StepSet

RISING = st.lists(st.integers(-30, 200), unique=True).map(sorted)


def strided(first: int, stride: int, n: int) -> list[int]:
    return list(range(first, first + stride * n, stride))


REGULAR = st.builds(strided, st.integers(-30, 60), st.integers(1, 12), st.integers(0, 25))
STEPS = st.one_of(RISING, REGULAR, st.builds(lambda a, b: sorted({*a, *b}), REGULAR, REGULAR))


@given(STEPS)
def test_holds_what_was_added(steps: list[int]) -> None:
    found = StepSet(steps)
    assert list(found) == steps
    assert len(found) == len(steps)
    assert (found.first, found.last) == ((steps[0], steps[-1]) if steps else (None, None))
    assert [x for x in range(-40, 400) if x in found] == steps
    assert StepSet.from_array(found.to_array()) == found


@given(STEPS, st.integers(-40, 210), st.integers(-40, 210))
def test_counts_and_cuts(steps: list[int], low: int, high: int) -> None:
    found = StepSet(steps)
    assert found.count(low, high) == sum(low <= x <= high for x in steps)
    assert list(found.cut(high)) == [x for x in steps if x <= high]
    assert list(found) == steps


@given(STEPS, STEPS)
def test_meets_and_union(a: list[int], b: list[int]) -> None:
    x, y = StepSet(a), StepSet(b)
    assert x.meets(y) == y.meets(x) == bool({*a} & {*b})
    assert list(x.union(y)) == list(y.union(x)) == sorted({*a, *b})


def test_long_runs_cost_nothing() -> None:
    found = StepSet()
    for step in range(0, 1_000_000, 10):
        found.add(step)
    for step in range(1_000_001, 2_000_000):
        found.add(step)
    assert found.runs <= 3
    assert len(found) == 100_000 + 999_999
    everything = StepSet.of(Run(0, 10**12, 1))
    assert everything.union(found) == found.union(everything)
    assert everything.union(found).runs == 1
    far = StepSet([10**15, 10**15 + 7])
    assert not found.meets(far)
    assert found.union(far).runs <= 4


def test_steps_must_rise() -> None:
    found = StepSet([3, 5])
    found.add(5)
    with pytest.raises(ValueError, match="step: expected a number above 5, got 4"):
        found.add(4)
    assert list(found) == [3, 5]
    for wrong in ([[5, 3, 1]], [[0, 4, 3]], [[0, 4, 0]], [[0, 4, 2], [4, 6, 1]]):
        with pytest.raises(ValueError, match="state: expected rising runs of steps"):
            StepSet.from_array(np.array(wrong))


@given(
    st.integers(0, 40),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(0, 40),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_runs_meet(a: int, s: int, n: int, b: int, t: int, m: int) -> None:
    one, two = Run(a, a + s * (n - 1), s), Run(b, b + t * (m - 1), t)
    assert one.meets(two) == bool({*strided(a, s, n)} & {*strided(b, t, m)})
