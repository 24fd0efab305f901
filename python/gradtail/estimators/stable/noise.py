"""The stable index of gradient noise: a matrix of batches by coordinates, with its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import as_reals
from gradtail.estimators.stable.blocks import FLOOR, block_curve
from gradtail.estimators.stable.index import FEWEST, check_kind, checked_seed
from gradtail.estimators.stable.result import Control, Kind, StableEstimate
from gradtail.estimators.stable.rivals import MOST_VALUES, by_characteristic_function, by_quantiles
from gradtail.estimators.stable.rowsums import RowSums
from gradtail.estimators.stable.signs import (
    Across,
    Sign,
    common_sign,
    curve_sign,
    gathered,
    mixture_sign,
    order_sign,
    rivals_sign,
    spread_sign,
    zeros_sign,
)
from gradtail.estimators.stable.typical import SEEN, typical_sizes
from gradtail.states.magnitudes import FloatArray

_FAR = 400  # powers of two, that sizes of rows are kept within
_BLOCKS_A_ROW = 8
_FEWEST_ACROSS = 4  # batches in a block, and blocks, of one coordinate

_WHAT = {
    "standardised": "each coordinate by its typical size",
    "gaussian": "normal values, variances as here",
    "gaussian_typical": "normal values, typical sizes as here",
    "shuffled": "coordinates in another order",
    "standardised_shuffled": "by typical size, in another order",
    "across_batches": "each coordinate by itself, over batches",
}


def stable_index_noise(
    matrix: object,
    layers: Mapping[str, slice] | None = None,
    *,
    block: int | None = None,
    epoch: int | None = None,
    kind: Kind = "noise",
    seed: int = 0,
) -> StableEstimate:
    r"""Estimate the stable index of gradient noise, beside what else may make it small.

    Parameters
    ----------
    matrix : array of real numbers, shape (batches, coordinates)
        Each row a minibatch gradient less the full gradient, all at the same parameters, as
        :func:`gradtail.torch.collect_gradients` has it with ``exact=True``.
    layers : mapping of str to slice, optional
        Coordinates of each layer, which then get an estimate each.
    block : int, optional
        Consecutive coordinates of one batch that are summed, K1; by default the integer part of sqrt(N) over
        the N nonzero values, or an eighth of the nonzero coordinates of a row if that is less.
    epoch : int, optional
        Batches of an epoch, where rows are drawn without replacement: their noise adds up to 0, so that the
        control "across_batches" sums no more than a fifth of them. None: every batch by itself.
    kind : {"noise", "gradient", "values"}
        "gradient" for gradients from which nothing was taken.
    seed : int
        Of normal values and of the other order of coordinates.

    Returns
    -------
    StableEstimate
        ``n`` counts values of finite rows, ``nonfinite`` rows that were left out. The observed error is from
        the spread between rows, which depend on each other less than the coordinates of one batch.

    Raises
    ------
    TypeError, ValueError
        No such matrix, layers or block; fewer than 16 nonzero values in half of the rows, or 100 in all.

    Notes
    -----
    The published number pools all coordinates (Simsekli, Sagun and Gurbuzbalaban 2019, arXiv 1901.06053),
    which mixes their scales: N(0, s_j^2) with log-normal s_j of log-variance t reads
    1 / (1/2 + t / log K1). A coordinate's typical size is the geometric mean of its nonzero magnitudes, over
    the other batches where it standardises, so that heavy tails neither make a scale of their own outliers
    nor vanish by it. Of noise they are taken from the middle of the coordinate, since with the mean of all
    batches an outlier in one of them moves the others too. It is known to sqrt(v / P) in log from P batches,
    of which a scale mixture of that size stays: with P = 10 normal noise reads 1.88.

    The model is of each coordinate: "across_batches" sums the same coordinate over up to sqrt(P) consecutive
    batches, and neither scales nor other coordinates have a part in it. Where it, or quantiles, lie below
    sums over coordinates, batches are heavy-tailed or differ in scale, which those sums do not see. Of normal
    noise of epochs of n_b batches, 1 / alpha is too small by -log(1 - (K1 - 1) / (n_b - 1)) / (2 log K1).

    ``gaussian``, by variances, does the same to normal noise; of truly heavy-tailed noise sample variances
    are as heavy-tailed, so there it reads below 2 too and proves nothing. ``gaussian_typical`` does not.

    Time is about 0.3 us a value, and as much again with layers; memory some 20 vectors of float64 of a row.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scales = np.exp(rng.standard_normal(2000))
    >>> found = stable_index_noise(scales * rng.standard_normal((50, 2000)))
    >>> print(found.verdict)
    no stable index (scale mixture, not stable): noise alpha 1.479 (95 % 1.432 to 1.53)
    >>> print(found.controls["standardised"])
    each coordinate by its typical size: 1.969 +- 0.04
    """
    check_kind(kind)
    seed = checked_seed(seed)
    x = as_reals(matrix, "matrix")
    if x.ndim != 2:
        raise ValueError(f"matrix: expected shape (batches, coordinates), got {x.shape}")
    if epoch is not None and (isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer))):
        raise TypeError(f"epoch: expected a positive int, got {type(epoch).__name__}")
    if epoch is not None and epoch < 1:
        raise ValueError(f"epoch: expected a positive int, got {epoch}")
    most = len(x) if epoch is None else int(epoch) // 5
    whole = _Part(x, slice(None), seed, most, kind == "noise")
    found, signs = whole.estimate(block, kind)
    parts: dict[str, StableEstimate] = {}
    small = []
    for name, at in _checked_layers(layers, x.shape[1]).items():
        part = _Part(x, at, seed, most, kind == "noise")
        if part.k1(None) is None:
            small.append(name)
            continue
        own, _ = part.estimate(None, kind)
        parts[name] = own
    if small:
        signs.append(("", f"layers with too few nonzero coordinates for an index: {', '.join(small)}"))
    looked = gathered(signs)
    return replace(found, layers=parts, findings=looked.findings, warnings=looked.warnings)


def _checked_layers(layers: object, columns: int) -> dict[str, slice]:
    if layers is None:
        return {}
    if not isinstance(layers, Mapping):
        raise TypeError(f"layers: expected a mapping of names to slices, got {type(layers).__name__}")
    for name, at in layers.items():
        if not isinstance(at, slice):
            raise TypeError(f"layers: expected slices of coordinates, got {type(at).__name__} for {name!r}")
        if not len(range(*at.indices(columns))):
            raise ValueError(f"layers: expected coordinates below {columns} in each, got none for {name!r}")
    return dict(layers)


@dataclass
class _Part:
    """Some coordinates of all batches."""

    matrix: npt.NDArray[np.floating]
    at: slice
    seed: int
    most_across: int
    centred: bool
    rows: npt.NDArray[np.int64] = field(init=False)
    zeros: int = field(init=False)

    def __post_init__(self) -> None:
        m = len(range(*self.at.indices(self.matrix.shape[1])))
        finite, counts, largest = [], [], 0.0
        for i in range(len(self.matrix)):
            row = self.matrix[i, self.at]
            most = float(np.abs(row).max())
            if not math.isfinite(most):
                continue
            largest = max(largest, most)
            finite.append(i)
            counts.append(int(np.count_nonzero(row)))
        exponent = math.frexp(largest)[1]
        # or squares would overflow, or vanish
        self._exponent = min(max(exponent, -_FAR), _FAR) - exponent if largest else 0
        self.rows = np.array(finite, np.int64)
        self._counts = np.array(counts, np.int64)
        self.n = m * self.rows.size
        self.zeros = self.n - int(self._counts.sum())

    def _row(self, i: int) -> FloatArray:
        row = self.matrix[i, self.at].astype(np.float64)
        return np.ldexp(row, self._exponent) if self._exponent else row

    def k1(self, block: object) -> int | None:
        """Return the block size, or None where there are too few values for one."""
        typical = int(np.median(self._counts)) if self._counts.size else 0
        most = max(typical // _BLOCKS_A_ROW, 2)
        if typical < 2 * _BLOCKS_A_ROW or self.n - self.zeros < FEWEST:
            return None
        if block is None:
            return min(math.isqrt(self.n - self.zeros), most)
        if isinstance(block, bool) or not isinstance(block, (int, np.integer)):
            raise TypeError(f"block: expected an int of at least 2, got {type(block).__name__}")
        if not 2 <= block <= typical:
            raise ValueError(
                f"block: expected an int from 2 to {typical}, the nonzero values of a row, got {block}"
            )
        return int(block)

    def estimate(self, block: object, kind: Kind) -> tuple[StableEstimate, list[Sign]]:
        """Return the estimate with its controls, and the signs that were found."""
        k1 = self.k1(block)
        if k1 is None:
            typical = int(np.median(self._counts)) if self._counts.size else 0
            raise ValueError(
                f"matrix: expected rows of at least {2 * _BLOCKS_A_ROW} nonzero values and {FEWEST} in all, "
                f"got {typical} and {self.n - self.zeros} in {self.rows.size} finite rows"
            )
        sums, pooled, sides, batch_scales = self._sums(k1)
        raw = sums["raw"]
        if not raw.k2:
            raise ValueError(f"matrix: expected a block of {k1} values whose sum is not 0, got none")
        index = raw.index()
        found = StableEstimate(
            index.inverse, index.inverse_stderr, raw.observed_stderr(), raw.rows - 1, k1, raw.k2, self.n,
            raw.dropped, self.zeros, len(self.matrix) - self.rows.size, kind,
        )  # fmt: skip
        controls = {name: _control(sums[name], what) for name, what in _WHAT.items() if name in sums}
        if self.zeros:
            kept = _control(sums["zeros_kept"], "zeros kept, epsilon in each logarithm")
            controls = {"zeros_kept": kept, **controls}
        quantiles, scale = by_quantiles(pooled)
        rivals = {
            "quantiles": quantiles,
            "characteristic": by_characteristic_function(pooled, quantiles.alpha, scale),
        }
        curve = block_curve(pooled)
        signs = zeros_sign(self.zeros, self.n, controls.get("zeros_kept"))
        if found.nonfinite:
            signs.append(("", f"{found.nonfinite} batches with non-finite values are left out"))
        if raw.zero_sums:
            signs.append(("", f"{raw.zero_sums} blocks whose sum is 0 are left out"))
        before = {
            own: (sums[other].index().alpha, sums[other].paired_stderr(sums[own]))
            for own, other in (("standardised", "about"), ("standardised_shuffled", "about_shuffled"))
            if own in sums
        }
        signs += mixture_sign(found, controls, before)
        if "standardised" in controls:  # by size, or runs of one scale would be taken for dependence
            first, second = "standardised", "standardised_shuffled"
            signs += order_sign(controls[first], controls[second], sums[first].paired_stderr(sums[second]))
        signs += common_sign(sides)
        across = None
        if kind != "gradient" and "across_batches" in sums:  # sums of gradients grow by their mean
            across = Across(controls["across_batches"], sums["across_batches"].rows - 1)
        signs += curve_sign(curve)
        signs += [*rivals_sign(found, rivals, across, batch_scales), *spread_sign(found)]
        if "standardised" not in controls:
            signs.append(
                ("", f"no coordinate has {SEEN} nonzero values: scales are not known, nor their mixture")
            )
        looked = gathered(signs)
        found = replace(
            found, controls={**controls, **rivals}, curve=curve, findings=looked.findings,
            warnings=looked.warnings, unchecked="" if "standardised" in controls else "scales not checked",
        )  # fmt: skip
        return found, signs

    def _sums(self, k1: int) -> tuple[dict[str, RowSums], FloatArray, FloatArray, float]:
        """Go through all rows with every control.

        Returns their sums, the values of evenly chosen rows, the sum of signs of each row over its
        standard deviation where they are independent, and the variance of the log scale of rows.
        """
        m = len(range(*self.at.indices(self.matrix.shape[1])))
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(m)
        sizes = typical_sizes(self.matrix[:, self.at], self.rows, self._exponent, self.centred)
        known = sizes.known
        names = ["raw", "zeros_kept", "gaussian", "shuffled"]
        if known.any():
            names += ["about", "about_shuffled", "standardised", "standardised_shuffled", "gaussian_typical"]
        floor = math.ldexp(FLOOR, self._exponent)
        sums = {name: RowSums(k1, floor if name == "zeros_kept" else 0.0) for name in names}
        p = self.rows.size
        deviation, typical = self._deviation(m), sizes.of_normal()
        every = max(1, -(-self.n // MOST_VALUES))
        pooled, sides, means, within = [], np.zeros(p), np.full(p, np.nan), np.full(p, np.nan)
        batches = min(math.isqrt(p), self.most_across)
        across = _Across(m, batches) if batches >= _FEWEST_ACROSS else None
        for j, i in enumerate(self.rows.tolist()):
            row = self._row(i)
            there = row != 0
            nonzero = row[there]
            if across is not None:
                across.add(row, there)
            if j % every == 0:
                pooled.append(nonzero)
            sums["raw"].add(nonzero)
            sides[j] = float(np.sign(nonzero).sum()) / math.sqrt(max(nonzero.size, 1))
            if self.zeros:
                sums["zeros_kept"].add(row)
            shuffled = row[order]
            sums["shuffled"].add(shuffled[shuffled != 0])
            normal = rng.standard_normal(m)
            sums["gaussian"].add((normal * deviation)[there & (deviation > 0)])
            if not known.any():
                continue
            use = there & known
            sums["gaussian_typical"].add((normal * typical)[use])
            own = sizes.about(row)
            sums["about"].add(own[own != 0])
            own = own[order]
            sums["about_shuffled"].add(own[own != 0])
            own = sizes.standardised(row)
            use = own != 0
            if use.any():
                logs = np.log(np.abs(own[use]))
                means[j], within[j] = logs.mean(), logs.var() / logs.size
            sums["standardised"].add(own[use])
            own = own[order]
            sums["standardised_shuffled"].add(own[own != 0])
        if across is not None:
            sums["across_batches"] = across.sums
        scales = float(np.nanvar(means) - np.nanmean(within)) if np.isfinite(means).any() else 0.0
        return sums, np.concatenate(pooled), sides, scales

    def _deviation(self, m: int) -> FloatArray:
        """Return the standard deviation of each coordinate over batches."""
        total, squares = np.zeros(m), np.zeros(m)
        for i in self.rows.tolist():
            row = self._row(i)
            total += row
            squares += row * row
        p = max(self.rows.size, 1)
        return np.sqrt(np.maximum(squares / p - (total / p) ** 2, 0.0))


class _Across:
    """Sums over consecutive batches of each coordinate by itself."""

    def __init__(self, m: int, k1: int) -> None:
        self.sums = RowSums(k1)
        self._total, self._logs, self._alive = np.zeros(m), np.zeros(m), np.ones(m, np.bool_)
        self._rows = 0

    def add(self, row: FloatArray, there: npt.NDArray[np.bool_]) -> None:
        """Take one batch; a coordinate that is zero in one of a block's batches is left out of it."""
        self._total += row
        self._logs += np.log(np.abs(row), out=np.zeros(row.size), where=there)
        self._alive &= there
        self._rows += 1
        if self._rows == self.sums.k1:
            self.sums.add_blocks(self._total[self._alive], self._logs[self._alive])
            self._total[:], self._logs[:], self._alive[:] = 0, 0, True
            self._rows = 0


def _control(sums: RowSums, what: str) -> Control:
    found = sums.index()
    observed = sums.observed_stderr()
    error = found.stderr if math.isnan(observed) else max(found.stderr, found.alpha**2 * observed)
    return Control(found.alpha, error, sums.n, what)
