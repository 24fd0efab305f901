"""Tails for the tests of rivals: values or bins, and the power law's exponent at the greatest likelihood."""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from gradtail import summarize
from gradtail.estimators.powerlaw.bins import from_magnitudes
from gradtail.estimators.powerlaw.descent import least_of_first
from gradtail.estimators.powerlaw.likelihoods import Cells, Growing
from gradtail.estimators.powerlaw.sample import TailSample


def points(x, xmin, form="points"):
    """The sample of values, and the exponent at the greatest likelihood."""
    values, count = np.unique(x[x >= xmin], return_counts=True)
    y = np.log(values) - np.log(xmin) if values[-1] > 1e200 else np.log(values / xmin)
    sample = TailSample(form, float(xmin), y, y, count.astype(float))
    mean = y @ count / count.sum()
    if form == "points":
        return sample, 1 + 1 / mean
    loss = lambda s: s * mean + math.log(special.zeta(s, xmin)) + s * math.log(xmin)
    return sample, optimize.minimize_scalar(loss, bounds=(1.01, 9), options={"xatol": 1e-10}).x


def bins(x, xmin, width=1 / 16, last=np.inf):
    """The sample of values in bins of equal width in log x, the last one from ``last`` on."""
    y = np.log(x[x >= xmin] / xmin)
    edges = np.append(np.arange(0, min(y.max() + width, last), width), np.inf if last < np.inf else [])
    count = np.histogram(y, edges)[0]
    used = count > 0
    sample = TailSample("bins", xmin, edges[:-1][used], edges[1:][used], count[used].astype(float))
    return sample, exponent_of_bins(sample)


def exponent_of_bins(sample):
    cells = Cells(sample.low, sample.high - sample.low, sample.count / sample.n)
    start = -math.log(cells.points(1.0).low @ cells.share)
    return 1 + math.exp(least_of_first(Growing(cells), start, 0.0).at[0])


class Tail(NamedTuple):
    form: str
    x: np.ndarray


def hard_tails():
    """Values packed closely with few far away, far above xmin, or over nearly all of float64."""
    rng = np.random.default_rng(1)
    packed = 1 + 1e-3 * rng.standard_normal(100_000)
    return {
        "ones, bins": Tail("bins", np.append(np.ones(10_000), 2.5)),
        "signs, bins": Tail("bins", np.append(np.ones(200_000), 3.0)),
        "packed, bins": Tail("bins", np.append(packed, 30.0)),
        "packed, points": Tail("points", np.append(packed, 30.0)),
        "ones, integers": Tail("integers", np.append(np.ones(20_000), 2.0)),
        "far, points": Tail("points", np.append(1.0, 5 + 5e-3 * rng.random(1000))),
        "far, integers": Tail("integers", np.append(3.0, 1_000_000 + rng.integers(0, 50, 1000))),
        "wide, bins": Tail("bins", np.repeat([2.0, 3.0, 1e39], [50, 20, 1])),
        "wide, points": Tail("points", np.append(1e-300, np.exp(rng.standard_normal(500)))),
        "both ends, points": Tail("points", np.array([1e-300, 1.0, 2.0, 3.0, 1e300])),
    }


def random_tail(seed):
    """One of the same kinds, or a power law, or any lognormal."""
    rng = np.random.default_rng(seed)
    n, some = int(10 ** rng.uniform(0.7, 3)), rng.integers(1, 4)
    x = (
        lambda: np.append(np.ones(n), 1 + 10 ** rng.uniform(-3, 3, some)),
        lambda: np.append(
            1 + 10 ** rng.uniform(-6, -1) * rng.standard_normal(n), 10 ** rng.uniform(0, 4, some)
        ),
        lambda: 10 ** rng.uniform(-36, 36, n),
        lambda: np.exp(rng.standard_normal(n) * 10 ** rng.uniform(-3, 1.2)),
        lambda: 1 + rng.pareto(10 ** rng.uniform(-1, 2), n),
        lambda: np.append(10 ** rng.uniform(-8, 3), 1e4 * (1 + 10 ** rng.uniform(-5, -1) * rng.random(n))),
    )[seed % 6]()
    form = ("bins", "points", "integers")[seed // 6 % 3]
    return Tail(form, np.rint(np.clip(x, 1e-2, 1e15) * 100) if form == "integers" else x)


def tail_of(form, x):
    """As :func:`points`, but bins are those of a histogram; from the least value on."""
    x = np.abs(x)
    if form != "bins":
        return points(x, x.min(), form)
    sample = from_magnitudes(summarize(x).magnitudes, "both").sample(0)
    return sample, exponent_of_bins(sample)
