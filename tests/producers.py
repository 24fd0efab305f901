"""Objects that speak DLPack and nothing else, made by hand or by delegation."""

from __future__ import annotations

import ctypes
from typing import Any

FLOAT, BFLOAT = 2, 4


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Handmade:
    """A producer of any description whatever, true or not, of the memory at ``data``."""

    def __init__(
        self,
        data: int,
        shape: tuple[int, ...],
        kind: tuple[int, int, int] = (FLOAT, 32, 1),
        *,
        strides: tuple[int, ...] | None = None,
        version: tuple[int, int] | None = (1, 0),
        device: tuple[int, int] = (1, 0),
        byte_offset: int = 0,
        flags: int = 0,
    ) -> None:
        self.asked = 0
        self.device, self.version = device, version
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._strides = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        address = None if self._strides is None else ctypes.addressof(self._strides)
        tensor = _Tensor(
            data, *device, len(shape), *kind, ctypes.addressof(self._shape), address, byte_offset
        )
        self._managed: Any
        if version is None:
            self._managed, self._name = _Managed(tensor, None, None), b"dltensor"
        else:
            self._managed = _Versioned(*version, None, None, flags, tensor)
            self._name = b"dltensor_versioned"

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        if self.version is None and "max_version" in options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.asked += 1
        return _new(ctypes.addressof(self._managed), self._name, None)


class Delegate:
    """Another array's DLPack methods, with nothing else of it; ``old`` knows no versions."""

    def __init__(self, array: Any, *, old: bool = False) -> None:
        self._array, self._old = array, old

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        if self._old and options:
            raise TypeError(f"__dlpack__() got an unexpected keyword argument {min(options)!r}")
        return self._array.__dlpack__(**options)
