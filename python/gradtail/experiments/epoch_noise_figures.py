"""The pictures of `gradtail reproduce epoch-noise`, from its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gradtail.experiments.epoch_noise_theory import SIMULATED
from gradtail.report import panels, style
from gradtail.theory import epochs as theory

_COLOURS: dict[theory.Policy, str] = {
    "reshuffle": style.BLUE,
    "replacement": style.ORANGE,
    "fixed": style.GREEN,
}


def write(folder: Path, data: dict[str, Any]) -> None:
    """Draw theory.png, and a picture of each network."""
    from matplotlib.figure import Figure

    with style.styled():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _quadratic(left, [case for case in data["cases"] if case["kind"] == "quadratic"])
        _squares(right, [case for case in data["cases"] if case["kind"] == "squares"])
        figure.savefig(folder / "theory.png", dpi=120)
        for case in data["cases"]:
            if case["kind"] == "network":
                figure = Figure(figsize=(9, 7.6), layout="constrained")
                _network(figure.subplots(2, 2), case)
                figure.savefig(folder / f"{case['key']}.png", dpi=120)


def _quadratic(ax: Any, cases: list[dict[str, Any]]) -> None:
    cross = theory.crossover_curvature(**SIMULATED)
    curvature = np.geomspace(cross / 200, 60 * cross, 200)
    for policy, colour in _COLOURS.items():
        variance = theory.weight_variance(curvature, **SIMULATED, policy=policy)
        ax.plot(curvature, variance, color=colour, lw=0.9, label=policy)
    for case in cases:
        ax.errorbar(
            case["curvature"], case["weight"], 2 * np.array(case["weight_stderr"]), fmt="o", ms=4, lw=0.9,
            color=_COLOURS[case["policy"]],
        )  # fmt: skip
    ax.axvline(cross, color=style.MUTED, ls=":", lw=0.9)
    ax.set_title("quadratic: theory, and simulation (dots)")
    ax.set_ylabel("weight variance")
    _logarithmic(ax)


def _squares(ax: Any, cases: list[dict[str, Any]]) -> None:
    for i, case in enumerate(cases):
        some = np.array(case["relaxed"], bool)
        curvature, ratio, stderr = (
            np.array(case[name])[some] for name in ("curvature", "ratio", "ratio_stderr")
        )
        ax.errorbar(
            curvature, ratio, 2 * stderr, fmt="o-", ms=4, lw=0.9, color=style.SERIES[1 + i],
            label=f"step size {case['eta']:g}",
        )  # fmt: skip
    ax.axhline(1, color=style.MUTED, ls=":", lw=0.9)
    ax.set_title("least squares: weight variance over theory")
    _logarithmic(ax, bool(cases), both=False)


def _network(axes: Any, case: dict[str, Any]) -> None:
    (variance, ratio), (moves, noise) = axes
    some = np.array(case["relaxed"], bool) & (np.array(case["weight"]) > 0)
    names = (
        "curvature", "weight", "weight_stderr", "expected", "white",
        "correlation_time", "expected_correlation_time",
    )  # fmt: skip
    x, weight, error, expected, white, time, expected_time = (
        np.array(case[name], float)[some] for name in names
    )
    colour = _COLOURS[case["policy"]]
    variance.errorbar(x, weight, 2 * error, fmt="o", ms=3, lw=0.6, color=colour, label="measured")
    variance.plot(x, expected, ".", ms=3, color=style.INK, label=f"theory, {case['policy']}")
    variance.plot(x, white, ".", ms=3, color=style.MUTED, label="theory, white noise")
    variance.set_title("weight variance")
    ratio.errorbar(
        x, weight / white, 2 * error / white, fmt="o", ms=3, lw=0.6, color=colour, label="measured"
    )
    order = np.argsort(x)
    ratio.plot(x[order], (expected / white)[order], color=style.INK, lw=1.1, label="theory")
    if case["compared"]:  # else the white noise is not known either
        with_excess = expected / white + case["excess"]["value"]
        ratio.plot(
            x[order], with_excess[order], color=style.INK, ls="--", lw=0.9, label="and its white noise"
        )
    ratio.axvline(case["crossover"], color=style.MUTED, ls=":", lw=0.9, label="crossover")
    ratio.set_title("weight variance over that of white noise")
    moves.plot(x, time, "o", ms=3, color=colour, label="measured")
    moves.plot(x[order], expected_time[order], color=style.INK, lw=1.1, label="theory")
    moves.set_title("correlation time, 2 Var theta / Var v, steps")
    for ax in (variance, ratio, moves):
        _logarithmic(ax, bool(x.size))
    frozen = case["frozen"]["first_epoch"]
    lags = np.arange(1, len(frozen) + 1)
    noise.plot(lags, frozen, ".", ms=3, color=colour, label="at the minimum, weights fixed")
    noise.plot(
        lags, theory.autocovariance(lags, len(frozen), policy=case["policy"]), color=style.INK, lw=1.1,
        label="theory",
    )  # fmt: skip
    noise.set_title("autocorrelation of the noise")
    noise.set_xlabel("lag, steps")
    noise.legend()


def _logarithmic(ax: Any, drawn: bool = True, *, both: bool = True) -> None:
    ax.set_xlabel("curvature")
    if drawn:
        ax.set_xscale("log")
        if both:
            ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis)[: 1 + both]:
            panels.logarithmic(axis)
        ax.legend()
