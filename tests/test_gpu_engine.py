"""The engine on a GPU by itself, without torch: what it finds, in any order of work.

The same tests, of smaller arrays, run on the simulated device, so that they are known to work. They are also
what ``benchmarks/gpu/sanitize.py`` runs under compute-sanitizer.
"""

from __future__ import annotations

import numpy as np
import pytest
import values
from device import CONTROL, DEVICE_PIECE, TRACK, views
from gpu_device import LANES, GpuEngine, Native, needed, same_bytes

from gradtail import native as extension


@pytest.fixture(params=["simulated", pytest.param("gpu", marks=needed)])
def module(request):
    if request.param == "gpu":
        yield Native()
        return
    simulated = request.getfixturevalue("simulated")
    simulated.reset()
    yield simulated
    simulated.reset()


@pytest.fixture
def real(module):
    return isinstance(module, Native)


class TestValues:
    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_every_kind(self, module, real, dtype):
        engine = GpuEngine(module, buckets=1024, rows=3)
        for kind in values.KINDS:
            arrays = [values.make(dtype, n, kind, n) for n in ((1, 7, 5000, 70_001) if real else (1, 3000))]
            engine.check(arrays)

    @pytest.mark.parametrize("offset", [1, 3, 7])
    @pytest.mark.parametrize("dtype", values.DTYPES)
    def test_misaligned(self, module, dtype, offset):
        engine = GpuEngine(module, buckets=256, offset=offset)
        engine.check([values.make(dtype, n, "shifted", n) for n in (1, 2, 9, 4097)])

    @pytest.mark.parametrize("kind", ["patterns", "channel", "bad"])
    def test_sizes(self, module, real, kind):
        sizes = values.SIZES if real else values.SIZES[:12]
        engine = GpuEngine(module, rows=4, buckets=512)
        for dtype in values.DTYPES:
            engine.check([values.make(dtype, n, kind, n) for n in sizes])

    @pytest.mark.parametrize("bits", [0, 2, 7])
    def test_bits(self, module, bits):
        engine = GpuEngine(module, bits=bits)
        for dtype in ("float32", "bfloat16"):
            engine.check([values.make(dtype, 9001, "patterns", bits)])

    def test_many_arrays_of_few_values(self, module, real):
        n = 3000 if real else 100
        engine = GpuEngine(module, rows=7, buckets=256, wide_counts=True)
        engine.check([values.make("float16", 1 + i % 97, "normal", i) for i in range(n)])

    @pytest.mark.parametrize("buckets", [0, 128, 4096, 8192])
    def test_sketches(self, module, real, buckets):
        engine = GpuEngine(module, rows=2, buckets=buckets)
        rng = np.random.default_rng(buckets)
        sizes = (70_003, 1, 12_345) if real else (9_003, 1, 2_345)
        found = engine.check([rng.integers(-9, 10, n).astype(np.float32) for n in sizes])
        assert found.sketch.size == buckets

    def test_shards_at_odd_places(self, module):
        """Rows of a matrix of 1000 columns from column 3 to 640, say: runs with a stride."""
        engine = GpuEngine(module, rows=2, buckets=256)
        described = views([values.make("float32", n, "normal", n) for n in (1274, 637 * 9)], [0, 1])
        described.table["run"], described.table["stride"] = 637, 1000
        described.table["start"] = [3, 17]
        engine.check_described(described)


class TestSameBits:
    def arrays(self, real):
        sizes = (500_001, 65_536, 1, 0, 30_011) if real else (30_001, 4_096, 1, 0)
        dtypes = list(values.DTYPES)[1:]
        return [values.make(dtypes[i % 3], n, "shifted", i) for i, n in enumerate(sizes)]

    def test_in_every_run(self, module, real):
        arrays = self.arrays(real)
        expected = GpuEngine(module, rows=3, buckets=1024, window=4, row_window=2).left(arrays)
        for _ in range(20 if real else 2):
            found = GpuEngine(module, rows=3, buckets=1024, window=4, row_window=2).left(arrays)
            same_bytes(found, expected)

    @pytest.mark.parametrize("wide", [False, True])
    def test_of_every_grid(self, module, real, wide):
        arrays = self.arrays(real)
        if wide:
            arrays.append(values.make("float64", 5001, "normal", 9))
        expected = GpuEngine(module, rows=3, buckets=512, blocks=1).left(arrays)
        for blocks in (0, 2, 7, 132, 1000) if real else (2, 5):
            same_bytes(GpuEngine(module, rows=3, buckets=512, blocks=blocks).left(arrays), expected)

    @pytest.mark.parametrize("offset", [1, 5])
    def test_at_every_alignment(self, module, real, offset):
        arrays = self.arrays(real)
        expected = GpuEngine(module, rows=3, buckets=512).left(arrays)
        same_bytes(GpuEngine(module, rows=3, buckets=512, offset=offset).left(arrays), expected)


class TestSteps:
    def test_two_launches_whatever_the_number_of_arrays(self, module):
        for n in (1, 40):
            engine = GpuEngine(module, rows=n)
            there = engine.placed(views([np.ones(100, np.float32)] * n, range(n)))
            plan = engine.prepare(there)
            for _ in range(5):
                engine.update(plan, there)
            engine.wait()
            assert engine.engine.launches == 10

    def test_steps_are_added_up(self, module):
        engine = GpuEngine(module, rows=2, log_slots=8)
        arrays = [values.make("float32", 5000, "normal", i) for i in range(2)]
        there = engine.placed(views(arrays, [0, 1]))
        plan = engine.prepare(there)
        for _ in range(4):
            engine.update(plan, there)
        engine.wait()
        newest = engine.read().counts.astype(np.uint64)
        np.testing.assert_array_equal(engine.counts_of("open_counts"), 3 * newest)
        assert newest.sum() == 10_000
        latest = engine.engine.latest()
        assert (latest["sequence"], latest["step"], latest["steps"]) == (4, 3, 4)
        norm = float(np.linalg.norm(np.concatenate(arrays).astype(np.float64)))
        assert latest["norm"] == pytest.approx(norm, rel=1e-6)

    def test_tracks(self, module):
        engine = GpuEngine(module, tracks=3, track_window=2)
        x = values.make("float32", 999, "normal", 1)
        there = engine.placed(views([x], [0]))
        tracks = np.array([(5, 0, 0), (998, 0, 0), (0, -1, 0)], TRACK)
        engine.observe_views(there, tracks)
        assert engine.get("track_values", np.float32)[:2].tolist() == [x[5], x[998]]
        assert engine.get("track_observed", np.bool_)[:3].tolist() == [True, True, False]

    def test_coordinate_moments(self, module):
        """Of every coordinate, over four steps, against float64."""
        n, steps = 4096, 4
        x = values.make("float32", n, "normal", 5)
        cells = n // 8
        state, count = module.Memory(0, 16 * 8 * cells), module.Memory(0, 4 * cells)
        exponent = module.Memory(0, 4)
        exponent.write(np.array([np.iinfo(np.int32).min], np.int32))
        piece = np.zeros(1, DEVICE_PIECE)
        piece[0] = (state.address, count.address, exponent.address, cells, n, 0, 1, 0)
        engine = GpuEngine(module)
        for step in range(steps):
            there = engine.placed(views([x * np.float32(step + 1)], [0]))
            plan = engine.prepare(there, None, piece)
            engine.update(plan, there)
            engine.wait()
            engine.engine.forget(plan)
        counts, moments, power = (
            np.zeros(cells, np.uint32),
            np.zeros(n * 4, np.float32),
            np.zeros(1, np.int32),
        )
        count.read(counts)
        state.read(moments)
        exponent.read(power)
        assert (counts == steps).all()
        mean = np.ldexp(moments.reshape(cells, 4, 8)[:, 0].ravel().astype(np.float64), int(power[0]))
        np.testing.assert_allclose(np.sort(mean), np.sort(x.astype(np.float64) * 2.5), rtol=1e-5)


def test_layouts_are_those_of_the_kernels(module):
    core = module if not isinstance(module, Native) else extension.engine
    assert core.track_size == TRACK.itemsize
    assert core.device_piece_size == DEVICE_PIECE.itemsize
    assert core.control_size == CONTROL.itemsize
    assert LANES == 512
