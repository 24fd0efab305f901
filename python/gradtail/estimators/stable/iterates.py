"""The stable index of averaged iterates: the median over sizes of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.estimators.order import as_reals
from gradtail.estimators.stable.blocks import block_curve, block_sums
from gradtail.estimators.stable.index import FEWEST, centred, estimate, not_zero
from gradtail.estimators.stable.result import ENOUGH, worded
from gradtail.estimators.stable.rivals import by_characteristic_function, by_quantiles, thinned
from gradtail.estimators.stable.signs import array_signs, curve_sign, gathered, rivals_sign, zeros_sign
from gradtail.states.magnitudes import FloatArray

BLOCKS = (2, 5, 10, 20, 50, 100, 500, 1000)
"""Block sizes of the study, of networks."""

_FEWEST_BLOCKS = 10


@dataclass(frozen=True, eq=False)
class IterateIndex:
    """The index by several sizes of blocks, and its median.

    Attributes
    ----------
    alpha : float
        Median of ``alphas``.
    stderr : float
        Of the estimate at the median, or the mean of both there: estimates of other block sizes share their
        values, so that a median of them is hardly surer than one.
    k1 : ndarray of int64, shape (m,)
    alphas, stderrs : ndarray of float64, shape (m,)
        By each size; inf where sums do not grow.
    n : int
        Values, or vectors.
    zeros : int
        Left out: pruned weights, and weights at the mean of the others.
    skipped : tuple of int
        Block sizes of which fewer than ten fit.
    findings, warnings : tuple of str
        As of :class:`StableEstimate`.
    """

    alpha: float
    stderr: float
    k1: npt.NDArray[np.int64]
    alphas: FloatArray
    stderrs: FloatArray
    n: int
    zeros: int = 0
    skipped: tuple[int, ...] = ()
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> bool:
        """Whether there are values enough, 50,000, that no finding says something."""
        return self.n - self.zeros >= ENOUGH

    def __repr__(self) -> str:
        return f"IterateIndex(alpha={self.alpha:.4g}, stderr={self.stderr:.2g}, n={self.n})"

    def __str__(self) -> str:
        each = ", ".join(f"{a:.3g} ({k})" for a, k in zip(self.alphas, self.k1, strict=True))
        what = worded(self.findings, "", self.told, self.alpha + 2 * self.stderr)
        line = (
            f"{what}: alpha {self.alpha:.4g} +- {self.stderr:.2g}, median over block sizes of {self.n} values"
        )
        return "\n".join([line, f"  by block size: {each}", *(f"  warning: {w}" for w in self.warnings)])


def stable_index_iterates(
    average: object,
    blocks: Iterable[int] = BLOCKS,
    *,
    vectors: bool = False,
    centre: bool = True,
) -> IterateIndex:
    """Estimate the stable index of averaged iterates of SGD as the median over sizes of blocks.

    Parameters
    ----------
    average : array of real numbers, of any shape
        The average of the last iterates of one layer, whose weights are one sample. With ``vectors``, shape
        (N, p): one average for each of N independent runs, whose norms and sums are taken.
    blocks : ints of at least 2
        Sizes; those of which fewer than ten fit are skipped and named. A remainder is left out.
    vectors : bool
    centre : bool
        Take off the mean of all weights of the layer that are not zero. Of vectors the solution has to be
        taken off before, and ``centre=False`` keeps what is left.

    Returns
    -------
    IterateIndex

    Raises
    ------
    TypeError, ValueError
        Other kinds of arguments, non-finite values, fewer than 100 that are not zero, or no size that fits.

    Notes
    -----
    Gurbuzbalaban, Simsekli and Zhu (2021), arXiv 2006.04740: averages of iterates of infinite variance
    tend to a stable law, averages of others to a normal one. The error of each size is
    that of the spread between its blocks: at N = 1e6 and alpha = 1.5 0.005 for K1 = 2, 0.004 for 10 and 0.013
    for 1000. The weights of one layer of one run need not have one scale, and then read as too small an
    alpha: the warnings say whether they do, of 50,000 weights at least.

    O(N) for each size.

    Examples
    --------
    >>> import numpy as np
    >>> layer = np.random.default_rng(0).standard_cauchy((400, 500))
    >>> print(stable_index_iterates(layer, centre=False))
    nothing seen against a stable law: alpha 0.9939 +- 0.0051, median over block sizes of 200000 values
      by block size: 1.01 (2), 0.996 (5), 0.997 (10), 0.998 (20), 0.992 (50), 0.989 (100), 0.983 (500),
      0.982 (1000)
    """
    for name, value in (("vectors", vectors), ("centre", centre)):
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    values = as_reals(average, "average")
    if vectors and (values.ndim != 2 or not values.shape[1]):
        raise ValueError(f"average: expected shape (N, p) of N vectors, got {values.shape}")
    wanted = _checked_blocks(blocks)
    if not vectors:
        values = values.reshape(-1)
    if not np.isfinite(values).all():
        raise ValueError("average: expected finite values, got others: iterates have diverged")
    there = not_zero(values)
    if centre:
        values = centred(values, there)
        there = not_zero(values)
    n = values.shape[0]
    values = values[there].astype(np.float64)
    if values.shape[0] < FEWEST:
        raise ValueError(f"average: expected at least {FEWEST} values that are not zero, got {len(values)}")
    sizes = [k for k in wanted if len(values) // k >= _FEWEST_BLOCKS]
    if not sizes:
        most = len(values) // _FEWEST_BLOCKS
        raise ValueError(f"blocks: expected a size of at most {most}, a tenth of the values, got {wanted}")
    found = [block_sums(values, k) for k in sizes]
    alphas = np.array([one.index().alpha for one in found])
    stderrs = alphas**2 * np.array([one.observed_stderr for one in found])
    middle = np.argsort(alphas)[(len(alphas) - 1) // 2 : len(alphas) // 2 + 1]
    signs = zeros_sign(n - len(values), n, None)
    curve = block_curve(values)
    if vectors:
        signs += curve_sign(curve)
    else:
        signs += array_signs(values, curve)
        some = thinned(values)
        quantiles, size = by_quantiles(some)
        characteristic = by_characteristic_function(some, quantiles.alpha, size)
        whole = estimate(values, math.isqrt(len(values)))
        signs += rivals_sign(whole, {"quantiles": quantiles, "characteristic": characteristic})
    looked = gathered(signs)
    skipped = tuple(k for k in wanted if k not in sizes)
    return IterateIndex(
        float(np.median(alphas)), float(stderrs[middle].mean()), np.array(sizes, np.int64), alphas, stderrs,
        n, n - len(values), skipped, looked.findings, looked.warnings,
    )  # fmt: skip


def _checked_blocks(blocks: object) -> list[int]:
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise TypeError(f"blocks: expected ints of at least 2, got {type(blocks).__name__}")
    wanted = list(blocks)
    for k in wanted:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"blocks: expected ints of at least 2, got {type(k).__name__}")
        if k < 2:
            raise ValueError(f"blocks: expected ints of at least 2, got {k}")
    if not wanted:
        raise ValueError("blocks: expected at least one size, got none")
    return [int(k) for k in dict.fromkeys(wanted)]
