"""The shipped kernels on the simulated device: counts equal the specification's, sums keep their bound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import values
from device import DEVICE_PIECE, RECORD, TRACK, SimulatedEngine, check, check_views, expected, views


@pytest.fixture
def device(simulated):
    simulated.reset()
    yield simulated
    simulated.reset()


@pytest.mark.parametrize("kind", values.KINDS)
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_every_kind_of_value(device, dtype, kind):
    engine = SimulatedEngine(device, buckets=1024, blocks=3)
    for seed, size in enumerate((1, 7, 1000, 8192, 70001)):
        check(engine, [values.make(dtype, size, kind, seed)])


@pytest.mark.parametrize("kind", ["patterns", "channel", "spike", "bad"])
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_large_teams(device, dtype, kind):
    engine = SimulatedEngine(device, rows=2, buckets=4096, lanes=512)
    check(engine, [values.make(dtype, n, kind, n) for n in (1, 40_001, 32_768, 65)])


def test_layout_of_structures(simulated):
    assert simulated.track_size == TRACK.itemsize
    assert simulated.device_piece_size == DEVICE_PIECE.itemsize
    assert RECORD.itemsize == 128


class TestSketches:
    """A team of 128 threads keeps 1024 buckets: fewer are kept several times over, more go in stripes."""

    @pytest.mark.parametrize("r", [128, 256, 512, 1024, 2048, 4096, 8192, 65536])
    def test_any_number_of_buckets(self, device, r):
        engine = SimulatedEngine(device, rows=3, buckets=r)
        sizes = [r - 1, 8 * r + 1, 5, 0, 20_011, 8 * r if r <= 8192 else 100]
        check(engine, [values.make("float32", n, "shifted", n) for n in sizes])

    @pytest.mark.parametrize("r", [128, 4096, 16384])
    def test_any_number_of_buckets_with_large_teams(self, device, r):
        engine = SimulatedEngine(device, rows=2, buckets=r, lanes=512)
        check(engine, [values.make("bfloat16", n, "normal", n) for n in (70_001, 9, 33_000)])

    @pytest.mark.parametrize("r", [128, 1024, 8192])
    def test_of_float64(self, device, r):
        engine = SimulatedEngine(device, rows=2, buckets=r)
        check(engine, [values.make("float64", n, "normal", n) for n in (20_001, 9, 8192)])

    def test_none_is_kept_unless_asked_for(self, device):
        engine = SimulatedEngine(device, rows=2)
        found = check(engine, [values.make("float32", n, "normal", n) for n in (20_001, 9)])
        assert found.sketch.size == found.row_sketches.size == 0

    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_a_single_value_has_the_bucket_and_the_sign_of_the_map(self, device, dtype):
        """Exact: the powers of two that the sketch is scaled by leave no rounding."""
        engine = SimulatedEngine(device, buckets=256)
        x = np.zeros(30_000, values.DTYPES[dtype])
        for i in (0, 1, 7, 8, 255, 256, 2047, 2048, 8191, 8192, 16_383, 16_385, 29_999):
            x[:] = 0
            x[i] = 1.5
            found, wanted = engine.observe([x]), expected([x], engine)
            np.testing.assert_array_equal(found.sketch, wanted.sketch)
            np.testing.assert_array_equal(found.row_sketches, wanted.row_sketches)

    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_integers_are_summed_exactly(self, device, dtype):
        """Every sign and every bucket counts: nothing hides behind a bound."""
        engine = SimulatedEngine(device, rows=2, buckets=1024, blocks=3)
        rng = np.random.default_rng(1)
        arrays = [rng.integers(-9, 10, n).astype(values.DTYPES[dtype]) for n in (70_003, 1, 12_345)]
        found, wanted = engine.observe(arrays), expected(arrays, engine)
        np.testing.assert_array_equal(found.sketch, wanted.sketch)
        np.testing.assert_array_equal(found.row_sketches, wanted.row_sketches)

    def test_more_octets_than_registers_keep(self, device):
        engine = SimulatedEngine(device, buckets=128)  # octets of 1024 elements, 64 of them and more a chain
        x = np.random.default_rng(2).integers(-9, 10, 9 * 128 * 8 * 64 + 3).astype(np.float32)
        found, wanted = engine.observe([x]), expected([x], engine)
        np.testing.assert_array_equal(found.sketch, wanted.sketch)
        np.testing.assert_array_equal(found.row_sketches, wanted.row_sketches)


class TestRows:
    @pytest.mark.parametrize("buckets", [0, 1024])
    def test_several_in_one_chain_and_one_in_several_chains(self, device, buckets):
        engine = SimulatedEngine(device, rows=7, buckets=buckets)
        kinds = [*values.KINDS, *values.KINDS]
        arrays = [values.make("float32", 1 + 97 * i, kind, i) for i, kind in enumerate(kinds)]
        arrays[5] = values.make("float32", 150_001, "channel", 5)
        described = engine.views(arrays)
        plan = device.plan_of(described.table, 7, buckets or 1024, 128)
        chain_first = plan["chain_first"].view(np.int32)
        items = plan["items"].view(np.int32).reshape(-1, 10)[:, 8]
        rows = [set(described.table["row"][items[a:b]]) for a, b in pairwise(chain_first)]
        assert max(map(len, rows)) > 1
        assert sum(1 in own for own in rows) > 2
        check_views(engine, described)

    def test_with_nothing_in_them(self, device):
        engine = SimulatedEngine(device, rows=6, buckets=256)
        arrays = [values.make("float16", n, "normal", n) for n in (0, 5000, 0, 77)]
        check_views(engine, views(arrays, [1, 3, 4, 4]))
        assert engine.get(f"present{int(engine.control()['parity'])}", np.int32).tolist() == [
            0,
            1,
            0,
            1,
            1,
            0,
        ]

    def test_without_a_view_at_all(self, device):
        engine = SimulatedEngine(device, rows=2, buckets=256)
        check(engine, [values.make("float32", 5000, "normal", 1)] * 2)
        check(engine, [np.zeros(0, np.float32)])
        assert engine.engine.latest()["norm"] == 0

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
    def test_of_mixed_dtypes(self, device, order):
        """float64 among the values sends all of them to the wide kernel."""
        dtypes = [list(values.DTYPES)[i] for i in order]
        for chosen in (dtypes, [dtype for dtype in dtypes if dtype != "float64"]):
            engine = SimulatedEngine(device, rows=3, buckets=1024, blocks=3)
            kinds = ("patterns", "normal", "bad", "subnormal")
            check(engine, [values.make(d, 9001, kind, i) for d in chosen for i, kind in enumerate(kinds)])
