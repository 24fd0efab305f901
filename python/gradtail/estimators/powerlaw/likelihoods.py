"""Likelihoods of the rivals in y = log(x / xmin), per value, with first and second derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradtail.estimators.powerlaw import whole_numbers
from gradtail.estimators.powerlaw.descent import Value
from gradtail.estimators.powerlaw.quadrature import Curve, masses
from gradtail.states.magnitudes import FloatArray

_ALL = np.zeros(1), np.full(1, np.inf)


@dataclass(frozen=True)
class Cells:
    """What is known of the values: where each lies, and its share of all.

    Attributes
    ----------
    low : ndarray of float64, shape (m,)
        y, or the lower end of its bin.
    width : ndarray of float64, shape (m,) or None
        Of the bins, apart from ``low`` since their sum can round to it; None: the values are known.
    share : ndarray of float64, shape (m,)
        Sums to 1.
    start : float or None
        xmin, if y stands for whole numbers and the law for their probabilities; None: for a density.
    """

    low: FloatArray
    width: FloatArray | None
    share: FloatArray
    start: float | None = None

    def points(self, beyond: float) -> Cells:
        """Take each value to lie in the middle of its bin, or ``beyond`` the lower end of an infinite one."""
        if self.width is None:
            return self
        half = np.where(np.isfinite(self.width), self.width / 2, beyond)
        return Cells(self.low + half, None, self.share)


class Bent:
    """The laws exp(-p y - q bend(y)) / Z: an exponential family, so log-concave in (p, q) for points."""

    def __init__(self, curve: Curve, cells: Cells) -> None:
        self.curve, self.cells = curve, cells
        self.bend = curve.bend(cells.low)
        """Of each value, or of the lower end of each bin."""
        self.mean = np.array([cells.low @ cells.share, self.bend @ cells.share])

    def _total(self, p: float, q: float) -> tuple[float, FloatArray, FloatArray]:
        if self.cells.start is not None:
            return whole_numbers.total(self.curve, p, q, self.cells.start)
        whole = masses(self.curve, p, q, *_ALL)
        return float(whole.log_mass[0]), whole.mean[0], whole.cov[0]

    def __call__(self, at: FloatArray) -> Value:
        """Give the mean of -log likelihood."""
        p, q = float(at[0]), float(at[1])
        log_total, mean, cov = self._total(p, q)
        if self.cells.width is None:
            own = float(at @ self.mean)
            return own + log_total, self.mean - mean, cov, float(np.abs(at) @ self.mean) + abs(log_total)
        share = self.cells.share
        parts = masses(self.curve, p, q, self.cells.low, self.cells.width)
        inside = share @ parts.mean
        value, size = log_total - float(share @ parts.log_mass), float(np.abs(at) @ inside) + abs(log_total)
        return value, inside - mean, cov - np.tensordot(share, parts.cov, 1), size

    def each(self, at: FloatArray) -> FloatArray:
        """Log likelihood of each value."""
        p, q = float(at[0]), float(at[1])
        log_total = self._total(p, q)[0]
        if self.cells.width is None:
            return np.asarray(-p * self.cells.low - q * self.bend - log_total)
        return np.asarray(masses(self.curve, p, q, self.cells.low, self.cells.width).log_mass - log_total)


class Growing:
    """Hazard e**u e**(b y) in y: the power law at b = 0, the exponential at 1, the stretched one between.

    The survival function is exp(-H), H = e**u (e**(b y) - 1) / b. For points convex in (u, b), as a sum of
    e**(u + b y); of bins nearly so.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.mean = float(cells.low @ cells.share)
        if cells.width is not None:
            self.last = np.isinf(cells.width)
            self.width = np.where(self.last, 1.0, cells.width)

    def __call__(self, at: FloatArray) -> Value:
        """Give the mean of -log likelihood."""
        (u, b), share = at, self.cells.share
        with np.errstate(over="ignore", invalid="ignore"):
            h = [np.exp(u) * float(share @ part) for part in growth(self.cells.low, b, 2)]
            value = h[0]
            gradient = np.array([h[0], h[1]])
            second = np.array([[h[0], h[1]], [h[1], h[2]]])
            size = value + abs(float(u)) + b * self.mean
            if self.cells.width is None:
                return float(value - u - b * self.mean), gradient - [1.0, self.mean], second, size
            return *self._add_widths(value, gradient, second, u, b), size

    def _add_widths(
        self, value: float, gradient: FloatArray, second: FloatArray, u: float, b: float
    ) -> tuple[float, FloatArray, FloatArray]:
        """Add what the probability to end within the bin, once it is reached, has to say: log(1 - e**-D)."""
        low, share = self.cells.low, np.where(self.last, 0.0, self.cells.share)
        scale = np.exp(u + b * low)
        own = [scale * part for part in growth(self.width, b, 2)]
        d = own[0]
        d1 = low * d + own[1]  # by b
        d2 = low * (low * d + 2 * own[1]) + own[2]
        rise = 1 / np.expm1(d)  # derivative of the log by D, and its own
        curl = -rise * (1 + rise)
        first = share * rise
        value = value - float(share @ _log1mexp(d))
        gradient = gradient - np.array([first @ d, first @ d1])
        uu, ub, bb = (share @ (curl * x * y + rise * z) for x, y, z in ((d, d, d), (d, d1, d1), (d1, d1, d2)))
        return value, gradient, second - np.array([[uu, ub], [ub, bb]])

    def each(self, at: FloatArray) -> FloatArray:
        """Log likelihood of each value."""
        (u, b), low = at, self.cells.low
        reached = -np.exp(u) * growth(low, b, 0)[0]
        if self.cells.width is None:
            return np.asarray(reached + u + b * low)
        ends = _log1mexp(np.exp(u + b * low) * growth(self.width, b, 0)[0])
        return np.asarray(reached + np.where(self.last, 0.0, ends))


def growth(y: FloatArray, b: float, order: int) -> list[FloatArray]:
    """Integrals of v**j e**(b v) over v from 0 to y, for j = 0..order: (e**(b y) - 1) / b and derivatives."""
    if b == 0:
        return [y ** (j + 1) / (j + 1) for j in range(order + 1)]
    z = b * y
    parts = [np.expm1(z) / b]
    if order:
        grown, near = np.exp(z), np.abs(z) < 1e-3
        some = bool(near.any())
        for j in range(1, order + 1):  # by parts, which loses digits at small z
            part = (y**j * grown - j * parts[-1]) / b
            if some:
                series = 1 / (j + 1) + z * (1 / (j + 2) + z * (0.5 / (j + 3) + z / (6 * (j + 4))))
                part = np.where(near, y ** (j + 1) * series, part)
            parts.append(part)
    return parts


def _log1mexp(d: FloatArray) -> FloatArray:
    """Return log(1 - exp(-d))."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(-np.expm1(-d)))
