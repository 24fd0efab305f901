"""What the report says of the run as a whole: the covariance of the gradient, and where to clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradtail.estimators import CovarianceSpectrum, clip_rate, covariance_spectrum, suggest_clip
from gradtail.report import words
from gradtail.report.schema import rounded
from gradtail.stream import GradientStream

FEWEST_STEPS = 8
"""Steps with sketches from which a spectrum is shown."""


def spectrum(stream: GradientStream) -> dict[str, Any]:
    """Take the spectrum of the newest steps; where there is none, ``why`` says so."""
    try:
        ring = stream.ring()
    except ValueError as error:
        return {"why": str(error)}
    steps, buckets = ring.vectors.shape
    if not buckets or (stream.steps and not steps and not ring.nonfinite):
        return {"why": "no sketches were kept"}
    if steps < FEWEST_STEPS:
        others = f", and {ring.nonfinite} more had NaN or infinite values" if ring.nonfinite else ""
        return {"why": f"{words.plural(steps, 'step')} of {FEWEST_STEPS} needed{others}"}
    if not ring.norms.any():
        return {"why": "all gradients are zero"}
    known: dict[str, Any] = {"dimension": sum(stream.sizes.values()), "steps": ring.steps}
    found = covariance_spectrum(ring.vectors, ring.norms, **known)
    second = covariance_spectrum(ring.vectors, ring.norms, centred=False, top=1, **known)
    low, high = found.ci(0.95)
    bad = [f"{ring.nonfinite} steps with NaN or infinite values are left out"] if ring.nonfinite else []
    return {
        "steps": steps,
        "first_step": ring.steps[0],
        "last_step": ring.steps[-1],
        "buckets": buckets,
        "blocks": found.blocks,
        "ddof": 1,
        "eigenvalues": rounded(found.eigenvalues),
        "low": rounded(low),
        "high": rounded(high),
        "sampling_stderr": rounded(found.sampling_stderr),
        "sketch_stderr": rounded(found.sketch_stderr),
        **_totals(found),
        "second_moment": _totals(second),
        "warnings": [*bad, *found.warnings],
    }


def _totals(found: CovarianceSpectrum) -> dict[str, Any]:
    return {
        "centred": found.centred,
        "trace": found.trace,
        "trace_ci95": list(found.trace_ci()),
        "participation_ratio": None if found.is_open else found.participation_ratio,
        "participation_ratio_basis": found.basis,
        "participation_ratio_ci95": list(found.participation_ratio_ci()),
    }


def clipping(stream: GradientStream, max_norm: object, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Take the suggested threshold, and the clip rate of the one in use where it is known.

    Parameters
    ----------
    max_norm : float or None
        The threshold in use; None: ``settings["max_norm"]``, if that is a number.
    """
    norms, steps = stream.history.norm, stream.history.steps
    used = _threshold(settings.get("max_norm") if max_norm is None else max_norm, max_norm is not None)
    try:
        found = suggest_clip(norms, steps=steps)
    except ValueError as error:
        return {"why": str(error).partition(": ")[2], "in_use": _in_use(norms, steps, used)}
    return {
        "threshold": found.threshold,
        "ci95": list(found.ci()),
        "rate": found.rate,
        "rate_ci95": list(found.rate_ci()),
        "norms": found.n,
        "independent": round(found.n_effective, 1),
        "first_step": found.first_step,
        "last_step": found.last_step,
        "nonfinite": found.nonfinite,
        "warnings": list(found.warnings),
        "in_use": _in_use(norms, steps, used),
    }


def _threshold(value: object, given: bool) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value) if math.isfinite(value) else None
    if given:
        raise ValueError(f"max_norm: expected a positive number, got {value!r}")
    return None


def _in_use(norms: Any, steps: Any, max_norm: float | None) -> dict[str, Any] | None:
    if max_norm is None:
        return None
    try:
        found = clip_rate(norms, max_norm, steps=steps)
    except ValueError:  # fewer than two finite norms
        return {"max_norm": max_norm, "rate": None, "rate_ci95": [None, None]}
    return {
        "max_norm": max_norm, "rate": found.rate, "rate_ci95": list(found.ci()), "norms": found.n,
        "first_step": found.first_step, "last_step": found.last_step,
    }  # fmt: skip
