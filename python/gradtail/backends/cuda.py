"""The engine of the native extension: states in the memory of a CUDA device, updates that are only enqueued.

A stream has an engine on the device where its arrays lie (:mod:`gradtail.stream.on_device`). Here is what
they share, and a summary by itself: it makes an engine, lets it work once, and waits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gradtail import buffers, dlpack
from gradtail import native as extension
from gradtail.backends.device import CONTROL, TRACK
from gradtail.buffers import Views
from gradtail.states.table import RECORD, SummaryTable, bins_for, merge_records

name = "cuda"
T = TypeVar("T")

MOST_NARROW = 2**32 - 1
"""Values of one row and step that counters of 32 bits hold."""


def takes(views: Views) -> bool:
    """Whether these arrays lie on a CUDA device that the extension reads."""
    device = int(views.table["device"][0]) if len(views) else dlpack.CPU
    return is_cuda(device) and buffers.native_reads(device)


def is_cuda(device: int) -> bool:
    """Whether a DLPack device type is CUDA's."""
    return device in dlpack.CUDA_DEVICES


def current_stream(views: Views) -> int:
    """Return the raw stream on which the caller's framework enqueues its work now."""
    return stream_now(int(views.table["device_id"][0]), framework_of(views))


def framework_of(views: Views) -> str:
    """Return the name of the framework whose arrays these are; "" if none whose streams are known here."""
    torch, owner = sys.modules.get("torch"), views.owners[0]
    if torch is not None and isinstance(owner, torch.Tensor):
        return "torch"
    return "cupy" if buffers.is_cupy(owner) else ""


def stream_now(device: int, framework: str) -> int:
    """Return the raw stream on which a framework enqueues its work now."""
    if framework == "torch":
        return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream)
    if framework == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(device):
            return int(cupy.cuda.get_current_stream().ptr)
    return 0  # the legacy default stream, which waits for all others


def is_capturing(stream: int) -> bool:
    """Whether a CUDA graph is being captured on a stream."""
    return extension.engine is not None and bool(extension.engine.Engine.is_capturing(stream))


def with_room(make: Callable[[], T]) -> T:
    """Make something that takes memory on the device; where there is none, of what torch keeps for itself."""
    try:
        return make()
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if "out of memory" not in str(error) or torch is None or not torch.cuda.is_initialized():
            raise
        torch.cuda.empty_cache()
        return make()


def wide(views: Views, rows: int) -> bool:
    """Whether a row has more values than counters of 32 bits can hold."""
    sizes = np.bincount(views.table["row"], views.table["size"].astype(np.float64), max(rows, 1))
    return bool(sizes.max(initial=0) > MOST_NARROW)


def newest_table(
    engine: Any, control: npt.NDArray[np.void], rows: int, bits: int, wide: bool
) -> SummaryTable:
    """Read the summaries of an engine's newest step."""
    parity = int(control["parity"][0])
    counts = engine.read(f"newest_counts{parity}").view(np.uint64 if wide else np.uint32)
    return SummaryTable(
        engine.read(f"newest_records{parity}").view(RECORD),
        counts.astype(np.uint64).reshape(rows, bins_for(bits)),
        bits,
    )


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``; waits for the device."""
    assert extension.engine is not None
    rows, wide_counts = len(table.records), wide(views, len(table.records))
    engine = extension.engine.Engine(
        device=int(views.table["device_id"][0]), rows=rows, bits=table.bits, wide_counts=wide_counts
    )
    ordered = _in_order(views)
    found = _once(engine, ordered, views)
    own = newest_table(engine, found, rows, table.bits, wide_counts)
    table.counts[...] += own.counts
    merge_records(table.records, own.records)


def _once(engine: Any, table: npt.NDArray[np.void], views: Views) -> npt.NDArray[np.void]:
    stream = current_stream(views)
    plan = engine.prepare(table, np.zeros(0, TRACK), None)
    engine.update(plan, table, 0, True, False, False, stream)
    engine.wait(stream)
    control: npt.NDArray[np.void] = engine.read("control").view(CONTROL)
    return control


def _in_order(views: Views) -> npt.NDArray[np.void]:
    """Return the table by rising rows, as the engine wants it."""
    ordered: npt.NDArray[np.void] = views.table[np.argsort(views.table["row"], kind="stable")]
    return ordered
