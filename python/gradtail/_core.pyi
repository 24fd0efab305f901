"""The compiled extension: csrc/binding.cpp. Private; gradtail.native is its only importer."""

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

record_size: int
view_size: int

class _Device(TypedDict):
    name: str
    compute_capability: tuple[int, int]
    memory: int

class _Probe(TypedDict):
    built: bool
    architectures: str
    runtime: int
    driver: int
    status: int
    message: str
    devices: list[_Device]

def describe(
    items: list[Any], types: tuple[type, ...], exchange: object, views: npt.NDArray[np.void]
) -> bool: ...
def summarize(
    views: npt.NDArray[np.void], records: npt.NDArray[np.void], counts: npt.NDArray[np.uint64], bits: int
) -> None: ...
def fold(
    into_records: npt.NDArray[np.void],
    into_counts: npt.NDArray[np.uint64],
    records: npt.NDArray[np.void],
    counts: npt.NDArray[np.uint64],
    bits: int,
) -> None: ...
def clear(records: npt.NDArray[np.void], counts: npt.NDArray[np.uint64], bits: int) -> None: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def simd_levels() -> list[str]: ...
def simd() -> str: ...
def set_simd(level: str) -> None: ...
def probe() -> _Probe: ...
