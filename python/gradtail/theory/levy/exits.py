"""First-exit times of many paths beside theory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import generator, level_of, number, stable_alpha, whole
from gradtail.theory.levy.exit_times import (
    Gradient,
    Interval,
    brownian_exit_time,
    exit_time,
    interval,
    quadratic,
)
from gradtail.theory.levy.paths import euler
from gradtail.theory.levy.stable import sample

_AT_ONCE = 4096  # values of noise
_LONGEST = 40.0  # of the time of theory: an exponential law exceeds it with probability 4e-18
_COARSE = 20.0  # steps below which a mean time is felt to be made of steps
_WIDE_NOISE = 0.3  # of eps over the width, from which the limit of small noise is far


@dataclass(frozen=True, eq=False)
class ExitTimes:
    """First-exit times of independent paths.

    Attributes
    ----------
    mean, stderr : float
        Of the time of exit. With censored paths: time spent over exits, which is right for exponential times.
    cv : float
        Coefficient of variation of the times of the paths that left; 1 for exponential times.
    cv_stderr : float
        For exponential times, 1 / sqrt(exits).
    paths, censored : int
        Paths, and how many had not left by ``t_max``.
    theory : float
        Lévy noise: the closed form for small eps; alpha = 2: exact for these ends.
    t_max, dt : float
    times : ndarray of float64, shape (paths,)
        ``t_max`` for censored ones.
    warnings : tuple of str
    """

    mean: float
    stderr: float
    cv: float
    cv_stderr: float
    paths: int
    censored: int
    theory: float
    t_max: float
    dt: float
    times: FloatArray
    warnings: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Mean over theory."""
        return self.mean / self.theory

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Return a normal interval for the mean."""
        wide = float(special.ndtri((1 + level_of(level)) / 2)) * self.stderr
        return self.mean - wide, self.mean + wide

    def __str__(self) -> str:
        lines = [
            f"first exit after {self.mean:.5g} +- {self.stderr:.2g}, theory {self.theory:.5g} (ratio "
            f"{self.ratio:.3f}); variation {self.cv:.3g} +- {self.cv_stderr:.1g}; {self.paths} paths, "
            f"{self.censored} censored"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def __repr__(self) -> str:
        return f"ExitTimes(mean={self.mean:.5g}, theory={self.theory:.5g}, paths={self.paths})"


def simulate_exit(
    alpha: float,
    a: Interval,
    eps: float,
    *,
    gradient: Gradient | None = None,
    curvature: float = 1.0,
    start: float = 0.0,
    paths: int = 2000,
    dt: float = 0.02,
    t_max: float | None = None,
    seed: int | np.random.Generator | None = 0,
) -> ExitTimes:
    r"""Simulate first exits of dX = -f'(X) dt + eps dL from an interval about a minimum at 0.

    Parameters
    ----------
    alpha : float
        Of the noise, in (0, 2]. alpha = 2 is sqrt(2) times Brownian motion.
    a : float or (float, float)
        The interval is (-a, a), or (-left, right).
    eps : float
        Above 0.
    gradient : callable, optional
        f' of an array of positions; default: ``curvature`` x.
    curvature : float
    start : float
        Inside the interval.
    paths : int
        At least 10.
    dt : float
        Step of Euler's method. Between steps no exit is seen: with Brownian noise times are too long by
        O(sqrt(dt)), with jumps by little.
    t_max : float, optional
        Where paths are given up, and counted; default: 40 times the time of theory.
    seed : int, Generator or None

    Returns
    -------
    ExitTimes

    Raises
    ------
    TypeError, ValueError
        An argument is out of range.

    Notes
    -----
    O(paths mean / dt), about 70 ns each.

    Examples
    --------
    >>> found = simulate_exit(1.2, 1.0, 0.1, paths=1000)
    >>> round(found.theory, 2), bool(abs(found.ratio - 1) < 0.15), found.censored
    (28.51, True, 0)
    """
    alpha, (left, right), eps = stable_alpha(alpha), interval(a), number(eps, "eps", above=0.0)
    paths, dt, start = whole(paths, "paths", least=10), number(dt, "dt", above=0.0), number(start, "start")
    if not -left < start < right:
        raise ValueError(f"start: expected a point between {-left:g} and {right:g}, got {start:g}")
    slope = quadratic(curvature) if gradient is None else gradient
    if alpha == 2:
        theory = brownian_exit_time((left, right), math.sqrt(2) * eps, gradient=slope, start=start)
    else:
        theory = exit_time(alpha, (left, right), eps)
    longest = _LONGEST * theory if t_max is None else number(t_max, "t_max", above=0.0)
    times = first_passages(
        alpha,
        eps,
        slope,
        np.full(paths, start),
        lambda x: ~((x > -left) & (x < right)),
        dt,
        longest,
        generator(seed),
    )
    warnings = []
    if alpha < 2 and eps > _WIDE_NOISE * min(left, right):
        warnings.append(f"eps = {eps:g} is not small against the width: theory is for the limit of small eps")
    return _summary(times, theory, longest, dt, warnings)


def first_passages(
    alpha: float,
    eps: float,
    slope: Gradient,
    x: FloatArray,
    out: Any,
    dt: float,
    longest: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the time at which ``out(x)`` is first true for each path; inf beyond ``longest``."""
    times, going = np.full(x.size, np.inf), np.arange(x.size)
    size, k, last = eps * dt ** (1 / alpha), 0, int(longest / dt)
    while going.size and k < last:
        # noise for some steps at once: a call for each costs more than the few paths that are left at last
        block = min(max(_AT_ONCE // going.size, 1), last - k)
        for push in size * sample(alpha, (block, going.size), seed=rng):
            k += 1
            x = euler(x, slope, dt, push[: going.size])
            left: npt.NDArray[np.bool_] = out(x)
            if left.any():
                times[going[left]] = k * dt
                going, x = going[~left], x[~left]
                if not going.size:
                    break
    return times


def _summary(times: FloatArray, theory: float, longest: float, dt: float, warnings: list[str]) -> ExitTimes:
    exits = np.isfinite(times)
    n, censored = times.size, int(np.count_nonzero(~exits))
    if censored == n:
        raise ValueError(
            f"t_max: expected a time by which some path has left, got {longest:.6g}: none of {n} had"
        )
    seen = times[exits]
    if censored:
        mean = (float(seen.sum()) + censored * longest) / seen.size
        stderr = mean / math.sqrt(seen.size)
        warnings.append(
            f"{censored} of {n} paths had not left by t = {longest:.5g}: the mean takes times for exponential"
        )
    else:
        mean, stderr = float(seen.mean()), float(seen.std(ddof=1)) / math.sqrt(n)
    if mean < _COARSE * dt:
        warnings.append(f"the mean time is {mean / dt:.3g} steps: a smaller dt would tell")
    cv = float(seen.std(ddof=1) / seen.mean()) if seen.size > 1 else 0.0
    return ExitTimes(
        mean, stderr, cv, 1 / math.sqrt(seen.size), n, censored, theory, longest, dt,
        np.where(exits, times, longest), tuple(warnings),
    )  # fmt: skip


def passage(
    alpha: float, eps: float, slope: Gradient, start: float, beyond: float, theory: float,
    *, paths: int, dt: float, seed: np.random.Generator,
) -> ExitTimes:  # fmt: skip
    """Simulate first passages from ``start`` to the right of ``beyond``."""
    longest = _LONGEST * theory
    times = first_passages(
        alpha, eps, slope, np.full(paths, start), lambda x: ~(x <= beyond), dt, longest, seed
    )
    return _summary(times, theory, longest, dt, [])
