"""A stand-in for CuPy: NumPy behind a fence, so that code for CuPy can be tested without a GPU.

It is stricter than CuPy where CuPy would wait for the device in silence, and as strange where CuPy is:

* no implicit way to the host: neither ``numpy.asarray`` nor NumPy functions, ``bool()``, ``float()``,
  ``int()``, indices or iteration; only ``.get()`` and ``asnumpy``, which are counted in bytes;
* no operators with NumPy arrays, and no NumPy arrays as arguments, ``asarray`` excepted;
* ``.data.ptr`` is no address that a host could read;
* arithmetic, comparisons and conversions of float32 flush subnormals to zero (``-ftz=true``);
* an array may be worked on while its device is the current one, and not otherwise;
* ``bincount`` takes no weights (on a GPU it adds them in no fixed order) and no empty array.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

DEVICE_BIT = 1 << 62  # no address of any host has it


class Device:
    def __init__(self, module: Any, id_: int) -> None:
        self._module, self.id = module, id_

    def __enter__(self) -> Device:
        self._module.entered.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self._module.entered.pop()


class _Memory:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


def _flushed(x: Any) -> Any:
    """Subnormals of float32 as zeros of their sign."""
    if getattr(x, "dtype", None) != np.float32:
        return x
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


class Array:
    """What :func:`make` derives ``cupy.ndarray`` from."""

    cupy: Any
    __array_ufunc__ = None  # numpy_array + this one ends in __radd__

    def __init__(self, values: np.ndarray, device: int | None = None) -> None:
        self._values = values
        self._device = self.cupy.entered[-1] if device is None else device

    @property
    def device(self) -> Device:
        return Device(self.cupy, self._device)

    dtype = property(lambda self: self._values.dtype)
    shape = property(lambda self: self._values.shape)
    strides = property(lambda self: self._values.strides)
    size = property(lambda self: self._values.size)
    ndim = property(lambda self: self._values.ndim)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    data = property(lambda self: _Memory(self._values.ctypes.data | DEVICE_BIT if self._values.size else 0))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("a capsule was asked for: it would say nothing new")

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    __array__ = __array_function__ = __bool__ = __float__ = __int__ = __index__ = __iter__ = _refuse
    __setitem__ = _refuse  # nothing of the caller's may be written to

    def __len__(self) -> int:
        return len(self._values)

    def get(self) -> np.ndarray:
        self._check()
        self.cupy.transferred += self.nbytes
        return self._values.copy()

    def item(self) -> Any:
        return self.get().item()

    def _check(self) -> None:
        current = self.cupy.entered[-1]
        assert self._device == current, f"an array of device {self._device} while {current} is current"

    def _new(self, values: Any) -> Any:
        return type(self)(np.asarray(values), self._device)

    def view(self, dtype: Any) -> Any:
        return self._new(self._values.view(dtype))

    def reshape(self, *shape: Any) -> Any:
        return self._new(self._values.reshape(*shape))

    def transpose(self, axes: Any) -> Any:
        return self._new(self._values.transpose(axes))

    def ravel(self) -> Any:
        return self._new(self._values.ravel())

    def astype(self, dtype: Any) -> Any:
        self._check()
        with np.errstate(all="ignore"):
            return self._new(_flushed(_flushed(self._values).astype(dtype)))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._new(self._values[key])
        self._check()
        index = _unwrap(key)
        assert index.dtype.kind == "i", "masks make the host wait"
        assert not index.size or (index.min() >= 0 and index.max() < self.size), "CuPy would wrap around"
        return self._new(self._values[index])


def _unwrap(x: Any) -> Any:
    if isinstance(x, Array):
        x._check()
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return x


def _wrapped(function: Any) -> Any:
    """Let a NumPy function work on stand-ins, and on scalars beside them, as a kernel would."""

    def call(self: Any, *args: Any, **options: Any) -> Any:
        array = next(x for x in (self, *args) if isinstance(x, Array))
        values = [_flushed(_unwrap(x)) for x in (self, *args)]
        with np.errstate(all="ignore"):
            return array._new(_flushed(function(*values, **options)))

    return call


_OPERATORS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "neg": np.negative, "invert": np.invert, "abs": np.abs,
}  # fmt: skip
for _name, _function in _OPERATORS.items():
    setattr(Array, f"__{_name}__", _wrapped(_function))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
    _reverse = lambda function: lambda self, other: _wrapped(lambda a, b: function(b, a))(self, other)
    setattr(Array, f"__r{_name}__", _reverse(_OPERATORS[_name]))


def make() -> Any:
    """Make the module."""
    cupy: Any = ModuleType("cupy")
    cupy.entered = [0]  # devices, the current one last
    cupy.transferred = 0  # bytes that came to the host

    class ndarray(Array):
        __module__ = "cupy"

    ndarray.cupy = cupy
    cupy.ndarray = ndarray

    def bincount(x: Any, weights: None = None, minlength: int | None = None) -> Any:
        assert weights is None
        values = _unwrap(x)
        if not values.size:
            raise ValueError("zero-size array to reduction operation maximum which has no identity")
        return x._new(np.bincount(values, minlength=minlength))

    def stack(arrays: Any) -> Any:
        return ndarray(np.stack([_unwrap(array) for array in arrays]))

    def where(condition: Any, x: Any, y: Any) -> Any:  # selects, and flushes nothing
        return condition._new(np.where(*(_unwrap(part) for part in (condition, x, y))))

    def asarray(x: Any) -> Any:
        return x if isinstance(x, ndarray) else ndarray(np.array(x, order="K"))

    cupy.bincount, cupy.stack, cupy.where, cupy.asarray = bincount, stack, where, asarray
    cupy.asnumpy = lambda x: x.get()
    cupy.arange = lambda *args, dtype: ndarray(np.arange(*args, dtype=dtype))
    cupy.zeros = lambda shape, dtype: ndarray(np.zeros(shape, dtype))
    for name in ("sum", "min", "max", "minimum", "rint", "ldexp"):
        setattr(cupy, name, _wrapped(getattr(np, name)))
    for name in ("float64", "float32", "float16", "int64", "uint64", "uint32", "uint16"):
        setattr(cupy, name, getattr(np, name))
    return cupy


def install(monkeypatch: Any) -> Any:
    """Put a new stand-in where ``import cupy`` would put CuPy, in a build without CUDA kernels."""
    from gradtail import buffers

    cupy = make()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(buffers, "native_reads", lambda device: False)
    monkeypatch.setattr(buffers.extension, "engine", None)
    monkeypatch.setattr(buffers, "_warned", True)
    return cupy
