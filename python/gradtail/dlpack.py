"""DLPack capsules read by hand: dtypes that NumPy does not take (bfloat16) and old protocols.

The structures follow the DLPack specification, version 1.3
(https://dmlc.github.io/dlpack/latest/c_api.html). A capsule is only borrowed: it is never
renamed, so its own destructor frees it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

CPU = 1
HOST_DEVICES = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost: memory that the CPU may read
CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged
_DEVICE_NAMES = {1: "cpu", 2: "cuda", 3: "cpu", 8: "metal", 10: "rocm", 11: "cpu", 13: "cuda", 14: "oneapi"}
TORCH_DEVICES = {"cpu": 1, "cuda": 2, "mps": 8, "xpu": 14}
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True)
class Borrowed:
    """What a capsule says, and the capsule that keeps the memory alive."""

    data: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    owner: object


def borrow(x: Any, name: str, *, wait: bool = False) -> Borrowed:
    """Read the capsule of ``x.__dlpack__()``.

    Parameters
    ----------
    x : array
    name : str
        How an error names it.
    wait : bool
        Whether its values are made to be there for the legacy default stream of CUDA: of arrays on a device.
    """
    stream = {"stream": 1} if wait else {}
    try:
        capsule = x.__dlpack__(max_version=(1, 0), **stream)  # read-only arrays need version 1
    except TypeError:
        capsule = x.__dlpack__(**stream)
    if _is_valid(capsule, b"dltensor_versioned"):
        managed = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        if managed.major != 1:
            raise ValueError(
                f"{name}: expected DLPack version 1, got version {managed.major}.{managed.minor}"
            )
        tensor = managed.tensor
    elif not _is_valid(capsule, b"dltensor"):
        raise TypeError(f"{name}: expected an unused DLPack capsule, got {type(capsule).__name__}")
    else:
        tensor = _Tensor.from_address(_pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _row_major(shape)
    kind = tensor.dtype
    dtype = f"{_KINDS.get(kind.code, f'DLPack type {kind.code} of bits ')}{kind.bits}"
    if kind.lanes != 1:
        dtype += f"x{kind.lanes}"
    return Borrowed((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, (x, capsule))


def device_name(device: int, device_id: int) -> str:
    """Name a DLPack device the way torch does."""
    name = _DEVICE_NAMES.get(device, f"DLPack device type {device}")
    return name if name == "cpu" else f"{name}:{device_id}"


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)
