"""Formal tests of each layer: power laws in the newest step, normal laws across coordinates and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.estimators.normality import RejectionRate, dagostino, jarque_bera
from gradtail.estimators.powerlaw import bootstrap, fit
from gradtail.estimators.powerlaw.bins import from_magnitudes
from gradtail.estimators.powerlaw.compare import Comparison
from gradtail.estimators.powerlaw.result import RULED_OUT, PowerLawFit
from gradtail.report import laws_text
from gradtail.states.summary import Summary
from gradtail.stream import GradientStream

TOP = 1000
"""Largest values of a layer that are held against a power law, if they are no more than a tenth of it."""

SHARE = 10
"""One in so many nonzero values belongs to the tail that is tested, at most."""

FEWEST = 50
"""Values in that tail below which there is no test: nothing would be ruled out."""

FEWEST_STEPS = 20
"""Steps in which a coordinate was seen from which D'Agostino's test keeps its level."""

REPEATS = 1000
"""Samples of the fitted law that p-value and critical distance come from."""

LEVEL = 0.05
"""Of the critical distance, and of the tests of a normal law."""

_SEED = 0  # so that a stream gives the same report again
_APART = 2.0  # a factor between the values that the tail was to have and those that it has


class Laws:
    """Tests of the groups of a stream; what is common to all of them is taken once."""

    def __init__(self, stream: GradientStream) -> None:
        self._stream = stream
        tracks = stream.tracks()
        self._steps: npt.NDArray[np.int64] = tracks.steps
        names, own = np.unique(tracks.names, return_inverse=True)
        groups = np.array([stream.group_of(str(name)) for name in names], dtype=np.str_)
        self._group = groups[own] if names.size else groups
        # one call for all layers: a test of one coordinate alone would cost as much
        self._tests = dagostino(tracks) if self._steps.size >= FEWEST_STEPS else None

    def settings(self) -> dict[str, Any] | None:
        """Return what the tests of all rows have in common; None before the first step."""
        if not self._stream.steps:
            return None
        steps = self._steps
        return {
            "step": self._stream.last_step,
            "top": TOP,
            "share": 1 / SHARE,
            "fewest": FEWEST,
            "repeats": REPEATS,
            "ruled_out_below": RULED_OUT,
            "level": LEVEL,
            "over_steps": {
                "first_step": int(steps[0]) if steps.size else None,
                "last_step": int(steps[-1]) if steps.size else None,
                "steps": int(steps.size),
                "fewest": FEWEST_STEPS,
            },
        }

    def row(self, group: str | None) -> dict[str, Any]:
        """Test one group, or None: everything together."""
        newest = self._stream.summary(group, "newest")
        # Values of any kind may come; what the arithmetic makes of the oddest of them is no reason to stop.
        with np.errstate(all="ignore"):
            return {
                "power_law": _power_law(newest),
                "normal": _normal(newest),
                "over_steps": self._over_steps(group),
            }

    def _over_steps(self, group: str | None) -> dict[str, Any]:
        mine = slice(None) if group is None else self._group == group
        coordinates = self._group[mine].size
        if not coordinates:
            return {"why": "no coordinates are tracked"}
        if self._tests is None:
            return {"why": f"{self._steps.size} of {FEWEST_STEPS} steps needed"}
        n, pvalue = self._tests.n[mine], self._tests.pvalue[mine]
        seen = n >= FEWEST_STEPS
        tested = seen & ~np.isnan(pvalue)
        constant, few = int(np.count_nonzero(seen & ~tested)), int(np.count_nonzero(~seen))
        if not tested.any():
            return {"why": "no coordinate moves" if constant else f"no coordinate in {FEWEST_STEPS} steps"}
        rejected = int(np.count_nonzero(pvalue[tested] <= LEVEL))
        found = RejectionRate(LEVEL, None, rejected, int(np.count_nonzero(tested)), constant, few)
        return {
            "test": self._tests.name,
            "coordinates": coordinates,
            "tested": found.tested,
            "rejected": found.rejected,
            "rate": found.rate,
            "ci95": list(found.ci()),
            "spread": found.spread,
            "skipped": {"constant": constant, "few": few},
            "steps": int(self._steps.size),
        }


def _nothing(newest: Summary) -> str:
    """Say why there are no values."""
    m = newest.moments
    return "no finite values in the newest step" if m.nan + m.posinf + m.neginf else "not in the newest step"


def _power_law(newest: Summary) -> dict[str, Any]:
    m = newest.moments
    nonzero = m.count - m.zeros
    top = min(TOP, nonzero // SHARE)
    if not m.count:
        return {"why": _nothing(newest)}
    if top < FEWEST:
        return {"why": f"{nonzero} nonzero values of {FEWEST * SHARE} needed"}
    try:
        return _fitted(newest, top)
    except (ValueError, ArithmeticError) as error:
        return {"why": _reason(error)}


def _fitted(newest: Summary, top: int) -> dict[str, Any]:
    found = fit(newest, top=top)
    pvalue, critical = _chance(newest, found)
    rivals = found.compare_all()
    likeliest = sorted(rivals.values(), key=lambda one: one.ratio)
    warnings = list(found.warnings)
    if not top / _APART <= found.n_tail <= top * _APART:
        warnings.append(f"few distinct values: {found.n_tail} of them are tested and not {top}")
    tested = {
        "n": found.n,
        "n_tail": found.n_tail,
        "xmin": found.xmin,
        "exponent": found.exponent,
        "stderr": found.stderr,
        "ci95": list(found.ci()),
        "ks": found.ks,
        "critical": critical,
        "pvalue": pvalue,
        "repeats": REPEATS,
        "ruled_out": pvalue < RULED_OUT,
        "rivals": {name: _rival(one) for name, one in rivals.items()},
        "better": [one.rival for one in likeliest if one.rival_is_as_good and one.pvalue < RULED_OUT],
        "as_well": [one.rival for one in likeliest if one.rival_is_as_good and one.pvalue >= RULED_OUT],
        "warnings": warnings,
    }
    return {**tested, "verdict": laws_text.verdict(tested)}


def _chance(newest: Summary, found: PowerLawFit) -> tuple[float, float]:
    """Return p-value and critical distance, both of the same samples, which cost most of a test."""
    data = from_magnitudes(newest.magnitudes, found.tail)
    at = int(np.searchsorted(data.values, found.xmin))
    null = bootstrap.null_distances(data, at, found.alpha, REPEATS, np.random.default_rng(_SEED))
    return float(np.mean(null >= found.ks)), float(np.quantile(null, 1 - LEVEL, method="higher"))


def _rival(one: Comparison) -> dict[str, Any]:
    return {
        "statistic": one.statistic,
        "pvalue": one.pvalue,
        "ratio": one.ratio,
        "nested": one.nested,
        "same": one.same,
        "warnings": list(one.warnings),
    }


def _normal(newest: Summary) -> dict[str, Any]:
    if not newest.moments.count:
        return {"why": _nothing(newest)}
    try:
        found = jarque_bera(newest)
    except (ValueError, ArithmeticError) as error:
        return {"why": _reason(error)}
    return {
        "test": found.name,
        "statistic": found.statistic,
        "pvalue": found.pvalue,
        "n": found.n,
        "rejected": found.rejected,
        "verdict": found.verdict,
        "warnings": list(found.warnings),
    }


def _reason(error: Exception) -> str:
    """Put a refusal into words without the name of the argument."""
    argument, colon, rest = str(error).partition(": ")
    return rest if colon and argument.isidentifier() else str(error)
