"""Formal tests in words, the same in the terminal and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gradtail.report import words
from gradtail.report.words import Row

_SHORT = {
    "lognormal": "lognormal",
    "exponential": "exponential",
    "stretched_exponential": "stretched exp.",
    "truncated_power_law": "truncated",
}

_ENOUGH_PASS = 0.9  # share of normal laws over steps from which the rest may be chance


def law(rival: str) -> str:
    """Name a law."""
    return rival.replace("_", " ")


def pvalue_text(p: float | None) -> str:
    """Write a p-value to the thousandth that a thousand samples tell.

    Examples
    --------
    >>> pvalue_text(0.4237), pvalue_text(0.0), pvalue_text(None)
    ('0.424', '< 0.001', '–')
    """
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def verdict(found: Row) -> str:
    """Say of a power law that was tested whether it is ruled out, and what fits as well or better.

    Examples
    --------
    >>> verdict({"ruled_out": False, "pvalue": 0.42, "better": [], "as_well": ["lognormal"]})
    'power law not ruled out (p 0.420); lognormal fits as well'
    """
    shown = pvalue_text(found["pvalue"])
    said = f"power law {_ruled(found)} (p {shown})"
    return "; ".join([said, *rivals_text(found)])


def _ruled(found: Row) -> str:
    return "ruled out" if found["ruled_out"] else "not ruled out"


def rivals_text(found: Row) -> list[str]:
    """Name the rivals that fit better, and those that fit as well, the likeliest first."""
    said = []
    for names, how in ((found["better"], "better"), (found["as_well"], "as well")):
        if names:
            said.append(f"{', '.join(map(law, names))} {'fit' if len(names) > 1 else 'fits'} {how}")
    return said or ["no rival fits as well"]


def rival_text(rival: str, one: Row) -> str:
    """Say how one rival fares, with its numbers."""
    if one["pvalue"] is not None and one["pvalue"] < 0.1:
        how = "fits better" if (one["ratio"] or 0.0) < 0 else "fits worse"
    elif one["nested"]:
        how = "fits no better"
    else:
        how = "fits as well"
    ratio = words.number(one["ratio"]).replace("-", "−", 1)
    said = f"{law(rival)} {how}: log likelihood ratio {ratio}, p {pvalue_text(one['pvalue'])}"
    return "; ".join([said, *one["warnings"]])


def short_verdict(found: Row, width: int) -> str:
    """Fit a verdict into so many characters: of the rivals as many as there is room for, the likeliest first."""
    if "why" in found:
        why = words.printable(found["why"])
        return why if len(why) <= width else why[: width - 1] + "…"
    names, how = (found["better"], "better") if found["better"] else (found["as_well"], "as well")
    head = _ruled(found)
    if not names:
        return f"{head}; no rival as good"
    for shown in range(len(names), 0, -1):
        listed = ", ".join(_SHORT[name] for name in names[:shown])
        more = f" and {len(names) - shown} more" if shown < len(names) else ""
        said = f"{head}; {listed}{more} {how}"
        if len(said) <= width:
            break
    return said


def normal_share(found: Row) -> str:
    """Write the share of coordinates that pass as normal over steps."""
    if "why" in found:
        return "–"
    return f"{passing(found)} of {words.count(found['tested'])}"


def passing(found: Row) -> str:
    """Write that share alone."""
    return words.percent((found["tested"] - found["rejected"]) / found["tested"])


def headline(data: dict[str, Any]) -> tuple[bool, str] | None:
    """Say in a few sentences what the tests found.

    Returns
    -------
    pair of bool and str, or None
        Whether all is calm: no layer may have a power law, and nearly all coordinates pass as normal.
        None where nothing was tested.
    """
    common = data.get("tests")
    if not common:
        return None
    rows = [row["tests"]["power_law"] for row in data["layers"] if row.get("tests")]
    tested = [found for found in rows if "why" not in found]
    whole = (data["whole"].get("tests") or {}).get("over_steps") or {"why": ""}
    parts, calm = [], True
    if tested:
        left = [found for found in tested if not found["ruled_out"]]
        calm = not left
        parts.append(_power_laws(common, tested, left))
    if "why" not in whole:
        calm = calm and whole["tested"] - whole["rejected"] >= _ENOUGH_PASS * whole["tested"]
        parts.append(_over_steps(common, whole))
    return (calm, " ".join(parts)) if parts else None


def _power_laws(common: Row, tested: Sequence[Row], left: Sequence[Row]) -> str:
    out, layers = len(tested) - len(left), words.plural(len(tested), "layer")
    text = f"Largest values of each layer in step {common['step']} (a tenth, at most {common['top']}): a power law"
    text += f" is ruled out (p < {common['ruled_out_below']:g}) in {out} of {layers} tested"
    if not left:
        return text + "."
    rivals = Counter(name for found in left for name in (*found["better"], *found["as_well"]))
    disputed = sum(bool(found["better"] or found["as_well"]) for found in left)
    text += f", not in {len(left)}. "
    if disputed:
        most, times = rivals.most_common(1)[0]
        text += f"In {disputed} of these a rival fits as well or better, most often the {law(most)} ({times}); "
    alone = len(left) - disputed
    return text + (f"in {alone} only the power law is left." if alone else "nowhere is it the only law left.")


def _over_steps(common: Row, whole: Row) -> str:
    span = common["over_steps"]
    return (
        f"Over steps {span['first_step']} to {span['last_step']}, {passing(whole)} of "
        f"{whole['tested']:,} tracked coordinates pass as normal "
        f"({words.percent(1 - common['level'])} would if all were; drift counts against it)."
    )
