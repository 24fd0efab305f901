"""The numbers of `gradtail reproduce gradient-structure`: what is tested of a collection, as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from gradtail.estimators import powerlaw
from gradtail.estimators.ranks import rank_power_law
from gradtail.estimators.spectrum_result import CovarianceSpectrum
from gradtail.estimators.structure import FEWEST_IN_TAIL, Rate, Structure, rows
from gradtail.estimators.subspace import SubspaceStability
from gradtail.experiments.studies import power_law
from gradtail.report.schema import rounded
from gradtail.torch import GradientCollection

STEPS_IN_HEAD = 8
"""Batches for each eigenvalue of the head, whose slope the finite sample has bent less than that of all."""

_FEWEST = 20  # eigenvalues that a law is fitted to
_OUTLIERS = 30  # ranks among which the largest drop is looked for
_DROP = 1.5  # from one eigenvalue to the next that is worth a fit beyond it
_NORMAL_ROWS = 2000


def tests(found: GradientCollection) -> dict[str, Any]:
    """Test columns and rows of gradients and of noise."""
    tenth = max(FEWEST_IN_TAIL, found.batches // 10)
    kinds: dict[str, Any] = {}
    for kind in ("gradient", "noise"):
        every = found.all_coordinates(kind)
        rate_of_all = every.rate()
        values = found.stream(kind).tracks().values.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            kurtosis = stats.kurtosis(values[:, np.ptp(values, axis=0) > 0], axis=0)
        kinds[kind] = {
            "dimension_wise": structure(found.dimension_wise(kind)),
            "iteration_wise": structure(found.iteration_wise(kind)),
            "iteration_wise_tenth": structure(found.iteration_wise(kind, top=tenth)),
            "iteration_wise_pearson": rate(found.iteration_wise(kind, test="pearson_chi2").gaussian_rate),
            "median_excess_kurtosis": float(np.median(kurtosis)) if kurtosis.size else None,
            "rivals": rivals(found, kind),
            "all_coordinates": {
                "test": "jarque_bera", "tested": rate_of_all.tested,
                "gaussian_rate": rate_of_all.gaussian_rate, "skipped_constant": every.skipped_constant,
                "skipped_few": every.skipped_few, "skipped_unknown": every.skipped_unknown,
            },
            "layers": {
                name: {
                    "dimension_wise": structure(found.dimension_wise(kind, name)),
                    "iteration_wise": structure(found.iteration_wise(kind, [name])),
                }
                for name in found.stream(kind).names
            },
        }  # fmt: skip
    return kinds


def normal_rows(batches: int) -> dict[str, Any]:
    """Say how often normal rows pass as a power law by their largest tenth: what the test can tell."""
    tenth = max(FEWEST_IN_TAIL, batches // 10)
    values = np.random.default_rng(0).standard_normal((batches, _NORMAL_ROWS))
    return structure(rows(values, "normal", top=tenth))


def rivals(found: GradientCollection, kind: Any) -> dict[str, Any] | None:
    """Hold the power law of the newest column against a lognormal law; None where its tail is too short."""
    newest = found.stream(kind).summary(steps="newest")
    top = min(found.provenance["top"], (newest.count - newest.zeros) // 10)
    if top < FEWEST_IN_TAIL:
        return None
    try:
        other = powerlaw.fit(newest, top=top).compare("lognormal")
    except ValueError:  # fewer than two distinct magnitudes
        return None
    return {"rival": "lognormal", "ratio": other.ratio, "pvalue": other.pvalue, "verdict": other.verdict}


def structure(found: Structure) -> dict[str, Any]:
    """Flatten the tests of columns or rows."""
    tails = found.n_tail[found.n_tail > 0]
    return {
        "mean_ks": found.mean_ks,
        "mean_critical": float(np.nanmean(found.critical)) if np.isfinite(found.critical).any() else None,
        "power_law_rate": rate(found.power_law_rate),
        "printed_power_law_rate": rate(found.printed_power_law_rate),
        "test": found.test,
        "gaussian_rate": rate(found.gaussian_rate),
        "skipped_constant": found.skipped_constant,
        "skipped_few": found.skipped_few,
        "top": found.top,
        "mean_n_tail": float(tails.mean()) if tails.size else None,
    }


def rate(found: Rate) -> dict[str, Any]:
    """Flatten a rate; its interval takes the tests as independent, which vectors of one network are not."""
    return {"value": found.value, "ci95_iid": list(found.ci()), "tested": found.tested}


def spectrum(found: CovarianceSpectrum, top: int) -> dict[str, Any]:
    """Flatten a spectrum and its power laws: of the largest, of the head, and beyond the largest drop.

    A network without a gradient has none, which its verdict says.
    """
    values = found.eigenvalues
    positive = int(np.count_nonzero(values > 0))
    flat = {
        "trace": found.trace, "trace_stderr": found.trace_stderr,
        "participation_ratio": found.participation_ratio,
        "participation_ratio_ci95": list(found.participation_ratio_ci()), "laws": {}, "drop": None,
    }  # fmt: skip
    if positive < _FEWEST:
        return {**flat, "verdict": f"no power law of {positive} positive eigenvalues", "eigenvalues": []}
    law = rank_power_law(found, min(top, positive))
    ratios = values[:_OUTLIERS] / np.maximum(values[1 : _OUTLIERS + 1], np.finfo(np.float64).tiny)
    after = int(np.argmax(ratios)) + 1
    laws = {
        "all": power_law(law),
        "head": power_law(rank_power_law(found, min(max(found.steps // STEPS_IN_HEAD, _FEWEST), law.top))),
    }
    if ratios[after - 1] > _DROP and law.top - after >= _FEWEST:
        laws["beyond"] = power_law(rank_power_law(values[after : law.top]))
    return {
        **flat,
        "verdict": law.verdict,
        "laws": laws,
        "drop": {"after": after, "ratio": float(ratios[after - 1])},
        "eigenvalues": rounded(values[: law.top]),
        "sketch_stderr": rounded(found.sketch_stderr[: law.top]),
        "sampling_stderr": rounded(found.sampling_stderr[: law.top]),
    }


def stability(found: SubspaceStability) -> dict[str, Any]:
    """Flatten the comparison of the leading directions of both halves of the batches."""
    return {
        "overlap": rounded(found.overlap), "sine": rounded(found.sine), "bound": rounded(found.bound),
        "perturbation": found.perturbation,
    }  # fmt: skip
