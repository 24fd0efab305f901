"""The report as one self-contained page: no network, no fonts, a few lines of script."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from gradtail.report import figures, laws_html, noise_text, rows_html, stable, words
from gradtail.report.findings import findings
from gradtail.report.tables import subtitle

Data = dict[str, Any]

_HOW_TO_READ = """
<p>A gradient has a <b>heavy tail</b> if values far larger than its bulk keep turning up. The tail
exponent <b>α</b> says how fast they thin out: the share of values above x falls as x<sup>−α</sup>.</p>
<ul class="read">
<li><b>α below 2</b>: as a power law the variance would be infinite. Averages over a
batch are ruled by a few values, and settle more slowly than one over the square root of the batch; clipping
matters most here.</li>
<li><b>α from 2 to 4</b>: the variance is finite, the fourth moment is not; expect spikes now and then.</li>
<li><b>α above 4</b>: mild. A normal law has no α at all: its curve rises the further out one looks.</li>
<li><b>No plateau (a→b)</b>: α depends on where the tail is cut: a in the bulk, b far out. The tail is
then no power law at the depths seen here, and no number is quoted as its index.</li>
<li><b>Hill curve</b>: α taken from the k largest values, for every k. A flat stretch is a power
law; the dot is the k in use with its 95 % interval. The dotted lines are at 2 and 4.</li>
<li><b>Blocks of steps</b>: where there are at least three, each has its own threshold, and α is that of a
typical block: gradients shrink as training goes on, and all steps thrown together would be a mixture with a
tail of its own.</li>
<li><b>Whole model</b>: all layers together. Layers of different scale, thrown together, have a tail that
none of them has, so its α is that of a law only where the layers are alike.</li>
<li><b>Survival function</b>: of all steps together; a power law is a straight line. The dashed one has the
α quoted, and is left out where there is none.</li>
<li><b>Intervals</b> come from the spread between blocks of steps where there are at least three, since the
values of one gradient share a batch. Where they say <i>iid formula</i>, and in the bands over the steps,
they do not know of that, and are too narrow.</li>
<li><b>Covariance over steps</b>: how the gradient scatters from step to step. Its eigenvalues are the
variances along its main directions; the participation ratio says how many directions of equal variance would
scatter as much: 1 if all noise is along one line. Where a few steps carry most of the trace, as in a warm-up,
it is that of these very steps and no more. <i>Centred</i> is about the mean of these steps, over
T&nbsp;−&nbsp;1; the second moment is about zero. Taken from sketches, whose error is in the intervals.</li>
<li><b>Gradient alpha</b>: how sums of K neighbouring values grow with K, as K<sup>1/alpha</sup>; 2 for
independent values of finite variance. Values of unequal scale, related neighbours and too small K pull it
down as well, so that a number below 2 alone says nothing of a variance; it is of raw gradients, not of
their noise.</li>
<li><b>Suggested clip threshold</b>: the norm that one step in twenty exceeds, in the recent steps in which
the norms keep their level. Intervals allow for norms that resemble their neighbours.</li>
<li><b>Norms</b> leave out NaN and infinite values, which are counted apart.</li>
"""


_ORDER = (
    "Ordered by the upper end of the interval, so that what is heavy for sure comes first; layers without "
    "an index follow, then those of few values, which may be heavy by chance. Colours tell what the whole "
    "interval says. Click a column to sort."
)


@cache
def _asset(name: str) -> str:
    return files("gradtail.report").joinpath(name).read_text(encoding="utf-8")


def page(data: Data) -> str:
    """Lay a report out as an HTML document.

    Raises
    ------
    ImportError
        matplotlib, which draws the plots, is not installed.
    """
    title = escape(words.printable(data["title"]))
    return (
        '<!DOCTYPE html>\n<html lang="en" class="page">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'<main class="gradtail">\n{_head(data)}\n{_run(data)}\n{_noise(data)}\n'
        f"{_with_break(_stable(data))}{_layers(data)}\n"
        f"{_with_break(laws_html.section(data))}{_panels(data)}\n{_how_to_read(data)}\n{_facts(data)}\n"
        f"</main>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _with_break(section: str) -> str:
    return f"{section}\n" if section else ""


def _how_to_read(data: Data) -> str:
    tests = laws_html.HOW_TO_READ if data.get("tests") else ""
    return f"<section><h2>How to read this</h2>{_HOW_TO_READ}{tests}</ul>\n</section>"


def part(data: Data) -> str:
    """Lay the headline and the table out for a notebook, which needs no matplotlib."""
    table = rows_html.table(data["layers"], data["whole"], "layer") if data["layers"] else ""
    return (
        f"<style>{_asset('page.css')}</style>\n"
        f'<div class="gradtail part">\n{_head(data)}\n<section>{table}</section>\n</div>'
    )


def _head(data: Data) -> str:
    items = []
    for one in findings(data):
        wide = " wide" if len(one.text) > 260 else ""
        said = escape(words.printable(one.text))
        items.append(f'<li class="{one.level}{wide}"><b>{escape(one.title)}</b>{said}</li>')
    items += [f"<li>{escape(words.printable(note))}</li>" for note in data["notes"][:8]]
    if len(data["notes"]) > 8:
        items.append(f"<li>{len(data['notes']) - 8} more notes in report.json</li>")
    return (
        f"<header><h1>{escape(words.printable(data['title']))}</h1>"
        f'<p class="quiet">{escape(subtitle(data))}</p></header>\n'
        f'<ul class="findings">\n{chr(10).join(items)}\n</ul>'
    )


def _figure(label: str, svg: str, kind: str = "") -> str:
    # role and label go on the figure: the drawing is one picture, not a list of texts
    return f'<figure class="{kind}" role="img" aria-label="{escape(words.printable(label))}">{svg}</figure>'


def _run(data: Data) -> str:
    drawn = [_figure(label, svg) for label, svg in figures.run_svgs(data)]
    if not drawn:
        return ""
    return f'<section><h2>The run</h2><div class="charts two">{"".join(drawn)}</div></section>'


def _noise(data: Data) -> str:
    found, clip = data.get("spectrum"), data.get("clipping")
    tables = []
    if found:
        tables.append(rows_html.facts("Covariance over steps", noise_text.covariance(found)))
    if clip:
        tables.append(rows_html.facts("Clipping by the global norm", noise_text.clipping(clip)))
    if not tables:
        return ""
    svg = figures.spectrum_svg(data)
    drawn = _figure("Eigenvalues of the covariance against rank", svg) if svg else ""
    facts = f'<div class="facts">{"".join(tables)}</div>'
    return (
        f'<section><h2>Gradient noise and clipping</h2><div class="charts two">{drawn}{facts}</div></section>'
    )


def _stable(data: Data) -> str:
    if not data.get("stable"):
        return ""
    svg = figures.stable_svg(data)
    drawn = _figure("Gradient alpha over the steps", svg) if svg else ""
    facts = f'<div class="facts">{rows_html.facts("Sums of neighbours", stable.listed(data))}</div>'
    return f'<section><h2>Stable index</h2><div class="charts two">{drawn}{facts}</div></section>'


def _layers(data: Data) -> str:
    if not data["layers"]:
        return ""
    keys = "".join(
        f'<span><span class="swatch {tone}"></span>{label}</span>'
        for tone, label in (*((tone, f"α {said}") for tone, said in words.WEIGHTS.items()),)
    )
    keys += "<span>○ too little to tell a power law</span><span>⇢ no plateau: no index</span>"
    modules = ""
    if data["modules"]:
        inside = rows_html.table(data["modules"], None, "module")
        number = words.plural(len(data["modules"]), "module")
        modules = (
            f"<details><summary>The same for {number} (layers that share a prefix, joined)</summary>"
            f'<div class="tools"></div>{inside}</details>'
        )
    return (
        f"<section><h2>Layers, heaviest tail first</h2>\n"
        f"{_figure('Tail index by layer', figures.layers_svg(data), 'tall')}\n"
        f'<p class="quiet">{_ORDER}</p><div class="tools"><span class="quiet keys">{keys}</span></div>\n'
        f"{rows_html.table(data['layers'], data['whole'], 'layer')}\n{modules}</section>"
    )


def _panels(data: Data) -> str:
    if not data["layers"]:
        return ""
    parts = []
    rows = figures.top_rows(data)
    for row in rows:
        drawn = "".join(_figure(f"{kind}, {row['name']}", svg) for kind, svg in figures.panel_svgs(row, data))
        parts.append(
            f'<details class="layer" open><summary><h3>{escape(words.printable(row["name"]))}</h3></summary>'
            f'<div class="charts">{drawn}</div></details>'
        )
    shown, every = len(rows) - 1, len(data["layers"])
    of = "all layers" if shown == every else f"the {shown} heaviest of {every} layers"
    return f"<section><h2>Tails of the whole model and {of}</h2>\n{chr(10).join(parts)}\n</section>"


def _facts(data: Data) -> str:
    tables = [
        rows_html.facts("Settings", data["settings"]),
        rows_html.facts("Versions", data["versions"]),
        rows_html.facts("Build and machine", {**data["build"], **data["platform"]}),
        rows_html.facts("Sample", {**data["run"], "schema": data["schema"]}),
        rows_html.facts("Overhead", words.overhead_rows(data["overhead"] or {})),
    ]
    return f'<section><h2>Settings and versions</h2><div class="facts">{"".join(tables)}</div></section>'
