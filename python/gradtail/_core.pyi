"""The compiled extension: csrc/binding.cpp. Private; gradtail.native is its only importer."""

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

record_size: int
view_size: int
piece_size: int

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
def observe(
    views: npt.NDArray[np.void],
    records: npt.NDArray[np.void],
    counts: npt.NDArray[np.uint64],
    bits: int,
    view_records: npt.NDArray[np.void],
    sketch: npt.NDArray[np.float64] | None,
    row_sketches: npt.NDArray[np.float64] | None,
    tracks: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]] | None,
    pieces: npt.NDArray[np.void] | None,
) -> None: ...
def sketch(views: npt.NDArray[np.void], out: npt.NDArray[np.float64]) -> None: ...
def update_coordinates(views: npt.NDArray[np.void], pieces: npt.NDArray[np.void]) -> None: ...
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
