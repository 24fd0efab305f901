"""Tails for the tests of rivals: values or bins, and the power law's exponent at the greatest likelihood."""

import math

import numpy as np
from scipy import optimize, special

from gradtail.estimators.powerlaw.descent import least_of_first
from gradtail.estimators.powerlaw.likelihoods import Cells, Growing
from gradtail.estimators.powerlaw.sample import TailSample


def points(x, xmin, form="points"):
    """The sample of values, and the exponent at the greatest likelihood."""
    values, count = np.unique(x[x >= xmin], return_counts=True)
    y = np.log(values / xmin)
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
