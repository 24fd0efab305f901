"""Laws that a power law is held against, each fitted by maximum likelihood to the same tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradtail.estimators.powerlaw.descent import Least, descend, least, least_of_first
from gradtail.estimators.powerlaw.likelihoods import Bent, Cells, Growing
from gradtail.estimators.powerlaw.quadrature import EXPONENTIAL, PARABOLA, Curve
from gradtail.estimators.powerlaw.sample import TailSample
from gradtail.estimators.powerlaw.zeta import log_zeta
from gradtail.states.magnitudes import FloatArray

_FARTHEST = 100.0  # of log x between the origin and the largest value, whose bend has to be squared
_NO_CURVE = 1e-9  # a bend of the whole sample that is too small to be told from none


@dataclass(frozen=True)
class RivalFit:
    """A rival at its greatest likelihood.

    Attributes
    ----------
    parameters : dict of str to float
        In the units of x.
    log_likelihood : ndarray of float64, shape (m,)
        Of one value at each distinct value or bin of the sample.
    edge : bool
        The power law is the likeliest of the rival's family.
    converged : bool
    """

    parameters: dict[str, float]
    log_likelihood: FloatArray
    edge: bool
    converged: bool


def power_law(sample: TailSample, exponent: float) -> FloatArray:
    """Log likelihood of one value at each distinct value or bin, under density x**-exponent."""
    if sample.form == "integers":
        scaled = float(log_zeta(exponent, sample.xmin)) + exponent * math.log(sample.xmin)
        return np.asarray(-exponent * sample.low - scaled)
    return Growing(cells(sample)).each(np.array([math.log(exponent - 1), 0.0]))


def cells(sample: TailSample) -> Cells:
    """Values as densities see them; whole numbers as continuous values."""
    share = sample.count / sample.n
    return Cells(sample.low, sample.high - sample.low if sample.form == "bins" else None, share)


def rounded(sample: TailSample) -> tuple[Cells, float]:
    """Whole numbers as continuous values rounded to the nearest, from xmin - 1/2, which is the second."""
    x, base = sample.integers, sample.xmin - 0.5
    low = np.log1p((x - sample.xmin) / base)
    return Cells(low, np.log1p(1 / (x - 0.5)), sample.count / sample.n), base


def lognormal(sample: TailSample, exponent: float) -> RivalFit:
    """Fit the lognormal law; mu and sigma are of log x."""
    own, base = rounded(sample) if sample.form == "integers" else (cells(sample), sample.xmin)
    law, middle = _bent(PARABOLA, own, exponent)
    found = _in_two_rounds(law, middle, exponent - 1, _NO_CURVE / _largest(middle))
    p, q = found.at.tolist()
    parameters = {"mu": math.log(base) + law.origin - p / q, "sigma": 1 / math.sqrt(q)}
    if found.edge:
        parameters = {"mu": -math.inf, "sigma": math.inf}
    return RivalFit(parameters, law.each(found.at), found.edge, found.converged)


def truncated_power_law(sample: TailSample, exponent: float) -> RivalFit:
    """Fit the power law with an exponential cutoff, x**-exponent exp(-rate x)."""
    whole = sample.form == "integers"
    own = Cells(sample.low, None, sample.count / sample.n, sample.xmin) if whole else cells(sample)
    law, middle = _bent(EXPONENTIAL, own, exponent)
    largest, slope = _largest(middle), exponent if whole else exponent - 1
    start = np.array([-math.expm1(-law.origin), 1.0]) / largest  # a cutoff that is added to the power law
    found = _in_two_rounds(law, middle, slope, _NO_CURVE / largest, start)
    p, q = found.at.tolist()
    rate = _exp(math.log(q) - law.origin - math.log(sample.xmin))
    parameters = {"exponent": p - q + (0 if whole else 1), "rate": rate}
    if found.edge:
        parameters = {"exponent": float(exponent), "rate": 0.0}
    return RivalFit(parameters, law.each(found.at), found.edge, found.converged)


def stretched_exponential(sample: TailSample, exponent: float) -> RivalFit:
    """Fit the stretched exponential (Weibull) law, P(X > x) in proportion to exp(-rate x**beta)."""
    own, base = rounded(sample) if sample.form == "integers" else (cells(sample), sample.xmin)
    law = Growing(own)
    middle = Growing(own.points(1 / (exponent - 1)), law.origin)
    found = _in_two_rounds(law, middle, math.log(exponent - 1), 0.0)
    u, b = found.at.tolist()
    parameters = {"beta": 0.0, "rate": math.inf}
    if not found.edge:
        parameters = {"beta": b, "rate": _exp(u - math.log(b) - b * (math.log(base) + law.origin))}
    return RivalFit(parameters, law.each(found.at), found.edge, found.converged)


def exponential(sample: TailSample, exponent: float) -> RivalFit:
    """Fit the exponential law, or the geometric one to whole numbers."""
    share = sample.count / sample.n
    if sample.form == "integers":
        away = sample.integers - sample.xmin
        rate = math.log1p(1 / float(share @ away))
        return RivalFit({"rate": rate}, math.log(-math.expm1(-rate)) - rate * away, False, True)
    law = Growing(cells(sample))
    middle = law.cells.points(1 / (exponent - 1)).low
    u = -math.log(float(share @ (np.exp(middle - law.origin) - math.exp(-law.origin))))
    found = Least(np.array([u, 1.0]), False, True)
    if sample.form == "bins":
        found = least_of_first(law, u, 1.0)
    rate = _exp(found.at[0] - law.origin - math.log(sample.xmin))
    return RivalFit({"rate": rate}, law.each(found.at), False, found.converged)


def _bent(curve: Curve, own: Cells, exponent: float) -> tuple[Bent, Bent]:
    """Of the values, and of every value in the middle of its bin."""
    points = own.points(1 / (exponent - 1))
    origin = max(float(points.low @ points.share), float(points.low.max()) - _FARTHEST)
    if own.start is not None:
        origin = 0.0
    law = Bent(curve, own, origin)
    return law, law if points is own else Bent(curve, points, origin)


def _largest(middle: Bent) -> float:
    """Bend of the largest value, seen from xmin, where a bend of 1 at the origin has this factor."""
    y = float(middle.cells.low.max())
    if middle.curve is PARABOLA:
        return y * y / 2
    near = min(y, 700.0)
    return float(middle.curve.bend(np.float64(near))) * math.exp(y - near - middle.origin)


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


def _in_two_rounds(
    law: Bent | Growing, middle: Bent | Growing, first: float, edge: float, start: FloatArray | None = None
) -> Least:
    """Fit with every value in the middle of its bin, which is cheap, and then with the bins."""
    found = least(middle, first, edge, start)
    if law.cells is middle.cells:
        return found
    if not found.edge:
        finer = descend(law, found.at, edge)
        if finer.converged and not finer.edge:
            return finer
    return least(law, first, edge, start)


FITS: dict[str, Callable[[TailSample, float], RivalFit]] = {
    "lognormal": lognormal,
    "exponential": exponential,
    "stretched_exponential": stretched_exponential,
    "truncated_power_law": truncated_power_law,
}
