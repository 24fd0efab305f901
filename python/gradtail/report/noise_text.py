"""The covariance and the clip threshold as terms and values, for the page."""

from __future__ import annotations

from typing import Any

from gradtail.report import words
from gradtail.report.words import Row


def covariance(found: Row) -> dict[str, Any]:
    """List what is known of the covariance, or why nothing is."""
    if "why" in found:
        return {"none": found["why"]}
    listed = {
        "steps": f"{found['steps']}, from {found['first_step']} to {found['last_step']}",
        "participation ratio (centred)": words.ratio_text(found) + _of_steps(found),
        "trace (centred)": _with_range(found["trace"], found["trace_ci95"]),
        "largest eigenvalue": _with_range(found["eigenvalues"][0], [found["low"][0], found["high"][0]]),
        "second moment: trace": _with_range(
            found["second_moment"]["trace"], found["second_moment"]["trace_ci95"]
        ),
        "second moment: participation ratio": words.ratio_text(found["second_moment"])
        + _of_steps(found["second_moment"]),
        "sketch": f"{found['buckets']} buckets",
        "sampling error": f"from {found['blocks']} blocks of steps",
    }
    return {**listed, **_warnings(found)}


_FEW = 10  # directions, as a low-rank method has


def headline(found: Row) -> str:
    """Say how the gradient scatters over the steps, and what to do with it."""
    span = f"Over steps {found['first_step']} to {found['last_step']}"
    ratio = words.ratio_text(found)
    text = f"{span} the covariance has the participation ratio {ratio}, "
    text += "of these steps only" if words.of_few_steps(found) else "its number of directions"
    if found["trace"] and found["eigenvalues"]:
        share = words.percent(found["eigenvalues"][0] / found["trace"])
        text += f"; its largest eigenvalue is {share} of its trace"
    text += "." + _use(found)
    for warning in found["warnings"]:
        text += f" Warning: {warning}."
    return text


def _use(found: Row) -> str:
    """Say what someone who trains does with trace and participation ratio.

    The noise variance at n times the batch is an n-th; n of trace over squared mean is where both are level
    (McCandlish et al. 2018, arXiv:1812.06162).
    """
    total, trace, ratio = found["second_moment"]["trace"], found["trace"], found["participation_ratio"]
    if not total or not trace:
        return ""
    if words.of_few_steps(found):
        return " A few steps decide these numbers: judge batch size and optimizer by a window without them."
    mean = total - trace  # unbiased for the squared mean, with the error trace / steps * sqrt(2 / ratio)
    error = trace / found["steps"] * (2 / (ratio or found["participation_ratio_ci95"][0] or 1.0)) ** 0.5
    text = f" Noise is {words.percent(min(trace / total, 1.0))} of the mean squared norm: "
    if mean <= 2 * error:
        text += "the mean gradient does not show in these steps, and averaging, by a larger batch or over"
        text += " steps, would help"
    elif trace > mean:
        text += "averaging, by a larger batch or over steps, helps: noise and mean would be level at about "
        text += f"{words.number(trace / mean, 2)} times the batch"
    else:
        text += "the mean gradient outweighs it, and a larger batch would help little"
    if found["steps"] < 4 * _FEW or len(found["eigenvalues"]) < _FEW:  # which the sample has few of anyway
        return text + "."
    share = min(sum(found["eigenvalues"][:_FEW]) / trace, 1.0)
    text += f". The {_FEW} largest eigenvalues are {words.percent(share)} of the trace"
    if share < 0.5:
        return text + ": the noise is spread wide, and a low-rank preconditioner would miss most of it."
    return text + ": a low-rank preconditioner could take up that much of the noise."


def clipping(clip: Row) -> dict[str, Any]:
    """List the suggested threshold, or why there is none, and the clip rate of the one in use."""
    if "why" in clip:
        listed = {"none": clip["why"]}
    else:
        listed = {
            "suggested threshold": _with_range(clip["threshold"], clip["ci95"]),
            "expected clip rate": f"{words.percent(clip['rate'])} ({words.percent_range(clip['rate_ci95'])})",
            "steps used": f"{clip['first_step']} to {clip['last_step']}",
            "norms": f"{clip['norms']}{_alike(clip)}",
        }
    used = clip["in_use"]
    if used:
        listed["max_norm in use"] = words.number(used["max_norm"])
        listed["its clip rate"] = f"{words.percent(used['rate'])} ({words.percent_range(used['rate_ci95'])})"
    return {**listed, **_warnings(clip)}


def _of_steps(found: Row) -> str:
    return ", of these steps only" if words.of_few_steps(found) else ""


def _alike(clip: Row) -> str:
    """How much less norms tell that resemble their neighbours."""
    if clip["independent"] > 0.9 * clip["norms"]:
        return ""
    fewer = max(1, round(clip["independent"]))
    return f"; neighbours are alike, so they tell as much as {fewer} independent ones"


def _with_range(value: float | None, ends: list[float | None]) -> str:
    return words.number(value) + words.range_text(ends)


def _warnings(found: Row) -> dict[str, str]:
    several = found.get("warnings", [])
    return {"warning" if len(several) == 1 else f"warning {i + 1}": text for i, text in enumerate(several)}
