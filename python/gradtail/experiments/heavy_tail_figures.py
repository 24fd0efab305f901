"""The pictures of `gradtail reproduce heavy-tail-sgd`, from its numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gradtail.experiments.heavy_tail_table import alpha_of, gap, known
from gradtail.report import panels, style

_HIGHEST = 6.0  # of the axis of alpha


def write(folder: Path, data: dict[str, Any]) -> None:
    """Draw least_squares.png, and networks.png where there is a network."""
    from matplotlib.figure import Figure

    squares = [case for case in data["cases"] if case["kind"] == "squares"]
    networks = [case for case in data["cases"] if case["kind"] == "network" and case["lost"] is None]
    with style.styled():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        curves, points = figure.subplots(1, 2)
        _curves(curves, data["curves"])
        _points(points, squares)
        figure.savefig(folder / "least_squares.png", dpi=120)
        if networks:
            figure = Figure(figsize=(9, 7.6), layout="constrained")
            _networks(figure.subplots(2, 2), networks)
            figure.savefig(folder / "networks.png", dpi=120)


def _curves(ax: Any, curves: list[dict[str, Any]]) -> None:
    for i, curve in enumerate(curves):
        share = np.array(curve["eta"]) / curve["eta_max"]
        label = f"batch {curve['batch']}, dimension {curve['dimension']}"
        ax.plot(share, curve["alpha"], color=style.SERIES[1 + i], label=label)
        ax.plot(curve["eta_crit"] / curve["eta_max"], 2, "o", color=style.SERIES[1 + i], ms=4)
    ax.axhline(2, color=style.MUTED, ls=":", lw=0.9)
    ax.set_ylim(0, _HIGHEST)
    ax.set_xlabel("step size, as a share of the largest with a stationary law")
    ax.set_ylabel("alpha of the stationary law; dots: eta_crit")
    ax.set_title("theory of least squares")
    ax.legend()


def _points(ax: Any, cases: list[dict[str, Any]]) -> None:
    there = [case for case in cases if case["alpha"] is not None]
    for name, colour, label, top in (
        ("hill", style.BLUE, "Hill of distances", math.inf),
        ("averaged", style.ORANGE, "averaged iterates, against min(alpha, 2)", 2.0),
    ):
        ax.errorbar(
            [min(case["alpha"], top) for case in there], [known(case[name]) for case in there],
            [2 * known(case[f"{name}_stderr"]) for case in there], fmt="o", ms=4, lw=0.9, color=colour,
            label=label,
        )  # fmt: skip
    most = max([case["alpha"] for case in there if case["alpha"] < _HIGHEST], default=3.0) * 1.1
    ax.plot([0, most], [0, most], color=style.MUTED, ls=":", lw=0.9)
    ax.set_xlim(0, most)
    ax.set_ylim(0, most)
    ax.set_xlabel("alpha in theory")
    ax.set_ylabel("estimate, two standard errors")
    ax.set_title("simulation")
    ax.legend()


def _networks(axes: Any, cases: list[dict[str, Any]]) -> None:
    (tails, gaps), (sharp, link) = axes
    noise = np.array([case["noise"] for case in cases])
    names = list(cases[0]["layers"])
    gaps_of = [gap(case) for case in cases]
    for i, name in enumerate(names):
        alpha = np.array([alpha_of(case, name) for case in cases])
        tails.plot(noise, alpha, "o", ms=4, color=style.SERIES[1 + i], label=name)
        link.plot(alpha, gaps_of, "o", ms=4, color=style.SERIES[1 + i], label=name)
    tails.axhline(2, color=style.MUTED, ls=":", lw=0.9)
    gaps.plot(noise, gaps_of, "o", ms=4, color=style.BLUE)
    sharp.plot(noise, [known(case["largest_eigenvalue"]) for case in cases], "o", ms=4, color=style.BLUE)
    stable = np.array(sorted({case["eta"] for case in cases}))
    if stable.size > 1:
        for batch, colour in zip(sorted({case["batch"] for case in cases}), style.SERIES[2:], strict=False):
            some = sorted((case["noise"], 2 / case["eta"]) for case in cases if case["batch"] == batch)
            sharp.plot(
                *zip(*some, strict=True), ls=":", lw=0.9, color=colour, label=f"2 / step, batch {batch}"
            )
    for ax, title in (
        (tails, "index of averaged iterates, by layer"), (gaps, "test loss less training loss"),
        (sharp, "largest eigenvalue of the Hessian"),
    ):  # fmt: skip
        ax.set_xscale("log")
        panels.logarithmic(ax.xaxis)
        ax.set_xlabel("step size / batch size")
        ax.set_title(title)
    sharp.set_yscale("log")
    panels.logarithmic(sharp.yaxis)
    link.set_xlabel("index of averaged iterates")
    link.set_title("test loss less training loss")
    for ax in (tails, sharp, link):
        ax.legend()
