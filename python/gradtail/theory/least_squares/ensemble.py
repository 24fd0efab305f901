"""SGD on least squares in many independent chains, and what their tails say beside theory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators.stable.blocks import block_sums
from gradtail.estimators.tail import hill
from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import generator, number, real_array, whole
from gradtail.theory.least_squares.batches import draw_batches
from gradtail.theory.least_squares.ensemble_result import AveragedIndex, Ensemble
from gradtail.theory.least_squares.gaussian import stationary
from gradtail.theory.least_squares.given import batch_size, full_rank

_CHUNK_VALUES = 1 << 16  # numbers drawn at a time: they stay in the cache
_TOO_LONG = 1e100  # a distance at which a chain is stopped
_BLOCKS = (2, 5, 10, 20, 50, 100)
_FEWEST_BLOCKS = 8
_HALVES = 40
_CHECKPOINTS = 20
_ASKED = 50  # steps of a chunk of chains, of about a millisecond each, until stop is asked again


def simulate(
    eta: float,
    b: int,
    d: int,
    sigma: float = 1.0,
    *,
    chains: int = 2000,
    steps: int = 1000,
    noise: float = 1.0,
    start: float = 1.0,
    average: int | None = None,
    data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    replacement: bool = True,
    top: float = 0.01,
    seed: int | np.random.Generator | None = 0,
    stop: Callable[[], bool] | None = None,
) -> Ensemble:
    r"""Run SGD on least squares in independent chains, and hold its tails against theory.

    Parameters
    ----------
    eta, b, d, sigma
        As for :func:`gradtail.theory.least_squares.moment`.
    chains, steps : int
        At least 100 and 20.
    noise : float
        Standard deviation of the labels about a x*, above 0; of fresh data.
    start : float
        Standard deviation of each coordinate of x - x* at first.
    average : int, optional
        How many of the last iterates are averaged; default: half the steps.
    data : (rows, targets), shapes (n, d) and (n,), optional
        A data set to draw batches from; x* is its least-squares solution. Default: fresh normal data each
        step. The theory beside the result is that of fresh data in both cases; see
        :func:`gradtail.theory.least_squares.data_tail_index` for that of a data set.
    replacement : bool
        Whether an example of ``data`` may be in a batch twice. Batches are independent from step to step.
    top : float in (0, 1)
        Share of the chains that Hill's estimate rests on.
    seed : int, Generator or None
    stop : callable without arguments, optional
        Asked before the first step and now and then, several times a second unless a step takes longer;
        what is true ends the run.

    Returns
    -------
    Ensemble
        Distances \|x - x*\|, Hill's estimate, that of averaged iterates, alpha and rho of theory, whether the
        chains diverged; with warnings where there is no stationary law, or it is not reached yet, and where
        Hill's estimate rests on fewer than 10 chains.

    Raises
    ------
    TypeError, ValueError
        An argument is out of range, or the data do not fit.
    KeyboardInterrupt
        ``stop`` said so.

    Notes
    -----
    The error e = x - x* goes to e - (eta / b) A' (A e - r) with fresh rows A and residuals r. A chain is
    stopped, and counted, where \|e\| exceeds 1e100. Averages of K iterates tend, after scaling, to a stable
    law of index min(alpha, 2); their index is the median over blocks of 2, 5, 10, 20, 50, 100 and
    sqrt(chains) chains, as in the code of Gürbüzbalaban, Şimşekli and Zhu (2021). O(chains steps b d).

    Examples
    --------
    >>> print(simulate(1.0, 1, 1, chains=20_000, steps=100))
    SGD on least squares, eta = 1, b = 1, d = 1, fresh data: 20000 chains, 100 steps
      theory             alpha 1.09, rho -0.417
      distances, Hill    alpha 1.14 +- 0.081 (top 200)
      averaged iterates  alpha 1.09 +- 0.027 (theory 1.09)
    """
    theory, rho = stationary(eta, b, d, sigma)
    chains, steps = whole(chains, "chains", least=100), whole(steps, "steps", least=20)
    noise, start = number(noise, "noise", above=0.0), number(start, "start", least=0.0)
    top = number(top, "top", above=0.0)
    if top >= 1:
        raise ValueError(f"top: expected a share between 0 and 1, got {top}")
    last = steps // 2 if average is None else whole(average, "average")
    if last > steps:
        raise ValueError(f"average: expected at most {steps}, the number of steps, got {last}")
    if stop is not None and not callable(stop):
        raise TypeError(f"stop: expected a callable without arguments, got {type(stop).__name__}")
    rng = generator(seed)
    source: _Fresh | _Given = (
        _Fresh(d, float(sigma), noise, rng) if data is None else _Given(data, b, d, bool(replacement), rng)
    )
    at = np.unique(np.linspace(steps / _CHECKPOINTS, steps, _CHECKPOINTS).round().astype(np.int64))
    half = int(np.searchsorted(at, steps // 2))
    logs, averages, stopped = np.empty((at.size, chains)), np.empty((chains, d)), 0
    size = max(_CHUNK_VALUES // (b * (d + 1)), 1)
    for first in range(0, chains, size):
        part = slice(first, min(first + size, chains))
        e = start * rng.standard_normal((part.stop - first, d))
        logs[:, part], averages[part], more = _run(e, source, eta / b, b, steps, last, at, stop)
        stopped += more
    change = (logs[-1] - logs[half]) / float(at[-1] - at[half])
    growth, spread = float(change.mean()), float(change.std(ddof=1)) / math.sqrt(chains)
    norms = np.exp(logs[-1])
    found = Ensemble(
        eta=float(eta), b=b, d=d, sigma=float(sigma), steps=steps, averaged_over=last,
        given=data is not None, alpha=theory, rho=rho, norms=norms, hill=hill(norms, k=top),
        averaged=averaged_index(averages), growth=growth, growth_stderr=spread, stopped=stopped,
        steps_at=at, log_median=np.median(logs, axis=1),
    )  # fmt: skip
    return found


class _Fresh:
    """Rows and residuals drawn anew."""

    def __init__(self, d: int, sigma: float, noise: float, rng: np.random.Generator) -> None:
        self._d, self._sigma, self._noise, self._rng = d, sigma, noise, rng

    def draw(self, chains: int, b: int) -> tuple[FloatArray, FloatArray]:
        rows, rest = self._rng.standard_normal((chains, b, self._d)), self._rng.standard_normal((chains, b))
        if self._sigma != 1:
            rows *= self._sigma
        if self._noise != 1:
            rest *= self._noise
        return rows, rest


class _Given:
    """Rows of a data set, with their residuals at its least-squares solution."""

    def __init__(self, data: Any, b: int, d: int, replacement: bool, rng: np.random.Generator) -> None:
        try:
            rows, targets = data
        except (TypeError, ValueError):
            raise TypeError(f"data: expected a pair (rows, targets), got {type(data).__name__}") from None
        self._rows, y = full_rank(rows), real_array(targets, "targets", 1)
        if self._rows.shape[1] != d:
            raise ValueError(f"rows: expected {d} columns, as d says, got {self._rows.shape[1]}")
        if y.size != len(self._rows):
            raise ValueError(f"targets: expected {len(self._rows)} of them, one a row, got {y.size}")
        batch_size(b, y.size, replacement)
        self._residuals = y - self._rows @ np.linalg.lstsq(self._rows, y, rcond=None)[0]
        self._replacement, self._rng = replacement, rng

    def draw(self, chains: int, b: int) -> tuple[FloatArray, FloatArray]:
        chosen = draw_batches(len(self._rows), b, chains, self._replacement, self._rng)
        return self._rows[chosen], self._residuals[chosen]


def _run(
    e: FloatArray,
    source: _Fresh | _Given,
    rate: float,
    b: int,
    steps: int,
    last: int,
    at: npt.NDArray[np.int64],
    stop: Callable[[], bool] | None,
) -> tuple[FloatArray, FloatArray, int]:
    """Return log distances at some steps, means of the last iterates, and how many chains were stopped."""
    logs, total, going = np.empty((at.size, len(e))), np.zeros_like(e), np.ones(len(e), dtype=bool)
    row = 0
    for k in range(1, steps + 1):
        if k % _ASKED == 1 and stop is not None and stop():
            raise KeyboardInterrupt
        rows, rest = source.draw(len(e), b)
        if b == 1:  # the same sums, without what einsum costs on short axes
            a = rows[:, 0]
            change = a * ((a * e).sum(axis=1) - rest[:, 0])[:, None]
        else:
            residual = np.matmul(rows, e[:, :, None])[:, :, 0] - rest
            change = np.matmul(residual[:, None, :], rows)[:, 0]
        e = e - rate * change if going.all() else np.where(going[:, None], e - rate * change, e)
        if np.abs(e).max() > _TOO_LONG:
            going &= np.abs(e).max(axis=1) <= _TOO_LONG
        if k > steps - last:
            total += e / last
        if k == at[row]:
            logs[row] = np.log(np.maximum(np.linalg.norm(e, axis=1), 1e-300))
            row += 1
    return logs, total, int(np.count_nonzero(~going))


def averaged_index(averages: npt.ArrayLike) -> AveragedIndex:
    """Index of the stable law that averaged iterates of independent chains tend to.

    Parameters
    ----------
    averages : array of real numbers, shape (chains, d)
        Averages of late iterates, less the point that they vary about; at least 100 chains.

    Returns
    -------
    AveragedIndex
        Its standard error is the spread of random halves of the chains about the whole.

    Raises
    ------
    TypeError, ValueError
        No such array.

    Notes
    -----
    The median over block sizes of the log-sum estimator in its vector form; sizes that leave fewer than 8
    blocks are left out. O(chains d).

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_cauchy((1600, 1))
    >>> print(averaged_index(x))
    alpha 1 +- 0.055
    """
    x = real_array(averages, "averages", 2)
    if len(x) < 100:
        raise ValueError(f"averages: expected at least 100 chains, got {len(x)}")
    wanted = sorted({*_BLOCKS, math.isqrt(len(x))})
    by_block = {k: block_sums(x, k).index().alpha for k in wanted if len(x) // k >= _FEWEST_BLOCKS}
    blocks = [k for k in wanted if len(x) // 2 // k >= _FEWEST_BLOCKS]
    rng = np.random.default_rng(0)
    # half-samples without replacement vary about the whole as the whole does about the truth
    halves = [
        float(np.median([block_sums(half, k).index().inverse for k in blocks]))
        for half in (x[rng.permutation(len(x))[: len(x) // 2]] for _ in range(_HALVES))
    ]
    alpha = float(np.median(list(by_block.values())))
    spread = math.sqrt(float(np.mean((np.array(halves) - 1 / alpha) ** 2)))
    return AveragedIndex(alpha, spread * alpha * alpha, by_block, len(x))
