"""The table of layers as HTML: one row each, with its interval drawn where the eye can compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from gradtail.report import words
from gradtail.report.words import Row

_LOW, _HIGH, _WIDTH = 0.7, 12.0, 160.0


def table(rows: Sequence[Row], whole: Row | None, first: str) -> str:
    """Lay rows out heaviest first, under the whole model if it is given."""
    ordered = sorted(rows, key=words.heaviness)
    body = ([_row(whole, "whole")] if whole is not None else []) + [_row(row, "") for row in ordered]
    heads = [
        (first, "text", "left", ""),
        ("α, 95 %", "", "", "tail exponent: P(|g| > x) falls as x to the minus α; smaller is heavier"),
        ("interval " + _scale(), "", "left", ""),
        ("verdict", "text", "left", ""),
        ("excess kurtosis", "", "", "0 for a normal law"),
        ("norm", "", "", "median over the steps"),
        ("max / 99.9 %", "", "", "largest magnitude over the one that 99.9 % of the values lie below"),
        ("zeros", "", "", "share of exact zeros"),
        ("NaN, Inf", "", "", "non-finite values"),
        ("size", "", "", "elements"),
    ]
    return grid(heads, body)


def grid(heads: Sequence[tuple[str, str, str, str]], body: Sequence[str]) -> str:
    """Lay rows out under heads: label, "text" where it sorts as such, side, and a hint."""
    head = "".join(
        f'<th scope="col" class="{side}" data-kind="{kind}"{_title(hint)}>{label}</th>'
        for label, kind, side, hint in heads
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="rows"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
    )


def _title(hint: str) -> str:
    return f' title="{escape(hint)}"' if hint else ""


def _row(row: Row, kind: str) -> str:
    tail = row["tails"]["both"]
    group, _ = words.heaviness(row)
    key = None if group == words.NONE else tail["alpha"] + 1e6 * group  # no index, few values: after
    high = row["quantiles"].get("0.999")
    ratio = row["max_abs"] / high if high else None
    zeros = row["zeros"] / row["count"] if row["count"] else None
    cells = [
        name_cell(row),
        cell(key, _index(tail) if words.is_index(tail) else _no_index(tail), "alpha"),
        cell(key, bar(tail), "left"),
        _verdict(tail, words.mixture(row) if kind == "whole" else ""),
        cell(row["excess_kurtosis"], words.number(row["excess_kurtosis"])),
        cell(row["norm"]["median"], words.number(row["norm"]["median"])),
        cell(ratio, words.number(ratio)),
        cell(zeros, escape(words.percent(zeros))),
        cell(row["nonfinite"], f"{row['nonfinite']:,}", "bad" if row["nonfinite"] else "none"),
        cell(row["size"], words.count(row["size"])),
    ]
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def name_cell(row: Row) -> str:
    """Lay out the name of a row, which may be broken after its dots."""
    name = escape(words.printable(row["name"]))
    return f'<th scope="row" data-sort="{name}">{name.replace(".", ".<wbr>")}</th>'


def _index(tail: Row) -> str:
    interval = words.interval_text(tail)
    return f'<b>{escape(words.alpha_text(tail))}</b><br><span class="quiet">{interval}</span>'


def _no_index(tail: Row | None) -> str:
    return f'<span class="none">{escape(words.alpha_text(tail)).replace(" (", "<br>(")}</span>'


def cell(key: float | None, shown: str, kind: str = "") -> str:
    """Lay out a number, and what it is sorted by: last where it is None."""
    sort = "" if key is None else f"{key:.9g}"
    return f'<td class="{kind}" data-sort="{sort}">{shown}</td>'


def _verdict(tail: Row | None, mixed: str = "") -> str:
    if tail is None:
        return '<td class="words none" data-sort="">no tail: fewer than two nonzero values</td>'
    said = escape(words.printable(words.short_verdict(tail)))
    if mixed and words.is_index(tail):
        said = "may be that of a mixture of scales"
    kind = "" if words.is_index(tail) else " none"
    above = f"top {words.count(tail['k'])} of {words.count(tail['n'])}"
    above += f", above {words.number(tail['threshold'])}"
    spread = "" if tail["spread"] == "blocks" else "; iid formula"
    lines = f'{said}<br><span class="quiet one">{above}{spread}</span>'
    lines += listed(([mixed] if mixed else []) + tail["warnings"], "warning")
    full = escape(words.printable(tail["verdict"]))
    return f'<td class="words{kind}" data-sort="{said}" title="{full}">{lines}</td>'


def listed(lines: Sequence[str], what: str) -> str:
    """Fold sentences under their number; nothing if there are none."""
    if not lines:
        return ""
    plain = [words.printable(line) for line in lines]
    items = "".join(f"<li>{escape(one)}</li>" for one in plain)
    title = escape("\n".join(plain))
    return (
        f'<details title="{title}"><summary>{words.plural(len(plain), what)}</summary>'
        f"<ul>{items}</ul></details>"
    )


def _x(alpha: float) -> float:
    clipped = min(max(alpha, _LOW), _HIGH)
    return round(math.log(clipped / _LOW) / math.log(_HIGH / _LOW) * (_WIDTH - 8) + 4, 1)


def _scale() -> str:
    marks = "".join(
        f'<text class="scale" x="{_x(a)}" y="10" text-anchor="middle">{a:g}</text>' for a in (1, 2, 4, 8)
    )
    box = f'viewBox="0 0 {_WIDTH:g} 12" style="height:12px" aria-hidden="true"'
    return f'<svg class="bar" {box}>{marks}</svg>'


def bar(tail: Row | None) -> str:
    """Draw an interval on the logarithmic scale of the column; an arrow where alpha slides."""
    if tail is None or tail["alpha"] is None:
        return ""
    marks = "".join(f'<path class="mark" d="M{_x(a)} 0V20"/>' for a in (words.HEAVY, words.LIGHT))
    if words.is_index(tail):
        low, high = (tail["alpha"] if end is None else end for end in tail["ci95"])
        a, b = _x(max(low, _LOW)), _x(max(high, _LOW))
        dot = "dot" if tail["plateau"] else "dot open"
        drawn = (
            f'<rect class="ci" x="{a}" y="6" width="{max(b - a, 1):.1f}" height="8" rx="2"/>'
            f'<circle class="{dot}" cx="{_x(tail["alpha"])}" cy="10" r="3.4"/>'
        )
        label = f"{words.alpha_text(tail)}, {words.interval_text(tail)}"
        return _bar(words.weight(tail), label, marks + drawn)
    if tail["plateau"] is not False:
        return ""
    ends = tail["slide"] or [tail["alpha"], tail["alpha"]]
    a, b = (_x(tail["alpha"] if end is None else end) for end in ends)
    way = 1 if b >= a else -1
    drawn = (
        f'<path class="range" d="M{a} 10H{b}"/><path class="tip" d="M{b + 2 * way:.1f} 10l{-6 * way} -4v8z"/>'
    )
    return _bar("slides", words.alpha_text(tail), marks + drawn)


def _bar(kind: str, label: str, inside: str) -> str:
    return (
        f'<svg class="bar {kind}" viewBox="0 0 {_WIDTH:g} 20" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{inside}</svg>"
    )


def facts(title: str, values: dict[str, Any]) -> str:
    """Lay a mapping out as terms and their values."""
    if not values:
        return ""
    pairs = "".join(
        f"<dt>{escape(words.printable(key))}</dt><dd>{escape(words.printable(_plain(value)))}</dd>"
        for key, value in values.items()
    )
    return f"<div><h3>{escape(title)}</h3><dl>{pairs}</dl></div>"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
