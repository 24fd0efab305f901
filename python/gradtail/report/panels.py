"""One panel each: what is known of one layer, drawn on the axes it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradtail.report import style, words
from gradtail.report.words import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST_ALPHA = 12.0
"""Where axes of alpha end: beyond, tails are as good as none."""


def heading(ax: Axes, title: str, below: str) -> None:
    """Write a title and, under it, what to read off the panel."""
    ax.set_title(words.shorten(words.printable(title), _room(ax)), pad=17)
    ax.text(0, 1.025, below, transform=ax.transAxes, fontsize=8, color=style.MUTED, va="bottom")


def _room(ax: Axes) -> int:
    """Characters of a title that fit above the axes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return int(ax.get_position().width * figure.get_figwidth() / 0.086)


def logarithmic(axis: Any, most: int = 6) -> None:
    """Label a logarithmic axis at powers of ten, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(style.tick))


def references(ax: Axes) -> None:
    """Mark 2 and 4, where a power law's variance and fourth moment end."""
    for alpha in (words.HEAVY, words.LIGHT):
        ax.axhline(alpha, color=style.MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)


def empty(ax: Axes, why: str) -> None:
    """Say why there is nothing to see."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=style.MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)


def hill(ax: Axes, row: Row) -> None:
    """Alpha against the number of values it is taken from."""
    tail, curve = row["tails"]["both"], row["hill"]
    heading(ax, row["name"], quoted(tail))
    if not curve or not curve["k"]:
        return empty(ax, "too few nonzero values")
    k, alpha, low, high = (_floats(curve[name]) for name in ("k", "alpha", "low", "high"))
    colour = style.BLUE if words.is_index(tail) else style.MUTED
    ax.fill_between(k, low, np.minimum(high, 1e3), color=colour, alpha=0.2, lw=0)
    ax.plot(k, alpha, color=colour)
    references(ax)
    if words.is_index(tail):
        low95, high95 = tail["ci95"]
        error = [[max(0, tail["alpha"] - (low95 or 0))], [max(0, (high95 or tail["alpha"]) - tail["alpha"])]]
        ax.errorbar(
            [tail["k"]], [tail["alpha"]], yerr=error, fmt="o", ms=5, color=style.RED, elinewidth=1.5, zorder=5
        )
    ax.set_xscale("log")
    logarithmic(ax.xaxis)
    trusted = high[k >= 50] if np.any(k >= 50) else high
    ax.set_ylim(0, float(np.clip(1.1 * np.nanmax(trusted), 2.5, _LARGEST_ALPHA)))
    ax.set_xlabel("k, number of largest values")
    ax.set_ylabel("Hill's α from those k")
    return None


def survival(ax: Axes, row: Row) -> None:
    """Share of the values above each magnitude, with the power law that was fitted."""
    tail, bins, total = row["tails"]["both"], row["histogram"], row["count"]
    heading(ax, row["name"], quoted(tail))
    counts = np.array(bins["positive"], np.int64) + np.array(bins["negative"], np.int64)
    if counts.sum() == 0:
        return empty(ax, "no nonzero values")
    edges = _floats(bins["edges"])
    share = np.cumsum(counts[::-1])[::-1] / total
    shown = counts > 0
    x, y = np.append(edges[:-1][shown], row["max_abs"]), np.append(share[shown], 1 / total)
    floor = 0.5 / total
    ax.plot(x, y, color=style.BLUE, marker="o", ms=2)
    if tail is not None and words.is_index(tail):
        _fitted_law(ax, tail, x, y)
    ax.set_xscale("log")
    ax.set_yscale("log")
    # The bulk below the median says nothing of the tail, and would take half of the width.
    left = max(float(x[0]), float(np.interp(-0.95 * y[0], -y, x)))
    ax.set_xlim(left, 1.3 * row["max_abs"] if row["max_abs"] > left else 2 * left)
    ax.set_ylim(floor, 1.6)
    logarithmic(ax.xaxis)
    logarithmic(ax.yaxis)
    ax.set_xlabel("magnitude x of a gradient value")
    ax.set_ylabel("share of values with |g| ≥ x")
    return None


def _fitted_law(ax: Axes, tail: Row, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    """Draw the power law from where the share k of the values is reached down to the largest value."""
    top = tail["k"] / tail["n"] * y[0]  # y starts at the nonzero values
    start = float(np.exp(np.interp(-np.log(top), -np.log(y), np.log(x))))
    end = min(start * (2 * top / y[-1]) ** (1 / tail["alpha"]), 3 * x[-1])
    line = np.geomspace(start, max(end, start * 1.01), 20)
    says = "α of a typical block of steps" if tail["spread"] == "blocks" else "fitted power law"
    ax.plot(
        line, top * (line / start) ** -tail["alpha"], color=style.RED, ls="--", lw=1.4, zorder=4, label=says
    )
    ax.plot([start], [top], marker="o", ms=5, color=style.RED, zorder=5)
    ax.legend(loc="lower left", borderaxespad=0.2, handlelength=2.2)


def magnitudes(ax: Axes, row: Row) -> None:
    """How densely values of each sign lie over log magnitude: bins differ in width, so a rate it is."""
    bins = row["histogram"]
    zeros = words.percent(row["zeros"] / row["count"]) if row["count"] else "–"
    heading(ax, row["name"], f"{words.count(row['count'])} values, {zeros} of them zero")
    edges = _floats(bins["edges"])
    if edges.size < 2:
        return empty(ax, "no nonzero values")
    binades = np.diff(np.log2(edges))
    largest = 0.0
    for sign, colour, width in (("positive", style.BLUE, 1.6), ("negative", style.ORANGE, 1.1)):
        rate = _floats(bins[sign]) / binades
        largest = max(largest, float(rate.max()))
        ax.stairs(np.where(rate > 0, rate, 0.5), edges, baseline=0.5, color=colour, lw=width, label=sign)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.5, 12 * largest)
    logarithmic(ax.xaxis)
    logarithmic(ax.yaxis)
    ax.legend(loc="upper left", ncols=2, borderaxespad=0.1, handlelength=1.2, columnspacing=1.2)
    ax.set_xlabel("magnitude of a gradient value")
    ax.set_ylabel("values per doubling of it")
    return None


def alpha_over_steps(ax: Axes, row: Row, blocks: dict[str, Any]) -> None:
    """Alpha of each block of steps, with the estimate over all of them behind."""
    tail, line = row["tails"]["both"], row["time_line"]
    heading(ax, row["name"], quoted(tail))
    alpha, low, high = (_floats(line[name]) for name in ("alpha", "low", "high"))
    if not np.any(np.isfinite(alpha)):
        return empty(ax, "too few values a block")
    middle = (_floats(blocks["first_step"]) + _floats(blocks["last_step"])) / 2
    sure = words.is_index(tail)
    colour = style.BLUE if sure else style.MUTED
    if sure and None not in tail["ci95"]:
        ax.axhspan(*tail["ci95"], color=style.RED, alpha=0.14, lw=0)
        ax.axhline(tail["alpha"], color=style.RED, lw=1)
    ax.fill_between(middle, low, high, color=colour, alpha=0.2, lw=0)
    ax.plot(middle, alpha, color=colour, marker="o", ms=2.5)
    references(ax)
    top = np.nanmax(np.where(np.isfinite(high), high, alpha))
    ax.set_ylim(0, float(np.clip(1.1 * top, 2.5, _LARGEST_ALPHA)))
    whole_steps(ax)
    ax.set_xlabel("step")
    ax.set_ylabel("α of a block of steps")
    return None


def whole_steps(ax: Axes) -> None:
    """Put the ticks of a step axis on integers."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def quoted(tail: Row | None) -> str:
    """Write the estimate under a title."""
    if tail is None or tail["alpha"] is None:
        return "no tail to estimate"
    if not words.is_index(tail):
        return words.alpha_text(tail) + ": no index"
    return f"α = {words.alpha_text(tail)}  (95 %: {words.interval_text(tail)})"


def _floats(values: list[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
