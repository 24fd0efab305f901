"""The whole pass in one call: records of views, and all outputs together, are those of single calls."""

from __future__ import annotations

import numpy as np
import pytest
import values
from hypothesis import given
from hypothesis import strategies as st
from places import Block, views
from test_coordinates import Live

from gradtail import Summary, backends, summarize
from gradtail.states.outputs import Outputs
from gradtail.states.table import RECORD, SummaryTable
from gradtail.states.tracks import TrackList, tracked_indices


def summary_of(records, counts, bits=4):
    return Summary.from_parts(records, counts, bits)


def _blocks():
    rng = np.random.default_rng(12)
    sizes = [0, 1, 700, 65_537, 5, 200_003, 31, 4096, 0, 70_000]
    kinds = [
        "normal",
        "patterns",
        "shifted",
        "channel",
        "bad",
        "normal",
        "subnormal",
        "sparse",
        "zeros",
        "spike",
    ]
    dtypes = list(values.DTYPES)
    blocks = []
    for i, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        x = values.make(dtypes[i % 4], size, kind, i)
        x[rng.integers(0, max(size, 1), size // 5000)] = np.nan
        blocks.append(Block(x, i, int(rng.integers(0, 99)), row=i // 3))
    return blocks


@pytest.mark.parametrize("bits", [4, 7])
def test_records_of_views_and_rows(backend, bits):
    blocks = _blocks()
    table, out = SummaryTable.empty(4, bits), Outputs.empty(len(blocks))
    out.sketch, out.row_sketches = np.zeros(512), np.zeros((4, 128))
    out.records["count"] = 12345  # overwritten
    backends.resolve(backend).observe(views(blocks), table, out)
    for block, record in zip(blocks, out.records, strict=True):
        alone = summarize(block.x, bits=bits, backend="numpy", start=block.start)
        found = SummaryTable.empty(1, bits)
        backends.resolve("numpy").summarize(views([Block(block.x, 0, block.start)]), found)
        values.assert_same(summary_of(record[None], found.counts[0], bits), alone, 1e-6, block.x)
    spec = SummaryTable.empty(4, bits)
    backends.resolve("numpy").summarize(views(blocks), spec)
    np.testing.assert_array_equal(table.counts, spec.counts)
    for row in range(4):
        own = [block.x for block in blocks if block.row == row]
        pair = [summary_of(t.records[row : row + 1], t.counts[row], bits) for t in (table, spec)]
        values.assert_same(*pair, 1e-6, *own)


@pytest.mark.parametrize("run", [1, 7, 300])
def test_first_nonfinite_is_an_index_in_the_whole(backend, run):
    x = np.zeros(run * 30, np.float32)
    for i in (0, run - 1, 2 * run, 30 * run - 1):
        x[:] = 1
        x[i:] = np.inf
        block = Block(x, 1, 17, run, 1000)
        out = Outputs.empty(1)
        backends.resolve(backend).observe(views([block]), SummaryTable.empty(1, 4), out)
        assert out.records["first_nonfinite"].tolist() == [block.index()[i]]


def _whole(backend, blocks, cell=4):
    table, out = SummaryTable.empty(4, 4), Outputs.empty(len(blocks))
    out.sketch, out.row_sketches = np.zeros(512), np.zeros((4, 128))
    out.tracks = TrackList.of([tracked_indices(b.key, b.x.size, 50) for b in blocks])
    lives = Live(blocks, 1 << 20, cell)
    out.pieces = lives.pieces
    backends.resolve(backend).observe(views(blocks), table, out)
    return table, out, lives


def test_all_outputs_at_once_by_any_number_of_threads(threads):
    blocks = _blocks()
    spec, spec_out, spec_lives = _whole("numpy", blocks)
    first = None
    for n in (1, 2, 3, 7):
        threads(n)
        table, out, lives = _whole("native", blocks)
        bits = [table.records, table.counts, out.records, out.sketch, out.row_sketches, out.tracks.value]
        bits = [part.tobytes() for part in [*bits, *lives.states, *lives.counts]]
        first = first or bits
        assert bits == first
    np.testing.assert_array_equal(table.counts, spec.counts)
    np.testing.assert_array_equal(out.tracks.value, spec_out.tracks.value)
    for a, b in zip([*lives.states, *lives.counts], [*spec_lives.states, *spec_lives.counts], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_summaries_do_not_depend_on_what_else_is_wanted(backend):
    """Bins and integers to the bit; sums may be cut into chunks in another way where a sketch needs it."""
    blocks = _blocks()
    table, _, _ = _whole(backend, blocks)
    plain = SummaryTable.empty(4, 4)
    backends.resolve(backend).summarize(views(blocks), plain)
    np.testing.assert_array_equal(table.counts, plain.counts)
    for name in RECORD.names[:12]:
        np.testing.assert_array_equal(table.records[name], plain.records[name], name)


@given(
    st.sampled_from(list(values.DTYPES)[1:]),
    st.lists(st.integers(-30, 30), min_size=1, max_size=12),
    values.seeds,
)
def test_the_scale_may_jump_from_chunk_to_chunk(simd, dtype, exponents, seed):
    """The pass guesses the scale of a chunk from the one before."""
    rng = np.random.default_rng(seed)
    limit = 4 if dtype == "float16" else 1
    parts = [
        np.ldexp(rng.standard_normal(rng.integers(1, 9000)) + rng.choice([0, 0, 8]), 4 * e // limit)
        for e in exponents
    ]
    with np.errstate(over="ignore"):
        x = np.concatenate(parts).astype(values.DTYPES[dtype])
    blocks = [Block(x, 3, 1)]
    for sketch in (None, np.zeros(256)):
        table, out = SummaryTable.empty(1, 4), Outputs.empty(1)
        out.sketch = sketch
        backends.resolve("native").observe(views(blocks), table, out)
        spec = summarize(x, backend="numpy", start=1)
        values.assert_same(summary_of(table.records, table.counts[0]), spec, 1e-6, x)
