"""Blocks of parameters on the simulated device: any offset, column shards, runs of any length, empty ones."""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import SimulatedEngine, check_views, expected_of
from hypothesis import given, settings
from hypothesis import strategies as st
from places import Block, shards, views

from gradtail.states.table import NO_INDEX


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


@pytest.mark.parametrize("dtype", values.DTYPES)
@pytest.mark.parametrize("start", [1, 3, 8, 1021, 8191, 8193, 2**31 + 5, 2**40 + 7])
def test_odd_starts(device, dtype, start):
    engine = SimulatedEngine(device, buckets=1024)
    check_views(engine, views([Block(values.make(dtype, 20_003, "shifted", 1), 7, start)]))


@pytest.mark.parametrize("r", [128, 1024, 4096])
@pytest.mark.parametrize("run", [1, 3, 8, 100, 1024, 8192, 20_000])
@pytest.mark.parametrize("gap", [0, 1, 5, 8, 100_000])
def test_runs(device, r, run, gap):
    engine = SimulatedEngine(device, buckets=r)
    size = min(25 * run + run // 2 + 1, 45_001)
    x = values.make("float32", size, "shifted", run)
    check_views(engine, views([Block(x, 7, 13, run, run + gap)]))


@pytest.mark.parametrize("runs", [2, 3])
@pytest.mark.parametrize("last", [1, 40, 100])
def test_an_item_of_few_runs(device, runs, last):
    engine = SimulatedEngine(device, buckets=1024)
    x = values.make("float32", 100 * (runs - 1) + last, "shifted", runs)
    check_views(engine, views([Block(x, 7, 13, 100, 150)]))


@pytest.mark.parametrize("dtype", values.DTYPES)
@pytest.mark.parametrize("kind", ["patterns", "bad", "channel"])
def test_runs_of_every_dtype(device, dtype, kind):
    engine = SimulatedEngine(device, rows=2, buckets=256)
    found = [
        Block(values.make(dtype, 5001, kind, 1), 7, 13, 100, 257),
        Block(values.make(dtype, 20_001, kind, 2), 8, 2, 16_384, 20_000, row=1),
    ]
    check_views(engine, views(found))


@pytest.mark.parametrize(("size", "lanes"), [(24, 128), (24, 512), (3000, 128), (3000, 512), (24_000, 128)])
def test_shards_add_up_to_the_whole(device, size, lanes):
    """Exact: values are small integers."""
    engine = SimulatedEngine(device, buckets=512, lanes=lanes)
    x = np.random.default_rng(size).integers(-9, 10, size).astype(np.float32)
    x[size // 5] = np.nan
    whole = check_views(engine, views([Block(x, 31)]))
    for blocks in shards(x, 31):
        found = check_views(engine, views(blocks))
        np.testing.assert_array_equal(found.sketch, whole.sketch)
        np.testing.assert_array_equal(found.row_sketches, whole.row_sketches)
        np.testing.assert_array_equal(found.counts, whole.counts)
        for field in values.INTEGERS:
            assert found.records[field] == whole.records[field]
        separate = sum(engine.observe_views(views([block])).sketch for block in blocks)
        np.testing.assert_array_equal(separate, whole.sketch)


@pytest.mark.parametrize("run", [1, 7, 300, 10_000])
def test_first_nonfinite_is_an_index_in_the_whole(device, run):
    engine = SimulatedEngine(device)
    x = np.zeros(run * 6, np.float32)
    for i in (0, run - 1, 2 * run, 6 * run - 1):
        x[:] = 1
        x[i:] = np.inf
        block = Block(x, 1, 17, run, 100_000)
        found = engine.observe_views(views([block]))
        assert found.records["first_nonfinite"].tolist() == [block.index()[i]]
        result = engine.engine.latest()
        assert (result["first_view"], result["first_nonfinite"]) == (0, block.index()[i])
    x[:] = 1
    assert engine.observe_views(views([Block(x, 1)])).records["first_nonfinite"].tolist() == [NO_INDEX]
    assert engine.engine.latest()["first_view"] == -1


blocks = st.lists(
    st.tuples(
        st.sampled_from(list(values.DTYPES)),
        st.sampled_from(values.KINDS),
        st.integers(0, 12_000),  # size
        st.one_of(st.integers(0, 20), st.integers(0, 2**40)),  # start
        st.one_of(st.integers(1, 20), st.integers(1, 20_000)),  # run
        st.one_of(st.integers(0, 20), st.integers(0, 20_000)),  # gap
        st.integers(0, 1),  # rows further
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=5,
)


@given(blocks, st.sampled_from([128, 1024, 2048]), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60)
def test_blocks_of_any_kind(simulated, drawn, r, grid, order):
    simulated.reset()
    simulated.set_order("shuffled", order)
    made, row = [], 0
    for dtype, kind, size, start, run, gap, more, seed in drawn:
        row += more
        size = min(size, 400 * run)  # every run takes a turn of the team
        x = values.make(dtype, size, kind, seed)
        made.append(Block(x, seed, start, run, run + gap, row))
    engine = SimulatedEngine(simulated, rows=row + 1, buckets=r, blocks=grid)
    described = views(made)
    check_views(engine, described)
    assert expected_of(described, engine).records["count"].sum() <= sum(block.x.size for block in made)
    simulated.reset()
