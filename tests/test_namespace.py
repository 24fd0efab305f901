"""The slow path: the specification on CuPy arrays, here on a stand-in that is stricter than CuPy."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import standin
import values
from hypothesis import given
from hypothesis import strategies as st
from places import Block, shards, views
from producers import Handmade
from small_streams import gradient, stream
from streams import assert_same_stream
from test_coordinates import Live
from test_projection import assert_close

from gradtail import GradientStream, Summary, backends, buffers, summarize
from gradtail.backends import namespace
from gradtail.backends import numpy as specification
from gradtail.states.outputs import Outputs
from gradtail.states.table import RECORD, SummaryTable
from gradtail.states.tracks import TrackList, local_offsets, tracked_indices


@pytest.fixture(scope="module")
def cupy():
    """Stand where CuPy would, in a build without CUDA kernels. Module-scoped for hypothesis."""
    with pytest.MonkeyPatch.context() as patch:
        yield standin.install(patch)


@pytest.fixture(params=[1 << 20, 4096], ids=["one chunk", "small chunks"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(namespace, "CHUNK", request.param)


def on_device(cupy, blocks):
    return [Block(cupy.asarray(b.x), b.key, b.start, b.run, b.stride, b.row) for b in blocks]


@pytest.mark.parametrize("kind", values.KINDS)
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_summaries_equal_the_specification(cupy, chunk, dtype, kind):
    for size in values.SIZES:
        x = values.make(dtype, size, kind, size)
        for bits in (4, 0, 10) if size == 997 else (4,):
            found = summarize(cupy.asarray(x), bits=bits)
            values.assert_same(found, summarize(x, bits=bits, backend="numpy"), 1e-6, x)


@given(values.arrays(), st.sampled_from([0, 4, 7, 10]))
def test_free_patterns_equal_the_specification(cupy, x, bits):
    found = summarize(cupy.asarray(x), bits=bits)
    values.assert_same(found, summarize(x, bits=bits, backend="numpy"), 1e-6, x)


@given(values.arrays(), st.sampled_from([0, 4, 7, 10]))
def test_host_arrays_by_name_equal_the_specification(cupy, x, bits):
    """The same lines with NumPy as their namespace."""
    values.assert_same(
        summarize(x, bits=bits, backend="cupy"), summarize(x, bits=bits, backend="numpy"), 1e-6, x
    )


def test_float64_is_rounded_at_the_edge_of_subnormals(cupy):
    """Where a kernel that flushes would answer zero, and where ties go to the even pattern."""
    unit, tiny = 2.0**-149, 2.0**-126
    edges = [0.5 * unit, 1.5 * unit, 2.5 * unit, tiny, tiny - 0.5 * unit, tiny - unit, 5e-324]
    edges += [float(np.finfo(np.float32).max), 2.0**128 - 2.0**103, 2.0**128, 1e308]
    x = np.array(edges)
    x = np.concatenate([x, -x, np.nextafter(x, 0), np.nextafter(x, np.inf)])
    for bits in (4, 10):
        found, expected = summarize(cupy.asarray(x), bits=bits), summarize(x, bits=bits, backend="numpy")
        values.assert_same(found, expected, 1e-6, x)
    for single in (x[np.abs(x) < 1e38].astype(np.float32), np.array([1, 2**22, 2**23 - 1], "u4").view("f4")):
        found = summarize(cupy.asarray(single), bits=10)
        values.assert_same(found, summarize(single, bits=10, backend="numpy"), 1e-6, single)


def _layouts():
    base = np.arange(8 * 6 * 4 * 3, dtype=np.float32).reshape(8, 6, 4, 3) - 100
    return [
        base, base.transpose(0, 3, 1, 2), base.T, base[2:5], base[:1, :1], base[0, 0, 0, 0:0],
        np.array(2.5, np.float16), np.empty((3, 0, 2)), base.transpose(1, 0, 2, 3)[:, None],
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(len(_layouts())))
def test_layouts_are_read_in_memory_order_and_not_copied(cupy, case):
    x = _layouts()[case]
    device = cupy.ndarray(x)
    assert device.strides == x.strides
    found, expected = buffers.views_of(device, start=7), buffers.views_of(x, start=7)
    for name in set(buffers.VIEW.names) - {"data", "device"}:
        np.testing.assert_array_equal(found.table[name], expected.table[name], name)
    ((_, source),) = namespace._sources(found)
    assert x.size == 0 or source.raw.data.ptr == device.data.ptr
    ((raw, _),) = expected.arrays()
    np.testing.assert_array_equal(source.raw.get(), raw)


def _whole(blocks, name, cell=4):
    table, out = SummaryTable.empty(4, 4), Outputs.empty(len(blocks))
    out.sketch, out.row_sketches = np.zeros(512), np.zeros((4, 128))
    out.tracks = TrackList.of(
        [local_offsets(tracked_indices(b.key, 10**6, 9000), *_where(b)) for b in blocks]
    )
    out.records["count"] = 12345  # overwritten
    lives = Live(blocks, 10**6, cell)
    out.pieces = lives.pieces
    for _ in range(3):
        backends.resolve(name).observe(views(blocks), table, out)
    return table, out, lives


def _where(block):
    return block.start, block.run, block.stride, block.x.size


def _blocks():
    sizes, kinds = [0, 1, 700, 66_000, 5, 20_003, 4096, 0], ("normal", "subnormal", "channel", "shifted")
    dtypes = ("float32", "float16", "bfloat16", "float64")
    made = [values.make(dtypes[i % 4], n, kinds[(i // 2) % 4], i) for i, n in enumerate(sizes)]
    made[5] = values.make("float16", 20_003, "patterns", 5)
    made[3] = values.make("float64", 66_000, "normal", 3)
    made[3][::777] = np.nan
    cut = values.make("float32", 24_000, "normal", 3)
    cut[::901] = np.inf
    whole = [Block(x, i, 3 * i, row=i // 3) for i, x in enumerate(made)]
    return whole[:4] + shards(cut, 77, row=1)[3] + whole[4:]


@pytest.mark.parametrize("cell", [1, 4, 64])
def test_all_outputs_equal_the_specification(cupy, chunk, cell):
    blocks = sorted(_blocks(), key=lambda block: block.row)
    spec, expected, spec_lives = _whole(blocks, "numpy", cell)
    table, found, lives = _whole(on_device(cupy, blocks), None, cell)
    np.testing.assert_array_equal(table.counts, spec.counts)
    for a, b in ((table.records, spec.records), (found.records, expected.records)):
        for name in RECORD.names[:12]:
            np.testing.assert_array_equal(a[name], b[name], name)
        for p in (2, 4):  # of the others the sum may cancel
            np.testing.assert_allclose(a[f"sum{p}"], b[f"sum{p}"], rtol=1e-12)
    assert_close(found.sketch, expected.sketch, 1e-12)
    for a, b in zip(found.row_sketches, expected.row_sketches, strict=True):
        assert_close(a, b, 1e-12)
    assert len(expected.tracks.value) > 100
    np.testing.assert_array_equal(found.tracks.value, expected.tracks.value)
    for a, b in zip([*lives.states, *lives.counts], [*spec_lives.states, *spec_lives.counts], strict=True):
        np.testing.assert_array_equal(a, b)
    again = _whole(on_device(cupy, blocks), "cupy", cell)
    assert again[1].sketch.tobytes() == found.sketch.tobytes(), "the same input, other bits"


@pytest.mark.parametrize("r", [128, 4096])
@pytest.mark.parametrize("dtype", values.DTYPES)
def test_sketches_of_shards_equal_the_specification(cupy, chunk, dtype, r):
    for size, start in ((1, 5), (31, 0), (4096, 2**40 + 3), (24_000, 0), (65_537, 17)):
        x = values.make(dtype, size, "normal", size)
        x[::1000] = np.inf
        cuts = [[Block(x, 9, start)], *([] if start else shards(x, 9))]
        for blocks in cuts:
            found, expected = np.ones(r), np.ones(r)
            backends.resolve(None).sketch(views(on_device(cupy, blocks)), found)
            specification.sketch(views(blocks), expected)
            assert_close(found, expected, 1e-12)


def test_the_last_indices_have_their_place_in_the_sketch(cupy):
    x = values.make("float32", 1000, "normal", 3)
    blocks = [Block(x, 5, 2**63 - 1001)]
    found, expected = np.zeros(128), np.zeros(128)
    namespace.sketch(views(on_device(cupy, blocks)), found)
    specification.sketch(views(blocks), expected)
    assert_close(found, expected, 1e-12)


def test_coordinates_alone_equal_the_specification(cupy):
    blocks = shards(values.make("float16", 24_000, "normal", 3), 77)[1]
    found, expected = Live(on_device(cupy, blocks), 24_000, 2), Live(blocks, 24_000, 2)
    for _ in range(3):
        found.update(None)
        expected.update("numpy")
    for a, b in zip([*found.states, *found.counts], [*expected.states, *expected.counts], strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(int(count.sum()) for count in found.counts) > 0


def _update_all(cupy, found, steps, places=None):
    for step in steps:
        arrays = {name: cupy.ndarray(x) for name, x in gradient(step).items()}
        found.update(arrays, step, places=places)


@pytest.mark.parametrize("name", [None, "cupy", "numpy"])
def test_streams_equal_those_of_numpy_arrays(cupy, name):
    found, expected = stream(name), stream("numpy")
    _update_all(cupy, found, range(12))
    for step in range(12):
        expected.update(gradient(step), step)
    assert found.first_nonfinite == expected.first_nonfinite is not None
    assert_same_stream(found, expected)
    np.testing.assert_allclose(
        found.sketch({"b.weight": cupy.ndarray(gradient(5)["b.weight"])}),
        expected.sketch({"b.weight": gradient(5)["b.weight"]}),
        rtol=1e-12,
    )
    copy = pickle.loads(pickle.dumps(found))
    assert copy.backend == found.backend == (name or backends.available()[0])


def test_streams_of_blocks_with_several_runs(cupy):
    """A block cut along two axes is several views of one array."""
    rng = np.random.default_rng(3)
    whole = {"w": (6, 8, 10), "v": (40,), "empty": (4, 4)}
    blocks = {"w": ((1, 2, 3), (4, 5, 6)), "v": ((7,), (20,)), "empty": ((2, 4), (2, 0))}
    places = {name: (whole[name], offset) for name, (offset, _) in blocks.items()}
    found, expected = stream(None), stream("numpy")
    for step in range(6):
        arrays = {name: rng.standard_normal(shape) for name, (_, shape) in blocks.items()}
        arrays["last"] = rng.standard_normal((3, 5)).T
        arrays["w"][1, 2, 3] = np.nan if step == 4 else 1
        expected.update(arrays, places=places)
        found.update({name: cupy.ndarray(x) for name, x in arrays.items()}, places=places)
    assert len(found._state.current.source) > len(whole) + 1, "one view an array proves nothing"
    assert found.first_nonfinite == expected.first_nonfinite is not None
    assert_same_stream(found, expected)


def test_only_small_results_come_to_the_host(cupy):
    x = cupy.asarray(values.make("float32", 3_000_000, "normal", 1))
    found = GradientStream(coordinates=None)
    found.update({"w": x})
    before = cupy.transferred
    found.update({"w": x})
    chunks = -(-x.size // namespace.CHUNK)
    records = chunks * 8 * (8192 + 1 + 4 + 8)
    block_sums = 9 * x.size // 64
    assert cupy.transferred - before <= records + block_sums + 8 * 4096 + 4 * 4096


def test_the_pass_runs_on_the_device_of_the_arrays(cupy):
    x = [values.make("float32", 5000, "patterns", i) for i in range(2)]
    with standin.Device(cupy, 1):
        there = [cupy.asarray(a) for a in x]
    assert cupy.entered == [0]
    assert summarize(there).count == summarize(x, backend="numpy").count
    found = stream(None)
    arrays = dict(zip("ab", there, strict=True))
    found.update(arrays)  # summaries of what nobody knew, and coordinates once their scale is known
    found.update(arrays)
    assert found.sketch(arrays).any()
    assert cupy.entered == [0]
    with pytest.raises(ValueError, match=r"^x\[0\]: expected every array on one device, got cuda:0, cuda:1$"):
        summarize([cupy.asarray(x[0]), there[1]])
    with pytest.raises(ValueError, match=r"^x\[0\]: expected every array on one device, got cpu, cuda:1$"):
        summarize([x[0], there[1]])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.arange(3), TypeError, "expected a dtype of float64, float32, float16 or bfloat16, got int64"),
        (np.ones((4, 4))[:, ::2], ValueError, "expected dense memory"),
        (np.ones(4)[::-1], ValueError, "expected dense memory"),
        (np.broadcast_to(np.ones(1), (5,)), ValueError, "expected dense memory"),
    ],
)
def test_what_is_refused_of_numpy_is_refused_of_cupy(cupy, bad, error, message):
    s = Summary()
    with pytest.raises(error, match=f"^x: {message}"):
        s.update(cupy.ndarray(bad))
    assert s == Summary()


def test_the_slow_path_warns_once_and_before_anything_changes(cupy, monkeypatch):
    monkeypatch.setattr(buffers, "_warned", False)
    found = stream(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=r"slow path.*no CUDA kernels.*install gradtail built with"):
            _update_all(cupy, found, [0])
    assert (found.steps, found.last_step, list(found.names)) == (0, None, [])
    _update_all(cupy, found, range(3))
    summarize(cupy.asarray(np.ones(3)), backend="cupy")
    monkeypatch.setattr(buffers, "_warned", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("cupy", None):
            summarize(cupy.asarray(np.ones(3)), backend=name)
            _update_all(cupy, stream(name), range(2))
        summarize(np.ones(3), backend="cupy")
    assert [w.category for w in caught] == [RuntimeWarning]


def test_a_device_without_memory_leaves_everything_as_it_was(cupy, monkeypatch):
    x, found = cupy.asarray(np.ones(3)), stream(None)
    before = summarize(x)
    _update_all(cupy, found, range(2))
    histories = [found.history.steps.tolist(), found.norm(), found.counted]
    count_bins, calls = cupy.bincount, []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) % 2 == 0:  # after the first array
            raise MemoryError("out of memory")
        return count_bins(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cupy, "bincount", fail)
        with pytest.raises(MemoryError, match="out of memory"):
            before.update([x, x])
        with pytest.raises(MemoryError, match="out of memory"):
            _update_all(cupy, found, [2])
    assert len(calls) == 4
    assert before == summarize(x)
    assert found.counted == histories[2]


def test_other_arrays_in_cuda_memory_are_refused_and_cupy_is_named(cupy):
    for x in (Handmade(4096, (3,), device=(2, 0)), Handmade(4096, (3,), device=(13, 0))):
        for arrays in (x, [x, x], [cupy.asarray(np.ones(3)), x]):
            with pytest.raises(ValueError, match=r"^x(\[0\])?: expected ") as caught:
                summarize(arrays)
            text = str(caught.value)
            assert "one device" in text or text.endswith(
                "move the array with .cpu(), or pass cupy.from_dlpack(x), which is read slowly"
            )
        assert x.asked == 0


def test_torch_tensors_in_cuda_memory_are_refused_without_kernels(torch, monkeypatch):
    monkeypatch.setattr(buffers, "native_reads", lambda device: False)
    monkeypatch.setattr(buffers.extension, "engine", None)
    message = str(buffers._device_error("x", torch.device("cuda:0")))
    assert message.startswith("x: expected an array on the CPU, got one on cuda:0; this build has no backend")
    assert message.endswith(".cpu(), or pass cupy.from_dlpack(x), which is read slowly")
    assert "cupy" not in str(buffers._device_error("x", torch.device("mps")))


def test_memory_of_a_device_is_never_read_as_if_it_were_the_hosts(cupy):
    found = buffers.views_of(cupy.asarray(np.ones(3)))
    with pytest.raises(AssertionError, match="read by the device"):
        list(found.arrays())


def test_arrays_that_a_build_with_kernels_reads_do_not_come_here(cupy, monkeypatch):
    x = cupy.asarray(np.ones(3))
    assert buffers.device_route(2, [x]) == "namespace"
    assert buffers.device_route(2, [x, np.ones(3)]) is None
    assert buffers.device_route(1, [np.ones(3)]) == "host"
    monkeypatch.setattr(buffers, "native_reads", lambda device: device == 2)
    monkeypatch.setattr(buffers, "_warned", False)
    assert buffers.device_route(2, [x]) == "native"
    assert buffers.views_of(x).table["device"] == 2  # and no warning


def test_the_name_is_there_where_cupy_is(cupy, monkeypatch):
    assert backends.available()[-1] == "cupy"
    assert backends.resolve("cupy") is namespace
    assert summarize(np.ones(3), backend="cupy").count == 3
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "cupy" not in backends.available()
    with pytest.raises(ValueError, match=r"^backend: expected one of \[.*\], got 'cupy' \(CuPy is not inst"):
        summarize(np.ones(3), backend="cupy")


def test_cupy_is_imported_by_nobody():
    code = (
        "import sys, numpy as np, gradtail\n"
        "gradtail.GradientStream().update({'w': np.ones(9)})\n"
        "gradtail.summarize([np.ones(3)]); gradtail.backends.available()\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'cupy']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
