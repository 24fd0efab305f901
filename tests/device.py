"""The engine on the simulated device, fed with NumPy arrays, and what the specification makes of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import values

from gradtail.backends import numpy as specification
from gradtail.backends.device import CONTROL, DEVICE_PIECE, TRACK
from gradtail.buffers import Views, views_of
from gradtail.states.hashing import tensor_key
from gradtail.states.outputs import Outputs
from gradtail.states.projection import sketch_map
from gradtail.states.table import RECORD, SummaryTable, bins_for

SMALLEST = 2.0**-133  # sketches are added up in float32 after division by 2^16: what is smaller is lost

ARRAYS = (
    "newest_counts0", "newest_counts1", "newest_records0", "newest_records1", "present0", "present1",
    "open_counts", "open_records", "row_norms", "sketch", "row_sketches", "ring", "ring_exponents",
    "row_ring", "row_ring_exponents", "track_values", "track_observed", "control",
)  # fmt: skip


@dataclass
class Found:
    """What an update has found."""

    records: np.ndarray
    counts: np.ndarray
    sketch: np.ndarray
    row_sketches: np.ndarray
    sizes: np.ndarray
    row_sizes: np.ndarray


def views(arrays: Sequence[np.ndarray], rows: Sequence[int]) -> Views:
    """Describe arrays, which belong to rows."""
    found = views_of(list(arrays))
    found.table["row"] = rows
    found.table["start"] = 0
    found.table["key"] = [tensor_key(0, str(i)) for i in range(len(arrays))]
    return found


def no_tracks() -> np.ndarray:
    """Follow no coordinate."""
    return np.zeros(0, TRACK)


class SimulatedEngine:
    """An engine of the simulated device."""

    def __init__(
        self,
        module: Any,
        *,
        rows: int = 1,
        buckets: int = 0,
        bits: int = 4,
        lanes: int = 128,
        blocks: int = 4,
        device: int = 0,
        **settings: Any,
    ) -> None:
        self.module, self.rows, self.buckets, self.bits, self.lanes = module, rows, buckets, bits, lanes
        self.engine = module.Engine(
            device=device, rows=rows, bits=bits, buckets=buckets, lanes=lanes, blocks=blocks, **settings
        )
        self.settings = settings
        self.stream = module.create_stream(device)
        self.step = -1

    def rows_of(self, arrays: Sequence[np.ndarray]) -> list[int]:
        """Rows of arrays: in order, as evenly as may be."""
        return [i * self.rows // len(arrays) for i in range(len(arrays))]

    def views(self, arrays: Sequence[np.ndarray]) -> Views:
        """Describe arrays, whose rows are as above."""
        return views(arrays, self.rows_of(arrays))

    def prepare(self, described: Views, tracks: np.ndarray | None = None, pieces: Any = None) -> int:
        """Return the number of a plan."""
        return int(self.engine.prepare(described.table, no_tracks() if tracks is None else tracks, pieces))

    def update(
        self,
        plan: int,
        described: Views,
        *,
        begin: bool = True,
        fresh: bool = False,
        cadence: bool = False,
        step: int | None = None,
        stream: int | None = None,
    ) -> None:
        """Enqueue an update; one that begins a step is of the next."""
        self.step = self.step + begin if step is None else step
        given = self.step if step is None else step
        self.engine.update(
            plan, described.table, given, begin, fresh, cadence, self.stream if stream is None else stream
        )

    def wait(self) -> None:
        """Let everything end."""
        self.module.synchronize(self.stream)

    def observe(self, arrays: Sequence[np.ndarray]) -> Found:
        """Make an update that is a step of its own, and read it."""
        return self.observe_views(self.views(arrays))

    def observe_views(self, described: Views, tracks: np.ndarray | None = None, pieces: Any = None) -> Found:
        """Likewise of views."""
        plan = self.prepare(described, tracks, pieces)
        self.update(plan, described)
        self.wait()
        found = self.read()
        self.engine.forget(plan)
        return found

    def get(self, name: str, dtype: Any) -> np.ndarray:
        """Read an array of the state."""
        return self.engine.read(name).view(dtype)

    def control(self) -> Any:
        """Read what changes from update to update."""
        return self.get("control", CONTROL)[0]

    def counts_of(self, name: str) -> np.ndarray:
        """Read a table of counts."""
        wide = name == "open_counts" or self.settings.get("wide_counts", False)
        return self.get(name, np.uint64 if wide else np.uint32).reshape(self.rows, bins_for(self.bits))

    def read(self) -> Found:
        """Read what the newest step has left."""
        parity = int(self.control()["parity"])
        return Found(
            self.get(f"newest_records{parity}", RECORD),
            self.counts_of(f"newest_counts{parity}"),
            self.get("sketch", np.float64),
            self.get("row_sketches", np.float64).reshape(self.rows, -1),
            np.zeros(0),
            np.zeros(0),
        )

    def bytes(self) -> dict[str, bytes]:
        """Read everything there is, to be compared bit for bit."""
        return {name: self.engine.read(name).tobytes() for name in ARRAYS}


def expected(arrays: Sequence[np.ndarray], engine: SimulatedEngine) -> Found:
    """What the specification finds in the same arrays."""
    return expected_of(engine.views(arrays), engine)


def expected_of(described: Views, engine: SimulatedEngine) -> Found:
    """Likewise of views. ``sizes``: sums of magnitudes in each bucket, which bounds are made of."""
    rows, r = engine.rows, engine.buckets
    table = SummaryTable.empty(rows, engine.bits)
    out = Outputs.empty(len(described))
    sketch, row_sketches = np.zeros(max(r, 1)), np.zeros((rows, 128))
    sizes, row_sizes = np.zeros(max(r, 1)), np.zeros((rows, 128))
    if r:
        out.sketch, out.row_sketches = sketch, row_sketches
    with values.quiet():
        specification.observe(described, table, out)
    if r:
        _sizes(described, sizes, row_sizes)
    return Found(table.records, table.counts, sketch, row_sketches, sizes, row_sizes)


def _sizes(described: Views, sizes: np.ndarray, row_sizes: np.ndarray) -> None:
    for view, (raw, dtype) in zip(described.table, described.arrays(), strict=True):
        with values.quiet():
            x = np.abs(dtype.widen(raw).astype(np.float64))
        x[~np.isfinite(x)] = 0
        index = specification.index_of(view, np.arange(raw.size))
        bucket, _ = sketch_map(int(view["key"]), index, len(sizes))
        with np.errstate(over="ignore"):
            own = np.bincount(bucket, x, len(sizes))
            sizes += own
            row_sizes[int(view["row"])] += own.reshape(-1, 128).sum(axis=0)


def compare(engine: SimulatedEngine, found: Found, wanted: Found, described: Views) -> None:
    """Integers equal bit for bit, sums within their bounds."""
    for field in values.INTEGERS:
        np.testing.assert_array_equal(found.records[field], wanted.records[field], field)
    np.testing.assert_array_equal(found.counts, wanted.counts)
    np.testing.assert_array_equal(found.records["max_abs"], wanted.records["max_abs"])
    sums = power_sums(engine, wanted, described)
    for p in (1, 2, 3, 4):
        apart = np.abs(found.records[f"sum{p}"] - wanted.records[f"sum{p}"])
        assert np.all(apart <= 1e-6 * sums[:, p - 1] + 1e-300), p
    if engine.buckets:
        size = int(described.table["size"].sum())
        for mine, theirs, total in (
            (found.sketch, wanted.sketch, wanted.sizes),
            (found.row_sketches, wanted.row_sketches, wanted.row_sizes),
        ):
            usual = total < 1e300  # beyond it, the order of the sum decides whether it overflows on the way
            apart = np.abs(mine[usual] - theirs[usual])
            assert np.all(apart <= 1e-6 * total[usual] + SMALLEST * size)


def power_sums(engine: SimulatedEngine, wanted: Found, described: Views) -> np.ndarray:
    """Sums of (abs(x) / 2**e)**p, p = 1..4, of each row, by the exponents that the records have."""
    sums = np.zeros((engine.rows, 4))
    exponents = np.frexp(wanted.records["max_abs"])[1]
    for view, (raw, dtype) in zip(described.table, described.arrays(), strict=True):
        row = int(view["row"])
        with values.quiet():
            x = dtype.widen(raw).astype(np.float64)
        y = np.ldexp(np.abs(x[np.isfinite(x)]), -exponents[row])
        sums[row] += [np.sum(y**p) for p in (1, 2, 3, 4)]
    return sums


def check_views(engine: SimulatedEngine, described: Views) -> Found:
    """Make an update, compare it with the specification and return what it has found."""
    found = engine.observe_views(described)
    compare(engine, found, expected_of(described, engine), described)
    engine.module.check_redzones()
    return found


def check(engine: SimulatedEngine, arrays: Sequence[np.ndarray]) -> Found:
    """Likewise of arrays."""
    return check_views(engine, engine.views(arrays))


__all__ = [
    "ARRAYS", "CONTROL", "DEVICE_PIECE", "RECORD", "SMALLEST", "TRACK", "Found", "SimulatedEngine", "check",
    "check_views", "compare", "expected", "expected_of", "no_tracks", "views",
]  # fmt: skip
