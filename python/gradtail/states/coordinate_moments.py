"""CoordinateMoments: mean and higher moments of single coordinates over steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.states.coordinates import LANES, PIECE, cells_of, followed
from gradtail.states.places import Place

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


_LEAST_SUM = 2.0**-112
"""Below this a sum of powers may be subnormal in the float32 that it is kept in: the coordinate is very small
beside others of its parameter."""


@dataclass(frozen=True, repr=False)
class CoordinateMoments:
    """Moments of some coordinates of one parameter over the steps in which it was observed.

    Attributes
    ----------
    index : ndarray of int64, shape (n,)
        Element index within the whole parameter, rising.
    count : ndarray of int64, shape (n,)
        Steps. One in which any of a group of 8 neighbours was not finite, or 2**30 times what was seen
        before, is left out for all of them.
    exponent : int
        Sums are of x / 2**exponent.
    sums : ndarray of float64, shape (4, n)
        Mean, and sums of the second, third and fourth power of deviations from it.
    """

    index: IntArray
    count: IntArray
    exponent: int
    sums: FloatArray

    def __repr__(self) -> str:
        steps = f", {self.count.min()} to {self.count.max()} steps" if len(self.count) else ""
        return f"CoordinateMoments({len(self.index)} coordinates{steps})"

    @classmethod
    def empty(cls) -> CoordinateMoments:
        """Return the moments of nothing."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, np.zeros((4, 0)))

    @property
    def mean(self) -> FloatArray:
        """Mean of each coordinate, shape (n,)."""
        return np.asarray(np.ldexp(self.sums[0], self.exponent))

    @property
    def variance(self) -> FloatArray:
        """Mean squared deviation (ddof = 0) of each coordinate, shape (n,)."""
        return np.asarray(np.ldexp(self.sums[1] / self.count, 2 * self.exponent))

    @property
    def skewness(self) -> FloatArray:
        """Third standardised moment, shape (n,); NaN without spread, or where float32 has lost it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            skewness = np.sqrt(self.count) * self.sums[2] / self.sums[1] ** 1.5
            lost = (self.sums[1] / self.count) ** 1.5 < _LEAST_SUM
        return np.where(lost, np.nan, skewness)

    @property
    def excess_kurtosis(self) -> FloatArray:
        """Fourth standardised moment less 3, shape (n,); NaN without spread, or where float32 has lost it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            kurtosis = self.count * self.sums[3] / self.sums[1] ** 2 - 3
            lost = (self.sums[1] / self.count) ** 2 < _LEAST_SUM
        return np.where(lost, np.nan, kurtosis)

    def merge(self, other: CoordinateMoments) -> CoordinateMoments:
        """Join the moments over disjoint steps, or of other coordinates (Pébay, SAND2008-6212, eq. 2.1)."""
        index = np.union1d(self.index, other.index)
        exponent = self.exponent if len(self.index) else other.exponent
        if len(self.index) and len(other.index):
            exponent = max(self.exponent, other.exponent)
        (n, a), (m, b) = (part._spread(index, exponent) for part in (self, other))
        total = np.maximum(n + m, 1)
        delta = b[0] - a[0]
        d = delta / total
        sums = np.empty_like(a)
        sums[0] = a[0] + m * d
        sums[1] = a[1] + b[1] + delta * d * n * m
        sums[2] = a[2] + b[2] + delta * d**2 * n * m * (n - m) + 3 * d * (n * b[1] - m * a[1])
        sums[3] = (
            a[3] + b[3]
            + delta * d**3 * n * m * (n * n - n * m + m * m)
            + 6 * d**2 * (n * n * b[1] + m * m * a[1])
            + 4 * d * (n * b[2] - m * a[2])
        )  # fmt: skip
        return CoordinateMoments(index, (n + m).astype(np.int64), exponent, sums)

    def _spread(self, index: IntArray, exponent: int) -> tuple[FloatArray, FloatArray]:
        """Lay out counts and sums over ``index``, zero where there is nothing."""
        at = np.searchsorted(index, self.index)
        count, sums = np.zeros(len(index)), np.zeros((4, len(index)))
        count[at] = self.count
        power = np.array([1, 2, 3, 4])[:, None]
        sums[:, at] = np.ldexp(self.sums, power * (self.exponent - exponent))
        return count, sums


class LivePiece:
    """The memory that the pass updates for one block of a parameter."""

    def __init__(self, place: Place, key: int, cell: int) -> None:
        self._spans = [span for span in place.spans() if span.size]
        self._key = key
        self.pieces = np.zeros(len(place.spans()), PIECE)
        self._memory: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]] = []
        self.scaled = np.zeros(len(self.pieces), bool)
        for i, span in enumerate(self._spans):
            per_run, cells = cells_of(span.start, span.size, span.run, span.stride, cell)
            state, count = np.zeros((cells, 4, LANES), np.float32), np.zeros(cells, np.uint32)
            self._memory.append((state, count))
            self.pieces[i] = (state.ctypes.data, count.ctypes.data, per_run, place.elements, 0, cell)
        self.scaled[len(self._spans) :] = True

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return sum(state.nbytes + count.nbytes for state, count in self._memory)

    def rescale(self, exponents: npt.NDArray[np.int32], nonzero: npt.NDArray[np.bool_]) -> None:
        """Take the scale of each span's values: sums of fourth powers must stay within float32."""
        for i, (state, _) in enumerate(self._memory):
            if nonzero[i]:
                shift = int(self.pieces["exponent"][i]) - int(exponents[i])
                if self.scaled[i] and shift:
                    power = np.array([1, 2, 3, 4], np.int32)[None, :, None]
                    state[...] = np.ldexp(state, power * shift)
                self.pieces["exponent"][i], self.scaled[i] = exponents[i], True

    def moments(self) -> CoordinateMoments:
        """Return what has been gathered."""
        return self._gathered(self._memory, self.pieces["exponent"].tolist())

    def _gathered(
        self, memory: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]], exponents: list[int]
    ) -> CoordinateMoments:
        total = CoordinateMoments.empty()
        for span, piece, exponent, (state, count) in zip(
            self._spans, self.pieces, exponents, memory, strict=False
        ):
            row, lane, index = followed(span.start, span.size, span.run, span.stride, piece, self._key)
            seen = count[row] > 0
            row, lane, index = row[seen], lane[seen], index[seen]
            order = np.argsort(index)
            sums = state[row, :, lane].T.astype(np.float64)
            counts = count[row].astype(np.int64)
            part = CoordinateMoments(index[order], counts[order], exponent, sums[:, order])
            total = total.merge(part)
        return total


class CoordinateStore:
    """CoordinateMoments of every parameter: live memory of the blocks seen now, and what came before.

    Parameters
    ----------
    cell : int
        One group of 8 elements is followed in so many; 1 is all, 0 none.
    """

    def __init__(self, cell: int = 0) -> None:
        self.cell = cell
        self._live: dict[tuple[str, Place], LivePiece] = {}
        self._live_bytes = 0
        self._past: dict[str, CoordinateMoments] = {}

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        past = sum(part.index.nbytes + part.count.nbytes + part.sums.nbytes for part in self._past.values())
        return past + self._live_bytes

    def live(
        self, name: str, place: Place, key: int, make: Callable[[Place, int, int], LivePiece] | None = None
    ) -> LivePiece:
        """Return the memory for a block; ``make`` makes it where that is not host memory."""
        found = self._live.get((name, place))
        if found is None:
            found = self._live.setdefault((name, place), (make or LivePiece)(place, key, self.cell))
            self._live_bytes += found.nbytes
        return found

    def moments(self, name: str) -> CoordinateMoments:
        """Return what is known of a parameter."""
        total = self._past.get(name, CoordinateMoments.empty())
        for (own, _), piece in self._live.items():
            if own == name:
                total = total.merge(piece.moments())
        return total

    def names(self) -> list[str]:
        """Return the names of parameters that anything is known of."""
        return list(dict.fromkeys([*self._past, *(name for name, _ in self._live)]))

    def merge(self, other: CoordinateStore) -> CoordinateStore:
        """Join what two stores know of disjoint values."""
        new = CoordinateStore(self.cell)
        for name in dict.fromkeys([*self.names(), *other.names()]):
            new._past[name] = self.moments(name).merge(other.moments(name))
        return new

    def clear(self) -> None:
        """Forget everything."""
        self._live, self._past, self._live_bytes = {}, {}, 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers and arrays."""
        names = self.names()
        parts = [self.moments(name) for name in names]
        return {
            "cell": self.cell,
            "names": np.array(names, np.str_),
            "sizes": np.array([len(part.index) for part in parts], np.int64),
            "exponents": np.array([part.exponent for part in parts], np.int64),
            "index": _joined([part.index for part in parts], np.zeros(0, np.int64)),
            "count": _joined([part.count for part in parts], np.zeros(0, np.int64)),
            "sums": np.concatenate([np.zeros((4, 0)), *(part.sums for part in parts)], axis=1),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> CoordinateStore:
        """Rebuild a store."""
        new = cls(int(state["cell"]))
        index, count = np.asarray(state["index"], np.int64), np.asarray(state["count"], np.int64)
        sums = np.asarray(state["sums"], np.float64)
        sizes = np.asarray(state["sizes"], np.int64)
        if sums.shape != (4, len(index)) or len(count) != len(index) or sizes.sum() != len(index):
            raise ValueError(
                f"state: expected coordinate moments of shape (4, {len(index)}), got {sums.shape}"
            )
        begin = 0
        for name, size, exponent in zip(
            np.asarray(state["names"]).tolist(),
            sizes.tolist(),
            np.asarray(state["exponents"]).tolist(),
            strict=True,
        ):
            part = slice(begin, begin + size)
            new._past[name] = CoordinateMoments(index[part], count[part], exponent, sums[:, part])
            begin += size
        return new


def _joined(parts: Sequence[npt.NDArray[Any]], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([like, *parts])
