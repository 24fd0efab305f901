"""Launches of the toy kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


def words(n: int) -> Any:
    return np.random.default_rng(n).integers(0, 1000, n, dtype=np.uint32)


def launch(
    device: Any, name: str, grid: int, block: int, given: Any = None, out: Any = None, /, **how: Any
) -> None:
    device.toy(
        name,
        grid,
        block,
        0 if given is None else given.ctypes.data,
        0 if out is None else out.ctypes.data,
        **how,
    )


def run(device: Any, name: str, grid: int, block: int, given: Any, size: int, **how: Any) -> Any:
    out = np.zeros(size, np.uint32)
    launch(device, name, grid, block, given, out, **how)
    device.synchronize(0)
    return out


def memory(address: int, nbytes: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
