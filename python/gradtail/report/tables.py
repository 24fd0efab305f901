"""The report as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from gradtail.report import laws_text, words
from gradtail.report.findings import findings
from gradtail.report.words import Row

WIDTH = 100
MOST_ROWS = 20

_NAME = 34
_TESTED_ROWS = 10
_TESTED_NAME, _VERDICT = 27, 50


def text(data: dict[str, Any], most: int = MOST_ROWS) -> str:
    """Lay a report out for a terminal of a hundred columns.

    Parameters
    ----------
    data : dict
        What report.json holds.
    most : int
        Layers shown, heaviest first; the others are counted.
    """
    lines = [
        words.printable(data["title"]),
        *textwrap.wrap(subtitle(data), WIDTH, break_on_hyphens=False),
        "",
    ]
    for one in findings(data):
        said = words.printable(f"{one.title}: {one.text}")
        lines += textwrap.wrap(said, WIDTH, initial_indent="* ", subsequent_indent="  ")
    lines += [f"* {words.printable(note)}" for note in data["notes"][:5]] + (
        [f"* {len(data['notes']) - 5} more notes in report.json"] if len(data["notes"]) > 5 else []
    )
    if data["layers"]:
        header = _line("layer", "alpha", "95 % interval", "k", "kurtosis", "norm", "zeros", "bad")
        rows = sorted(data["layers"], key=words.heaviness)
        lines += ["", header, "-" * len(header), _row(data["whole"])]
        lines += [_row(row) for row in rows[:most]]
        if len(rows) > most:
            lines.append(f"... {len(rows) - most} more")
        lines += ["", "alpha: tail exponent, smaller is heavier; kurtosis: excess; norm: median over steps."]
        mixed = words.mixture(data["whole"])
        if mixed and words.is_index(data["whole"]["tails"]["both"]):
            lines += textwrap.wrap(words.printable(f"whole model: {mixed}."), WIDTH)
        lines += _formal_tests(data, rows, min(most, _TESTED_ROWS))
    return "\n".join(line.rstrip() for line in lines)


def subtitle(data: dict[str, Any]) -> str:
    """Say in one line what was observed and by what."""
    run, build = data["run"], data["build"]
    engine = build["backend"]
    if engine == "native":
        engine += f" ({build['simd']}, {words.plural(build['threads'], 'thread')})"
    span = f" ({run['first_step']} to {run['last_step']})" if run["steps"] else ""
    return (
        f"{words.plural(run['steps'], 'step')}{span}, {words.plural(run['arrays'], 'layer')}, "
        f"{words.count(run['elements'])} parameters, {words.count(run['values'])} values; "
        f"gradtail {data['versions']['gradtail']}, {engine}"
    )


def _row(row: Row) -> str:
    tail = row["tails"]["both"]
    zeros = words.percent(row["zeros"] / row["count"]) if row["count"] else "–"
    return _line(
        words.shorten(words.printable(row["name"]), _NAME),
        words.alpha_text(tail),
        words.interval_text(tail),
        words.count(tail["k"]) if tail else "–",
        words.number(row["excess_kurtosis"]),
        words.number(row["norm"]["median"]),
        zeros,
        words.count(row["nonfinite"]) if row["nonfinite"] else "",
    )


def _formal_tests(data: dict[str, Any], rows: Sequence[Row], most: int) -> list[str]:
    """Lay the tests of the whole model and of some layers out; nothing where a saved report has none."""
    common = data.get("tests")
    if not common:
        return []
    span = common["over_steps"]
    header = _tested_line("formal tests", "p", f"power law, step {common['step']}", "normal")
    tested = [row for row in rows if "why" not in row["tests"]["power_law"]]  # the rest is soon told
    lines = ["", header, "-" * WIDTH, *map(_tested_row, (data["whole"], *tested[:most]))]
    rest = [f"{len(tested) - most} more in report.json"] if len(tested) > most else []
    if len(rows) > len(tested):
        left_out = words.plural(len(rows) - len(tested), "layer")
        rest.append(f"{left_out} not held against a power law (too small, or not in step {common['step']})")
    if rest:
        lines.append("... " + ", ".join(rest))
    said = (
        f"p: chance of the largest values (a tenth, at most {common['top']}) being so far from a power law "
        "if it holds and they are independent; normal: "
    )
    if span["steps"] < span["fewest"]:
        said += f"not tested over fewer than {span['fewest']} tracked steps."
    else:
        said += f"share of tracked coordinates that pass as normal over steps {span['first_step']} to "
        said += f"{span['last_step']}, where drift counts against it."
    return [*lines, "", *textwrap.wrap(said, WIDTH)]


def _tested_row(row: Row) -> str:
    tests = row["tests"]
    return _tested_line(
        words.shorten(words.printable(row["name"]), _TESTED_NAME),
        laws_text.pvalue_text(tests["power_law"].get("pvalue")),
        laws_text.short_verdict(tests["power_law"], _VERDICT),
        laws_text.normal_share(tests["over_steps"]),
    )


def _tested_line(name: str, p: str, verdict: str, normal: str) -> str:
    return f"{name:<{_TESTED_NAME}} {p:>7}  {verdict:<{_VERDICT}} {normal:>12}"


def _line(*cells: str) -> str:
    name, alpha, interval, k, kurtosis, norm, zeros, bad = cells
    # "no plateau (a→b)" takes the room of the interval, which is then empty
    middle = f"{alpha:>22}" if len(alpha) > 6 else f"{alpha:>6}  {interval:>14}"
    return f"{name:<{_NAME}} {middle} {k:>6} {kurtosis:>9} {norm:>9} {zeros:>7} {bad:>6}"
