"""What merged streams are compared by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradtail import GradientStream, Summary

SUMS = ("sum1", "sum2", "sum3", "sum4")


def assert_same_summary(found: Summary, expected: Summary) -> None:
    """Integers and bins equal, power sum p within 1e-6 of the sum of abs(x)**p on either side."""
    a, b = found.state_dict(), expected.state_dict()
    sizes = {
        "sum1": (b["count"] * b["sum2"]) ** 0.5,
        "sum3": (b["sum2"] * b["sum4"]) ** 0.5,
    }  # Cauchy-Schwarz
    for key in a:
        if key.startswith("block_") and key not in b:
            continue  # of one array by itself
        if key in SUMS:
            assert a[key] == pytest.approx(b[key], rel=0, abs=2e-6 * sizes.get(key, b[key])), key
        elif key in ("block_sum", "block_squares"):
            if np.array_equal(a["block_blocks"], b["block_blocks"]):
                np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        elif key.startswith("block_"):  # borders of shards cut blocks, which are then in neither
            assert np.all(a[key] <= b[key]), key
        else:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def assert_same_stream(found: GradientStream, expected: GradientStream) -> None:
    """Counts and tracks exactly, sums and sketches to rounding."""
    assert set(found.names) == set(expected.names)
    assert set(found.groups) == set(expected.groups)
    assert found.counted == expected.counted
    assert found.sizes == expected.sizes
    assert found.observed == expected.observed
    assert found.first_nonfinite == expected.first_nonfinite
    assert found.norm() == pytest.approx(expected.norm(), rel=2e-6)
    assert found.nonfinite() == expected.nonfinite()
    for group in [None, *expected.groups]:
        for steps in ("all", "newest"):
            assert_same_summary(found.summary(group, steps), expected.summary(group, steps))  # type: ignore[arg-type]
        assert sum(block.steps for block in found.blocks(group)) == expected.steps
        assert_same_ring(found, expected, group)
    assert_same_history(found, expected)
    assert_same_tracks(found, expected)
    for name in expected.names:
        assert_same_coordinates(found, expected, name)


def assert_same_ring(found: GradientStream, expected: GradientStream, group: str | None) -> None:
    a, b = found.ring(group), expected.ring(group)
    np.testing.assert_array_equal(a.steps, b.steps)
    assert a.nonfinite == b.nonfinite
    np.testing.assert_allclose(a.norms, b.norms, rtol=2e-6)
    scale = max(float(np.abs(b.norms).max(initial=0)), 1e-300)
    np.testing.assert_allclose(a.vectors, b.vectors, rtol=0, atol=2e-6 * scale)


def assert_same_history(found: GradientStream, expected: GradientStream) -> None:
    a, b = found.history, expected.history
    np.testing.assert_array_equal(a.steps, b.steps)
    np.testing.assert_array_equal(a.nonfinite, b.nonfinite)
    np.testing.assert_allclose(a.norm, b.norm, rtol=2e-6)
    order = [found.groups.index(group) for group in expected.groups]
    n = len(expected.groups)
    np.testing.assert_allclose(a.norms(n)[:, order], b.norms(n), rtol=4e-6)


def assert_same_tracks(found: GradientStream, expected: GradientStream) -> None:
    a, b = (_tracks_by_coordinate(stream) for stream in (found, expected))
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    np.testing.assert_array_equal(found.tracks().steps, expected.tracks().steps)


def _tracks_by_coordinate(stream: GradientStream) -> dict[tuple[str, int], Any]:
    tracks = stream.tracks()
    return {
        (str(name), int(index)): np.stack([tracks.values[:, i], tracks.observed[:, i]])
        for i, (name, index) in enumerate(zip(tracks.names, tracks.index, strict=True))
    }


def assert_same_coordinates(found: GradientStream, expected: GradientStream, name: str) -> None:
    a, b = found.coordinates(name), expected.coordinates(name)
    np.testing.assert_array_equal(a.index, b.index)
    # A group that a shard's edge divides loses a step with a non-finite value only in that shard.
    full = b.count == expected.observed[name]
    np.testing.assert_array_equal(a.count[full], b.count[full])
    assert np.all((a.count >= b.count) & (a.count <= expected.observed[name]))
    scale = float(np.sqrt(b.variance).max(initial=0)) + float(np.abs(b.mean).max(initial=0)) + 1e-300
    for power, (x, y) in enumerate(zip(a.sums, b.sums, strict=True), start=1):
        unit = (scale / 2.0**b.exponent) ** power * max(1.0, float(b.count.max(initial=1)))
        x = np.ldexp(x, power * (a.exponent - b.exponent))
        np.testing.assert_allclose(x[full], y[full], rtol=1e-5, atol=4e-6 * unit)  # float32 sums
