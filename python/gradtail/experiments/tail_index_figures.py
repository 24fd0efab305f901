"""The pictures of `gradtail reproduce tail-index`, from its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradtail.experiments.tail_index_table import NUMBERS, is_jump, jump_text, last, number
from gradtail.report import panels, style

_DRAWN = 6  # networks of a picture of training


def write(folder: Path, data: dict[str, Any]) -> None:
    """Draw <sweep>.png, alpha against what is varied, and <sweep>_training.png, alpha on the way."""
    from matplotlib.figure import Figure

    cases = {case["key"]: case for case in data["cases"]}
    sweeps: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in data["rows"]:
        if row["key"] in cases:
            sweeps.setdefault(row["sweep"], {}).setdefault(row["loss"], []).append(row)
    with style.styled():
        for sweep, losses in sweeps.items():
            figure = Figure(figsize=(4.8 * len(losses), 4.2), layout="constrained")
            for ax, (loss, some) in zip(figure.subplots(1, len(losses), squeeze=False)[0], losses.items(),
                                        strict=True):  # fmt: skip
                _numbers(ax, sweep, loss, some, cases)
            figure.savefig(folder / f"{sweep}.png", dpi=120)
            some = next(iter(losses.values()))
            few = [row for row in some if row["seed"] == some[0]["seed"]]
            few = few[:: -(-len(few) // _DRAWN)]
            figure = Figure(figsize=(7, 6.4), layout="constrained")
            _training(figure.subplots(3, 1, sharex=True), sweep, few, cases, data["jumps"])
            figure.savefig(folder / f"{sweep}_training.png", dpi=120)


def _numbers(ax: Any, sweep: str, loss: str, some: list[dict[str, Any]], cases: dict[str, Any]) -> None:
    for i, (name, called) in enumerate(NUMBERS.items()):
        known = [(row["value"], number(last(cases[row["key"]]), name)) for row in some]
        error = [number(last(cases[row["key"]]), name, "stderr") for row in some]
        ax.errorbar(
            [value for value, _ in known], [alpha for _, alpha in known], [2 * one for one in error],
            fmt="o-", ms=4, lw=0.9, color=style.SERIES[1 + i], label=called,
        )  # fmt: skip
    ax.axhline(2, color=style.MUTED, ls=":", lw=0.9)
    ax.set_xscale("log")
    panels.logarithmic(ax.xaxis)
    ax.set_xlabel(sweep)
    ax.set_ylabel("stable index of the noise")
    ax.set_title(loss)
    ax.legend()


def _training(
    axes: Any, sweep: str, some: list[dict[str, Any]], cases: dict[str, Any], jumps: dict[str, Any]
) -> None:
    """Draw the two phases: alpha, loss and accuracy against steps, and where alpha jumps."""
    for i, row in enumerate(some):
        looks = cases[row["key"]]["looks"]
        steps = [one["step"] + 1 for one in looks]
        colour, jump = style.SERIES[(1 + i) % len(style.SERIES)], jumps[row["key"]]
        label = f"{sweep} {row['value']}, jump: {jump_text(jump)}"
        for ax, values in (
            (axes[0], [number(one["noise"], "zeros_kept") for one in looks]),
            (axes[1], [one["loss"] for one in looks]),
            (axes[2], [100 * one["accuracy"] for one in looks]),
        ):
            ax.plot(steps, values, "o-", ms=3.5, lw=0.9, color=colour, label=label)
            if is_jump(jump):
                ax.axvspan(jump["before"] + 1, jump["after"] + 1, color=colour, alpha=0.15, lw=0)
    for ax, title in zip(
        axes, ("stable index as published", "training loss", "training accuracy, %"), strict=True
    ):
        ax.set_xscale("log")
        ax.set_title(title)
    axes[2].set_xlabel("step, from 1")
    panels.logarithmic(axes[2].xaxis)
    axes[0].axhline(2, color=style.MUTED, ls=":", lw=0.9)
    axes[0].legend()
