"""Formal tests in words, the same in the terminal and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gradtail.report import words
from gradtail.report.words import Row

_SHORT = {
    "lognormal": "lognormal",
    "exponential": "exponential",
    "stretched_exponential": "stretched exp.",
    "truncated_power_law": "truncated",
}

_TOLD_APART = 0.1  # p of a likelihood ratio, as the estimator has it
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
    """Name the rivals that fit better and, of a law that may hold, those that fit as well."""
    listed = [(found["better"], "better")]
    if not found["ruled_out"]:
        listed.append((found["as_well"], "as well"))
    said = [
        f"{', '.join(map(law, names))} {'fit' if len(names) > 1 else 'fits'} {how}"
        for names, how in listed
        if names
    ]
    return said or [_no_rival(found)]


def _no_rival(found: Row) -> str:
    return "no rival fits better" if found["ruled_out"] else "no rival fits as well"


def rival_text(rival: str, one: Row) -> str:
    """Say how one rival fares, with its numbers."""
    if one["pvalue"] is not None and one["pvalue"] < _TOLD_APART:
        how = "fits better" if (one["ratio"] or 0.0) < 0 else "fits worse"
    elif one["nested"] or one.get("same"):
        how = "fits no better"
    else:
        how = "fits as well"
    ratio = words.number(one["ratio"]).replace("-", "−", 1)
    said = f"{law(rival)} {how}: log likelihood ratio {ratio}, p {pvalue_text(one['pvalue'])}"
    return "; ".join([said, *one["warnings"]])


def short_verdict(found: Row, width: int) -> str:
    """Fit a verdict into so many characters: with as many rivals as there is room for, likeliest first."""
    if "why" in found:
        why = words.printable(found["why"])
        return why if len(why) <= width else why[: width - 1] + "…"
    names, how = (found["better"], "better") if found["better"] else (found["as_well"], "as well")
    head = _ruled(found)
    if not names or (found["ruled_out"] and not found["better"]):
        return f"{head}; {_no_rival(found)}"
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
    out, layers = len(tested) - len(left), words.plural(len(tested), "tested layer")
    text = f"Step {common['step']}, largest tenth of each layer (at most {common['top']} values): "
    text += f"a power law is ruled out (p < {common['ruled_out_below']:g}) in {out} of {layers}"
    if not left:
        better = _most_often(found["better"] for found in tested)
        return text + (f"; most often better: {better}." if better else ".")
    disputed = [names for found in left if (names := [*found["better"], *found["as_well"]])]
    text += f", left in {len(left)}"
    if disputed:
        which = "all" if len(disputed) == len(left) else f"{len(disputed)}"
        text += f"; in {which} of these a rival fits as well or better, most often {_most_often(disputed)}"
    alone = len(left) - len(disputed)
    if not alone:
        return text + ", and nowhere is it the only law left."
    return text + f"{', and ' if disputed else '; '}in {alone} it is the only law left."


def _most_often(several: Iterable[Sequence[str]]) -> str:
    """Name the rivals that come up most often, and how often; empty if there are none."""
    times = Counter(name for names in several for name in names)
    most = max(times.values(), default=0)
    listed = " and ".join(law(name) for name in times if times[name] == most)
    return f"{listed} (in {most})" if most else ""


def _over_steps(common: Row, whole: Row) -> str:
    span = common["over_steps"]
    return (
        f"Steps {span['first_step']} to {span['last_step']}: {passing(whole)} of "
        f"{whole['tested']:,} tracked coordinates pass as normal "
        f"({words.percent(1 - common['level'])} would if all were; drift counts against it)."
    )
