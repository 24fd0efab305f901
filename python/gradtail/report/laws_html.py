"""Formal tests on the page: a table of verdicts, and how to read them."""

from __future__ import annotations

from html import escape
from typing import Any

from gradtail.report import laws_text, rows_html, words
from gradtail.report.words import Row

HOW_TO_READ = """<li><b>Power law, formally</b>: whether the largest values of the newest step, a tenth of the
layer but no more than a thousand, may have come from a power law. The exponent is that of the density, α + 1.
The Kolmogorov–Smirnov distance (KS) is how far they are from the fitted law, and p how often samples of
that very law are as far from theirs. Where p is below 0.1 the law is <b>ruled out</b>. Elsewhere nothing
is proved: few values rule out little. And enough of them rule out everything, for no law holds exactly.</li>
<li><b>A rival that fits as well</b> means that the data cannot tell: the ratio of likelihoods favours neither
law (p of 0.1 or more). A truncated power law can be the power law itself, and is named only where its
cutoff makes it fit better. What fits better than a law that is ruled out may be wrong too.</li>
<li><b>Normal across coordinates</b>: Jarque and Bera's test of all values of the newest step.
<b>Normal over steps</b>: D'Agostino's test of each tracked coordinate by itself, and the share that pass; of
normal ones 95 % would. In training the weights move: a mean or a variance that drifts makes a coordinate
fail as heavy tails do.</li>
<li><b>All of these tests</b> take values as independent. Coordinates of one gradient share their batch: laws
are ruled out sooner than they should be, and the intervals of shares are too narrow.</li>
"""

_HEADS = (
    ("layer", "text", "left", ""),
    ("exponent, 95&nbsp;%", "", "", "of the density, x to the minus exponent, of the largest values"),
    ("KS", "", "", "distance from the fitted law, and what 1 in 20 samples of that law exceed"),
    ("p", "", "", "share of samples of the fitted law that are as far from their fits"),
    ("power law, and rivals", "text", "left", ""),
    ("normal across coordinates", "", "", "p of the Jarque-Bera test of the newest step"),
    ("normal over steps", "", "", "tracked coordinates that pass D'Agostino's test, 95 % as if independent"),
)


def section(data: dict[str, Any]) -> str:
    """Lay the tests out; empty where a saved report has none."""
    common = data.get("tests")
    rows = [row for row in data["layers"] if "tests" in row]
    if not common or not rows:
        return ""
    ordered = [_row(row, "") for row in sorted(rows, key=words.heaviness)]
    body = [_row(data["whole"], "whole"), *ordered] if "tests" in data["whole"] else ordered
    span = common["over_steps"]
    over = "" if span["first_step"] is None else f", steps {span['first_step']} to {span['last_step']}"
    said = (
        f"Power law: the largest tenth of the values of step {common['step']}, at most {common['top']:,}; p "
        f"and critical distance are those of {common['repeats']:,} samples of the fitted law. Normal over "
        f"steps: tracked coordinates{over}. Values are taken as independent, which they are not quite."
    )
    return (
        f'<section><h2>Formal tests</h2>\n<p class="quiet">{said}</p><div class="tools"></div>\n'
        f"{rows_html.grid(_HEADS, body)}</section>"
    )


def _row(row: Row, kind: str) -> str:
    tests = row["tests"]
    mixed = words.mixture(row) if kind == "whole" else ""
    cells = [
        rows_html.name_cell(row),
        *_power_law(tests["power_law"], mixed),
        _across(tests["normal"]),
        _over(tests["over_steps"]),
    ]
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _power_law(found: Row, mixed: str) -> list[str]:
    if "why" in found:
        why = escape(words.printable(found["why"]))
        empty = [rows_html.cell(None, '<span class="none">–</span>')] * 3
        return [*empty, f'<td class="words none" data-sort="">not tested: {why}</td>']
    low, high = map(words.number, found["ci95"])
    top = f"top {words.count(found['n_tail'])} of {words.count(found['n'])}"
    exponent = f"<b>{words.number(found['exponent'])}</b>" + _quiet(f"{low} to {high}", top)
    distance = words.number(found["ks"]) + _quiet(f"critical {words.number(found['critical'])}")
    head = "ruled out" if found["ruled_out"] else "not ruled out"
    rivals = [laws_text.rival_text(name, one) for name, one in found["rivals"].items()]
    said = head + _quiet(*laws_text.rivals_text(found), one=False)
    folded = rows_html.listed(rivals, "rival")
    warnings = rows_html.listed(([mixed] if mixed else []) + found["warnings"], "warning")
    full = escape(words.printable(found["verdict"]))
    return [
        rows_html.cell(found["exponent"], exponent, "alpha"),
        rows_html.cell(found["ks"], distance),
        rows_html.cell(found["pvalue"], laws_text.pvalue_text(found["pvalue"])),
        f'<td class="words" data-sort="{head}" title="{full}">{said}{folded}{warnings}</td>',
    ]


def _across(found: Row) -> str:
    if "why" in found:
        return _none(found["why"])
    return rows_html.cell(found["pvalue"], laws_text.pvalue_text(found["pvalue"]))


def _over(found: Row) -> str:
    if "why" in found:
        return _none(found["why"])
    low, high = (None if end is None else 1 - end for end in reversed(found["ci95"]))
    shown = laws_text.normal_share(found) + _quiet(words.percent_range([low, high]))
    return rows_html.cell(1 - found["rate"], shown)


def _none(why: str) -> str:
    said = escape(words.printable(why))
    return rows_html.cell(None, f'<span class="none" title="{said}">–</span>')


def _quiet(*lines: str, one: bool = True) -> str:
    kind = "quiet one" if one else "quiet"
    return "".join(f'<br><span class="{kind}">{escape(line)}</span>' for line in lines)
