"""How many values lie in each logarithmic bin: quantiles and tails at a cost that depends on bins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Tail = Literal["both", "upper", "lower"]
FloatArray = npt.NDArray[np.float64]

SMALLEST = 2.0**-149
"""The smallest positive float32: where bin 0 begins once the zeros are taken out."""


@cache
def edges_for(bits: int) -> FloatArray:
    """Return the edges of the magnitude bins, float64, shape (2 ** (8 + bits) + 1,), read-only.

    Bin i holds edges[i] <= |x| < edges[i + 1]. The first edge is the smallest positive float32, the
    last finite one 2**128; beyond lie the unused bins of non-finite patterns, with edge infinity.
    """
    half = 1 << (8 + bits)
    patterns = np.arange(half + 1, dtype=np.uint64) << np.uint64(23 - bits)
    finite = patterns < 0x7F800000
    edges = np.full(half + 1, np.inf)
    exponent, mantissa = patterns[finite] >> np.uint64(23), patterns[finite] & np.uint64(0x7FFFFF)
    normal = exponent > 0  # by integers: no float32 subnormal, which a framework may have set to be flushed
    significand = mantissa.astype(np.float64) + np.where(normal, 2.0**23, 0.0)
    edges[finite] = np.ldexp(significand, np.maximum(exponent, 1).astype(np.int64) - 150)
    edges[np.count_nonzero(finite)] = 2.0**128
    edges[0] = SMALLEST
    edges.flags.writeable = False
    return edges


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, trimmed to the bins in use.

    Attributes
    ----------
    edges : ndarray of float64, shape (m + 1,)
        Of |x|, ascending.
    positive, negative : ndarray of uint64, shape (m,)
        Nonzero values of each sign.
    zeros : int
        Exact zeros, which are in no bin.
    """

    edges: FloatArray
    positive: npt.NDArray[np.uint64]
    negative: npt.NDArray[np.uint64]
    zeros: int


@dataclass(frozen=True)
class Magnitudes:
    """Counts over the top bits of the float32 patterns of the finite values.

    Attributes
    ----------
    bits : int
        Mantissa bits kept: 2**bits bins a binade.
    mantissa : int
        Most mantissa bits of any input: 7 (bfloat16), 10 (float16) or 23; 0 without input.
    counts : ndarray of uint64, shape (2 ** (9 + bits),)
        Positive values in the first half, negative ones in the second.
    zeros : int
        Exact zeros of either sign; they are in ``counts`` too, in bin 0 of their sign.
    overflowed, vanished : int
        Finite float64 values that are infinite or zero as float32: in no bin.
    """

    bits: int
    mantissa: int
    counts: npt.NDArray[np.uint64]
    zeros: int
    overflowed: int
    vanished: int

    @property
    def exact(self) -> bool:
        """Every value of a bin equals its lower edge: the inputs have no more than ``bits`` bits."""
        return self.mantissa <= self.bits

    @property
    def edges(self) -> FloatArray:
        """Edges of the magnitude bins: see :func:`edges_for`."""
        return edges_for(self.bits)

    def nonzero(self, tail: Tail = "both") -> npt.NDArray[np.int64]:
        """Count the nonzero values of each magnitude bin, shape (2 ** (8 + bits),).

        For one sign, bin 0 (|x| < 2**-130 at bits = 4) is left out, since zeros are not told
        apart by sign.
        """
        half = self.counts.size // 2
        positive, negative = self.counts[:half].astype(np.int64), self.counts[half:].astype(np.int64)
        if tail == "both":
            both = positive + negative
            both[0] -= self.zeros
            return both
        one = positive if tail == "upper" else negative
        one[0] = 0
        return one

    def quantile(self, q: npt.ArrayLike) -> FloatArray:
        """Quantiles of |x| over all finite values, within one bin.

        Parameters
        ----------
        q : float or array of float in [0, 1]

        Returns
        -------
        ndarray of float64, shape of ``q``
            NaN without values. Exact if :attr:`exact`; else spread evenly in log |x| inside a bin.
        """
        q = np.asarray(q, dtype=np.float64)
        if q.size and not (np.all(q >= 0) and np.all(q <= 1)):
            raise ValueError(f"q: expected values in [0, 1], got {q.tolist()}")
        nonzero = self.nonzero()
        below = np.concatenate([[0], np.cumsum(nonzero)]) + (self.zeros + self.vanished)
        n = int(below[-1]) + self.overflowed
        if n == 0:
            return np.full(q.shape, np.nan)
        rank = q * (n - 1)
        bin_ = np.searchsorted(below, rank, side="right") - 1
        inside = np.clip(bin_, 0, nonzero.size - 1)
        low, high = self.edges[inside], self.edges[inside + 1]
        if self.exact:
            value = low.copy()
        else:
            part = (rank - below[inside] + 0.5) / np.maximum(nonzero[inside], 1)
            with np.errstate(invalid="ignore"):
                value = low * np.exp(np.clip(part, 0, 1) * np.log(high / low))
        value = np.where(bin_ >= nonzero.size, np.inf, value)  # among the overflowed
        value = np.where(rank < self.zeros + self.vanished, SMALLEST, value)
        return np.where(rank < self.zeros, 0.0, value)

    def histogram(self) -> Histogram:
        """Return the counts and edges of the bins in use."""
        half = self.counts.size // 2
        used = np.flatnonzero(self.nonzero())
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
        positive, negative = self.counts[first:last].copy(), self.counts[half + first : half + last].copy()
        if first == 0 and last:  # zeros share bin 0 and are reported apart, as if all were +0
            taken = min(int(positive[0]), self.zeros)
            positive[0] -= np.uint64(taken)
            negative[0] -= np.uint64(self.zeros - taken)
        return Histogram(self.edges[first : last + 1].copy(), positive, negative, self.zeros)
