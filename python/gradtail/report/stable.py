"""Gradient alpha of each layer against the steps: its data, its figure, and the two phases in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtail.estimators.changepoint import FEWEST, jump_after_minimum
from gradtail.estimators.stable_sums import StreamAlpha
from gradtail.report import panels, style, words
from gradtail.report.schema import rounded
from gradtail.stream import GradientStream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = dict[str, Any]

MOST_LAYERS = 5
"""Layers that are drawn beside the whole model, those of most values."""

_SURE = 0.05
_SUMS_A_POINT = 25  # fewer make a line that is noise


def collect(stream: GradientStream) -> Data:
    """Take gradient alpha of everything and of every layer; where there is none, ``why`` says so."""
    try:
        whole = stream.stable_index()
    except ValueError as error:
        return {"why": str(error).partition(": ")[2]}
    rows = []
    for group in stream.groups:
        try:
            found = stream.stable_index(group)
        except ValueError:  # too small for two blocks
            continue
        rows.append({"name": group, **_row(stream, group, found)})
    return {"whole": _row(stream, None, whole), "layers": rows}


def _row(stream: GradientStream, group: str | None, found: StreamAlpha) -> Data:
    curve = stream.stable_curve(group, found.block)
    first, last = [one[0] for one in curve], [one[1] for one in curve]
    alpha = [one[2] for one in curve]
    return {
        "alpha": found.alpha,
        "stderr": found.stderr,
        "ci95": list(found.ci()),
        "spread": found.spread,
        "block": found.block,
        "sums": found.blocks,
        "zeros": found.zeros,
        "alpha_with_zeros": found.alpha_with_zeros,
        "sizes": [{"block": one.block, "alpha": one.alpha, "sums": one.blocks} for one in found.sizes],
        "warnings": list(found.warnings),
        "time_line": {"first_step": first, "last_step": last, "alpha": rounded(alpha)},
        "jump": _jump(first, alpha, last),
    }


def _jump(steps: list[int], values: list[float], last: list[int] | None = None) -> Data | None:
    """Take the most marked rise; None where there are too few values for one.

    Values are those of ``steps``, or of the steps from there to ``last``.
    """
    if sum(map(math.isfinite, values)) < FEWEST:
        return None
    found = jump_after_minimum(values, steps)
    names = ("before", "after", "rise", "stderr", "pvalue", "from_minimum", "minimum", "minimum_step")
    taken = {name: getattr(found, name) for name in names}
    if last is not None:
        taken["before"] = last[steps.index(int(found.before))]
    return taken


def accuracy_jump(accuracy: Data | None) -> Data | None:
    """Take the most marked rise of the accuracy, if that is known."""
    if accuracy is None:
        return None
    values = [math.nan if v is None else v for v in accuracy["values"]]
    return _jump(accuracy["steps"], values)


def listed(data: Data) -> Data:
    """List what is known of gradient alpha, or why nothing is, as terms and values for the page."""
    found = data["stable"]
    if "why" in found:
        return {"none": found["why"]}
    whole = found["whole"]
    terms = {
        "gradient alpha, whole model": words.number(whole["alpha"]) + words.range_text(whole["ci95"]),
        "from": f"{words.count(whole['sums'])} sums of {whole['block']} neighbours",
        "error from": "blocks of steps" if whole["spread"] == "blocks" else "iid formula",
        "two phases": two_phases(data),
    }
    warnings = whole["warnings"]
    return {
        **terms,
        **{f"warning {i + 1}" if len(warnings) > 1 else "warning": w for i, w in enumerate(warnings)},
    }


def two_phases(data: Data) -> str:
    """Say whether alpha reaches its minimum and jumps, and whether the accuracy rises then."""
    jump = data["stable"]["whole"]["jump"]
    if jump is None:
        return f"too few blocks of steps to tell ({FEWEST} needed)"
    at = f"between steps {jump['before']:.0f} and {jump['after']:.0f}"
    p = f"p = {jump['pvalue']:.2g}"
    if jump["pvalue"] > _SURE:
        return f"no jump of alpha ({p})"
    said = f"alpha jumps up {at} ({p})"
    said += ", from its minimum" if jump["from_minimum"] else ", not from its minimum"
    rise = data["stable"].get("accuracy_jump")
    if rise is None:
        return said
    where = f"steps {rise['before']:.0f} and {rise['after']:.0f}"
    if rise["pvalue"] > _SURE:
        return f"{said}; the accuracy has no jump"
    return f"{said}; the accuracy rises most between {where}"


def has_curve(data: Data) -> bool:
    """Whether there is anything to draw."""
    found = data.get("stable") or {"why": ""}
    return "why" not in found and len(found["whole"]["time_line"]["alpha"]) > 1


def figure(data: Data, width: float) -> Figure:
    """Draw gradient alpha of layers over the steps, and under it loss and accuracy, where known."""
    found, history = data["stable"], data["history"]
    series = [(name, history.get(name)) for name in ("loss", "accuracy")]
    series = [(name, one) for name, one in series if one and one["steps"]]
    tall, low = 0.5 * width, 0.26 * width
    height = tall + low * len(series) + 1.02
    drawn = style.figure(width, height)
    left, across = 0.68 / width, 1 - 0.83 / width
    bottom = 0.52 + low * len(series)
    ax = drawn.add_axes((left, bottom / height, across, tall / height))
    _alphas(ax, found)
    panels.heading(ax, "Gradient alpha over the steps", two_phases(data).partition(";")[0])
    ax.set_ylabel("alpha of sums of neighbours")
    beneath = ax
    for i, (name, one) in enumerate(series):
        y = 0.52 + low * (len(series) - 1 - i)
        beneath = drawn.add_axes((left, y / height, across, (low - 0.12) / height), sharex=ax)
        values = np.array([np.nan if v is None else v for v in one["values"]], np.float64)
        beneath.plot(one["steps"], values, color=style.INK, lw=1.0)
        beneath.set_ylabel(name)
    for other in drawn.axes[:-1]:
        other.tick_params(labelbottom=False)
    jump = found["whole"]["jump"]
    for other in drawn.axes:
        if jump is not None and jump["pvalue"] <= _SURE:
            other.axvspan(jump["before"], jump["after"], color=style.RED, alpha=0.15, lw=0)
    panels.whole_steps(beneath)
    beneath.set_xlabel("step")
    return drawn


def _alphas(ax: Axes, found: Data) -> None:
    enough = [row for row in found["layers"] if row["sums"] >= _SUMS_A_POINT * len(row["time_line"]["alpha"])]
    largest = sorted(enough, key=lambda row: -row["sums"] * row["block"])[:MOST_LAYERS]
    rows = [("whole model", found["whole"]), *((row["name"], row) for row in largest)]
    for (name, row), colour in zip(rows, (style.INK, *style.SERIES[1:]), strict=False):
        line = row["time_line"]
        middle = (np.array(line["first_step"]) + np.array(line["last_step"])) / 2
        alpha = np.array([np.nan if v is None else v for v in line["alpha"]], np.float64)
        label = words.shorten(words.printable(name), 30)
        ax.plot(
            middle,
            alpha,
            color=colour,
            lw=1.6 if row is found["whole"] else 1.0,
            marker="o",
            ms=2.2,
            label=label,
        )
    ax.axhline(2, color=style.MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    ax.legend(loc="best", ncols=2, fontsize=7.5, columnspacing=1.2, handlelength=1.4)
