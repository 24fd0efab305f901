"""The specification once more, for arrays of any namespace ``xp``: CuPy's, or NumPy's own. The slow path.

For arrays in CUDA memory in a build whose native extension has no CUDA kernels. Everything whose
length is that of an array happens where the array lies, on CuPy's current stream of that device; a
record, the bins, the sketch, a sum of every 64 values and the values that are followed come to the host.
One array takes some hundred launches and several waits, so this answers, and is not fast.

Who comes here: ``backend="cupy"`` by name, and CuPy arrays under every other name
(:mod:`gradtail.backends`). Arrays in host memory are read with ``xp = numpy``.

Three facts of CuPy that shape the code:

* Its kernels flush float32 subnormals to zero (``-ftz=true``), in arithmetic, comparisons and
  conversions. So values are told apart and counted by the integers of their patterns, and computed
  with in float64, where nothing is flushed.
* ``bincount`` with weights adds floats in no fixed order. The map of the sketch permutes each block, so
  here every bucket gathers what belongs to it, and sums run in a fixed order: same input, same bits.
* NumPy functions refuse its arrays, and so does ``float()`` in this code: what the host needs is
  fetched by name, in :func:`_to_host`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.backends import numpy as specification
from gradtail.buffers import DTYPES, DType, Views, is_cupy
from gradtail.states.hashing import LANE_STREAM, SHIFT_STREAM, hash64, mix64
from gradtail.states.log_sums import BLOCK_SIZES, count_sums, halved, whole_blocks
from gradtail.states.outputs import Outputs
from gradtail.states.projection import LANES
from gradtail.states.projection import fold as fold_sketch
from gradtail.states.table import EMPTY_RECORD, SummaryTable, merge_records

name = "cupy"

CHUNK = 1 << 20
"""Values widened to float64 at a time: bounds the memory of the pass, to some hundred MiB."""

fold, clear = specification.fold, specification.clear  # of tables, which lie in host memory

_SMALLEST_NORMAL = 2.0**-126  # of float32
_INFINITY32, _MAGNITUDE32 = np.uint32(0x7F800000), np.uint32(0x7FFFFFFF)
_INFINITY64, _MAGNITUDE64 = np.uint64(0x7FF0000000000000), np.uint64(0x7FFFFFFFFFFFFFFF)


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``, reading each value once."""
    # Apart: the device may run out of memory half-way.
    found = SummaryTable.empty(len(table.records), table.bits, table.logs is not None)
    for view, source in _sources(views):
        with source.device():
            _summarize(view, source, found.records[view["row"]], found.counts[view["row"]], found.bits)
            if found.logs is not None:
                _add_block_sums(view, source, found.logs[view["row"]])
    fold(table, found)


def observe(views: Views, table: SummaryTable, out: Outputs) -> None:
    """Do all that one pass can do; see :func:`gradtail.backends.numpy.observe`."""
    for v, (view, source) in enumerate(_sources(views)):
        row = int(view["row"])
        record = np.full(1, EMPTY_RECORD)
        with source.device():
            _summarize(view, source, record[0], table.counts[row], table.bits)
            out.records[v] = record[0]
            merge_records(table.records[row : row + 1], record)
            if table.logs is not None:
                _add_block_sums(view, source, table.logs[row])
            if out.sketch is not None:
                own = _sketch(view, source, out.sketch.size)
                with np.errstate(over="ignore", invalid="ignore"):
                    out.sketch += own
                    if out.row_sketches is not None:
                        out.row_sketches[row] += fold_sketch(own, out.row_sketches.shape[1])
            if out.tracks is not None:
                specification.track_view(v, source.take, source.dtype, out.tracks)
            if out.pieces is not None:
                specification.update_piece(view, source.take, source.dtype, out.pieces[v])


def sketch(views: Views, out: npt.NDArray[np.float64]) -> None:
    """Add the sketch of every view to ``out``, of shape (r,)."""
    for view, source in _sources(views):
        with source.device(), np.errstate(over="ignore", invalid="ignore"):
            out += _sketch(view, source, out.size)


def update_coordinates(views: Views, pieces: npt.NDArray[np.void]) -> None:
    """Update the CoordinateMoments of every view: PIECE, shape (n_views,)."""
    for piece, (view, source) in zip(pieces, _sources(views), strict=True):
        with source.device():
            specification.update_piece(view, source.take, source.dtype, piece)


@dataclass(frozen=True)
class _Source:
    """The stored values of one view, where they lie.

    Attributes
    ----------
    xp : module
        The namespace of ``raw``.
    raw : xp.ndarray of ``dtype.storage``, shape (n,)
        In memory order.
    """

    xp: Any
    raw: Any
    dtype: DType

    def device(self) -> AbstractContextManager[Any]:
        """Return a context in which new arrays, and CuPy's current stream, are those of its device."""
        return nullcontext() if self.xp is np else self.raw.device

    def take(self, offset: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Bring the stored values at these offsets to the host."""
        return _to_host(self.xp, self.raw[self.xp.asarray(offset)])


def _sources(views: Views) -> Iterator[tuple[Any, _Source]]:
    """Yield the description of each view and its values."""
    if not any(is_cupy(owner) for owner in views.owners):
        for (raw, dtype), view in zip(views.arrays(), views.table, strict=True):
            yield view, _Source(np, raw, dtype)
        return
    xp = sys.modules["cupy"]
    owners = iter(views.owners)
    flat: Any = None
    begin = size = 0
    for view in views.table:  # views of one array follow each other and leave nothing out
        if begin == size:
            owner: Any = next(owners)
            begin, size = 0, int(owner.size)
            flat = _in_memory_order(xp, owner, DTYPES[view["dtype"]])
        end = begin + int(view["size"])
        yield view, _Source(xp, flat[begin:end], DTYPES[view["dtype"]])
        begin = end


def _in_memory_order(xp: Any, x: Any, dtype: DType) -> Any:
    """Return a dense array flat, in the order of its memory; no copy."""
    axes = sorted(range(len(x.shape)), key=lambda axis: -x.strides[axis] if x.shape[axis] > 1 else 0)
    flat = x.transpose(axes).reshape(x.size)
    return flat.view(xp.uint16) if dtype.name == "bfloat16" else flat


def _to_host(xp: Any, x: Any) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = np.asarray(x) if xp is np else xp.asnumpy(x)
    return values


@dataclass(frozen=True)
class _Values:
    """What the pass wants to know of some values; arrays of one namespace, all of shape (n,).

    Attributes
    ----------
    x : array of float64
        The values; 0 where they are not finite.
    finite, nan, negative, zero : array of bool
    pattern : array of uint32
        Magnitude of the nearest float32, ties to even; of non-finite values, no number.
    """

    x: Any
    finite: Any
    nan: Any
    negative: Any
    zero: Any
    pattern: Any


def _read(xp: Any, raw: Any, dtype: DType) -> _Values:
    """Widen stored values without computing with a float32 that may be subnormal."""
    if dtype.name == "float64":
        bits = raw.view(xp.uint64)
        magnitude = bits & _MAGNITUDE64
        finite, nan = magnitude < _INFINITY64, magnitude > _INFINITY64
        x = xp.where(finite, raw, 0.0)
        negative = (bits >> np.uint64(63)) != 0
        return _Values(x, finite, nan, negative, magnitude == 0, _nearest_pattern(xp, abs(x)))
    if dtype.name == "bfloat16":
        single = (raw.astype(xp.uint32) << np.uint32(16)).view(xp.float32)
    else:
        single = raw.astype(xp.float32) if dtype.name == "float16" else raw
    bits = single.view(xp.uint32)
    magnitude = bits & _MAGNITUDE32
    finite, nan = magnitude < _INFINITY32, magnitude > _INFINITY32
    negative = (bits >> np.uint32(31)) != 0
    small = magnitude.astype(xp.float64) * 2.0**-149  # right where subnormal
    small = xp.where(negative, -small, small)
    x = xp.where(magnitude < np.uint32(1 << 23), small, single.astype(xp.float64))
    return _Values(xp.where(finite, x, 0.0), finite, nan, negative, magnitude == 0, magnitude)


def _nearest_pattern(xp: Any, magnitude: Any) -> Any:
    """Return the pattern of the float32 nearest to each |x|, whatever happens to subnormals."""
    small = xp.rint(xp.minimum(magnitude, _SMALLEST_NORMAL) * 2.0**149).astype(xp.uint32)
    return xp.where(magnitude < _SMALLEST_NORMAL, small, magnitude.astype(xp.float32).view(xp.uint32))


def _summarize(view: Any, source: _Source, record: Any, counts: Any, bits: int) -> None:
    record["mantissa"] = max(record["mantissa"], source.dtype.mantissa)
    bins = np.zeros(counts.size, np.int64)
    zeros = 0
    for begin in range(0, source.raw.size, CHUNK):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            values = _read(source.xp, source.raw[begin : begin + CHUNK], source.dtype)
            zeros += _add_counts(source.xp, values, view, begin, record)
            _add_power_sums(source.xp, values.x, record)
            bins += _to_host(source.xp, _count_bins(source.xp, values, counts.size, bits))
    counts += bins.astype(np.uint64)
    used = bins[: bins.size // 2] + bins[bins.size // 2 :]
    used[0] -= zeros
    nonzero = np.flatnonzero(used)
    if nonzero.size:
        record["low_bin"] = min(record["low_bin"], int(nonzero[0]))
        record["high_bin"] = max(record["high_bin"], int(nonzero[-1]))


def _add_counts(xp: Any, values: _Values, view: Any, begin: int, record: Any) -> int:
    """Add the counts of a chunk to a record; return its number of zeros."""
    infinite = ~(values.finite | values.nan)
    masks = (
        values.finite,
        values.zero,
        values.nan,
        infinite & ~values.negative,
        infinite & values.negative,
        values.finite & (values.pattern == _INFINITY32),
        values.finite & (values.pattern == 0) & ~values.zero,
    )
    n = int(values.x.size)
    bad = xp.min(xp.where(values.finite, n, xp.arange(n, dtype=xp.int64)))
    found = xp.stack([*(xp.sum(mask, dtype=xp.int64) for mask in masks), bad])
    *numbers, first = _to_host(xp, found).tolist()
    fields = ("count", "zeros", "nan", "posinf", "neginf", "overflowed", "vanished")
    for field, number in zip(fields, numbers, strict=True):
        record[field] += number
    if first < n:
        index = specification.index_of(view, begin + first)
        record["first_nonfinite"] = min(record["first_nonfinite"], index)
    return int(numbers[1])


def _add_power_sums(xp: Any, x: Any, record: Any) -> None:
    """Power sums of x / 2**e, with 2**e just above the largest |x| seen so far; see the specification."""
    old = int(np.frexp(record["max_abs"])[1])
    record["max_abs"] = max(record["max_abs"], float(_to_host(xp, xp.max(abs(x)))))
    exponent = int(np.frexp(record["max_abs"])[1])
    y = xp.ldexp(x, -exponent)
    square = y * y
    powers = (y, square, square * y, square * square)
    for p, added in enumerate(_to_host(xp, xp.stack([xp.sum(power) for power in powers])).tolist(), start=1):
        record[f"sum{p}"] = np.ldexp(record[f"sum{p}"], p * (old - exponent)) + added


def _count_bins(xp: Any, values: _Values, size: int, bits: int) -> Any:
    """Count the top ``9 + bits`` bits of the float32 patterns; array of int64, shape (size,)."""
    used = values.finite & (values.pattern < _INFINITY32) & ((values.pattern > 0) | values.zero)
    bins = (values.pattern >> np.uint32(23 - bits)).astype(xp.int64)
    bins = xp.where(values.negative, bins + size // 2, bins)
    return xp.bincount(xp.where(used, bins, size), minlength=size + 1)[:size]


def _add_block_sums(view: Any, source: _Source, logs: Any) -> None:
    """Add the sums of the whole blocks of each run of a view; those of 64 are made where the array lies."""
    xp, least = source.xp, BLOCK_SIZES[0]
    for offset, size, start in specification.runs_of(view):
        inside, first = whole_blocks(start, size)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            values = _read(xp, source.raw[offset : offset + size][inside], source.dtype)
            bad = ~(values.finite & (values.pattern < _INFINITY32))
            bad = xp.sum(bad.reshape(-1, least), axis=1) > 0
            sums = _as_single(xp, values.x)
            for _ in range(least.bit_length() - 1):
                sums = _as_single(xp, halved(sums, 2))
            single = _to_host(xp, sums).astype(np.float32)
        count_sums(single, _to_host(xp, bad), first, logs)


def _as_single(xp: Any, x: Any) -> Any:
    """Round float64 to float32 and keep it wide; what is subnormal then is so already, being such a sum."""
    small = xp.rint(x * 2.0**149) * 2.0**-149
    return xp.where(abs(x) < _SMALLEST_NORMAL, small, x.astype(xp.float32).astype(xp.float64))


def _sketch(view: Any, source: _Source, r: int) -> npt.NDArray[np.float64]:
    """Return the sketch of a view: the map of :func:`gradtail.states.projection.sketch_map` inverted.

    Bucket b holds one coordinate of every block of r, and which one follows from the block alone.
    """
    xp, size = source.xp, int(view["size"])
    out = xp.zeros(r, dtype=xp.float64)
    if size == 0:
        return _to_host(xp, out)
    first, last = (specification.index_of(view, offset) // r for offset in (0, size - 1))
    bucket, key = xp.arange(r, dtype=xp.int64), int(view["key"])
    at_once = max(CHUNK // r, 1)
    for begin in range(first, last + 1, at_once):
        block = np.arange(begin, min(begin + at_once, last + 1))[:, None]
        word = hash64(key, 0, block)
        s = (mix64(word ^ np.uint64(SHIFT_STREAM)) >> np.uint64(32)).astype(np.int64) % (r // LANES)
        turn = (block + (hash64(key, LANE_STREAM, block // 8) >> np.uint64(61)).astype(np.int64)) % LANES
        low, high = (xp.asarray((word >> np.uint64(by)).astype(np.uint32)) for by in (0, 32))
        p = (bucket // LANES - xp.asarray(s)) % (r // LANES) * LANES
        p = p + (bucket % LANES - xp.asarray(turn)) % LANES
        offset, inside = _offset_of(xp, view, p + xp.asarray(block * r))
        words = _hash32(low, high, (p // 32).astype(xp.uint32))
        flip = (words >> (p % 32).astype(xp.uint32)) & np.uint32(1)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            x = _read(xp, source.raw[offset.ravel()], source.dtype).x.reshape(p.shape)
            x = xp.where(inside, x, 0.0)
            out = out + xp.sum(xp.where(flip == 0, x, -x), axis=0)
    return _to_host(xp, out)


def _offset_of(xp: Any, view: Any, index: Any) -> tuple[Any, Any]:
    """Offsets within a view of indices in the whole, and which of them lie in it; 0 for the others."""
    start, size, run, stride = (int(view[field]) for field in ("start", "size", "run", "stride"))
    beyond = index - start
    if size <= run:
        inside = (beyond >= 0) & (beyond < size)
        return xp.where(inside, beyond, 0), inside
    number, within = beyond // stride, beyond % stride
    offset = number * run + within
    inside = (beyond >= 0) & (within < run) & (offset < size)
    return xp.where(inside, offset, 0), inside


def _hash32(low: Any, high: Any, counter: Any) -> Any:
    """Hash as :func:`gradtail.states.hashing.hash32` does: arrays of uint32, whose products wrap."""
    x = counter * np.uint32(0x9E3779B1) + low
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D) + high
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
