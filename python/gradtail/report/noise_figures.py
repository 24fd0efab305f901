"""The covariance spectrum as a figure, and the clip threshold on the figure of the norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradtail.report import panels, style, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = dict[str, Any]

_DECADES = 6  # below the largest eigenvalue that are shown


def has_spectrum(data: Data) -> bool:
    """Whether there are eigenvalues to draw."""
    found = data.get("spectrum") or {}
    return bool(found.get("eigenvalues")) and bool(found["eigenvalues"][0])


def spectrum(data: Data, width: float) -> Figure:
    """Draw eigenvalues against rank, both logarithmic, with their 95 % intervals."""
    found = data["spectrum"]
    height = 0.5 * width + 0.65
    figure = style.figure(width, height)
    ax = figure.add_axes((0.68 / width, 0.52 / height, 1 - 0.83 / width, 1 - 1.02 / height))
    values, low, high = (
        np.array([np.nan if v is None else v for v in found[name]], np.float64)
        for name in ("eigenvalues", "low", "high")
    )
    rank = np.arange(1, values.size + 1)
    shown = values > values[0] * 10.0**-_DECADES
    rank, values, low, high = rank[shown], values[shown], low[shown], high[shown]
    known = np.isfinite(low) & np.isfinite(high)
    bars = known & (rank <= 12)
    ax.fill_between(rank[known], low[known], high[known], color=style.BLUE, alpha=0.2, lw=0)
    error = [(values - low)[bars], (high - values)[bars]]
    ax.errorbar(rank[bars], values[bars], yerr=error, fmt="none", ecolor=style.BLUE, elinewidth=1.2, zorder=4)
    ax.plot(rank, values, color=style.BLUE, marker="o", ms=2.5, lw=1.0, zorder=5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(0.85, max(rank[-1] * 1.15, 2))
    bottom = 0.5 * float(values[-1])
    ax.set_ylim(bottom, 2 * float(np.nanmax(high[known]) if known.any() else values[0]))
    panels.logarithmic(ax.xaxis)
    panels.logarithmic(ax.yaxis)
    title = f"Covariance of the gradient, steps {found['first_step']} to {found['last_step']}"
    panels.heading(ax, title, f"participation ratio {words.ratio_text(found)}")
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue, with 95 % interval")
    return figure


def thresholds(ax: Axes, data: Data) -> None:
    """Mark the suggested threshold over the steps that it comes from, and the one in use."""
    clip = data.get("clipping") or {}
    if clip.get("threshold") is not None:
        steps = [clip["first_step"], clip["last_step"]]
        low, high = clip["ci95"]
        if low is not None and high is not None:
            ax.fill_between(steps, low, high, color=style.RED, alpha=0.15, lw=0, zorder=3)
        label = f"suggested clip threshold {words.number(clip['threshold'])}"
        ax.plot(steps, [clip["threshold"]] * 2, color=style.RED, lw=1.4, ls="--", label=label, zorder=6)
    used = clip.get("in_use")
    if used:
        label = f"max_norm in use {words.number(used['max_norm'])}"
        ax.axhline(used["max_norm"], color=style.MUTED, lw=1.2, ls=(0, (1, 2)), label=label, zorder=4)
