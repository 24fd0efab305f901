"""What may come in without a copy, and what is refused: NumPy, ml_dtypes, any DLPack producer."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import values
from producers import BFLOAT, FLOAT, Delegate, Handmade

from gradtail import Summary, summarize
from gradtail import native as extension
from gradtail.buffers import VIEW, views_of

RNG = np.random.default_rng(0)
A = RNG.standard_normal((6, 5, 4, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals of devices are those of a build that reads host memory only."""
    monkeypatch.setattr(extension, "engine", None)


def address(x):
    return x.__array_interface__["data"][0]


def test_the_view_layout_is_that_of_the_extension(core):
    assert VIEW.itemsize == core.view_size


@pytest.mark.parametrize("dtype", values.DTYPES)
def test_every_dtype_is_read_where_it_lies(backend, dtype):
    x = A.astype(values.DTYPES[dtype])
    views = views_of(x)
    assert views.table["data"].tolist() == [address(x)]
    assert views.table["size"].tolist() == [x.size]
    flat, found = next(views.arrays())
    assert found.name == dtype
    assert np.shares_memory(flat, x)
    s = summarize(x, backend=backend)
    assert s.magnitudes.mantissa == values.MANTISSA[dtype]
    values.assert_sums(s, values.finite(x))


def test_nothing_is_copied(backend):
    x = np.ones(16_000_000, np.float32)
    summarize(x[:100_000], backend=backend)
    tracemalloc.start()
    try:
        summarize([x, x], backend=backend)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 8


def test_one_array_a_list_a_tuple_and_a_mapping(backend):
    x, y = A, A[0].astype(np.float64)
    one = summarize([x, y], backend=backend)
    assert summarize((x, y), backend=backend) == one
    assert summarize({"w": x, "b": y}, backend=backend) == one
    assert one.count == x.size + y.size
    assert summarize([x], backend=backend) == summarize(x, backend=backend)


def test_indices_run_on_through_a_list(backend):
    bad = np.array([0, np.nan], np.float32)
    assert summarize([A, np.empty(0), bad], backend=backend).first_nonfinite == A.size + 1
    assert summarize([A, bad], start=1000, backend=backend).first_nonfinite == 1000 + A.size + 1
    assert views_of([A, bad], start=7).table["start"].tolist() == [7, 7 + A.size]


@pytest.mark.parametrize(
    "view",
    [
        A.T,
        A.transpose(0, 2, 3, 1),
        A.transpose(1, 3, 0, 2),
        np.asfortranarray(A),
        A[1:3],
        A.reshape(-1),
        A[None, :, None],
        A[:, :, :, :, None],
    ],
    ids=["T", "channels_last", "permuted", "fortran", "rows", "flat", "new axes", "last axis"],
)
def test_any_dense_axis_order_gives_the_same_answer(backend, view):
    got = summarize(view, backend=backend)
    values.assert_same(got, summarize(np.ascontiguousarray(view).ravel(), backend=backend), 1e-6, view)
    assert np.shares_memory(next(views_of(view).arrays())[0], view)


def _layout(x):
    return int(views_of(x).table["layout"][0])


def test_the_layout_is_shape_and_axis_order(backend):
    hand = Handmade(address(A), A.shape)
    made = [A, A.copy(), A.astype(np.float64), Delegate(A), hand, A.astype(ml_dtypes.bfloat16)]
    assert len({_layout(x) for x in made}) == 1
    others = [A.T, A.transpose(0, 2, 3, 1), np.asfortranarray(A), A.reshape(-1), A.reshape(6, 20, 3), A[None],
              A[:5], A[:1], np.zeros((3, 4, 5, 6), np.float32)]  # fmt: skip
    assert len({_layout(x) for x in [A, *others]}) == 1 + len(others)
    assert _layout(np.asfortranarray(A)) == _layout(A.T.copy().T)
    x = np.arange(3, dtype=np.float32)  # strides of axes of length 1 say nothing
    odd = np.lib.stride_tricks.as_strided(x, (1, 3), (400, 4))
    assert _layout(odd) == _layout(x[None]) == _layout(np.asfortranarray(x[None]))
    wide = np.zeros((4, 12))  # an empty array is in C order
    assert (
        _layout(wide[0:0, ::2]) == _layout(np.zeros((0, 6))) == _layout(np.asfortranarray(np.zeros((0, 6))))
    )
    assert _layout(np.float32(1)) == _layout(np.array(2.0)) != _layout(np.ones(1))


def test_a_view_lies_in_one_run(backend):
    table = views_of([A, A[0], np.empty((0, 3))]).table
    assert table["run"].tolist() == [A.size, A[0].size, 1]
    for name in ("stride", "key", "row", "reserved"):
        assert not table[name].any()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5)])
def test_size_0_arrays_are_empty_summaries(backend, shape):
    for dtype in values.DTYPES.values():
        s = summarize(np.empty(shape, dtype), backend=backend)
        assert (s.count, s.zeros, s.nonfinite, s.first_nonfinite) == (0, 0, 0, None)
    assert summarize([np.empty(shape), A], backend=backend).count == A.size


def test_size_0_slices_with_odd_strides_are_empty_too(backend):
    wide = np.zeros((4, 12))
    for x in (wide[0:0, ::2], wide[::2, 0:0], wide[0:0, ::-1], np.broadcast_to(wide, (0, 4, 12))):
        assert summarize(x, backend=backend).count == 0


def test_axes_of_length_1_may_have_any_stride(backend):
    x = np.arange(3, dtype=np.float32)
    for strides in ((3, 4), (0, 4), (-400, 4), (1 << 40, 4)):
        assert summarize(np.lib.stride_tricks.as_strided(x, (1, 3), strides), backend=backend).count == 3
    assert summarize(A[:, :1, :1, :1][:1], backend=backend).count == 1


def test_arrays_without_axes(backend):
    assert summarize(np.array(3.0), backend=backend).mean == 3
    assert summarize(np.float32(-2), backend=backend).mean == -2
    assert summarize([np.array(3.0), np.array(1.0)], backend=backend).mean == 2


def test_read_only_arrays(backend):
    x = A.copy()
    x.flags.writeable = False
    assert summarize(x, backend=backend) == summarize(A, backend=backend)


def test_memory_maps_and_matrices_are_arrays(backend, tmp_path):
    np.save(tmp_path / "a.npy", A)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert summarize(mapped, backend=backend) == summarize(A, backend=backend)


def test_an_object_with_an_array_interface(backend):
    class Interface:
        __array_interface__ = A.__array_interface__

    assert views_of(Interface()).table["data"].tolist() == [address(A)]
    assert summarize(Interface(), backend=backend) == summarize(A, backend=backend)


@pytest.mark.parametrize("old", [False, True])
def test_dlpack_by_delegation(backend, old):
    for x in (A, A.astype(np.float64), A.astype(np.float16), A.T, np.empty((0, 3))):
        views = views_of(Delegate(x, old=old))
        assert views.table["size"] == x.size
        assert x.size == 0 or views.table["data"] == address(x)
        assert summarize(Delegate(x, old=old), backend=backend) == summarize(x, backend=backend)


def test_dlpack_of_a_read_only_array(backend):
    x = A.copy()
    x.flags.writeable = False
    try:
        x.__dlpack__(max_version=(1, 0))
    except (TypeError, BufferError):
        pytest.skip("this NumPy exports no read-only arrays")
    assert summarize(Delegate(x), backend=backend) == summarize(A, backend=backend)


@pytest.mark.parametrize("version", [None, (1, 0), (1, 3)])
def test_dlpack_by_hand(backend, version):
    flat = np.arange(-12, 12, dtype=np.float32)
    expected = summarize(flat, backend=backend)
    make = lambda *a, **k: Handmade(flat.ctypes.data, *a, version=version, **k)
    for x in (make((24,)), make((4, 6)), make((4, 6), strides=(6, 1)), make((4, 6), strides=(1, 4)),
              make((1, 24), strides=(77, 1)), make((24,), flags=1)):  # fmt: skip
        assert summarize(x, backend=backend) == expected
        assert x.asked == 1
    later = make((23,), byte_offset=4)
    assert views_of(later).table["data"] == flat.ctypes.data + 4
    assert summarize(later, backend=backend) == summarize(flat[1:], backend=backend)
    assert summarize(Handmade(0, (0, 3), version=version), backend=backend).count == 0
    one = Handmade(flat.ctypes.data, (), version=version)
    assert summarize(one, backend=backend).mean == -12


@pytest.mark.parametrize("device", [1, 3, 11])
def test_dlpack_bfloat16_in_any_memory_that_the_host_reads(backend, device):
    x = A.astype(ml_dtypes.bfloat16)
    made = Handmade(address(x), x.shape, (BFLOAT, 16, 1), device=(device, 0))
    assert summarize(made, backend=backend) == summarize(x, backend=backend)
    assert summarize([made, A], backend=backend).count == 2 * A.size


def test_mixed_producers_in_one_list(backend):
    mixed = [A, Delegate(A), Handmade(address(A), A.shape), A.astype(ml_dtypes.bfloat16)]
    assert summarize(mixed, backend=backend).count == 4 * A.size


def test_views_outlive_the_list_of_the_caller(backend):
    items = [np.full(1000, float(i)) for i in range(10)]
    views = views_of(items)
    items.clear()
    assert [float(flat[0]) for flat, _ in views.arrays()] == list(range(10))


def _structured():
    return np.zeros(2, [("a", np.float32)])


def _unaligned():
    return np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float32)


def _odd_strides():
    return np.lib.stride_tricks.as_strided(np.zeros(9, np.float32), (3,), (6,))


HOLES = "expected dense memory (no holes, overlaps or reversed axes), got shape"
DTYPE = "expected a dtype of float64, float32, float16 or bfloat16, got "
FOREIGN = "expected an array on the CPU, got one on "
CUDA = FOREIGN + "cuda:0; this build has no backend for that device"
REFUSED = {
    "none": (None, TypeError, "expected an array, got None"),
    "string": ("abc", TypeError, "expected an array, got str"),
    "float": (1.0, TypeError, "expected an array, got float"),
    "generator": ((x for x in [A]), TypeError, "expected an array, got generator"),
    "set": ({1.0}, TypeError, "expected an array, got set"),
    "integer": (np.arange(3), TypeError, DTYPE + "int64"),
    "bool": (np.zeros(3, bool), TypeError, DTYPE + "bool"),
    "complex": (np.zeros(3, complex), TypeError, DTYPE + "complex128"),
    "object": (np.zeros(3, object), TypeError, DTYPE + "object"),
    "structured": (_structured(), TypeError, DTYPE),
    "datetime": (np.zeros(3, "M8[s]"), TypeError, DTYPE + "datetime64[s]"),
    "strings": (np.array(["a"]), TypeError, DTYPE),
    "fp8": (np.zeros(3, ml_dtypes.float8_e4m3fn), TypeError, DTYPE + "float8_e4m3fn"),
    "byte-swapped": (np.zeros(3, np.dtype(np.float32).newbyteorder()), TypeError, DTYPE),
    "empty integers": (np.zeros(0, int), TypeError, DTYPE + "int64"),
    "masked": (np.ma.masked_array([1.0, 2.0], [0, 1]), TypeError, "expected a plain array, got a Masked"),
    "holes": (A[:, ::2], ValueError, HOLES),
    "column": (A.reshape(-1, 3)[:, 0], ValueError, HOLES),
    "broadcast": (np.broadcast_to(np.float32(1), (3,)), ValueError, HOLES),
    "broadcast rows": (np.broadcast_to(A[0, 0, 0], (5, 3)), ValueError, HOLES),
    "overlap": (np.lib.stride_tricks.sliding_window_view(A.ravel(), 3), ValueError, HOLES),
    "reversed": (A[::-1], ValueError, HOLES),
    "unaligned": (_unaligned(), ValueError, "expected aligned memory"),
    "odd strides": (_odd_strides(), ValueError, "expected aligned memory"),
    "cuda": (Handmade(4096, (3,), device=(2, 0)), ValueError, CUDA),
    "managed cuda": (Handmade(4096, (3,), device=(13, 0)), ValueError, CUDA),
    "unknown device": (Handmade(4096, (3,), device=(99, 1)), ValueError, FOREIGN + "DLPack device type 99:1"),
    "dlpack int": (Handmade(4096, (3,), (0, 32, 1)), TypeError, DTYPE + "int32"),
    "dlpack bool": (Handmade(4096, (3,), (6, 8, 1)), TypeError, DTYPE + "bool8"),
    "dlpack complex": (Handmade(4096, (3,), (5, 64, 1)), TypeError, DTYPE + "complex64"),
    "dlpack fp8": (Handmade(4096, (3,), (10, 8, 1)), TypeError, DTYPE + "DLPack type 10"),
    "dlpack float128": (Handmade(4096, (3,), (FLOAT, 128, 1)), TypeError, DTYPE + "float128"),
    "dlpack lanes": (Handmade(4096, (3,), (FLOAT, 32, 4)), TypeError, DTYPE + "float32x4"),
    "dlpack holes": (Handmade(4096, (3,), strides=(2,)), ValueError, HOLES),
    "dlpack unaligned": (Handmade(4097, (3,)), ValueError, "expected aligned memory"),
    "dlpack null": (Handmade(0, (3,)), ValueError, "expected an array with data"),
    "dlpack version": (Handmade(4096, (3,), version=(2, 0)), ValueError, "expected DLPack version 1, got"),
}  # fmt: skip
if np.dtype(np.longdouble).itemsize > 8:
    REFUSED["long double"] = (np.zeros(3, np.longdouble), TypeError, DTYPE + "float128")


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_argument_and_change_nothing(backend, case):
    bad, error, message = REFUSED[case]
    s = summarize(np.array([1.0, np.nan]), backend=backend)
    before = repr(s.state_dict())
    forms = [(bad, "x"), ([A, bad], "x[1]"), ((bad, A), "x[0]"), ({"w": A, "bias": bad}, "x['bias']")]
    if case == "generator":
        forms = forms[:1]
    for x, name in forms:
        with pytest.raises(error) as caught:
            s.update(x)
        text = str(caught.value)
        mixed = "cuda" in case or "device" in case
        if mixed and x is not bad:
            assert ": expected every array on one device, got " in text
        else:
            assert text.startswith(f"{name}: {message}"), text
        assert repr(s.state_dict()) == before


@pytest.mark.parametrize(("empty", "kind"), [([], "list"), ((), "tuple"), ({}, "dict")])
def test_an_empty_collection_is_refused(backend, empty, kind):
    s = Summary(backend=backend)
    with pytest.raises(ValueError, match=f"^x: expected at least one array, got an empty {kind}$"):
        s.update(empty)
    assert s == Summary(backend=backend)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([1.0, 2.0], r"^x\[0\]: expected an array, got float$"),
        ([[1.0, 2.0]], r"^x\[0\]: expected an array, got list$"),
        ([A, None], r"^x\[1\]: expected an array, got None$"),
        ({3: None}, r"^x\[3\]: expected an array, got None$"),
    ],
)
def test_lists_of_something_else_are_refused(items, message):
    with pytest.raises(TypeError, match=message):
        summarize(items)


def test_mixed_devices_are_refused_and_one_foreign_device_is_named():
    cuda = lambda i: Handmade(4096, (3,), device=(2, i))
    with pytest.raises(ValueError, match=r"^x\[0\]: expected every array on one device, got cuda:0, cuda:1$"):
        summarize([cuda(0), cuda(1)])
    with pytest.raises(ValueError, match=r"^x\[0\]: expected every array on one device, got cpu, cuda:1$"):
        summarize([A, cuda(1)])
    with pytest.raises(
        ValueError, match=r"^x\[0\]: expected an array on the CPU, got one on cuda:1; .*\.cpu\(\)"
    ):
        summarize([cuda(1), cuda(1)])


def test_a_device_is_refused_without_asking_for_its_memory():
    x = Handmade(4096, (3,), device=(2, 0))
    with pytest.raises(ValueError, match="expected an array on the CPU"):
        summarize(x)
    assert x.asked == 0


def test_something_that_is_no_capsule_is_refused():
    class Broken(Delegate):
        def __dlpack__(self, **options):
            return 3

    with pytest.raises(TypeError, match=r"^x: expected an unused DLPack capsule, got int"):
        summarize(Broken(A))


def test_the_wrong_answer_is_never_a_prefix():
    """A refusal in the last place of a long list must not leave the rest counted."""
    s = Summary()
    with pytest.raises(TypeError):
        s.update([A] * 300 + [np.arange(3)])
    assert s == Summary()
