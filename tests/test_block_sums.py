"""Sums of blocks of neighbours and their logarithms: every backend against plain loops, bit for bit."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import places
import pytest
import values
from hypothesis import given, settings
from hypothesis import strategies as st

from gradtail import backends
from gradtail.states import log_sums
from gradtail.states.log_sums import BLOCK_SIZES, LOG_SUMS, log2_units
from gradtail.states.table import SummaryTable

HEADER = Path(__file__).resolve().parent.parent / "csrc" / "core" / "log_sums.hpp"
COUNTS = ("blocks", "zeros", "nonfinite", "overflowed")


def halves(x: list[np.float32]) -> np.float32:
    """Add up by halves, in float32."""
    if len(x) == 1:
        return x[0]
    middle = len(x) // 2
    return np.float32(halves(x[:middle]) + halves(x[middle:]))


def expected(blocks: list[places.Block]) -> list[dict[str, Any]]:
    """Find whole blocks by looking up every index, and take logarithms of their sums by ``math.log2``."""
    found = [{"blocks": 0, "zeros": 0, "nonfinite": 0, "overflowed": 0, "logs": []} for _ in BLOCK_SIZES]
    for block in blocks:
        with np.errstate(all="ignore"):
            single = block.x.astype(np.float32)
        start = 0
        while start < single.size:  # run by run
            stop = min(start + block.run - start % block.run, single.size)
            first = block.start + start // block.run * block.stride
            for size, into in zip(BLOCK_SIZES, found, strict=True):
                for index in range(-(-first // size) * size, first + stop - start - size + 1, size):
                    one = single[start + index - first : start + index - first + size]
                    with np.errstate(all="ignore"):
                        total = halves(list(one)) if np.isfinite(one).all() else None
                    if total is None:
                        into["nonfinite"] += 1
                    elif not np.isfinite(total):
                        into["overflowed"] += 1
                    else:
                        into["blocks"] += 1
                        into["zeros"] += total == 0
                        if total != 0:
                            into["logs"].append(math.log2(abs(float(total))))
            start = stop
    return found


def taken(backend: str, blocks: list[places.Block], rows: int = 1) -> np.ndarray:
    table = SummaryTable.empty(rows, 4, True)
    backends.resolve(backend).summarize(places.views(blocks), table)
    assert table.logs is not None
    return table.logs


def assert_right(logs: np.ndarray, blocks: list[places.Block]) -> None:
    for one, wanted in zip(logs, expected(blocks), strict=True):
        for field in COUNTS:
            assert one[field] == wanted[field], field
        n = len(wanted["logs"])
        assert one["sum"] * 2.0**-16 == pytest.approx(math.fsum(wanted["logs"]), abs=2e-5 * n + 1e-9)
        squares = math.fsum(x * x for x in wanted["logs"])
        bound = sum(2**-4 * abs(x) + 2**-8 for x in wanted["logs"])
        assert one["squares"] * 2.0**-8 == pytest.approx(squares, abs=bound + 1e-9)


def hard(seed: int, size: int, dtype: str = "float32") -> np.ndarray:
    """Make heavy tails with zeros, runs of zeros, non-finite, huge and subnormal values among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(1.5, size) * 10.0 ** rng.integers(-6, 2)
    x[rng.random(size) < 0.2] = 0
    if size > 9000:
        x[4096 * 2 - 200 : 4096 * 2 + 333] = 0
        x[rng.integers(0, size, 3)] = [np.nan, np.inf, -np.inf]
        x[100:110] = 3e38
        x[500:900] *= 1e-40
        x[1024:1088] = np.repeat([2.5, -2.5], 32)
    with np.errstate(over="ignore"):
        return x.astype(values.DTYPES[dtype])


@pytest.mark.parametrize("dtype", values.DTYPES)
def test_blocks_by_plain_loops(backend: str, dtype: str) -> None:
    for size in (0, 63, 64, 300, 4096, 14_011):
        for start in (0, 4096, 1, 4060) if size == 14_011 else (0, 64):
            blocks = [places.Block(hard(size, size, dtype), 1, start)]
            assert_right(taken(backend, blocks)[0], blocks)


@pytest.mark.parametrize(("run", "stride"), [(64, 100), (1000, 1500), (5000, 8192), (8192, 9000)])
def test_blocks_end_with_their_run(backend: str, run: int, stride: int) -> None:
    blocks = [places.Block(hard(run, 3 * run + 77), 1, 4000, run, stride)]
    assert_right(taken(backend, blocks)[0], blocks)


@settings(max_examples=40)
@given(values.arrays(), st.sampled_from([0, 64, 4032, 77]))
def test_backends_agree_to_the_bit(core: Any, x: np.ndarray, start: int) -> None:
    found = [taken(name, [places.Block(x, 1, start)]).tobytes() for name in ("native", "numpy")]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", values.KINDS)
def test_every_instruction_set_has_the_same_bits(simd: str, kind: str) -> None:
    for dtype in values.DTYPES:
        for size, start in ((10_007, 0), (65_537, 0), (65_537, 4096 * 3 + 64), (140_000, 1)):
            blocks = [places.Block(values.make(dtype, size, kind, size), 1, start)]
            assert taken("native", blocks).tobytes() == taken("numpy", blocks).tobytes(), (dtype, size)


def test_a_large_outlier_and_tiny_values_among_others(simd: str) -> None:
    x = hard(3, 300_000)
    x[70_000] = 1e30  # where the loop over a chunk stops half-way
    x[100_000:101_000] *= 1e-36
    x[130_000:140_000] = np.ldexp(x[130_000:140_000], -120)
    blocks = [places.Block(x, 1)]
    assert taken("native", blocks).tobytes() == taken("numpy", blocks).tobytes()


def test_threads_change_nothing(threads: Any) -> None:
    blocks = [
        places.Block(hard(i, n, d), i, start, row=i)
        for i, (n, d, start) in enumerate(
            [(300_000, "float32", 0), (200_001, "bfloat16", 128), (5, "float32", 0), (99_999, "float64", 3)]
        )
    ]
    wanted = taken("numpy", blocks, 4).tobytes()
    for n in (1, 2, 5):
        threads(n)
        assert taken("native", blocks, 4).tobytes() == wanted, n


def test_rows_and_aligned_shards_add_up(backend: str) -> None:
    x = hard(5, 40_000)
    whole = taken(backend, [places.Block(x, 1)])[0]
    shards = [
        taken(backend, [places.Block(x[a:b].copy(), 1, a)])
        for a, b in pairwise([0, 4096, 4096 * 3, 4096 * 3, 4096 * 7, 40_000])
    ]
    total = log_sums.join_logs(np.concatenate(shards[::-1]))[0]
    assert total.tobytes() == whole.tobytes()
    odd = log_sums.empty_logs(1)
    for a, b in pairwise([0, 1000, 17_001, 40_000]):
        log_sums.add_logs(odd, taken(backend, [places.Block(x[a:b].copy(), 1, a)]))
    lost = sum(whole[field] - odd[0][field] for field in ("blocks", "nonfinite", "overflowed"))
    assert lost.tolist() == [2, 2, 2, 2], "each border cuts one block of each size"


def test_fold_and_clear(backend: str) -> None:
    work = backends.resolve(backend)
    tables = [SummaryTable.empty(3, 4, True) for _ in range(2)]
    blocks = [places.Block(hard(i, 10_000), i, row=i) for i in range(2)]
    for table in tables:
        work.summarize(places.views(blocks), table)
    work.fold(tables[0], tables[1])
    for field in LOG_SUMS.names or ():
        np.testing.assert_array_equal(tables[0].logs[field], 2 * tables[1].logs[field])  # type: ignore[index]
    work.clear(tables[0])
    assert not tables[0].logs["blocks"].any()  # type: ignore[index]


def test_logarithms_by_integers() -> None:
    rng = np.random.default_rng(0)
    patterns = rng.integers(1, 0x7F800000, 400_000, np.uint32)
    patterns = np.concatenate(
        [patterns, np.arange(1, 5000, dtype=np.uint32), np.uint32([0x7F7FFFFF, 0x800000])]
    )
    x = patterns.view(np.float32)
    error = log2_units(x) * 2.0**-16 - np.log2(x.astype(np.float64))
    assert np.abs(error).max() < 1.6e-5
    powers = np.ldexp(np.float32(1), np.arange(-149, 128))
    np.testing.assert_array_equal(log2_units(powers), np.arange(-149, 128) << 16)
    low = rng.integers(0, 32, 1 << 18, np.uint32)
    mantissas = (np.arange(1 << 18, dtype=np.uint32) * 32 + low + 0x3F800000).view(np.float32)
    mean = np.mean(log2_units(mantissas) * 2.0**-16 - np.log2(mantissas.astype(np.float64)))
    assert abs(mean) < 1e-6


def test_tables_and_layout_are_those_of_the_header(core: Any) -> None:
    text = HEADER.read_text("utf-8")
    body = re.search(r"define GRADTAIL_LOG_TABLE(.*?)\n\n", text, re.DOTALL)
    assert body is not None
    numbers = [int(n) for n in re.findall(r"-?\d+", body.group(1))]
    assert numbers == [*log_sums.C0.tolist(), *log_sums.C1.tolist(), *log_sums.C2.tolist()]
    assert core.log_sums_size == LOG_SUMS.itemsize
