"""Moments of single coordinates over steps: the choice of groups, and the arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import values
from hypothesis import given
from hypothesis import strategies as st
from places import Block, shards, views

from gradtail import backends
from gradtail.states.coordinates import PIECE, cells_of, chosen_group, followed
from gradtail.states.outputs import Outputs
from gradtail.states.table import SummaryTable

WORD64 = 2**64 - 1


class Live:
    """The memory of some views, and where its rows belong."""

    def __init__(self, blocks, elements, cell, exponent=0):
        self.blocks, self.pieces = blocks, np.zeros(len(blocks), PIECE)
        self.states, self.counts = [], []
        for v, block in enumerate(blocks):
            per_run, cells = cells_of(block.start, block.x.size, block.run, block.stride, cell)
            state, count = np.zeros((cells, 4, 8), np.float32), np.zeros(cells, np.uint32)
            self.states.append(state)
            self.counts.append(count)
            self.pieces[v] = (state.ctypes.data, count.ctypes.data, per_run, elements, exponent, cell)

    def update(self, backend, *, whole_pass=False):
        found = views(self.blocks)
        if whole_pass:
            out = Outputs.empty(len(self.blocks))
            out.pieces = self.pieces
            backends.resolve(backend).observe(found, SummaryTable.empty(1, 4), out)
        else:
            backends.resolve(backend).update_coordinates(found, self.pieces)

    def by_index(self):
        """Moments and count of each coordinate of the whole parameter that is followed."""
        moments = {}
        for block, piece, state, count in zip(
            self.blocks, self.pieces, self.states, self.counts, strict=True
        ):
            where = (block.start, block.x.size, block.run, block.stride)
            own = followed(*where, piece, block.key)
            assert set(own[2].tolist()) <= set(block.index())
            for row, lane, index in zip(*(part.tolist() for part in own), strict=True):
                assert index not in moments
                moments[index] = (*state[row, :, lane].tolist(), int(count[row]))
        return moments


def test_the_layout_is_that_of_the_extension(core):
    assert PIECE.itemsize == core.piece_size


def _mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD64
    return z ^ z >> 31


@given(st.integers(0, WORD64), st.sampled_from([1, 2, 16, 64, 1024]), st.integers(1, 10**7))
def test_the_choice_is_that_of_plain_integers(key, cell, elements):
    groups = -(-elements // 8)
    cells = -(-groups // cell)
    ids = sorted({0, cells // 2, cells - 1})
    expected = []
    for i in ids:
        word = _mix((i * 0x9E3779B97F4A7C15 + (key ^ 0x082EFA98EC4E6C89)) & WORD64)
        expected.append(i * cell + word % min(cell, groups - i * cell))
    assert chosen_group(key, ids, cell, elements).tolist() == expected


@given(
    st.integers(0, 3000),
    st.integers(0, 500),
    st.integers(1, 70),
    st.integers(0, 90),
    st.sampled_from([1, 4, 64]),
)
def test_there_is_a_row_for_every_cell(start, size, run, gap, cell):
    stride = run + gap
    per_run, cells = cells_of(start, size, run, stride, cell)
    runs = -(-size // run)
    for q in range(runs):
        first = start + q * stride
        last = first + min(run, size - q * run) - 1
        assert last // 8 // cell - first // 8 // cell < per_run
    assert cells == runs * per_run


def truth(steps):
    """Mean and central sums in float64, two passes."""
    d = steps - steps.mean(axis=0)
    return np.array([steps.mean(axis=0), *((d**p).sum(axis=0) for p in (2, 3, 4))])


def _moments(backend, dtype, cell, steps=40, size=5003, scale=1.0, exponent=0, *, whole_pass=False):
    rng = np.random.default_rng(size)
    values_ = (rng.standard_normal((steps, size)) + rng.standard_normal(size)) * scale
    data = values_.astype(values.DTYPES[dtype])
    blocks = [Block(data[0].copy(), 99)]
    live = Live(blocks, size, cell, exponent)
    for x in data:
        blocks[0].x[:] = x
        live.update(backend, whole_pass=whole_pass)
    found = live.by_index()
    index = sorted(found)
    expected = truth(np.ldexp(data.astype(np.float64), -exponent)[:, index])
    got = np.array([found[i] for i in index]).T
    assert (got[4] == steps).all()
    sd = np.sqrt(expected[1] / steps)
    # float32 states, rounded once a step: eps * steps, in units of the natural size of each sum.
    size_of = [np.abs(expected[0]) + sd, steps * sd**2, steps * sd**3, steps * sd**4]
    for p, tolerance in enumerate((1e-6, 1e-5, 4e-5, 4e-5)):
        bias = 1 + np.abs(expected[0]) / sd
        assert (np.abs(got[p] - expected[p]) <= tolerance * bias * size_of[p]).all(), p
    return index


@pytest.mark.parametrize("dtype", values.DTYPES)
@pytest.mark.parametrize("cell", [1, 4, 64])
def test_moments_over_steps(backend, dtype, cell):
    index = _moments(backend, dtype, cell)
    if cell == 1:
        assert index == list(range(5003))
    else:
        assert len(index) >= 5003 // (8 * cell) * 8


@pytest.mark.parametrize("cell", [1, 64])
def test_moments_over_steps_at_every_level(simd, cell):
    for dtype in values.DTYPES:
        _moments("native", dtype, cell)


def test_moments_in_the_whole_pass(backend):
    _moments(backend, "float32", 4, whole_pass=True)


@pytest.mark.parametrize(("scale", "exponent"), [(1e-30, -100), (1e30, 100), (2.0**-140, -140), (1.0, 3)])
def test_moments_of_any_scale(backend, scale, exponent):
    if scale > 1e-40:
        _moments(backend, "float32", 1, scale=scale, exponent=exponent, size=501)
    _moments(backend, "float64", 1, scale=scale, exponent=exponent, size=501)


def test_moments_of_float64_far_beyond_float32(backend):
    _moments(backend, "float64", 1, scale=1e300, exponent=997, size=99)
    _moments(backend, "float64", 1, scale=1e-300, exponent=-997, size=99)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_group_with_a_bad_value_is_left_out_of_the_step(backend, bad):
    x = np.ones(100, np.float32)
    live = Live([Block(x, 1)], 100, 1)
    live.update(backend)
    x[:] = 3
    x[[17, 99]] = bad
    live.update(backend)
    for i, (mean, m2, m3, m4, count) in live.by_index().items():
        skipped = i // 8 in (2, 12)
        assert (mean, m2, m3, m4, count) == ((1, 0, 0, 0, 1) if skipped else (2, 2, 0, 2, 2))


def test_what_float32_cannot_hold_is_left_out_too(backend):
    x = np.array([1e200, 1.0, 2.0])
    live = Live([Block(x, 1)], 3, 1)
    live.update(backend)
    assert live.counts[0].tolist() == [0]


@pytest.mark.parametrize("cell", [1, 2, 64])
@pytest.mark.parametrize("size", [24, 3000, 72_000])
def test_shards_follow_what_the_whole_does(backend, threads, size, cell):
    rng = np.random.default_rng(size)
    steps = rng.standard_normal((3, size)).astype(np.float32)
    threads(3)
    whole = Live([Block(steps[0].copy(), 31)], size, cell)
    for x in steps:
        whole.blocks[0].x[:] = x
        whole.update(backend)
    expected = whole.by_index()
    assert expected
    for blocks in shards(steps[0], 31):
        live = Live(blocks, size, cell)
        for x in steps:
            for block in blocks:
                block.x[:] = x[block.index()]
            live.update(backend)
        found = live.by_index()
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(
            list(map(found.get, expected)), list(expected.values()), rtol=1e-5, atol=1e-6
        )


def test_lanes_outside_a_view_are_left_alone(backend):
    x = np.ones(10, np.float32)
    live = Live([Block(x, 1, 3)], 16, 1)
    live.states[0][:] = 5
    live.update(backend)
    assert live.counts[0].tolist() == [1, 1]
    state = live.states[0].transpose(0, 2, 1).reshape(16, 4)
    assert (state[:3] == 5).all()
    assert (state[13:] == 5).all()
    assert (state[3:13, 0] == 1).all()


def test_no_memory_means_not_followed(backend):
    live = Live([Block(np.ones(10, np.float32), 1), Block(np.ones(10, np.float32), 2)], 10, 1)
    live.pieces["state"][0] = 0
    live.update(backend)
    assert [count.tolist() for count in live.counts] == [[0, 0], [1, 1]]


def test_a_group_across_tiles_is_counted_once(backend, threads):
    n = 300_001
    x = np.random.default_rng(1).standard_normal(n).astype(np.float32)
    for start in (0, 3, 7):
        live = Live([Block(x, 5, start)], n + 8, 1)
        for team in (1, 2, 7):
            threads(team)
            live.update(backend)
        assert (live.counts[0] == 3).all()
        flat = live.states[0][:, 0].ravel()[start % 8 : start % 8 + n]
        np.testing.assert_allclose(flat, x, rtol=1e-6)
