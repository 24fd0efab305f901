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
        "participation ratio (centred)": words.ratio_text(found),
        "trace (centred)": _with_range(found["trace"], found["trace_ci95"]),
        "largest eigenvalue": _with_range(found["eigenvalues"][0], [found["low"][0], found["high"][0]]),
        "second moment: trace": _with_range(
            found["second_moment"]["trace"], found["second_moment"]["trace_ci95"]
        ),
        "second moment: participation ratio": words.ratio_text(found["second_moment"]),
        "sketch": f"{found['buckets']} buckets",
        "sampling error": f"from {found['blocks']} blocks of steps",
    }
    return {**listed, **_warnings(found)}


def clipping(clip: Row) -> dict[str, Any]:
    """List the suggested threshold, or why there is none, and the clip rate of the one in use."""
    if "why" in clip:
        listed = {"none": clip["why"]}
    else:
        listed = {
            "suggested threshold": _with_range(clip["threshold"], clip["ci95"]),
            "expected clip rate": f"{words.percent(clip['rate'])} ({words.percent_range(clip['rate_ci95'])})",
            "steps used": f"{clip['first_step']} to {clip['last_step']}",
            "norms": f"{clip['norms']}, worth {words.number(clip['independent'])} independent ones",
        }
    used = clip["in_use"]
    if used:
        listed["max_norm in use"] = words.number(used["max_norm"])
        listed["its clip rate"] = f"{words.percent(used['rate'])} ({words.percent_range(used['rate_ci95'])})"
    return {**listed, **_warnings(clip)}


def _with_range(value: float | None, ends: list[float | None]) -> str:
    return words.number(value) + words.range_text(ends)


def _warnings(found: Row) -> dict[str, str]:
    several = found.get("warnings", [])
    return {"warning" if len(several) == 1 else f"warning {i + 1}": text for i, text in enumerate(several)}
