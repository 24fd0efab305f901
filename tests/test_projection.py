"""The sketch: its map against plain integers, its linearity, and the law of its norm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import values
from hypothesis import given, settings
from hypothesis import strategies as st
from places import Block, shards, views

from gradtail import backends
from gradtail.states.hashing import tensor_key
from gradtail.states.outputs import Outputs
from gradtail.states.projection import check_buckets, fold, sketch_map
from gradtail.states.table import SummaryTable

WORD64, WORD32 = 2**64 - 1, 2**32 - 1
KEYS = st.integers(0, WORD64)
BUCKETS = st.sampled_from([128, 512, 4096, 65536])


def _mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD64
    return z ^ z >> 31


def plain_map(key, i, r):
    """Bucket and sign of one index, in Python integers."""
    j, p = divmod(i, r)
    word = _mix((j * 0x9E3779B97F4A7C15 + key) & WORD64)
    s = (_mix(word ^ 0x243F6A8885A308D3) >> 32) % (r // 8)
    h = _mix((j // 8 * 0x9E3779B97F4A7C15 + (key ^ 0x13198A2E03707344)) & WORD64) >> 61
    x = (p // 32 * 0x9E3779B1 + word) & WORD32
    x = ((x ^ x >> 16) * 0x7FEB352D + (word >> 32)) & WORD32
    x = (x ^ x >> 15) * 0x846CA68B & WORD32
    x ^= x >> 16
    return (p // 8 + s) % (r // 8) * 8 + (p % 8 + j + h) % 8, 1 - 2 * (x >> p % 32 & 1)


def sketch_of(backend, blocks, r):
    out = np.zeros(r)
    backends.resolve(backend).sketch(views(blocks), out)
    return out


def observed(backend, blocks, r, f, rows):
    table, out = SummaryTable.empty(rows, 4), Outputs.empty(len(blocks))
    out.sketch, out.row_sketches = np.zeros(r), np.zeros((rows, f))
    backends.resolve(backend).observe(views(blocks), table, out)
    return out


def plain_sketch(blocks, r):
    """The definition, in float64."""
    out = np.zeros(r)
    for block in blocks:
        with values.quiet():
            x = np.asarray(block.x).astype(np.float64)
        x[~np.isfinite(x)] = 0
        bucket, sign = sketch_map(block.key, block.index(), r)
        np.add.at(out, bucket, sign * x)
    return out


def assert_close(got, expected, bound=1e-6):
    e = math.frexp(float(np.abs(expected).max(initial=0)))[1]  # norms of 1e300 must not overflow here
    norm = np.linalg.norm(np.ldexp(expected, -e))
    assert np.abs(np.ldexp(got, -e) - np.ldexp(expected, -e)).max(initial=0) <= bound * norm


@given(KEYS, BUCKETS, st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_the_map_is_that_of_plain_integers(key, r, index):
    bucket, sign = sketch_map(key, index, r)
    assert list(zip(bucket.tolist(), sign.tolist(), strict=True)) == [plain_map(key, i, r) for i in index]


def test_a_key_depends_on_seed_and_name():
    keys = {tensor_key(seed, name) for seed in range(20) for name in ("", "a", "b", "a.b", "é", "\ud800")}
    assert len(keys) == 120
    assert tensor_key(0, "layer.0.weight") == 0xA0B23E42162D2D77
    assert tensor_key(2**64 - 1, "x") != tensor_key(0, "x")
    for seed, error in ((-1, ValueError), (2**64, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"^seed: expected an int from 0 to 2\*\*64 - 1, got "):
            tensor_key(seed, "x")


def test_the_number_of_buckets_is_checked():
    assert [check_buckets(2**k) for k in range(7, 17)] == [2**k for k in range(7, 17)]
    for r in (0, -128, 64, 127, 129, 1000, 2**17):
        with pytest.raises(ValueError, match=r"^sketch: expected a power of two from 128 to 65536, got "):
            check_buckets(r)
    for r in ("128", 128.0, None, True):
        with pytest.raises(TypeError, match=r"^x: expected a power of two from 128 to 65536, got "):
            check_buckets(r, "x")


def _one_hot(backend, r):
    rng, key = np.random.default_rng(r), tensor_key(3, "w")
    size = 3 * r + 77
    chosen = np.unique(np.r_[0, 1, 7, 8, 31, 32, r - 1, r, r + 1, size - 1, rng.integers(0, size, 25)])
    for start in (0, 5, 32, 2**40 + 3):
        for i in chosen.tolist():
            x = np.zeros(size, np.float32)
            x[i] = 2
            got = sketch_of(backend, [Block(x, key, start)], r)
            bucket, sign = plain_map(key, start + i, r)
            assert np.flatnonzero(got).tolist() == [bucket]
            assert got[bucket] == 2 * sign


@pytest.mark.parametrize("r", [128, 512])
def test_one_hot_vectors_show_the_map(backend, r):
    _one_hot(backend, r)


@pytest.mark.parametrize("r", [128, 1024])
def test_one_hot_vectors_show_the_map_at_every_level(simd, r):
    _one_hot("native", r)


def _any_values(backend, x, key, r, start):
    if x.dtype == np.float64:  # their sums may leave the range of a double
        with values.quiet():
            x = np.where(np.abs(x) > 1e290, x / 1e20, x)
    blocks = [Block(x, key, start)]
    assert_close(sketch_of(backend, blocks, r), plain_sketch(blocks, r))


@settings(max_examples=60)
@given(values.arrays(), KEYS, BUCKETS, st.sampled_from([0, 1, 8, 31, 4096, 2**33 + 5]))
def test_any_values(backend, x, key, r, start):
    _any_values(backend, x, key, r, start)


@settings(max_examples=60)
@given(values.arrays(), KEYS, BUCKETS, st.sampled_from([0, 1, 8, 31, 4096, 2**33 + 5]))
def test_any_values_at_every_level(simd, x, key, r, start):
    _any_values("native", x, key, r, start)


@pytest.mark.parametrize("scale", [1e-300, 1e-45, 1e-38, 1e-30, 1.0, 1e30, 3e37, 1e300])
def test_values_of_any_scale(backend, scale):
    x = np.random.default_rng(1).standard_normal(20_011)
    for dtype in ("float64", "float32", "bfloat16"):
        with np.errstate(over="ignore"):
            y = (x * scale).astype(values.DTYPES[dtype])
        if dtype != "float64" and not 1e-45 <= scale <= 3e37:
            continue
        y[::7001] = np.nan
        blocks = [Block(y, 5, 3)]
        assert_close(sketch_of(backend, blocks, 512), plain_sketch(blocks, 512))


def test_a_tensor_may_be_of_many_scales(backend):
    rng = np.random.default_rng(2)
    x = rng.standard_normal(60_000) * 10.0 ** rng.integers(-40, 38, 60_000 // 500).repeat(500)
    blocks = [Block(x.astype(np.float32), 9)]
    assert_close(sketch_of(backend, blocks, 1024), plain_sketch(blocks, 1024))


@pytest.mark.parametrize("dtype", values.DTYPES)
@pytest.mark.parametrize("size", [0, 1, 24, 3000, 72_000])
def test_the_sketches_of_shards_add(backend, dtype, size):
    x = np.random.default_rng(size).standard_normal(size).astype(values.DTYPES[dtype])
    x[1::997] = np.inf
    for r in (128, 4096):
        whole = sketch_of(backend, [Block(x, 77)], r)
        assert_close(whole, plain_sketch([Block(x, 77)], r))
        for blocks in shards(x, 77):
            assert_close(sketch_of(backend, blocks, r), whole)
            apart = sum((sketch_of(backend, [block], r) for block in blocks), np.zeros(r))
            assert_close(apart, whole)


@pytest.mark.parametrize("run", [1, 5, 255, 256, 300, 1000])
def test_column_shards_at_every_level(simd, run):
    x = np.random.default_rng(run).standard_normal(run * 41).astype(np.float32)
    for start, stride in ((0, run), (0, 2048), (9, run + 7)):
        blocks = [Block(x, 123, start, run, stride)]
        assert_close(sketch_of("native", blocks, 512), plain_sketch(blocks, 512))


def test_the_sketch_is_linear(backend):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 30_011))
    parts = [sketch_of(backend, [Block(x, 4)], 256) for x in (a, b, 2 * a - 3 * b)]
    assert_close(parts[2], 2 * parts[0] - 3 * parts[1], 1e-12)
    out = np.ones(256)
    backends.resolve(backend).sketch(views([Block(a, 4)]), out)
    np.testing.assert_allclose(out, 1 + parts[0], rtol=1e-12, atol=1e-12)


def _many():
    """Tensors of every size and row, rows in order."""
    rng = np.random.default_rng(8)
    sizes = [*rng.integers(0, 1500, 300).tolist(), 200_003, 0, 65_536, 500_001, 3, 70_000, 300_001]
    rows = np.sort(rng.integers(0, 40, len(sizes))).tolist()
    dtypes = list(values.DTYPES)
    return [
        Block(rng.standard_normal(n).astype(values.DTYPES[dtypes[i % 4]]), 1000 + i, row=row)
        for i, (n, row) in enumerate(zip(sizes, rows, strict=True))
    ]


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
def test_rows_are_sketches_folded(backend, order):
    blocks = _many()
    if order == "unsorted":
        blocks = blocks[::2] + blocks[1::2]
    for r, f in ((512, 128), (4096, 8), (128, 128)):
        out = observed(backend, blocks, r, f, 41)
        assert_close(out.sketch, plain_sketch(blocks, r))
        for row in {block.row for block in blocks}:
            own = [block for block in blocks if block.row == row]
            assert_close(out.row_sketches[row], fold(plain_sketch(own, r), f))
        assert not out.row_sketches[40].any()
        assert_close(out.row_sketches.sum(axis=0), fold(out.sketch, f))


def test_the_bits_do_not_depend_on_the_number_of_threads(threads):
    blocks = _many()
    threads(1)
    one = observed("native", blocks, 4096, 128, 41)
    for n in (2, 3, 7):
        threads(n)
        other = observed("native", blocks, 4096, 128, 41)
        assert other.sketch.tobytes() == one.sketch.tobytes()
        assert other.row_sketches.tobytes() == one.row_sketches.tobytes()
        assert other.records.tobytes() == one.records.tobytes()


def _gradients(kind, n, rng):
    """Gradients that sketches with poor maps got wrong, as lists of tensors."""
    if kind == "dense":
        return [rng.standard_normal(n)]
    if kind == "heavy":
        return [rng.standard_t(1.5, n)]
    if kind == "rows":
        return [np.tile(rng.standard_normal(768), n // 768 + 1)[:n]]
    if kind == "range":
        x = 0.001 * rng.standard_normal(n)
        x[n // 2 : n // 2 + min(n // 4, 1 << 16)] = rng.standard_normal(min(n // 4, 1 << 16))
        return [x]
    if kind == "six":
        x = np.zeros(n)
        x[rng.choice(n, 6, replace=False)] = rng.standard_normal(6)
        return [x]
    if kind == "300 tensors":
        one = lambda: np.where(
            np.arange(768) == 5, 10 * rng.standard_normal(), 0.01 * rng.standard_normal(768)
        )
        return [one() for _ in range(300)]
    x = 0.001 * rng.standard_normal(n)
    x[5 :: int(kind)] = rng.standard_normal(len(x[5 :: int(kind)]))
    return [x]


KINDS = ("dense", "heavy", "rows", "range", "six", "300 tensors",
         "512", "768", "1000", "4095", "4096", "8190", "8192")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_of_a_sketch_is_unbiased_and_of_known_spread(backend, kind):
    """|Sx|^2 / |x|^2 has mean 1 and standard deviation about sqrt(2 / r), whatever the gradient."""
    native = backend == "native"
    n, seeds = (1 << 20, 200) if native else (1 << 17, 60)
    tensors = [x.astype(np.float32) for x in _gradients(kind, n, np.random.default_rng(5))]
    square = sum(float((x.astype(np.float64) ** 2).sum()) for x in tensors)
    work = backends.resolve(backend)
    found = views([Block(x, 0) for x in tensors])
    for r in (512, 1024, 4096) if native else (512,):
        ratio = np.zeros(seeds)
        for seed in range(seeds):
            found.table["key"] = [tensor_key(seed, f"layer.{i}") for i in range(len(tensors))]
            out = np.zeros(r)
            work.sketch(found, out)
            ratio[seed] = (out**2).sum() / square
        theory = math.sqrt(2 / r)
        error = ratio.std(ddof=1) / math.sqrt(
            seeds
        )  # none where no two of six coordinates ever met: rounding
        assert abs(ratio.mean() - 1) <= 3 * error + 1e-6
        assert ratio.std(ddof=1) <= 1.25 * theory
