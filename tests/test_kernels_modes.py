"""Where the bins of a row lie: all of them in shared memory, a window of binades, or none."""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import SimulatedEngine, check, expected


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bits", range(11))
def test_any_number_of_bits(device, bits, wide):
    engine = SimulatedEngine(device, rows=2, bits=bits, buckets=1024)
    dtypes = ("float32", "float64" if wide else "bfloat16", "float16")
    check(engine, [values.make(d, 9001, kind, 3) for d in dtypes for kind in ("normal", "patterns")])


def shrink(device, kib):
    device.set_properties(
        multiprocessors=4, shared_per_block=kib * 1024, shared_per_multiprocessor=(kib + 1) * 1024
    )


@pytest.mark.parametrize("kind", values.KINDS)
@pytest.mark.parametrize("kib", [20, 24, 28, 32, 40, 50, 64, 120])
def test_any_shared_memory(device, kib, kind):
    """Whichever mode that gives."""
    shrink(device, kib)
    for bits in (0, 4, 7):
        engine = SimulatedEngine(device, rows=3, bits=bits, buckets=256, blocks=3)
        check(engine, [values.make(d, 3001, kind, i) for i, d in enumerate(("float32", "bfloat16") * 3)])


@pytest.mark.parametrize("lanes", [128, 512])
@pytest.mark.parametrize("center", [-149, -126, -100, -60, -3, 0, 17, 90, 110, 120])
def test_windows_lie_where_the_values_are(device, center, lanes):
    """Values on both sides of every edge of the window, and zeros, which may be outside it."""
    engine = SimulatedEngine(device, rows=2, bits=7, lanes=lanes)
    rng = np.random.default_rng(1)
    spread = np.clip(rng.integers(-150, 150, 4000), -149, 127)
    near = np.clip(center + rng.integers(-3, 3, 4000), -149, 127)
    signs = rng.choice([-1.0, 1.0], 8000)
    x = (signs * np.ldexp(rng.uniform(1, 2, 8000), np.concatenate([near, spread]))).astype(np.float32)
    x[::7] = 0
    x[1::700] = -0.0
    y = np.concatenate([x[:4000], x[4000:4400]])
    check(engine, [x, y])


def test_the_window_is_anew_for_each_row(device):
    engine = SimulatedEngine(device, rows=6, bits=7)
    rng = np.random.default_rng(2)
    scales = [1e-38, 1e38, 1e-10, 1e10, 0.0, 1.0]
    with np.errstate(over="ignore"):
        check(engine, [(rng.standard_normal(500) * scale).astype(np.float32) for scale in scales])


@pytest.mark.parametrize("kib", [16, 26, 227])
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_counters_of_64_bits(device, dtype, kib):
    shrink(device, kib)
    engine = SimulatedEngine(device, rows=2, wide_counts=True, log_slots=2)
    before = np.zeros(engine.counts_of("open_counts").shape, np.uint64)
    for seed in range(3):  # the parities of the tables
        arrays = [values.make(dtype, 3001, "patterns", seed), values.make(dtype, 3001, "normal", seed)]
        check(engine, arrays)
        np.testing.assert_array_equal(engine.counts_of("open_counts"), before)
        before += expected(arrays, engine).counts


def test_subnormals_share_their_bin_with_zeros(device):
    """Bin 0 counts as in use where not all of it are zeros."""
    engine = SimulatedEngine(device, rows=4, bits=4)
    tiny = np.float32(2.0**-149)
    found = check(
        engine,
        [
            np.zeros(9, np.float32),
            np.full(9, tiny),
            np.array([0, -tiny, 1], np.float32),
            np.array([0, 1], np.float32),
        ],
    )
    assert found.records["low_bin"].tolist()[1:3] == [0, 0]
    assert found.records["high_bin"].tolist()[:2] == [-1, 0]


def test_float64_that_float32_cannot_hold(device):
    engine = SimulatedEngine(device, rows=2)
    x = np.array([1e200, -1e39, 3.4028235677973366e38, 1e-46, -1e-300, 2.0**-150, 2.0**-149, 0.0, 1.0])
    found = check(engine, [np.tile(x, 50), np.ones(5)])
    assert found.records["overflowed"].tolist() == [150, 0]
    assert found.records["vanished"].tolist() == [150, 0]
