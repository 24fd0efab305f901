"""The compiled extension: csrc/binding.cpp. Private; gradtail.native is its only importer."""

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

record_size: int
view_size: int
piece_size: int
log_sums_size: int

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
    views: npt.NDArray[np.void],
    records: npt.NDArray[np.void],
    counts: npt.NDArray[np.uint64],
    bits: int,
    logs: npt.NDArray[np.void] | None = None,
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
    logs: npt.NDArray[np.void] | None = None,
) -> None: ...
def sketch(views: npt.NDArray[np.void], out: npt.NDArray[np.float64]) -> None: ...
def update_coordinates(views: npt.NDArray[np.void], pieces: npt.NDArray[np.void]) -> None: ...
def fold(
    into_records: npt.NDArray[np.void],
    into_counts: npt.NDArray[np.uint64],
    records: npt.NDArray[np.void],
    counts: npt.NDArray[np.uint64],
    bits: int,
    into_logs: npt.NDArray[np.void] | None = None,
    logs: npt.NDArray[np.void] | None = None,
) -> None: ...
def clear(
    records: npt.NDArray[np.void],
    counts: npt.NDArray[np.uint64],
    bits: int,
    logs: npt.NDArray[np.void] | None = None,
) -> None: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def simd_levels() -> list[str]: ...
def simd() -> str: ...
def set_simd(level: str) -> None: ...
def probe() -> _Probe: ...

class CudaError(RuntimeError): ...

track_size: int
device_piece_size: int
control_size: int

def launch_shape(
    multiprocessors: int,
    shared_per_block: int,
    shared_per_multiprocessor: int,
    threads: int,
    bits: int,
    wide: bool,
) -> dict[str, Any]: ...

class Memory:
    def __init__(self, device: int, bytes: int) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def write(self, from_: npt.NDArray[Any]) -> None: ...
    def read(self, to: npt.NDArray[Any]) -> None: ...

class _Result(TypedDict):
    sequence: int
    step: int
    steps: int
    norm: float
    finite_norm: float
    nonfinite: int
    first_view: int
    first_nonfinite: int

class Engine:
    def __init__(
        self,
        device: int,
        rows: int,
        bits: int,
        buckets: int = 0,
        window: int = 0,
        row_window: int = 0,
        log_slots: int = 1,
        tracks: int = 0,
        track_window: int = 0,
        wide_counts: bool = False,
        lanes: int = 512,
        blocks: int = 0,
        stable: bool = False,
    ) -> None: ...
    def prepare(
        self,
        views: npt.NDArray[np.void],
        tracks: npt.NDArray[np.void],
        pieces: npt.NDArray[np.void] | None,
    ) -> int: ...
    def forget(self, plan: int) -> None: ...
    def update(
        self,
        plan: int,
        views: npt.NDArray[np.void],
        step: int,
        begin: bool,
        fresh: bool,
        cadence: bool,
        stream: int,
    ) -> None: ...
    def latest(self) -> _Result: ...
    def result(self, sequence: int) -> _Result: ...
    @staticmethod
    def is_capturing(stream: int) -> bool: ...
    def is_done(self) -> bool: ...
    def wait(self, stream: int) -> None: ...
    def read(self, name: str) -> npt.NDArray[np.uint8]: ...
    def peek(self, name: str) -> npt.NDArray[np.uint8]: ...
    def go_on(self, step: int = -2, calls: int = -1, every: int = -1) -> None: ...
    def stage_open(self, stream: int) -> None: ...
    def staged(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]: ...
    def empty_now(self) -> None: ...
    def empty(self, stream: int) -> None: ...
    def set_every(self, every: int, stream: int) -> None: ...
    def elapsed_seconds(self) -> float: ...
    @property
    def norm_address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def launches(self) -> int: ...
    @property
    def captured(self) -> bool: ...
