"""The CUDA device of this machine and what tests need of it, or the reason why they are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from device import ARRAYS, Found, SimulatedEngine, compare, expected_of, views

from gradtail import native as extension
from gradtail.buffers import Views
from gradtail.build import build_info
from gradtail.dlpack import CUDA_DEVICES

REASON = build_info()["reason"]
"""Why this build has no CUDA device; None if it has one."""

needed = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
"""For ``pytestmark``, or for the one parameter of a test that needs a device."""

CUDA = min(CUDA_DEVICES)
LANES = 512  # threads of a team: machine code has no other
DEVICE = "cuda"


class Native:
    """The engine of the extension, with what the simulated device has besides."""

    def __init__(self) -> None:
        assert extension.engine is not None
        self.Engine, self.Memory = extension.engine.Engine, extension.engine.Memory

    def create_stream(self, device: int) -> int:
        """Return the default stream."""
        return 0

    def check_redzones(self) -> None:
        """Nothing to do: compute-sanitizer sees to it."""

    def reset(self) -> None:
        """Nothing to do."""


class GpuEngine(SimulatedEngine):
    """An engine whose arrays lie in memory of the device, copied there from NumPy arrays.

    Parameters
    ----------
    module : Native, or the simulated device
    offset : int
        Elements that lie before each array: with an odd one no array is aligned.
    """

    def __init__(self, module: Any, *, offset: int = 0, blocks: int = 0, **settings: Any) -> None:
        super().__init__(module, lanes=LANES, blocks=blocks, **settings)
        self._offset = offset

    def wait(self) -> None:
        """Let everything end."""
        self.engine.wait(self.stream)

    def placed(self, described: Views) -> Views:
        """Copy arrays to the device and say where they lie there."""
        table, kept = described.table.copy(), []
        for i, (raw, _) in enumerate(described.arrays()):
            before = self._offset * raw.itemsize
            filled = np.zeros(before + raw.nbytes, np.uint8)
            filled[before:] = raw.view(np.uint8)
            memory = self.module.Memory(0, max(filled.nbytes, 16))
            if filled.nbytes:
                memory.write(filled)
            table["data"][i] = memory.address + before
            kept.append(memory)
        table["device"], table["device_id"] = CUDA, 0
        return Views(table, kept)

    def check(self, arrays: Sequence[np.ndarray], rows: Sequence[int] | None = None) -> Found:
        """Make an update that is a step of its own, and compare it with the specification."""
        described = views(arrays, self.rows_of(arrays) if rows is None else rows)
        return self.check_described(described)

    def check_described(self, described: Views) -> Found:
        """Likewise of views of NumPy arrays."""
        found = self.observe_views(self.placed(described))
        compare(self, found, expected_of(described, self), described)
        self.module.check_redzones()
        return found

    def left(self, arrays: Sequence[np.ndarray], steps: int = 2) -> dict[str, bytes]:
        """Observe arrays in some steps; return all that they leave on the device."""
        there = self.placed(views(arrays, self.rows_of(arrays)))
        plan = self.prepare(there)
        for _ in range(steps):
            self.update(plan, there)
        self.wait()
        return self.bytes()


def same_bytes(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    """Two engines have left the same, bit for bit."""
    assert [name for name in ARRAYS if a[name] != b[name]] == []


def as_tensor(x: np.ndarray) -> Any:
    """Copy a NumPy array, of bfloat16 too, to a tensor on the device."""
    import torch

    x = np.ascontiguousarray(x)
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16).copy()).to(DEVICE).view(torch.bfloat16)
    return torch.from_numpy(x.copy()).to(DEVICE)


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Copy arrays by name to the device."""
    return {name: as_tensor(x) for name, x in arrays.items()}


@contextmanager
def busy(seconds: float = 1.0) -> Iterator[Any]:
    """Keep the current stream of torch busy; the event given is done when that has ended."""
    import torch

    torch.cuda.synchronize()
    torch.cuda._sleep(int(seconds * 2e9))  # cycles: no clock of a GPU today is faster
    event = torch.cuda.Event()
    event.record()
    yield event
    torch.cuda.synchronize()


@contextmanager
def no_waiting_in_torch() -> Iterator[None]:
    """Have torch raise where one of its operations makes the host wait for the device."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def free_memory() -> int:
    """Bytes that the driver would give out now, torch's unused ones among them."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


@contextmanager
def exhausted_memory() -> Iterator[None]:
    """Take nearly all memory of the device, and give it back."""
    import torch

    held, size = [], free_memory()
    while size >= 1 << 21:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
        except torch.OutOfMemoryError:  # noqa: PERF203
            size //= 2
    try:
        yield
    finally:
        held.clear()
        torch.cuda.empty_cache()
