"""The specification of the pass, in float64 NumPy, written to be read. Also the fallback."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.buffers import DType, Views
from gradtail.states.coordinates import LANES, MOST_SCALED, view_cells
from gradtail.states.log_sums import add_logs, count_run
from gradtail.states.outputs import Outputs
from gradtail.states.projection import fold as fold_sketch
from gradtail.states.projection import sketch_map
from gradtail.states.table import EMPTY_RECORD, SummaryTable, merge_records
from gradtail.states.tracks import TrackList

name = "numpy"

CHUNK = 1 << 16
"""Values widened to float64 at a time: bounds the memory of the pass."""

Take = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]
"""The stored values of a view at these offsets, in host memory."""


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``, reading each value once."""
    for view, raw, dtype in _views(views):
        _summarize_view(view, raw, dtype, table.records[view["row"]], table.counts[view["row"]], table.bits)
        if table.logs is not None:
            _add_block_sums(view, raw, dtype, table.logs[view["row"]])


def observe(views: Views, table: SummaryTable, out: Outputs) -> None:
    """Do all that one pass can do.

    Parameters
    ----------
    views : Views
        Rows are non-decreasing; keys, places and layouts are filled in.
    table : SummaryTable
        Every view is added to its row.
    out : Outputs
        What else is wanted.
    """
    for v, (view, raw, dtype) in enumerate(_views(views)):
        row = int(view["row"])
        record = np.full(1, EMPTY_RECORD)
        _summarize_view(view, raw, dtype, record[0], table.counts[row], table.bits)
        out.records[v] = record[0]
        merge_records(table.records[row : row + 1], record)
        if table.logs is not None:
            _add_block_sums(view, raw, dtype, table.logs[row])
        if out.sketch is not None:
            own = np.zeros_like(out.sketch)
            _sketch_view(view, raw, dtype, own)
            with np.errstate(over="ignore", invalid="ignore"):
                out.sketch += own
                if out.row_sketches is not None:
                    out.row_sketches[row] += fold_sketch(own, out.row_sketches.shape[1])
        if out.tracks is not None:
            track_view(v, raw.__getitem__, dtype, out.tracks)
        if out.pieces is not None:
            update_piece(view, raw.__getitem__, dtype, out.pieces[v])


def sketch(views: Views, out: npt.NDArray[np.float64]) -> None:
    """Add the sketch of every view to ``out``, of shape (r,)."""
    for view, raw, dtype in _views(views):
        _sketch_view(view, raw, dtype, out)


def update_coordinates(views: Views, pieces: npt.NDArray[np.void]) -> None:
    """Update the CoordinateMoments of every view: PIECE, shape (n_views,)."""
    for piece, (view, raw, dtype) in zip(pieces, _views(views), strict=True):
        update_piece(view, raw.__getitem__, dtype, piece)


def fold(into: SummaryTable, table: SummaryTable) -> None:
    """Add each row of ``table`` to the same row of ``into``."""
    into.counts[...] += table.counts
    merge_records(into.records, table.records)
    if into.logs is not None and table.logs is not None:
        add_logs(into.logs, table.logs)


def clear(table: SummaryTable) -> None:
    """Empty every row of ``table``."""
    table.counts[...] = 0
    table.records[...] = EMPTY_RECORD
    if table.logs is not None:
        table.logs[...] = 0


def _views(views: Views) -> Iterator[tuple[Any, npt.NDArray[Any], DType]]:
    """Yield the description of each view, its stored values and their dtype."""
    for (raw, dtype), view in zip(views.arrays(), views.table, strict=True):
        yield view, raw, dtype


def index_of(view: Any, offset: Any) -> Any:
    """Return the index in the whole parameter of the elements at these offsets of a view."""
    run, stride = int(view["run"]), int(view["stride"])
    return int(view["start"]) + offset // run * stride + offset % run


def _summarize_view(
    view: Any, raw: npt.NDArray[Any], dtype: DType, record: Any, counts: Any, bits: int
) -> None:
    record["mantissa"] = max(record["mantissa"], dtype.mantissa)
    for begin in range(0, raw.size, CHUNK):
        values = dtype.widen(raw[begin : begin + CHUNK])
        finite = np.isfinite(values)
        if not finite.all():
            record["nan"] += np.count_nonzero(np.isnan(values))
            record["posinf"] += np.count_nonzero(np.isposinf(values))
            record["neginf"] += np.count_nonzero(np.isneginf(values))
            index = index_of(view, begin + int(np.argmin(finite)))
            record["first_nonfinite"] = min(record["first_nonfinite"], index)
            values = values[finite]
        record["count"] += values.size
        record["zeros"] += np.count_nonzero(values == 0)
        _add_power_sums(values.astype(np.float64), record)
        _add_bins(values, record, counts, bits)


def _add_power_sums(x: npt.NDArray[np.float64], record: Any) -> None:
    """Power sums of x / 2**e, with 2**e just above the largest |x| seen so far.

    Powers of two scale without rounding, so that neither 1e-30 nor 1e+30 has a fourth power
    outside the range of a double.
    """
    if x.size == 0:
        return
    old = np.frexp(record["max_abs"])[1]
    record["max_abs"] = max(record["max_abs"], np.max(np.abs(x)))
    exponent = np.frexp(record["max_abs"])[1]
    scaled = np.ldexp(x, -exponent)
    for p in (1, 2, 3, 4):
        before = np.ldexp(record[f"sum{p}"], p * (old - exponent))
        record[f"sum{p}"] = before + np.sum(scaled**p)


def _add_bins(x: npt.NDArray[Any], record: Any, counts: Any, bits: int) -> None:
    """Count the top ``9 + bits`` bits of each float32 pattern: sign, exponent, ``bits`` of mantissa."""
    with np.errstate(over="ignore", under="ignore"):
        single = x.astype(np.float32)
    overflowed = np.isinf(single)
    vanished = (single == 0) & (x != 0)
    record["overflowed"] += np.count_nonzero(overflowed)
    record["vanished"] += np.count_nonzero(vanished)
    single = single[~(overflowed | vanished)]
    bins = single.view(np.uint32) >> np.uint32(23 - bits)
    counts += np.bincount(bins, minlength=counts.size).astype(np.uint64)
    if np.any(single):
        magnitude = bins[single != 0] & np.uint32(counts.size // 2 - 1)
        record["low_bin"] = min(record["low_bin"], int(magnitude.min()))
        record["high_bin"] = max(record["high_bin"], int(magnitude.max()))


def _add_block_sums(view: Any, raw: npt.NDArray[Any], dtype: DType, logs: Any) -> None:
    """Add the sums of the whole blocks of each run of a view, as float32."""
    for begin, size, start in runs_of(view):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            count_run(dtype.widen(raw[begin : begin + size]).astype(np.float32), start, logs)


def runs_of(view: Any) -> Iterator[tuple[int, int, int]]:
    """Yield offset, elements and index of the first element of pieces of each run of a view.

    A piece ends with its run or at a multiple of CHUNK, which divides no block.
    """
    size, run = int(view["size"]), int(view["run"])
    offset = 0
    while offset < size:
        index = int(index_of(view, offset))
        length = min(run - offset % run, size - offset, CHUNK - index % CHUNK)
        yield offset, length, index
        offset += length


def _sketch_view(view: Any, raw: npt.NDArray[Any], dtype: DType, out: npt.NDArray[np.float64]) -> None:
    for begin in range(0, raw.size, CHUNK):
        index = index_of(view, np.arange(begin, min(begin + CHUNK, raw.size)))
        bucket, sign = sketch_map(int(view["key"]), index, out.size)
        with np.errstate(over="ignore", invalid="ignore"):  # sums of float64 may leave the range of a double
            x = dtype.widen(raw[begin : begin + CHUNK]).astype(np.float64)
            x[~np.isfinite(x)] = 0
            out += np.bincount(bucket, sign * x, out.size)


def track_view(v: int, take: Take, dtype: DType, tracks: TrackList) -> None:
    """Pick out the tracked values of view number ``v``."""
    mine = slice(tracks.first[v], tracks.first[v + 1])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        tracks.value[mine] = dtype.widen(take(tracks.offset[mine])).astype(np.float32)


def update_piece(view: Any, take: Take, dtype: DType, piece: Any) -> None:
    """Take one more value of every followed coordinate of a view."""
    start, size, run, stride = (int(view[field]) for field in ("start", "size", "run", "stride"))
    if not piece["state"] or size == 0:
        return
    cells = -(-size // run) * int(piece["cells_per_run"])
    state = _memory(int(piece["state"]), cells * 4 * LANES, np.float32).reshape(cells, 4, LANES)
    count = _memory(int(piece["count"]), cells, np.uint32)
    rows, group = view_cells(start, size, run, stride, piece, int(view["key"]))
    q = rows // int(piece["cells_per_run"])
    within = group[:, None] * LANES + np.arange(LANES) - (start + q * stride)[:, None]
    inside = (within >= 0) & (within < np.minimum(run, size - q * run)[:, None])
    offset = np.where(inside, q[:, None] * run + within, 0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        x = np.ldexp(dtype.widen(take(offset)).astype(np.float64), -int(piece["exponent"])).astype(np.float32)
    x[~inside] = 0
    usable = (np.abs(x) < MOST_SCALED).all(axis=1)  # a group counts as a whole: it has one count
    rows, x, inside = rows[usable], x[usable], inside[usable]
    count[rows] += 1
    moments = tuple(state[rows].astype(np.float64).transpose(1, 0, 2))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        updated = np.stack(_one_more(x.astype(np.float64), count[rows][:, None], *moments), axis=1)
        state[rows] = np.where(inside[:, None], updated.astype(np.float32), state[rows])


def _one_more(x: Any, count: Any, mean: Any, m2: Any, m3: Any, m4: Any) -> tuple[Any, Any, Any, Any]:
    """Take value number ``count`` into mean and central sums (Pebay 2008, SAND2008-6212, eq. 3.1)."""
    n = count.astype(np.float64)
    delta = x - mean
    step = delta / n
    term = delta * step * (n - 1)
    return (
        mean + step,
        m2 + term,
        m3 + term * step * (n - 2) - 3 * step * m2,
        m4 + term * step**2 * (n * n - 3 * n + 3) + 6 * step**2 * m2 - 4 * step * m3,
    )


def _memory(address: int, size: int, dtype: Any) -> npt.NDArray[Any]:
    raw: Any = (ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(address)
    memory: npt.NDArray[Any] = np.frombuffer(raw, dtype)
    return memory
