"""Bounds on the chance that a sound sampler looks broken, or one way of drawing batches like another."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

_TRIED = 1000
_COLLISION = 2.0**-64  # of two hashes


def log_choose(n: float, k: float) -> float:
    """Logarithm of binom(n, k)."""
    return float(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def of_log(log: float) -> float:
    """Return a chance from its logarithm; 0 is kept for what is impossible."""
    return 0.0 if log == -math.inf else math.exp(min(0.0, max(log, -690.0)))


def equal(pairs: float, examples: int, size: int) -> float:
    """Bound the chance that any of some pairs of batches are of the same ``size`` of the examples.

    With replacement it is at most size! / examples**size a pair, which is less.
    """
    if size >= examples:
        return 1.0
    return min(1.0, pairs * (math.exp(-log_choose(examples, size)) + _COLLISION))


def same_order(examples: int, size: int, lag: int, count: int, tried: int) -> float:
    """Bound the chance that ``count`` batches are equal to those ``lag`` steps before, at one of some lags.

    Reshuffled, the next batch of an epoch is any of those that the examples left make up; where in the epoch
    the first of a part is, is not known, so that the likeliest batches are taken.
    """
    left = examples - size * np.arange(lag)
    terms = np.sort([log_choose(n, size) if n > size else 0.0 for n in left.tolist()])
    epochs, rest = divmod(count, lag)
    total = epochs * float(terms.sum()) + float(terms[:rest].sum())
    # every match may be one of hashes alone
    return min(1.0, tried * (math.exp(-total) + (_COLLISION if count else 1.0)))


def hits(count: int, mean: float) -> float:
    """Bound the chance of at least ``count`` hits, whose chances given what came before add up to ``mean``.

    Chernoff's, for sums of indicators whose conditional chances are bounded.
    """
    if count <= mean:
        return 1.0
    if mean <= 0:
        return 0.0
    return of_log(count - mean + count * math.log(mean / count))


def unseen(missing: int, followed: int, examples: int, draws: int, epochs: int, left_out: int) -> float:
    """Bound the chance that ``missing`` or more of ``followed`` never come; the likelier of two ways.

    Parameters
    ----------
    missing, followed, examples, draws : int
    epochs, left_out : int
        Whole epochs among the draws, and how many examples each leaves out.
    """
    j = np.unique(np.linspace(1, missing, min(missing, _TRIED)).astype(np.int64)).astype(np.float64)
    ways = special.gammaln(followed + 1) - special.gammaln(j + 1) - special.gammaln(followed - j + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        replacement = ways + draws * np.log1p(-j / examples)
        one = special.gammaln(left_out + 1) - special.gammaln(np.maximum(left_out - j, 0) + 1)
        one -= special.gammaln(examples + 1) - special.gammaln(examples - j + 1)
        one = np.where(j > left_out, -np.inf, one)
        epoch = ways + (epochs * one if epochs else 0.0)
    return of_log(max(float(np.min(replacement)), float(np.min(epoch))))
