"""The same quantities for a given data set, by Monte Carlo with errors: populations of directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import generator, level_of, number, real_array, whole
from gradtail.theory.least_squares.batches import draw_batches
from gradtail.theory.least_squares.gaussian import NoStationaryLawError

_REPLICATES = 16
_LARGEST_POWER = 64.0
_FEW_EFFECTIVE = 30.0
_BLOCK = 10  # steps, over which weights are taken to be correlated
_NEAR = 0.1  # how far from the root the final evaluations may be, as a share of it


@dataclass(frozen=True)
class Estimate:
    """A number found by Monte Carlo.

    Attributes
    ----------
    value, stderr : float
        Mean over independent populations, and its standard error; for tail indices from that by the delta
        method.
    populations, particles, steps : int
        What it rests on: populations of so many directions, each followed over so many steps.
    warnings : tuple of str
    """

    value: float
    stderr: float
    populations: int
    particles: int
    steps: int
    warnings: tuple[str, ...] = ()

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Return an interval by Student's t over the populations."""
        wide = float(special.stdtrit(self.populations - 1, (1 + level_of(level)) / 2)) * self.stderr
        return self.value - wide, self.value + wide

    def __str__(self) -> str:
        if math.isinf(self.value):
            said = "infinite"
        else:
            low, high = self.ci()
            said = f"{self.value:.6g} +- {self.stderr:.2g} (95 % {low:.5g} to {high:.5g})"
        basis = f"{self.populations} populations of {self.particles}, {self.steps} steps"
        return "\n".join([f"{said}; {basis}", *(f"  warning: {w}" for w in self.warnings)])


class _Populations:
    """Unit vectors under steps of SGD on given rows, weighted by powers of what a step does to lengths."""

    def __init__(
        self, rows: Any, eta: Any, b: Any, replacement: bool, particles: Any, steps: Any, seed: Any
    ) -> None:
        self.rows = full_rank(rows)
        self.eta, self.b = number(eta, "eta", above=0.0), batch_size(b, len(self.rows), replacement)
        self.replacement = bool(replacement)
        self.particles, self.steps = whole(particles, "particles", least=16), whole(steps, "steps", least=10)
        self.rng = generator(seed)

    @property
    def never_grows(self) -> bool:
        """Whether no batch can lengthen any vector: eta times its largest curvature is at most 2."""
        squares = np.sort((self.rows**2).sum(axis=1))[::-1]
        return self.eta * float(squares[0] if self.replacement else squares[: self.b].mean()) <= 2

    def log_moment(self, s: float, steps: int | None = None) -> tuple[float, float, float]:
        """Return log h(s), or rho for s = 0, its standard error, and the effective number of particles."""
        steps, n, d = steps or self.steps, self.particles, self.rows.shape[1]
        x = self.rng.standard_normal((_REPLICATES * n, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        effective, burn, changes = 0.0, max(steps // 5, 1), np.empty((steps, _REPLICATES))
        for k in range(burn + steps):
            chosen = self.rows[draw_batches(len(self.rows), self.b, len(x), self.replacement, self.rng)]
            x = x - (self.eta / self.b) * np.einsum("nbd,nb->nd", chosen, np.einsum("nbd,nd->nb", chosen, x))
            size = np.maximum(np.linalg.norm(x, axis=1), 1e-300)
            x /= size[:, None]
            logs = np.log(size).reshape(_REPLICATES, n)
            if s == 0:
                change = logs.mean(axis=1)
            else:
                top = logs.max(axis=1, keepdims=True)
                weight = np.exp(s * (logs - top))
                mean = weight.mean(axis=1)
                change = s * top[:, 0] + np.log(mean)
                effective += float((mean**2 / (weight**2).mean(axis=1)).mean()) * n / (burn + steps)
                x = x.reshape(_REPLICATES, n, d)[
                    np.arange(_REPLICATES)[:, None], self._heirs(weight)
                ].reshape(-1, d)
            if k >= burn:
                changes[k - burn] = change
        total = changes.mean(axis=0)
        value = float(total.mean())
        if s > 0:
            # products of mean weights are unbiased, so that their logs are low by half their variance
            sums = np.add.reduceat(changes, np.arange(0, steps, _BLOCK))[: steps // _BLOCK]
            value += float(sums.var()) / (2 * _BLOCK)
        return value, float(total.std(ddof=1)) / math.sqrt(_REPLICATES), effective

    def _heirs(self, weight: FloatArray) -> npt.NDArray[np.int64]:
        """Systematic resampling: each particle gets as many heirs as its weight, up to one."""
        n = weight.shape[1]
        edges = np.cumsum(weight, axis=1)
        edges /= edges[:, -1:]
        marks = (np.arange(n) + self.rng.random((len(weight), 1))) / n
        found = [e.searchsorted(m) for e, m in zip(edges, marks, strict=True)]
        return np.asarray(np.minimum(np.array(found), n - 1))

    def estimate(self, value: float, stderr: float, *warnings: str) -> Estimate:
        return Estimate(
            value, stderr, _REPLICATES, self.particles, self.steps, tuple(w for w in warnings if w)
        )


def _few(effective: float) -> str:
    if effective >= _FEW_EFFECTIVE:
        return ""
    return f"rare batches decide: about {effective:.0f} particles carry a population; more would tell"


def data_moment(
    s: float,
    rows: npt.ArrayLike,
    eta: float,
    b: int,
    *,
    replacement: bool = True,
    particles: int = 500,
    steps: int = 200,
    seed: int | np.random.Generator | None = 0,
) -> Estimate:
    r"""Growth rate of the s-th moment of SGD on given data, h(s) = lim (E \|M_k ... M_1\|^s)^(1/k).

    Parameters
    ----------
    s : float
        From 0 to 64.
    rows : array of real numbers, shape (n, d)
        The data a_i, of full column rank.
    eta : float
    b : int
        Batch size; batches are independent from step to step.
    replacement : bool
        Whether an example may be in a batch twice.
    particles : int
        Directions in each of 16 populations.
    steps : int
        Products that the mean is taken over, after a fifth as many that are not counted.
    seed : int, Generator or None

    Returns
    -------
    Estimate

    Raises
    ------
    TypeError, ValueError
        An argument is out of range, or the rows are of lower rank.

    Notes
    -----
    A mean of \|M_k ... M_1\|^s rests on products so rare that no sample has them. Here a population of
    directions takes one step, is weighted by what the step did to lengths, to the power s, and resampled; the
    means of weights multiply to the moment (Vanneste 2010, Phys. Rev. E 81, 036701). Of the bias,
    which falls as 1 / particles, the first order is taken off. O(16 particles steps b d).

    Examples
    --------
    >>> from gradtail.theory.least_squares import moment
    >>> rows = np.random.default_rng(0).standard_normal((1000, 2))
    >>> found = data_moment(2, rows, 0.4, 1, particles=200, steps=100)
    >>> abs(found.value - moment(2, 0.4, 1, 2)) < 0.1  # of fresh normal data
    True
    """
    s = number(s, "s", least=0.0, most=_LARGEST_POWER)
    populations = _Populations(rows, eta, b, replacement, particles, steps, seed)
    if s == 0:
        return populations.estimate(1.0, 0.0)
    log, stderr, effective = populations.log_moment(s)
    return populations.estimate(math.exp(log), math.exp(log) * stderr, _few(effective))


def data_lyapunov(
    rows: npt.ArrayLike,
    eta: float,
    b: int,
    *,
    replacement: bool = True,
    particles: int = 500,
    steps: int = 200,
    seed: int | np.random.Generator | None = 0,
) -> Estimate:
    """Lyapunov exponent of SGD on given data, by products of its matrices.

    Parameters, errors and costs are those of :func:`data_moment`.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((1000, 2))
    >>> bool(data_lyapunov(rows, 0.4, 1, particles=100, steps=50).ci()[1] < 0)
    True
    """
    populations = _Populations(rows, eta, b, replacement, particles, steps, seed)
    return populations.estimate(*populations.log_moment(0.0)[:2])


def data_tail_index(
    rows: npt.ArrayLike,
    eta: float,
    b: int,
    *,
    replacement: bool = True,
    particles: int = 500,
    steps: int = 200,
    seed: int | np.random.Generator | None = 0,
) -> Estimate:
    """Tail exponent of the stationary law of SGD on given data, with its standard error.

    Parameters and costs are those of :func:`data_moment`, some 15 times.

    Returns
    -------
    Estimate
        The value is inf, and a warning says why, where no batch can lengthen any vector (the iterates are
        bounded), or where h is below 1 up to a power of 64.

    Raises
    ------
    NoStationaryLawError
        A ValueError whose text begins with "no stationary law": rho is not below 0.
    TypeError, ValueError
        As for :func:`data_moment`.

    Notes
    -----
    The root of log h is bracketed by short runs; what is reported comes from three full ones about it, and
    the standard error is that of log h over its slope there.

    Examples
    --------
    >>> from gradtail.theory.least_squares import tail_index
    >>> rows = np.random.default_rng(0).standard_normal((500, 1))
    >>> found = data_tail_index(rows, 1.0, 1, particles=500, steps=200)
    >>> abs(found.value - tail_index(1.0, 1, 1)) < 0.3  # of fresh normal data
    True
    """
    populations = _Populations(rows, eta, b, replacement, particles, steps, seed)
    rho, error, _ = populations.log_moment(0.0)
    if rho >= 0:
        raise NoStationaryLawError(
            f"no stationary law: rho = {rho:.3g} +- {error:.1g} is not below 0, so that iterates grow "
            f"without bound; expected a smaller eta, got {populations.eta:.6g}",
            rho,
        )
    doubt = f"rho = {rho:.3g} +- {error:.1g} may be 0: whether there is a stationary law is open" * (
        rho > -2 * error
    )
    if populations.never_grows:
        why = "no batch of these data can lengthen any vector: the iterates are bounded, no tail"
        return populations.estimate(math.inf, 0.0, doubt, why)
    brief = max(populations.steps // 4, 10)
    low, high = 0.0, 1.0
    while populations.log_moment(high, brief)[0] < 0:
        low, high = high, 2 * high
        if high > _LARGEST_POWER:
            return populations.estimate(
                math.inf, 0.0, doubt, f"h is below 1 up to a power of {_LARGEST_POWER:g}"
            )
    while high - low > _NEAR * high and high > 0.02:
        middle = (low + high) / 2
        low, high = (middle, high) if populations.log_moment(middle, brief)[0] < 0 else (low, middle)
    alpha = (low + high) / 2
    for _ in range(2):  # the second time from where the first one led
        (below, *_), (at, stderr, effective), (above, *_) = (
            populations.log_moment(alpha * factor) for factor in (1 - _NEAR, 1.0, 1 + _NEAR)
        )
        slope = (above - below) / (2 * _NEAR * alpha)
        if slope <= 0:
            break
        found = alpha - at / slope
        if abs(found - alpha) < _NEAR * alpha:
            return populations.estimate(found, stderr / slope, doubt, _few(effective))
        alpha = max(found, alpha / 2)
    stderr = stderr / slope if slope > 0 else alpha
    return populations.estimate(
        alpha, stderr, doubt, "the root was not held: more particles or steps would tell"
    )


def full_rank(rows: Any) -> FloatArray:
    """Return rows of full column rank as float64."""
    x = real_array(rows, "rows", 2)
    rank = int(np.linalg.matrix_rank(x))
    if rank < x.shape[1]:
        raise ValueError(
            f"rows: expected rank {x.shape[1]}, as many as columns, got {rank} "
            "(SGD never moves along the others)"
        )
    return x


def batch_size(b: Any, n: int, replacement: bool) -> int:
    """Return a batch size that n rows can fill."""
    size = whole(b, "b")
    if not replacement and size > n:
        raise ValueError(f"b: expected at most {n}, the number of rows, without replacement, got {size}")
    return size
