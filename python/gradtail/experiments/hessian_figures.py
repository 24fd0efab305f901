"""The pictures of `gradtail reproduce hessian-spectrum`, from its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gradtail.experiments.hessian_sweeps import LANGUAGE, NETWORKS
from gradtail.report import panels, style

Settings: TypeAlias = dict[str, list[dict[str, Any]]]

_POINTS = 600
_NARROW = 0.006  # of the width of the picture: standard deviation of the smoothed density
_LINEAR = 1e-3  # share of the largest magnitude, below which the axis is linear
_LEAST = 1e-6


def write(folder: Path, groups: dict[str, Settings], data: dict[str, Any]) -> None:
    """Draw the pictures of every sweep into a folder: <sweep>_spectrum, _density, and _power_law.png."""
    from matplotlib.figure import Figure

    with style.styled():
        for sweep, settings in groups.items():
            figure = Figure(figsize=(7, 4.6), layout="constrained")
            _spectra(figure.subplots(), settings)
            figure.savefig(folder / f"{sweep}_spectrum.png", dpi=120)
            figure = Figure(figsize=(7, 0.6 + 1.1 * len(settings)), layout="constrained")
            _densities(figure.subplots(len(settings), 1, sharex=True, squeeze=False)[:, 0], settings)
            figure.savefig(folder / f"{sweep}_density.png", dpi=120)
            if sweep != NETWORKS:
                figure = Figure(figsize=(8, 4.2), layout="constrained")
                _power_laws(figure.subplots(1, 2), sweep, settings)
                figure.savefig(folder / f"{sweep}_power_law.png", dpi=120)
            if sweep == LANGUAGE:
                figure = Figure(figsize=(5.2, 4.2), layout="constrained")
                _correlation(figure.subplots(), settings, data)
                figure.savefig(folder / f"{sweep}_correlation.png", dpi=120)


def _spectra(ax: Any, settings: Settings) -> None:
    for i, (setting, some) in enumerate(settings.items()):
        found = some[0]["case"]["spectrum"]
        values = np.array(found["eigenvalues"][: found["positive"]], np.float64)
        colour = style.SERIES[(1 + i) % len(style.SERIES)]
        law = found["power_law"]
        word = "" if law is None else f": {'rejected' if law['ks'] >= law['critical'] else 'not rejected'}"
        ax.loglog(np.arange(1, values.size + 1), values, color=colour, label=setting + word)
        if law is not None:
            ranks = np.array([1.0, law["top"]])
            # The line of the fit goes through its cutoff: the largest eigenvalue is an outlier.
            line = values[law["top"] - 1] * (ranks / law["top"]) ** -law["slope"]
            ax.loglog(ranks, line, color=colour, ls=":", lw=0.9)
    _logarithmic(ax)
    ax.set_xlabel("rank")
    ax.set_ylabel("eigenvalue of the Hessian; dotted: fitted power law")
    ax.legend()


def _densities(axes: Any, settings: Settings) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for i, (ax, (setting, some)) in enumerate(zip(axes, settings.items(), strict=True)):
        found = some[0]["case"]["density"]
        nodes = np.concatenate([np.array(part, np.float64) for part in found["nodes"]])
        weights = np.concatenate([np.array(part, np.float64) for part in found["weights"]])
        reach = float(np.abs(nodes).max()) or 1.0
        # asinh keeps the sign, and opens what crowds about zero.
        at, end = np.arcsinh(nodes / (_LINEAR * reach)), float(np.arcsinh(1 / _LINEAR))
        width = _NARROW * 2 * end
        grid = np.linspace(-end - 3 * width, end + 3 * width, _POINTS)
        z = (grid[:, None] - at) / width
        density = np.exp(-0.5 * z * z) @ weights / (len(found["nodes"]) * width * np.sqrt(2 * np.pi))
        colour = style.SERIES[(1 + i) % len(style.SERIES)]
        ax.fill_between(_LINEAR * np.sinh(grid), np.maximum(density, _LEAST), _LEAST, color=colour, lw=0)
        ax.set_xscale("asinh", linear_width=_LINEAR)
        ax.set_yscale("log")
        ax.set_ylim(_LEAST, 30)
        panels.logarithmic(ax.yaxis, 3)
        label = f"{setting}: trace {found['trace']:.3g} ± {found['trace_stderr']:.2g}, reach {reach:.3g}"
        ax.set_title(label, fontsize=8.5)
        ax.xaxis.set_major_locator(FixedLocator([-1, -0.1, -0.01, 0, 0.01, 0.1, 1]))
        ax.xaxis.set_major_formatter(FixedFormatter(["-1", "-0.1", "-0.01", "0", "0.01", "0.1", "1"]))
        ax.xaxis.set_minor_locator(NullLocator())
    axes[-1].set_xlabel("eigenvalue, as a share of the largest magnitude; height: density, smoothed")


def _power_laws(axes: Any, sweep: str, settings: Settings) -> None:
    names = list(settings)
    place = np.arange(len(names))
    distance, slope = axes
    known = [_laws(some) for some in settings.values()]
    marks = [[law["ks"] for law in laws] for laws in known]
    slopes = [[law["slope"] for law in laws] for laws in known]
    for ax, values, title in ((distance, marks, "distance from a power law"), (slope, slopes, "slope")):
        for x, some in zip(place, values, strict=True):
            ax.plot([x] * len(some), some, "o", color=style.BLUE, ms=5, label="here" if x == 0 else None)
        ax.set_title(title)
        ax.set_xticks(place, names, rotation=40 if max(map(len, names)) > 5 else 0)
        ax.set_xlabel(sweep)
    critical = [laws[0]["critical"] if laws else np.nan for laws in known]
    distance.plot(place, critical, color=style.MUTED, ls=":", label="critical at 5 %")
    printed = [some[0]["published"] for some in settings.values()]
    for ax, key in ((distance, "ks"), (slope, "slope")):
        there = [(x, row[key]) for x, row in zip(place, printed, strict=True) if row and row[key] is not None]
        if there:
            ax.plot(*zip(*there, strict=True), "D", mfc="none", color=style.ORANGE, ms=6, label="in print")
        ax.legend()


def _correlation(ax: Any, settings: Settings, data: dict[str, Any]) -> None:
    every = [one["case"] for some in settings.values() for one in some]
    cases = [case for case in every if case["spectrum"]["power_law"] is not None]
    for seed, found in data["correlation"].items():
        own = [case for case in cases if str(case["seed"]) == seed]
        label = f"seed {seed}" + ("" if found is None else f": correlation {found['pearson']:.2f}")
        colour = style.SERIES[1 + int(seed) % 6]
        ax.plot(
            [case["spectrum"]["power_law"]["ks"] for case in own], [case["test_loss"] for case in own],
            "o-", lw=0.8, color=colour, label=label,
        )  # fmt: skip
        for case in own:
            at = case["spectrum"]["power_law"]["ks"], case["test_loss"]
            ax.annotate(str(case["step"]), at, xytext=(3, 3), textcoords="offset points", fontsize=7)
    ax.set_xlabel("distance from a power law")
    ax.set_ylabel("held-out loss, nats a byte; numbers are steps")
    ax.legend()


def _laws(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [law for one in some if (law := one["case"]["spectrum"]["power_law"]) is not None]


def _logarithmic(ax: Any) -> None:
    panels.logarithmic(ax.xaxis)
    panels.logarithmic(ax.yaxis)
