"""Tracked coordinates: their choice, and their exact values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import values
from hypothesis import given
from hypothesis import strategies as st
from places import Block, shards, views

from gradtail import backends
from gradtail.states.outputs import Outputs
from gradtail.states.table import SummaryTable
from gradtail.states.tracks import SORTED_UP_TO, TrackList, local_offsets, tracked_indices

SIZES = st.one_of(
    st.integers(0, 300), st.sampled_from([SORTED_UP_TO - 1, SORTED_UP_TO, SORTED_UP_TO + 1, 10**6, 2**40 + 7])
)


@given(st.integers(0, 2**64 - 1), SIZES, st.integers(0, 500), st.integers(0, 500))
def test_the_choice_is_ascending_unique_and_nested(key, size, m, fewer):
    chosen = tracked_indices(key, size, m)
    assert chosen.dtype == np.int64
    assert len(chosen) == min(m, size)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == 0 or (chosen[0] >= 0 and chosen[-1] < size)
    assert set(tracked_indices(key, size, min(m, fewer))) <= set(chosen)


@pytest.mark.parametrize("size", [1000, SORTED_UP_TO, SORTED_UP_TO + 1, 100_003])
def test_all_can_be_chosen(size):
    np.testing.assert_array_equal(tracked_indices(9, size, size + 5), np.arange(size))


@pytest.mark.parametrize("size", [1000, 200_000])
def test_the_choice_is_uniform_and_depends_on_the_key(size):
    m, keys, cells = 100, 300, 20
    counts = np.zeros(cells)
    for key in range(keys):
        np.add.at(counts, tracked_indices(key, size, m) * cells // size, 1)
    expected = m * keys / cells
    assert (np.abs(counts - expected) < 5 * math.sqrt(expected)).all()
    assert set(tracked_indices(1, size, m)) != set(tracked_indices(2, size, m))


@given(
    st.lists(st.integers(0, 400), max_size=40, unique=True), st.integers(0, 50), st.integers(0, 60),
    st.integers(1, 9), st.integers(0, 5),
)  # fmt: skip
def test_local_offsets_are_those_of_the_elements(index, start, size, run, gap):
    where = {start + i // run * (run + gap) + i % run: i for i in range(size)}
    expected = [where[i] for i in sorted(index) if i in where]
    found = local_offsets(np.array(sorted(index), np.int64), start, run, run + gap, size)
    assert found.tolist() == expected
    if size and size <= run:  # one run: the stride says nothing
        assert local_offsets(np.array(sorted(index), np.int64), start, run, 0, size).tolist() == expected


def track(backend, blocks, offsets):
    out, table = Outputs.empty(len(blocks)), SummaryTable.empty(1, 4)
    out.tracks = TrackList.of(offsets)
    out.tracks.value[:] = 7
    backends.resolve(backend).observe(views(blocks), table, out)
    return out.tracks


@pytest.mark.parametrize("kind", ["normal", "patterns", "finite", "subnormal", "bad"])
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_tracked_values_are_exact(backend, threads, dtype, kind):
    sizes = (0, 1, 700, 65_536, 65_537, 200_001)
    arrays = [values.make(dtype, size, kind, size) for size in sizes]
    offsets = [tracked_indices(size, size, 500) for size in sizes]
    offsets[4] = np.array([0, 65_535, 65_536])
    offsets[2] = np.zeros(0, np.int64)
    with np.errstate(all="ignore"):
        expected = np.concatenate([x[o].astype(np.float32) for x, o in zip(arrays, offsets, strict=True)])
    for n in (1, 3):
        threads(n)
        found = track(backend, [Block(x, i) for i, x in enumerate(arrays)], offsets).value
        bad = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), bad)
        np.testing.assert_array_equal(found[~bad].view(np.uint32), expected[~bad].view(np.uint32))


@pytest.mark.parametrize("size", [24, 3000, 72_000])
def test_shards_track_what_the_whole_does(backend, size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    index = tracked_indices(5, size, 300)
    for blocks in shards(x, 5):
        offsets = [local_offsets(index, b.start, b.run, b.stride, b.x.size) for b in blocks]
        found = track(backend, blocks, offsets)
        where = np.concatenate(
            [np.array(b.index(), np.int64)[o] for b, o in zip(blocks, offsets, strict=True)]
        )
        assert sorted(where.tolist()) == index.tolist()
        np.testing.assert_array_equal(found.value, x[where])
