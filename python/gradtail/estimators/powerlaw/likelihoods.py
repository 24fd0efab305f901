"""Likelihoods of the rivals in y = log(x / xmin), per value, with first and second derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradtail.estimators.powerlaw import whole_numbers
from gradtail.estimators.powerlaw.descent import Value
from gradtail.estimators.powerlaw.quadrature import Curve, masses
from gradtail.states.magnitudes import FloatArray


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
    """The laws exp(-p d - q bend(d)) / Z of d = y - origin: an exponential family, log-concave in (p, q).

    The family is the same from every origin; with one among the values, sums are no differences of terms
    that are far larger, or beyond float64.

    Parameters
    ----------
    curve : Curve
    cells : Cells
    origin : float
        Of whole numbers 0.
    """

    def __init__(self, curve: Curve, cells: Cells, origin: float = 0.0) -> None:
        self.curve, self.cells, self.origin = curve, cells, origin
        self.low = cells.low - origin
        self.bend = curve.bend(self.low)
        """Of each value, or of the lower end of each bin."""
        self.mean = np.array([self.low @ cells.share, self.bend @ cells.share])
        self._all = np.array([-origin]), np.array([np.inf])

    def _total(self, p: float, q: float) -> tuple[float, FloatArray, FloatArray]:
        if self.cells.start is not None:
            return whole_numbers.total(self.curve, p, q, self.cells.start)
        whole = masses(self.curve, p, q, *self._all)
        return float(whole.log_mass[0]), whole.mean[0], whole.cov[0]

    def __call__(self, at: FloatArray) -> Value:
        """Give the mean of -log likelihood."""
        p, q = float(at[0]), float(at[1])
        log_total, mean, cov = self._total(p, q)
        if self.cells.width is None:
            own, size = float(at @ self.mean), float(np.abs(at) @ np.abs(self.mean)) + abs(log_total)
            return own + log_total, self.mean - mean, cov, size
        share = self.cells.share
        parts = masses(self.curve, p, q, self.low, self.cells.width)
        inside = share @ parts.mean
        value = log_total - float(share @ parts.log_mass)
        size = float(np.abs(at) @ np.abs(inside)) + abs(log_total)
        return value, inside - mean, cov - np.tensordot(share, parts.cov, 1), size

    def each(self, at: FloatArray) -> FloatArray:
        """Log likelihood of each value."""
        p, q = float(at[0]), float(at[1])
        log_total = self._total(p, q)[0]
        if self.cells.width is None:
            return np.asarray(-p * self.low - q * self.bend - log_total)
        return np.asarray(masses(self.curve, p, q, self.low, self.cells.width).log_mass - log_total)


class Growing:
    """Hazard e**u e**(b d) in d = y - origin: the power law at b = 0, the exponential at 1.

    The stretched exponential lies between, and beyond. The survival function is exp(-H), H the integral of
    the hazard from y = 0 on. For points convex in (u, b); of bins nearly so. From the largest value nothing
    grows beyond float64.

    Parameters
    ----------
    cells : Cells
    origin : float, optional
        The end of the highest bin that has one, or the largest value, if None.
    """

    def __init__(self, cells: Cells, origin: float | None = None) -> None:
        self.cells = cells
        self.last = np.zeros(cells.low.size, bool) if cells.width is None else np.isinf(cells.width)
        self.width = (
            np.zeros(cells.low.size) if cells.width is None else np.where(self.last, 0.0, cells.width)
        )
        self.origin = float((cells.low + self.width).max()) if origin is None else origin
        self.low, self.high = cells.low - self.origin, cells.low - self.origin + self.width
        self.mean = float(self.low @ cells.share)

    def __call__(self, at: FloatArray) -> Value:
        """Give the mean of -log likelihood."""
        (u, b), share = at, self.cells.share
        with np.errstate(all="ignore"):
            h = [np.exp(u) * float(share @ part) for part in _grown(self.low, self.cells.low, b, 2)]
            value = h[0]
            gradient = np.array([h[0], h[1]])
            second = np.array([[h[0], h[1]], [h[1], h[2]]])
            size = value + abs(float(u)) + abs(b * self.mean)
            if self.cells.width is None:
                return float(value - u - b * self.mean), gradient - [1.0, self.mean], second, size
            return *self._add_widths(value, gradient, second, u, b), size

    def _add_widths(
        self, value: float, gradient: FloatArray, second: FloatArray, u: float, b: float
    ) -> tuple[float, FloatArray, FloatArray]:
        """Add what the probability to end within the bin, once it is reached, has to say: log(1 - e**-D)."""
        ended = ~self.last
        share = self.cells.share[ended]
        d, d1, d2 = (np.exp(u) * part for part in _grown(self.high[ended], self.width[ended], b, 2))
        rise = 1 / np.expm1(d)  # derivative of the log by D, and its own
        curl = -rise * (1 + rise)
        first = share * rise
        value = value - float(share @ _log1mexp(d))
        gradient = gradient - np.array([first @ d, first @ d1])
        uu, ub, bb = (share @ (curl * x * y + rise * z) for x, y, z in ((d, d, d), (d, d1, d1), (d1, d1, d2)))
        return value, gradient, second - np.array([[uu, ub], [ub, bb]])

    def each(self, at: FloatArray) -> FloatArray:
        """Log likelihood of each value."""
        u, b = at
        with np.errstate(all="ignore"):
            reached = -np.exp(u) * _grown(self.low, self.cells.low, b, 0)[0]
            if self.cells.width is None:
                return np.asarray(reached + u + b * self.low)
            ends = _log1mexp(np.exp(u) * _grown(self.high, self.width, b, 0)[0])
            return np.asarray(reached + np.where(self.last, 0.0, ends))


def _grown(end: FloatArray, width: FloatArray, b: float, order: int) -> list[FloatArray]:
    """Integrals of v**j e**(b v) over v from end - width to end, for j = 0..order."""
    scale = np.exp(b * end)
    parts = growth(width, -b, order)  # backwards from the end, where e**(b v) is greatest
    moved = (
        [parts[0], end * parts[0] - parts[1], end * (end * parts[0] - 2 * parts[1]) + parts[2]]
        if order
        else parts
    )
    return [scale * part for part in moved]


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
