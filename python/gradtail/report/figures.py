"""Whole figures from a report's data: one of each kind for the folder, single panels for the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtail.report import noise_figures, panels, stable, style, words
from gradtail.report.words import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = dict[str, Any]

TOP_LAYERS = 5
"""Layers that get panels of their own, beside the whole model."""

CHART_LAYERS = 25
"""Layers in the chart of intervals."""

COLOURS: dict[words.Weight, str] = {
    "heavy": style.RED, "middle": style.ORANGE, "mild": style.BLUE, "unsure": style.MUTED,
}  # fmt: skip
"""By what the interval says of alpha, as on the page."""

_DPI = 150


@dataclass(frozen=True)
class Kind:
    """A kind of panel: how it is named, called in words, and drawn."""

    file: str
    says: str
    draw: Callable[[Axes, Row, Data], None]
    has: Callable[[Row], bool]
    """Whether a row has values for it: a panel without any takes the room of one that has."""


PANELS = (
    Kind(
        "hill.png", "Hill curve", lambda ax, row, data: panels.hill(ax, row),
        lambda row: bool(row["hill"] and row["hill"]["k"]),
    ),
    Kind(
        "survival.png", "Survival function", lambda ax, row, data: panels.survival(ax, row),
        lambda row: bool(row["histogram"]["edges"]),
    ),
    Kind(
        "magnitudes.png", "Magnitudes", lambda ax, row, data: panels.magnitudes(ax, row),
        lambda row: bool(row["histogram"]["edges"]),
    ),
    Kind(
        "alpha.png", "Alpha over the steps",
        lambda ax, row, data: panels.alpha_over_steps(ax, row, data["blocks"]),
        lambda row: any(value is not None for value in row["time_line"]["alpha"]),
    ),
)  # fmt: skip

FILES = (*(kind.file for kind in PANELS), "layers.png", "norm.png", "loss.png", "spectrum.png", "stable.png")
"""Every plot that a report may write."""


def top_rows(data: Data, kind: Kind | None = None) -> list[Row]:
    """Return the whole model and the heaviest-tailed layers: of all, or of those with such a panel."""
    ordered = [data["whole"], *sorted(data["layers"], key=words.heaviness)]
    if kind is not None:
        ordered = [row for row in ordered if kind.has(row)] or ordered[:1]
    return ordered[: 1 + TOP_LAYERS]


def pngs(data: Data) -> Iterator[tuple[str, bytes]]:
    """Draw every plot; names of files and their bytes."""
    if data["layers"]:
        for kind in PANELS:
            yield kind.file, _png(lambda kind=kind: _grid(data, kind))  # type: ignore[misc]
        yield "layers.png", _png(lambda: _layers(data, 8.2))
    if data["history"]["steps"]:
        yield "norm.png", _png(lambda: _norm(data, 7.2))
    if _has_loss(data):
        yield "loss.png", _png(lambda: _loss(data, 7.2))
    if noise_figures.has_spectrum(data):
        yield "spectrum.png", _png(lambda: noise_figures.spectrum(data, 6.4))
    if stable.has_curve(data):
        yield "stable.png", _png(lambda: stable.figure(data, 6.4))


def run_svgs(data: Data) -> Iterator[tuple[str, str]]:
    """Draw the time lines of the run for the page; what they are called, and SVG."""
    if _has_loss(data):
        yield "Loss over the steps", _svg(lambda: _loss(data, 5.2))
    if data["history"]["steps"]:
        yield "Gradient norm over the steps", _svg(lambda: _norm(data, 5.2))


def spectrum_svg(data: Data) -> str | None:
    """Draw the covariance spectrum for the page; None if there is none."""
    return _svg(lambda: noise_figures.spectrum(data, 5.2)) if noise_figures.has_spectrum(data) else None


def stable_svg(data: Data) -> str | None:
    """Draw gradient alpha over the steps for the page; None if there is nothing to draw."""
    return _svg(lambda: stable.figure(data, 5.2)) if stable.has_curve(data) else None


def layers_svg(data: Data) -> str:
    """Draw the chart of intervals for the page, narrow enough for a phone."""
    return _svg(lambda: _layers(data, 5.6))


def panel_svgs(row: Row, data: Data) -> Iterator[tuple[str, str]]:
    """Draw one layer's panels for the page; what each is called, and SVG."""
    for kind in PANELS:
        if kind.has(row):
            yield kind.says, _svg(lambda kind=kind: _single(row, data, kind))  # type: ignore[misc]


def _single(row: Row, data: Data, kind: Kind) -> Figure:
    figure = style.figure(3.25, 2.6)
    ax = figure.add_axes((0.175, 0.175, 0.775, 0.635))
    kind.draw(ax, row, data)
    return figure


def _grid(data: Data, kind: Kind) -> Figure:
    rows = top_rows(data, kind)
    across = min(3, len(rows))
    down = -(-len(rows) // across)
    figure = style.figure(3.7 * across, 2.9 * down)
    left, bottom, width, height = 0.155, 0.165, 0.815, 0.645
    for i, row in enumerate(rows):
        x, y = i % across, down - 1 - i // across
        ax = figure.add_axes(((x + left) / across, (y + bottom) / down, width / across, height / down))
        kind.draw(ax, row, data)
    return figure


def _layers(data: Data, width: float) -> Figure:
    """Chart the intervals of the heaviest layers below each other."""
    from matplotlib.lines import Line2D

    ordered = sorted(data["layers"], key=words.heaviness)
    rows = [data["whole"], *ordered[:CHART_LAYERS]]
    labels = [words.shorten(words.printable(row["name"]), int(5 * width)) for row in rows]
    height = 0.235 * len(rows) + 1.35
    margin = min(0.5, (0.076 * max(map(len, labels)) + 0.2) / width)
    figure = style.figure(width, height)
    ax = figure.add_axes((margin, 0.55 / height, 0.98 - margin, 1 - 1.35 / height))
    for y, row in enumerate(rows):
        _interval(ax, -y, row["tails"]["both"])
    ax.set_xscale("log", base=2)
    ax.set_xlim(0.5, 16)
    ax.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
    for alpha in (words.HEAVY, words.LIGHT):
        ax.axvline(alpha, color=style.MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    ax.set_ylim(-len(rows) + 0.4, 0.6)
    ax.set_yticks([-y for y in range(len(rows))], labels)
    ax.tick_params(axis="y", length=0, labelcolor=style.INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("tail exponent α, smaller is heavier")
    shown, every = len(rows) - 1, len(ordered)
    title = "Tail index by layer" if shown == every else f"Tail index: the {shown} heaviest of {every} layers"
    below = "95 % intervals; open dots: too little to tell a power law; arrows: α slides outwards, no index"
    figure.text(0.012, 1 - 0.1 / height, title, va="top", fontsize=10.5, weight="bold")
    figure.text(0.012, 1 - 0.32 / height, below, va="top", fontsize=7.5, color=style.MUTED)
    says = {**words.WEIGHTS, "heavy": f"α {words.WEIGHTS['heavy']}"}
    keys: list[Any] = [
        Line2D([], [], color=colour, lw=4, alpha=0.6, label=says[weight])
        for weight, colour in COLOURS.items()
    ]
    figure.legend(
        handles=keys, loc="upper left", bbox_to_anchor=(0.012, 1 - 0.46 / height), ncols=4, fontsize=7.5,
        handlelength=1.4, columnspacing=1.3, borderaxespad=0.0, borderpad=0.2,
    )  # fmt: skip
    return figure


def _interval(ax: Axes, y: float, tail: Row | None) -> None:
    if tail is None or tail["alpha"] is None:
        ax.text(0.52, y, "no tail to estimate", va="center", fontsize=7.5, color=style.MUTED)
        return
    alpha = tail["alpha"]
    if not words.is_index(tail):
        if tail["plateau"] is not False:
            ax.text(0.52, y, "too few values", va="center", fontsize=7.5, color=style.MUTED)
            return
        a, b = (alpha if end is None else end for end in (tail["slide"] or (alpha, alpha)))
        arrow = {"arrowstyle": "->", "color": style.MUTED, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
        ends = [float(np.clip(end, 0.51, 15.8)) for end in (a, b)]
        ax.annotate("", xy=(ends[1], y), xytext=(ends[0], y), arrowprops=arrow)
        return
    low, high = (alpha if end is None else end for end in tail["ci95"])
    colour = COLOURS[words.weight(tail)]
    low, alpha, high = (min(max(end, 0.5), 16.0) for end in (low, alpha, high))
    ax.plot([low, high], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="butt")
    fill = colour if tail["plateau"] else style.PAPER
    ax.plot([alpha], [y], marker="o", ms=5, color=colour, markerfacecolor=fill, clip_on=False)


def _norm(data: Data, width: float) -> Figure:
    history, blocks = data["history"], data["blocks"]
    height = 0.36 * width + 1.45
    figure = style.figure(width, height)
    ax = figure.add_axes((0.6 / width, 1.5 / height, 1 - 0.75 / width, 1 - 1.95 / height))
    norm = np.array([np.nan if v is None or v <= 0 else v for v in history["norm"]], np.float64)
    steps = np.array(history["steps"])
    few: dict[str, Any] = {"marker": "o", "ms": 2.5} if len(steps) < 60 else {}
    ax.plot(steps, norm, color=style.INK, label="whole model, each step", zorder=5, lw=1.3, **few)
    middle = (np.array(blocks["first_step"]) + np.array(blocks["last_step"])) / 2
    known = [row for row in data["layers"] if row["norm"]["median"]]
    largest = sorted(known, key=lambda row: -row["norm"]["median"])[:TOP_LAYERS]
    for row, colour in zip(largest, style.SERIES[1:], strict=False):
        line = [np.nan if v is None or v <= 0 else v for v in row["time_line"]["norm"]]
        label = words.shorten(words.printable(row["name"]), 30)
        ax.plot(middle, line, color=colour, lw=1.1, label=label, **few)
    noise_figures.thresholds(ax, data)
    bad = steps[np.array(history["nonfinite"]) > 0]
    if np.any(norm > 0):
        ax.set_yscale("log")
        panels.logarithmic(ax.yaxis)
        _ticks_within_a_decade(ax)
    if bad.size:
        ax.plot(
            bad, np.full(bad.size, 0.03), "x", color=style.RED, ms=5, clip_on=False,
            transform=ax.get_xaxis_transform(), label="step with NaN or infinity",
        )  # fmt: skip
    panels.heading(ax, "Gradient norm", "finite values only; layers: root mean square over a block of steps")
    panels.whole_steps(ax)
    ax.set_xlabel("step")
    ax.set_ylabel("Euclidean norm")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.44 / (height - 1.95)), ncols=2, columnspacing=1.4)
    return figure


def _ticks_within_a_decade(ax: Axes) -> None:
    """Label 1, 2, 5 where powers of ten alone would leave a single label."""
    from matplotlib.ticker import LogLocator

    low, high = ax.get_ylim()
    if high / max(low, 1e-300) < 300:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def _has_loss(data: Data) -> bool:
    return bool(data["history"]["loss"] and data["history"]["loss"]["steps"])


def _loss(data: Data, width: float) -> Figure:
    steps, values = (np.array(data["history"]["loss"][name], np.float64) for name in ("steps", "values"))
    height = 0.36 * width + 1.45  # as the norm's, beside which it stands
    figure = style.figure(width, height)
    ax = figure.add_axes((0.6 / width, 0.52 / height, 1 - 0.75 / width, 1 - 0.97 / height))
    many = values.size > 60
    faint: dict[str, Any] = {"lw": 0.8, "alpha": 0.55} if many else {"marker": "o", "ms": 2.5}
    ax.plot(steps, values, color=style.BLUE, **faint)
    below = "as given at each step"
    if many:
        window = max(5, values.size // 40) | 1
        ax.plot(steps, _running_median(values, window), color=style.INK, lw=1.6)
        below = f"thin: each step; thick: running median of {window}"
    bad = steps[~np.isfinite(values)]
    if bad.size:
        marks = np.full(bad.size, 0.03)
        ax.plot(bad, marks, "x", color=style.RED, ms=5, clip_on=False, transform=ax.get_xaxis_transform())
        below += "; ×: not finite"
    panels.heading(ax, "Loss", below)
    panels.whole_steps(ax)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    return figure


def _running_median(values: Any, window: int) -> Any:
    padded = np.pad(values, window // 2, mode="edge")
    rows = np.lib.stride_tricks.sliding_window_view(padded, window)
    known = np.isfinite(rows)
    filled = np.where(known.any(axis=1, keepdims=True), rows, 0.0)
    return np.where(known.any(axis=1), np.nanmedian(filled, axis=1), np.nan)


def _png(draw: Callable[[], Figure]) -> bytes:
    with style.styled():
        target = io.BytesIO()
        draw().savefig(target, format="png", dpi=_DPI, metadata={"Software": "gradtail"})
    return target.getvalue()


_FONT = re.compile(r"(font(?:-family)?:[^;\"]*?)'DejaVu Sans'[^;\"]*")
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_COLOUR = re.compile("(fill|stroke): (" + "|".join(style.VARIABLES) + ")")


def _svg(draw: Callable[[], Figure]) -> str:
    """Draw as inline SVG, with colours and type left to the page."""
    with style.styled():
        figure = draw()
        figure.patch.set_alpha(0.0)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    text = _METADATA.sub("", _HEAD.sub("", target.getvalue()))
    text = _FONT.sub(r"\1var(--sans)", text)
    text = _COLOUR.sub(lambda match: f"{match[1]}: var({style.VARIABLES[match[2]]})", text)
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text).strip()
