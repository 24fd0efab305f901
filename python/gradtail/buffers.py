"""Any array, list or mapping of arrays -> views of their memory. Nothing is copied.

The one place where the user's arrays are checked: what passes here, the backends trust.
Torch lists are read by the native extension through the DLPack C exchange API where the
installed torch has it; everything else goes array by array through the readers below.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradtail import dlpack
from gradtail import native as extension
from gradtail.native import core

VIEW = np.dtype(
    [
        ("data", np.uint64),  # address of the first element
        ("size", np.int64),  # elements
        ("start", np.int64),  # index of the first element within the whole
        ("run", np.int64),  # element i has index start + i // run * stride + i % run; at least 1
        ("stride", np.int64),
        ("key", np.uint64),  # of the hashes of the whole; gradtail.states.hashing.tensor_key
        ("layout", np.uint64),  # signature of the shape and of the order of axes in memory
        ("row", np.int64),  # row of the table that this view is added to
        ("dtype", np.int32),  # index into DTYPES
        ("device", np.int32),  # DLPack device type
        ("device_id", np.int32),
        ("reserved", np.int32),
    ]
)


@dataclass(frozen=True)
class DType:
    """A floating-point format that gradients come in."""

    name: str
    itemsize: int
    mantissa: int  # bits that a float32 pattern of this dtype can use
    storage: Any  # the NumPy dtype that holds it

    def widen(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored values as numbers; exact, float32 at least."""
        if self.name == "bfloat16":
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32) if self.itemsize < 4 else raw


DTYPES = (
    DType("float64", 8, 23, np.float64),
    DType("float32", 4, 23, np.float32),
    DType("float16", 2, 10, np.float16),
    DType("bfloat16", 2, 7, np.uint16),
)
_CODES = {dtype.name: code for code, dtype in enumerate(DTYPES)}
_DTYPES_TEXT = "float64, float32, float16 or bfloat16"

CPU = dlpack.CPU

_MOST_INDEX = 2**63 - 1  # itself the mark of "no index"


@dataclass(frozen=True)
class Views:
    """Where the values lie.

    Attributes
    ----------
    table : ndarray of VIEW, shape (n,)
    owners : sequence
        What keeps the memory alive while the views are in use.
    """

    table: npt.NDArray[np.void]
    owners: Sequence[object]

    def __len__(self) -> int:
        return len(self.table)

    def arrays(self) -> Iterator[tuple[npt.NDArray[Any], DType]]:
        """Yield each view as a flat NumPy array over the same memory, which the host must be able to read."""
        for row in self.table:
            assert row["device"] in dlpack.HOST_DEVICES, "views of device memory are read by the device"
            dtype = DTYPES[row["dtype"]]
            yield _flat(int(row["data"]), int(row["size"]), dtype), dtype


def views_of(x: object, argument: str = "x", *, start: int = 0) -> Views:
    """Describe one array, or a list, tuple or mapping of arrays.

    Parameters
    ----------
    x : array, sequence of arrays, or mapping of str to array
        torch, NumPy, CuPy, JAX or anything with DLPack; float64, float32, float16 or
        bfloat16; dense in memory in any axis order.
    argument : str
        The name that errors give it.
    start : int
        Element index of the first value. Indices run on through a list, and stay below 2**63.

    Returns
    -------
    Views

    Raises
    ------
    TypeError
        Not an array, None, a sparse layout, a tensor subclass without values of its own (DTensor),
        a masked array, or a dtype that is not one of the four.
    ValueError
        An empty list, memory with holes or overlaps, no data (meta), unaligned memory, more than
        one device, or a device that this build has no backend for; ``start`` beyond the range of indices.

    Notes
    -----
    CuPy arrays warn once a process where this build has no CUDA kernels. Time is linear in the number
    of arrays and does not depend on their sizes.
    """
    if isinstance(x, Mapping):
        items, names = list(x.values()), list(x)
        label: Callable[[int], str] = lambda i: f"{argument}[{names[i]!r}]"
    elif isinstance(x, (list, tuple)):
        items = list(x)  # a copy: the views stay good if the caller's list changes meanwhile
        label = lambda i: f"{argument}[{i}]"
    else:
        items = [x]
        label = lambda i: argument
    if isinstance(start, bool) or not isinstance(start, (int, np.integer)):
        raise TypeError(f"start: expected an int, got {type(start).__name__}")
    if start < 0:
        raise ValueError(f"start: expected an int of at least 0, got {start}")
    if not items:
        raise ValueError(f"{argument}: expected at least one array, got an empty {type(x).__name__}")
    table = np.zeros(len(items), VIEW)
    owners: Sequence[object] = items
    if not _read_torch_list(items, table):
        owners = [_read(item, table[i : i + 1], label(i)) for i, item in enumerate(items)]
        _check_devices(table, owners, label)
    ends = np.cumsum(table["size"])
    most = _MOST_INDEX - int(ends[-1])
    if int(start) > most:
        raise ValueError(f"start: expected an int of at most {most} before {ends[-1]} elements, got {start}")
    table["start"] = int(start) + ends - table["size"]
    return Views(table, owners)


def _read_torch_list(items: list[Any], table: npt.NDArray[np.void]) -> bool:
    """Fill ``table`` in one native call; False if any item needs the slow, explaining road."""
    torch = sys.modules.get("torch")
    if torch is None or core is None:
        return False
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if exchange is None:
        return False
    plain = (torch.Tensor, torch.nn.Parameter)
    # all on one device; who reads a device that nobody can is told on the slow road
    return bool(core.describe(items, plain, exchange, table)) and native_reads(int(table["device"][0]))


def _read(x: Any, view: npt.NDArray[np.void], name: str) -> object:
    """Fill one row of the view table and return what owns the memory."""
    if x is None:
        raise TypeError(f"{name}: expected an array, got None")
    if isinstance(x, np.ndarray):
        return _read_numpy(x, view, name)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _read_torch(x, view, name)
    if is_cupy(x):
        return _read_cupy(x, view, name)
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return _read_dlpack(x, view, name)
    if hasattr(x, "__array_interface__"):
        return _read_numpy(np.asarray(x), view, name)
    raise TypeError(f"{name}: expected an array, got {type(x).__name__}")


def _read_numpy(x: npt.NDArray[Any], view: npt.NDArray[np.void], name: str) -> object:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a MaskedArray; pass x.compressed()")
    code = _CODES.get(x.dtype.name, -1)
    if code < 0 or not x.dtype.isnative:
        raise _dtype_error(name, x.dtype if x.dtype.isnative else x.dtype.str)
    if x.size and any(s % x.itemsize for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        raise ValueError(f"{name}: expected aligned memory, got strides {x.strides} in bytes")
    layout = _check_dense(x.shape, tuple(step // x.itemsize for step in x.strides), name)
    _fill(view, x.ctypes.data, x.size, code, layout, name)
    return x


def _read_torch(x: Any, view: npt.NDArray[np.void], name: str) -> object:
    torch = sys.modules["torch"]
    kind = type(x)
    if hasattr(x, "to_local") and hasattr(x, "placements"):
        raise TypeError(
            f"{name}: expected a plain tensor, got a {kind.__name__}; pass x.to_local() to summarise "
            "the shard that lies here"
        )
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TypeError(
            f"{name}: expected a plain tensor, got a {kind.__name__}, which may hold no values itself"
        )
    if x.layout is not torch.strided or x.is_nested:
        layout = "nested" if x.is_nested else x.layout
        raise TypeError(f"{name}: expected a dense array, got layout {layout}")
    if x.is_meta:
        raise ValueError(f"{name}: expected an array with data, got a meta tensor")
    dtype = str(x.dtype).removeprefix("torch.")
    if dtype not in _CODES:
        raise _dtype_error(name, dtype)
    if x.is_neg():
        raise ValueError(f"{name}: expected plain memory, got a lazily negated view; pass x.resolve_neg()")
    device = dlpack.TORCH_DEVICES.get(x.device.type)
    if device is None:
        raise _device_error(name, x.device)
    layout = _check_dense(tuple(x.shape), x.stride(), name)
    try:
        address = x.data_ptr()
    except RuntimeError as error:  # inside torch.func and torch.compile
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name}: expected a tensor with memory of its own, got none: {reason}") from error
    _fill(view, address, x.numel(), _CODES[dtype], layout, name, device, x.device.index or 0)
    return x


def _read_cupy(x: Any, view: npt.NDArray[np.void], name: str) -> object:
    """Describe a CuPy array. No capsule is asked for: one would only say the same, and make streams wait."""
    code = _CODES.get(x.dtype.name, -1)
    if code < 0:
        raise _dtype_error(name, x.dtype)
    layout = _check_dense(x.shape, tuple(step // x.itemsize for step in x.strides), name)
    device, device_id = (int(part) for part in x.__dlpack_device__())
    _fill(view, int(x.data.ptr), int(x.size), code, layout, name, device, device_id)
    return x


def _read_dlpack(x: Any, view: npt.NDArray[np.void], name: str) -> object:
    device, device_id = (int(part) for part in x.__dlpack_device__())
    if not native_reads(device) and device not in dlpack.HOST_DEVICES:  # no need of the memory to refuse it
        view["device"], view["device_id"] = device, device_id
        return x
    tensor = dlpack.borrow(x, name, wait=device in dlpack.CUDA_DEVICES)
    if tensor.dtype not in _CODES:
        raise _dtype_error(name, tensor.dtype)
    layout = _check_dense(tensor.shape, tensor.strides, name)
    size = int(np.prod(tensor.shape, dtype=np.int64))
    on = (device, device_id) if device not in dlpack.HOST_DEVICES else (CPU, 0)
    _fill(view, tensor.data, size, _CODES[tensor.dtype], layout, name, *on)
    return tensor.owner


def _fill(
    view: npt.NDArray[np.void],
    data: int,
    size: int,
    code: int,
    layout: int,
    name: str,
    device: int = CPU,
    device_id: int = 0,
) -> None:
    if size and not data:
        raise ValueError(f"{name}: expected an array with data, got {size} elements without memory")
    if size and data % DTYPES[code].itemsize:
        raise ValueError(f"{name}: expected aligned memory, got a {DTYPES[code].name} at address {data:#x}")
    view[0] = (data, size, 0, max(size, 1), 0, 0, layout, 0, code, device, device_id, 0)


def _check_dense(shape: Sequence[int], strides: Sequence[int], name: str) -> int:
    """Accept any axis order that fills a block of memory without holes or overlaps; return its signature."""
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    if 0 in shape:
        return layout_signature(tuple(shape), tuple(axis for axis in axes if shape[axis]))
    axes.sort(key=lambda axis: strides[axis])
    expected = 1
    for step, length in ((strides[axis], shape[axis]) for axis in axes):
        if step != expected:
            raise ValueError(
                f"{name}: expected dense memory (no holes, overlaps or reversed axes), "
                f"got shape {tuple(shape)} with strides {tuple(strides)}"
            )
        expected *= length
    return layout_signature(tuple(shape), tuple(reversed(axes)))


@lru_cache(maxsize=4096)
def layout_signature(shape: tuple[int, ...], order: tuple[int, ...]) -> int:
    """Hash how an array lies in memory; ``csrc/torch_list.cpp`` has the same lines.

    Parameters
    ----------
    shape : tuple of int
    order : tuple of int
        The axes longer than 1, the slowest first; 0, 1, ... in C order.

    Returns
    -------
    int
        64 bits.
    """
    h = 0x243F6A8885A308D3
    for value in (len(shape), *shape, *order):
        h = (h ^ int(value)) * 0x9E3779B97F4A7C15 & (2**64 - 1)
        h ^= h >> 32
    return h


def is_cupy(x: object) -> bool:
    """Whether this is a CuPy array; CuPy is never imported for it."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, getattr(cupy, "ndarray", ()))


def native_reads(device: int) -> bool:
    """Whether the native extension of this build reads memory of this DLPack device type."""
    if device in dlpack.CUDA_DEVICES:
        return extension.engine is not None and (extension.engine is not core or extension.has_devices())
    return core is not None and device in dlpack.HOST_DEVICES


def device_route(device: int, owners: Sequence[object]) -> Literal["host", "native", "namespace"] | None:
    """Say who reads arrays that lie together on one device; None if nobody does. Decided here alone.

    "host" is any backend, "native" the extension on the device, "namespace" the slow path of CuPy
    arrays, :mod:`gradtail.backends.namespace`.
    """
    if device in dlpack.HOST_DEVICES:
        return "host"
    if native_reads(device):
        return "native"
    return "namespace" if all(is_cupy(owner) for owner in owners) else None


_warned = False


def _warn_of_the_slow_path(name: str) -> None:
    """Say it once a process, and before any state has changed."""
    global _warned
    if not _warned:
        _warned = True
        text = (
            f"{name}: CuPy arrays are read by NumPy's code on CuPy, the slow path: this build has no CUDA "
            "kernels (see gradtail.build_info()); for the fast path install gradtail built with CUDA"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _check_devices(
    table: npt.NDArray[np.void], owners: Sequence[object], label: Callable[[int], str]
) -> None:
    places: dict[tuple[int, int], int] = {}  # and where each was first met
    for i, row in enumerate(table):
        places.setdefault((int(row["device"]), int(row["device_id"])), i)
    hosts = [place for place in places if place[0] in dlpack.HOST_DEVICES]
    others = [place for place in places if place[0] not in dlpack.HOST_DEVICES]
    if len(others) + bool(hosts) > 1:
        found = ", ".join(sorted({dlpack.device_name(*place) for place in places}))
        raise ValueError(f"{label(0)}: expected every array on one device, got {found}")
    if others:
        route = device_route(others[0][0], owners)
        if route is None:
            raise _device_error(label(places[others[0]]), dlpack.device_name(*others[0]))
        if route == "namespace":
            _warn_of_the_slow_path(label(0))


def _flat(address: int, size: int, dtype: DType) -> npt.NDArray[Any]:
    if size == 0:
        return np.empty(0, dtype.storage)
    memory: Any = (ctypes.c_char * (size * dtype.itemsize)).from_address(address)
    flat: npt.NDArray[Any] = np.frombuffer(memory, dtype.storage)
    return flat


def _dtype_error(name: str, dtype: object) -> TypeError:
    return TypeError(f"{name}: expected a dtype of {_DTYPES_TEXT}, got {dtype}")


def _device_error(name: str, device: object) -> ValueError:
    expected = f"{name}: expected an array on the CPU, got one on {device}"
    said, remedy = "(gradtail.build_info() says what it has)", "move the array with .cpu()"
    if str(device).startswith("cuda"):
        if extension.engine is not None:
            from gradtail.build import build_info

            return ValueError(f"{expected}, which cannot be used: {build_info()['reason']}")
        remedy = f"build gradtail with CUDA, {remedy}, or pass cupy.from_dlpack(x), which is read slowly"
    return ValueError(f"{expected}; this build has no backend for that device {said}: {remedy}")
