"""Jumps of a series: the size of the test under every kind of null, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest

from gradtail.estimators.changepoint import jump_after_minimum


@pytest.mark.parametrize("n", [8, 16, 32, 100])
@pytest.mark.parametrize("mean", ["constant", "falling", "falling then flat"])
def test_the_size_holds(n: int, mean: str) -> None:
    rng = np.random.default_rng([n, len(mean)])
    levels = {
        "constant": np.zeros(n),
        "falling": -np.linspace(0, 5, n),
        "falling then flat": -np.minimum(np.linspace(0, 8, n), 4),
    }
    repeats = 400
    p = np.array([jump_after_minimum(rng.standard_normal(n) + levels[mean]).pvalue for _ in range(repeats)])
    for level in (0.05, 0.2):
        limit = level + 4 * np.sqrt(level * (1 - level) / repeats)
        assert np.mean(p <= level) <= limit
        if mean == "constant":  # and the test is no more cautious than it says
            assert np.mean(p <= level) >= level - 4 * np.sqrt(level * (1 - level) / repeats)


def test_two_phases_are_found_where_they_are() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(100):
        alpha = np.r_[np.linspace(1.6, 1.2, 20), np.linspace(1.5, 1.55, 12)] + 0.03 * rng.standard_normal(32)
        found.append(jump_after_minimum(alpha, np.arange(32) * 100))
    assert np.mean([one.pvalue < 0.01 for one in found]) > 0.95
    assert np.mean([(one.before, one.after) == (1900, 2000) for one in found]) > 0.9
    assert np.mean([one.from_minimum for one in found]) > 0.95
    rises = np.array([one.rise for one in found])
    expected = 0.3 + 0.4 / 19 / 2 * (1 - np.array([one.window for one in found]))  # the fall is in the window
    expected += 0.05 / 11 / 2 * (np.array([one.window for one in found]) - 1)
    errors = (rises - expected) / np.array([one.stderr for one in found])
    assert abs(errors.mean()) < 0.5
    assert found[0].minimum_step <= 1900
    assert str(found[0]).startswith("a jump by 0.")


def test_a_jump_elsewhere_is_not_from_the_minimum() -> None:
    y = np.r_[np.full(10, -3.0), np.linspace(-2.8, 0, 30), np.full(20, 2.0)]
    found = jump_after_minimum(y + 0.01 * np.random.default_rng(0).standard_normal(y.size))
    assert (found.before, found.from_minimum) == (39.0, False)


def test_scale_and_shift_change_nothing_else() -> None:
    y = np.random.default_rng(3).standard_normal(40)
    one, other = jump_after_minimum(y), jump_after_minimum(y * 2.0**-60 + 2.0**-70)
    assert (one.pvalue, one.before, one.window) == (other.pvalue, other.before, other.window)
    assert other.rise == pytest.approx(one.rise * 2.0**-60)


def test_constants_steps_and_gaps() -> None:
    flat = jump_after_minimum(np.ones(20))
    assert flat.pvalue > 0.5
    assert flat.rise == 0
    assert str(flat).startswith("no jump")
    step = jump_after_minimum(np.r_[np.zeros(20), np.ones(20)])
    assert (step.before, step.after, step.rise) == (19.0, 20.0, 1.0)
    gaps = np.r_[np.zeros(20), np.ones(20)]
    gaps[[3, 30]] = np.nan
    assert jump_after_minimum(gaps).n == 38


def test_refusals() -> None:
    with pytest.raises(ValueError, match="values: expected at least 8 that are finite, got 7"):
        jump_after_minimum(np.ones(7))
    with pytest.raises(TypeError, match="values: expected real numbers, got <U1"):
        jump_after_minimum(["a"] * 9)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"values: expected shape \(n,\), got \(3, 3\)"):
        jump_after_minimum(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"steps: expected shape \(9,\), got \(8,\)"):
        jump_after_minimum(np.ones(9), np.arange(8))
    with pytest.raises(ValueError, match="steps: expected rising numbers, got others"):
        jump_after_minimum(np.ones(9), np.zeros(9))
