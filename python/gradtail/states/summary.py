"""A Summary: moments and magnitudes of one set of values, made by one read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail import backends
from gradtail.buffers import views_of
from gradtail.states.log_sums import BLOCK_SIZES, LOG_SUMS, BlockLogs, check_logs, empty_logs
from gradtail.states.magnitudes import Histogram, Magnitudes
from gradtail.states.moments import Moments
from gradtail.states.table import NO_BIN, RECORD, SummaryTable, bins_for, check_bits

SCHEMA = "gradtail.Summary/1"


class Summary:
    """Statistics of a set of floating-point values, of any number and scale.

    A commutative monoid: ``Summary()`` is empty, :meth:`update` adds values, :meth:`merge` joins
    two disjoint sets. Memory is ``64 KiB`` at ``bits = 4`` whatever the number of values.

    Parameters
    ----------
    bits : int, default 4
        Mantissa bits kept by the histogram, 0..10: ``2**bits`` bins a binade.
    backend : {None, "native", "numpy", "cupy"}
        Who reads arrays in host memory; None takes the best that this build has. Those on a CUDA device
        are read there by a build with CUDA, else, if they are CuPy's, by NumPy's code on CuPy, which is
        "cupy" by name.

    Notes
    -----
    Counts are exact. Power sum p is within 1e-6 of the sum of |x|**p, merging is associative to
    1e-12, and the bits of the result do not depend on the number of threads. Variance has ddof=0.

    Examples
    --------
    >>> import numpy as np
    >>> s = Summary().update(np.array([3.0, 0.0, -4.0, np.nan]))
    >>> s.count, s.zeros, s.nan, s.norm
    (3, 1, 1, 5.0)
    """

    __slots__ = ("_backend", "_table")

    def __init__(self, bits: int = 4, *, backend: str | None = None) -> None:
        self._backend = backends.resolve(backend)
        self._table = SummaryTable.empty(1, check_bits(bits))

    @classmethod
    def from_parts(
        cls,
        record: npt.NDArray[np.void],
        counts: npt.NDArray[np.uint64],
        bits: int,
        *,
        backend: str | None = None,
        logs: npt.NDArray[np.void] | None = None,
    ) -> Summary:
        """Wrap a record of shape (1,), its bin counts and perhaps block sums, which the summary then owns."""
        new = cls.__new__(cls)
        new._backend = backends.resolve(backend)
        new._table = SummaryTable(record, counts.reshape(1, -1), bits, logs)
        return new

    def update(self, x: object, *, start: int = 0) -> Summary:
        """Add the values of an array, or of a list or mapping of arrays, and return self.

        Parameters
        ----------
        x : array or list of arrays
            torch, NumPy, CuPy or anything with DLPack, on the CPU or, in a build with CUDA, on a GPU;
            float64, float32, float16 or bfloat16. Read once where it lies, never copied.
        start : int
            Index of the first element within a larger whole, for :attr:`first_nonfinite`.

        Raises
        ------
        TypeError, ValueError
            ``x`` is not such an array; the summary is left as it was.
        RuntimeError
            CUDA reports an error.
        """
        views = views_of(x, start=start)
        self._backend.summarize(views, self._table)
        return self

    def merge(self, other: Summary) -> Summary:
        """Return the summary of both sets; neither is changed.

        Raises
        ------
        ValueError
            The other summary keeps another number of bits.
        """
        if not isinstance(other, Summary):
            raise TypeError(f"other: expected a Summary, got {type(other).__name__}")
        if other.bits != self.bits:
            raise ValueError(f"other: expected a summary of bits={self.bits}, got bits={other.bits}")
        mine = self._table
        both = mine.logs is not None and other._table.logs is not None
        logs = mine.logs.copy() if both and mine.logs is not None else None
        new = Summary.from_parts(
            mine.records.copy(), mine.counts.copy(), mine.bits, backend=self._backend.name, logs=logs
        )
        self._backend.fold(new._table, other._table)
        return new

    @property
    def bits(self) -> int:
        """Mantissa bits kept by the histogram."""
        return self._table.bits

    @property
    def moments(self) -> Moments:
        """Counts and power sums."""
        return Moments.from_record(self._table.records[0])

    @property
    def magnitudes(self) -> Magnitudes:
        """The histogram of bit patterns."""
        record = self._table.records[0]
        names = ("zeros", "overflowed", "vanished")
        return Magnitudes(
            self.bits, int(record["mantissa"]), self._table.counts[0].copy(), *(int(record[n]) for n in names)
        )

    @property
    def table(self) -> SummaryTable:
        """The table of one row that the summary is kept in; not to be written to."""
        return self._table

    @property
    def block_logs(self) -> tuple[BlockLogs, ...] | None:
        """Logarithms of sums of 64, 256, 1024 and 4096 neighbours; None where they were not taken.

        Summaries of a :class:`gradtail.GradientStream` have them, unless it was told ``stable=False``;
        :func:`gradtail.summarize` does not take them.
        """
        logs = self._table.logs
        return None if logs is None else tuple(map(BlockLogs.from_record, BLOCK_SIZES, logs[0]))

    @property
    def count(self) -> int:
        """Finite values."""
        return self.moments.count

    @property
    def zeros(self) -> int:
        """Exact zeros."""
        return self.moments.zeros

    @property
    def nan(self) -> int:
        """NaNs."""
        return self.moments.nan

    @property
    def posinf(self) -> int:
        """Positive infinities."""
        return self.moments.posinf

    @property
    def neginf(self) -> int:
        """Negative infinities."""
        return self.moments.neginf

    @property
    def nonfinite(self) -> int:
        """NaNs and infinities together."""
        m = self.moments
        return m.nan + m.posinf + m.neginf

    @property
    def first_nonfinite(self) -> int | None:
        """Element index of the first NaN or infinity, in the memory order of the input."""
        return self.moments.first_nonfinite

    @property
    def mean(self) -> float:
        """Mean of the finite values."""
        return self.moments.mean

    @property
    def variance(self) -> float:
        """Variance of the finite values, ddof = 0."""
        return self.moments.variance

    @property
    def skewness(self) -> float:
        """Skewness of the finite values."""
        return self.moments.skewness

    @property
    def excess_kurtosis(self) -> float:
        """Excess kurtosis of the finite values: 0 for a normal law."""
        return self.moments.excess_kurtosis

    @property
    def max_abs(self) -> float:
        """Largest finite magnitude."""
        return self.moments.max_abs

    @property
    def norm(self) -> float:
        """Euclidean norm of the finite values."""
        return self.moments.norm

    def quantile(self, q: npt.ArrayLike) -> Any:
        """Quantiles of |x| over the finite values, within one bin of the histogram.

        Parameters
        ----------
        q : float or array of float in [0, 1]

        Returns
        -------
        float or ndarray of float64
            NaN without values; never above :attr:`max_abs`, and equal to it at q = 1.
        """
        q = np.asarray(q, dtype=np.float64)
        value = np.minimum(self.magnitudes.quantile(q), self.max_abs if self.count else np.nan)
        value = np.where((q == 1) & (self.count > 0), self.max_abs, value)
        return float(value) if value.ndim == 0 else value

    def histogram(self) -> Histogram:
        """Return the counts between the edges of |x| in use, for each sign."""
        return self.magnitudes.histogram()

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and NumPy arrays (``numpy.savez`` takes it; no pickle)."""
        record, counts = self._table.records[0], self._table.counts[0]
        used = np.flatnonzero(counts)
        fields = {name: record[name].item() for name in RECORD.names or ()}
        logs = self._table.logs
        more = (
            {} if logs is None else {f"block_{name}": logs[0][name].copy() for name in LOG_SUMS.names or ()}
        )
        return {"schema": SCHEMA, "bits": self.bits, **fields, "bins": used, "counts": counts[used], **more}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], *, backend: str | None = None) -> Summary:
        """Rebuild a summary to the bit.

        Raises
        ------
        ValueError
            A missing key, another schema, or numbers that no set of values has.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, got {type(state).__name__}")
        schema = str(np.asarray(state.get("schema", "nothing")).item())
        if schema != SCHEMA:
            raise ValueError(f"state: expected schema {SCHEMA}, got {schema}")
        missing = {"bits", "bins", "counts", *(RECORD.names or ())} - set(state)
        if missing:
            raise ValueError(f"state: expected the key {min(missing)!r}, got none")
        new = cls(np.asarray(state["bits"]).item(), backend=backend)
        bins, counts = _integers(state, "bins"), _integers(state, "counts")
        if bins.ndim != 1 or bins.shape != counts.shape:
            raise ValueError(
                f"state: expected one count a bin, got {bins.size} bins and {counts.size} counts"
            )
        outside = bins[(bins < 0) | (bins >= bins_for(new.bits))]
        if outside.size:
            raise ValueError(f"state: expected bins from 0 to {bins_for(new.bits) - 1}, got {outside[0]}")
        if counts.size and counts.min() < 0:
            raise ValueError(f"state: expected counts of at least 0, got {counts.min()}")
        if np.unique(bins).size != bins.size:
            raise ValueError(f"state: expected each bin once, got {bins.size} bins with repeats")
        record = new._table.records[0]
        for name in RECORD.names or ():
            record[name] = _field(state, name)
        new._table.counts[0, bins] = counts.astype(np.uint64)
        _check_bins(record, new._table.counts[0])
        if "block_blocks" in state:
            new._table = replace(new._table, logs=_logs(state))
        return new

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Summary):
            return NotImplemented
        mine, theirs = self._table, other._table
        return (
            mine.bits == theirs.bits
            and mine.records.tobytes() == theirs.records.tobytes()
            and np.array_equal(mine.counts, theirs.counts)
            and (mine.logs is None) == (theirs.logs is None)
            and (mine.logs is None or mine.logs.tobytes() == theirs.logs.tobytes())  # type: ignore[union-attr]
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        m = self.moments
        bad = m.nan + m.posinf + m.neginf
        return (
            f"Summary(count={m.count}, zeros={m.zeros}, nonfinite={bad}, mean={m.mean:.6g}, "
            f"sd={m.variance**0.5:.6g}, max_abs={m.max_abs:.6g})"
        )


def _logs(state: Mapping[str, Any]) -> npt.NDArray[np.void]:
    """Return the block sums of a state."""
    logs = empty_logs(1)
    for name in LOG_SUMS.names or ():
        if f"block_{name}" not in state:
            raise ValueError(f"state: expected the key 'block_{name}', got none")
        values = np.asarray(state[f"block_{name}"])
        if values.shape != logs[0].shape or values.dtype.kind not in "iuf":
            raise ValueError(f"state: expected 4 numbers for 'block_{name}', got {state[f'block_{name}']}")
        logs[0][name] = values
    check_logs(logs)
    return logs


def _integers(state: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
    values = np.asarray(state[name])
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"state: expected integers for {name!r}, got {values.dtype}")
    return values.astype(np.int64) if name == "bins" or not values.size else values


def _field(state: Mapping[str, Any], name: str) -> int | float:
    """Return a field of the record as a number that a pass could have written."""
    value = np.asarray(state[name])
    if name == "max_abs" or name.startswith("sum"):
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise ValueError(f"state: expected a finite number for {name!r}, got {state[name]}")
        if name == "max_abs" and value.item() < 0:
            raise ValueError(f"state: expected 'max_abs' of at least 0, got {value.item()}")
        return float(value.item())
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(f"state: expected an int for {name!r}, got {state[name]}")
    number = int(value.item())
    low, high = {"mantissa": (0, 23), "high_bin": (-1, NO_BIN)}.get(name, (0, NO_BIN))
    if not low <= number <= high:
        raise ValueError(f"state: expected {name!r} from {low} to {high}, got {number}")
    return number


def _check_bins(record: Any, counts: npt.NDArray[np.uint64]) -> None:
    """Compare a record with its bins: native code takes memory addresses from the range it names."""
    outside = int(record["overflowed"]) + int(record["vanished"])
    total, binned = int(record["count"]) - outside, sum(counts.tolist())
    if binned != total:
        raise ValueError(f"state: expected {total} values in bins, got {binned}")
    used = counts.reshape(2, -1).sum(axis=0).tolist()  # the sign removed
    used[0] -= int(record["zeros"])
    if used[0] < 0:
        raise ValueError(f"state: expected 'zeros' of at most the count of bin 0, got {record['zeros']}")
    nonzero = np.flatnonzero(used)
    expected = (int(nonzero[0]), int(nonzero[-1])) if nonzero.size else (NO_BIN, -1)
    for name, bound in zip(("low_bin", "high_bin"), expected, strict=True):
        if record[name] != bound:
            raise ValueError(f"state: expected {name!r} of {bound} for these bins, got {record[name]}")


def summarize(x: object, *, bits: int = 4, start: int = 0, backend: str | None = None) -> Summary:
    """Summarise one array, or a list or mapping of arrays, in one read.

    Parameters
    ----------
    x : array, list of arrays, or mapping of name to array
        torch, NumPy, CuPy or anything with DLPack; float64, float32, float16 or bfloat16; dense in any
        axis order. Nothing is copied. On the CPU or, in a build with CUDA, on a GPU, which reads them and
        is waited for.
    bits : int, default 4
        Mantissa bits of the histogram, 0..10; 7 makes bfloat16 exact, 10 float16.
    start : int, default 0
        Index of the first element within a larger whole; only ``first_nonfinite`` uses it.
    backend : {None, "native", "numpy", "cupy"}
        As :class:`Summary` has it.

    Returns
    -------
    Summary

    Raises
    ------
    TypeError
        Not an array, or a dtype that is not one of the four.
    ValueError
        An empty list, memory with holes, several devices, or one that this build does not read.
    RuntimeError
        CUDA reports an error.

    Examples
    --------
    >>> import numpy as np
    >>> summarize([np.ones(3, np.float32), np.zeros(2, np.float32)])
    Summary(count=5, zeros=2, nonfinite=0, mean=0.6, sd=0.489898, max_abs=1)
    """
    return Summary(bits, backend=backend).update(x, start=start)
