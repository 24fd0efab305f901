"""Two wells whose widths and heights are set independently, and how noise goes from one to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.arguments import generator, number, stable_alpha, whole
from gradtail.theory.levy.exit_times import brownian_exit_time
from gradtail.theory.levy.exits import ExitTimes, passage
from gradtail.theory.levy.stable import levy_constant

_COMMITTED = 0.5  # of the width of the other well, beyond which a path has arrived
_WALL = 5.0  # standard deviations in the outer wall beyond which Brownian paths do not go


@dataclass(frozen=True)
class TwoWells:
    """A potential with minima at -width[0] and width[1], and a barrier at 0.

    f falls from 0 at the barrier to -height at each minimum as height (2 r^3 - 3 r^2), r the distance from
    the barrier over the width, and goes on as a parabola of the same curvature, 6 height / width^2: once
    continuously differentiable twice in each well, with a gradient that grows linearly, so that Euler's
    method needs no box.

    Attributes
    ----------
    width, height : (float, float)
        Distance of each minimum from the barrier, and depth below it: left, right.
    """

    width: tuple[float, float] = (1.0, 1.0)
    height: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            pair = tuple(number(v, name, above=0.0) for v in getattr(self, name))
            if len(pair) != 2:
                raise ValueError(f"{name}: expected a pair, left and right, got {len(pair)} values")
            object.__setattr__(self, name, pair)

    def _of(self, x: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        right = x > 0
        return (
            np.where(right, self.width[1], self.width[0]),
            np.where(right, self.height[1], self.height[0]),
            right,
        )

    def potential(self, x: npt.ArrayLike) -> FloatArray:
        """Return f(x)."""
        x = np.asarray(x, np.float64)
        width, height, _ = self._of(x)
        r = np.abs(x) / width
        return np.asarray(height * np.where(r < 1, r * r * (2 * r - 3), 3 * (r - 1) ** 2 - 1))

    def gradient(self, x: npt.ArrayLike) -> FloatArray:
        """Return f'(x)."""
        x = np.asarray(x, np.float64)
        width, height, right = self._of(x)
        r = np.abs(x) / width
        slope = 6 * height / width * (r - 1) * np.minimum(r, 1.0)
        return np.asarray(np.where(right, slope, -slope))

    def levy_time(self, alpha: float, eps: float) -> float:
        """Mean time from the left well to the right one, for small eps: alpha width^alpha / (c eps^alpha)."""
        alpha, eps = stable_alpha(alpha), number(eps, "eps", above=0.0)
        if alpha == 2:
            raise ValueError("alpha: expected a number below 2 (brownian_time has the normal case), got 2")
        return float(alpha / levy_constant(alpha) * (self.width[0] / eps) ** alpha)

    def brownian_time(self, eps: float) -> float:
        """Mean time from the left minimum to half way into the right well under eps dW, exact."""
        eps = number(eps, "eps", above=0.0)
        left, height = self.width[0], self.height[0]
        wall = left + _WALL * max(eps * left / math.sqrt(12 * height), 0.02 * left)
        ends = (wall, _COMMITTED * self.width[1])
        return brownian_exit_time(ends, eps, gradient=self.gradient, start=-left, reflect_left=True)

    def simulate(
        self,
        alpha: float,
        eps: float,
        *,
        paths: int = 1000,
        dt: float = 0.02,
        seed: int | np.random.Generator | None = 0,
    ) -> ExitTimes:
        """Simulate transitions from the left minimum to half way into the right well.

        Parameters
        ----------
        alpha, eps, paths, dt, seed
            As for :func:`gradtail.theory.levy.simulate_exit`; alpha = 2 is sqrt(2) times Brownian motion.

        Returns
        -------
        ExitTimes
            Paths not there after 40 times the time of theory are counted as censored.
        """
        alpha, eps, paths = (
            stable_alpha(alpha),
            number(eps, "eps", above=0.0),
            whole(paths, "paths", least=10),
        )
        dt = number(dt, "dt", above=0.0)
        theory = self.brownian_time(math.sqrt(2) * eps) if alpha == 2 else self.levy_time(alpha, eps)
        return passage(
            alpha, eps, self.gradient, -self.width[0], _COMMITTED * self.width[1], theory,
            paths=paths, dt=dt, seed=generator(seed),
        )  # fmt: skip


@dataclass(frozen=True)
class Transition:
    """One row of a comparison: mean times out of a well of some width and height, by both noises."""

    width: float
    height: float
    levy: ExitTimes
    brownian: ExitTimes


@dataclass(frozen=True)
class Metastability:
    """What the time in a well depends on.

    Attributes
    ----------
    alpha, eps_levy, eps_brownian : float
        Of the noises; eps_brownian multiplies standard Brownian motion.
    rows : tuple of Transition
        The first well, then wider ones of the same height, then higher ones of the same width.
    width_power, width_power_stderr : (float, float)
        Slope of log mean time over log width at the same height: Lévy, Brownian.
    height_rate, height_rate_stderr : (float, float)
        Slope of log mean time over height at the same width.
    """

    alpha: float
    eps_levy: float
    eps_brownian: float
    rows: tuple[Transition, ...]
    width_power: tuple[float, float]
    width_power_stderr: tuple[float, float]
    height_rate: tuple[float, float]
    height_rate_stderr: tuple[float, float]

    @property
    def verdict(self) -> str:
        """The result in words."""
        power, rate, other, own = (
            f"{value:.2f} +- {error:.2g}"
            for value, error in (
                (self.width_power[0], self.width_power_stderr[0]),
                (self.height_rate[0], self.height_rate_stderr[0]),
                (self.width_power[1], self.width_power_stderr[1]),
                (self.height_rate[1], self.height_rate_stderr[1]),
            )
        )
        return (
            f"Lévy noise: log time rises by {power} with log width (alpha = {self.alpha:g}) and by {rate} "
            f"with height; Brownian noise: by {own} with height (2 / eps^2 = {2 / self.eps_brownian**2:.2f}, "
            f"less what curvature takes) and by {other} with log width (2, by curvature alone)"
        )

    def __str__(self) -> str:
        lines = [f"{'width':>6} {'height':>7} | {'Lévy':>16} {'theory':>8} | {'Brownian':>16} {'exact':>8}"]
        for row in self.rows:
            cells = (f"{t.mean:>8.4g} +- {t.stderr:<4.2g} {t.theory:>8.4g}" for t in (row.levy, row.brownian))
            lines.append(f"{row.width:>6.3g} {row.height:>7.3g} | " + " | ".join(cells))
        return "\n".join([*lines, self.verdict])


def compare_wells(
    alpha: float = 1.5,
    *,
    widths: Sequence[float] = (1.0, 1.5, 2.0),
    heights: Sequence[float] = (0.5, 0.75, 1.0),
    eps_levy: float = 0.1,
    eps_brownian: float = 0.7,
    paths: int = 500,
    dt: float = 0.02,
    seed: int | np.random.Generator | None = 0,
) -> Metastability:
    """Compare what Lévy and Brownian noise make of the width and of the height of a well.

    Parameters
    ----------
    alpha : float
        Of the Lévy noise, below 2.
    widths, heights : sequences of numbers
        Of the left well, at least two each, ascending; the right one has the first of each. Rows are
        (widths[0], heights[0]), then the other widths, then the other heights.
    eps_levy, eps_brownian : float
        Sizes of the noises; the latter multiplies standard Brownian motion.
    paths, dt, seed
        As for :func:`gradtail.theory.levy.simulate_exit`, of each row and noise.

    Returns
    -------
    Metastability

    Raises
    ------
    TypeError, ValueError
        An argument is out of range.

    Notes
    -----
    For small noise the Lévy time goes with width^alpha whatever the height (Imkeller and Pavlyukevich 2006),
    the Brownian one with exp(2 height / eps^2) (Kramers 1940) and, through the curvatures, width^2 / height.
    With the default settings some 20 s.
    """
    alpha = stable_alpha(alpha)
    eps_levy, eps_brownian = (
        number(eps_levy, "eps_levy", above=0.0),
        number(eps_brownian, "eps_brownian", above=0.0),
    )
    for name, values in (("widths", widths), ("heights", heights)):
        if len(values) < 2 or any(b <= a for a, b in zip(values, list(values)[1:], strict=False)):
            raise ValueError(f"{name}: expected at least 2 numbers that ascend, got {list(values)}")
    rng, rows = generator(seed), []
    shapes = [(w, heights[0]) for w in widths] + [(widths[0], h) for h in heights[1:]]
    for width, height in shapes:
        wells = TwoWells((width, widths[0]), (height, heights[0]))
        rows.append(
            Transition(
                wells.width[0],
                wells.height[0],
                wells.simulate(alpha, eps_levy, paths=paths, dt=dt, seed=rng),
                wells.simulate(2.0, eps_brownian / math.sqrt(2), paths=paths, dt=dt, seed=rng),
            )
        )
    by_width = rows[: len(widths)]
    by_height = [rows[0], *rows[len(widths) :]]
    at, up = np.log([row.width for row in by_width]), np.array([row.height for row in by_height])
    powers = _slope(at, [row.levy for row in by_width]), _slope(at, [row.brownian for row in by_width])
    rates = _slope(up, [row.levy for row in by_height]), _slope(up, [row.brownian for row in by_height])
    return Metastability(
        alpha, eps_levy, eps_brownian, tuple(rows),
        (powers[0][0], powers[1][0]), (powers[0][1], powers[1][1]),
        (rates[0][0], rates[1][0]), (rates[0][1], rates[1][1]),
    )  # fmt: skip


def _slope(x: FloatArray, times: list[ExitTimes]) -> tuple[float, float]:
    """Slope of log mean time over x, by least squares, and its standard error."""
    away = x - x.mean()
    weight = away / float(away @ away)
    log, error = np.log([t.mean for t in times]), np.array([t.stderr / t.mean for t in times])
    return float(weight @ log), float(np.sqrt(((weight * error) ** 2).sum()))
