"""The four pictures of `gradtail reproduce gradient-structure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from gradtail.estimators import powerlaw
from gradtail.report import panels, style
from gradtail.torch import GradientCollection

_POINTS = 400
_ROWS = 6
_SERIES = (
    ("gradient", "dimension_wise", "gradient, across parameters"),
    ("noise", "dimension_wise", "noise, across parameters"),
    ("noise", "iteration_wise", "noise, across batches"),
    ("noise", "iteration_wise_tenth", "noise, across batches, largest tenth"),
)


def taken(found: GradientCollection) -> dict[str, Any]:
    """Take what the pictures of single cases show: the newest column, and some rows of the noise."""
    newest = found.gradients.summary(steps="newest")
    nonzero = newest.count - newest.zeros
    histogram = newest.histogram()
    tracks = found.stream("noise").tracks()
    size = np.nanvar(tracks.values, axis=0)
    rows = np.argsort(-size)[:: max(1, tracks.values.shape[1] // 8)][:_ROWS]
    return {
        "edges": histogram.edges,
        "counts": (histogram.positive + histogram.negative).astype(np.float64),
        "law": powerlaw.fit(newest, top=min(1000, nonzero // 10)) if nonzero >= 500 else None,
        "rows": np.sort(tracks.values[:, rows].astype(np.float64), axis=0),
    }


def write(folder: Path, drawn: dict[str, Any], data: dict[str, Any]) -> None:
    """Draw all four into a folder."""
    from matplotlib.figure import Figure

    with style.styled():
        for name, draw in (("dimension_wise", _tails), ("iteration_wise", _quantiles)):
            figure = Figure(figsize=(4.2 * max(len(drawn), 1), 3.4), layout="constrained")
            axes = np.atleast_1d(figure.subplots(1, max(len(drawn), 1)))
            for ax, (title, one) in zip(axes, drawn.items(), strict=False):
                ax.set_title(title)
                draw(ax, one)
            figure.savefig(folder / f"{name}.png", dpi=120)
        networks = list(dict.fromkeys(case["network"] for case in data["cases"]))
        figure = Figure(figsize=(5 * len(networks), 4.2), layout="constrained")
        for ax, network in zip(np.atleast_1d(figure.subplots(1, len(networks))), networks, strict=True):
            _spectra(ax, [one for one in data["cases"] if one["network"] == network and one["seed"] == 0])
            ax.set_title(network)
        figure.savefig(folder / "spectrum.png", dpi=120)
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        _rates(figure.subplots(1, 2, sharey=True), data)
        figure.savefig(folder / "rates.png", dpi=120)


def _tails(ax: Any, one: dict[str, Any]) -> None:
    counts = one["counts"]
    if not counts.sum():
        panels.empty(ax, "no gradient")
        return
    above = counts[::-1].cumsum()[::-1] / counts.sum()
    edges, law = one["edges"][:-1], one["law"]
    start = max(0, int(np.searchsorted(-above, -0.5)))
    ax.loglog(edges[start:], above[start:], color=style.BLUE, label="|gradient|, one batch")
    if law is not None:
        x = np.geomspace(law.xmin, edges[-1], _POINTS)
        ax.loglog(x, law.n_tail / law.n * (x / law.xmin) ** -law.alpha, color=style.ORANGE, ls="--",
                  label=f"power law, exponent {law.exponent:.2f}")  # fmt: skip
    panels.logarithmic(ax.xaxis)
    panels.logarithmic(ax.yaxis)
    ax.set_xlabel("magnitude")
    ax.set_ylabel("share above")
    ax.legend()


def _quantiles(ax: Any, one: dict[str, Any]) -> None:
    rows = one["rows"]
    normal = special.ndtri((np.arange(len(rows)) + 0.5) / len(rows))
    for i in range(rows.shape[1]):
        spread = rows[:, i].std()
        if spread > 0:
            ax.plot(normal, (rows[:, i] - rows[:, i].mean()) / spread, lw=1, color=style.SERIES[1 + i % 6])
    ends = [normal[0], normal[-1]]
    ax.plot(ends, ends, color=style.INK, lw=0.8, ls=":")
    ax.set_xlabel("quantiles of a normal law")
    ax.set_ylabel("noise of one parameter, in standard deviations")


def _spectra(ax: Any, cases: list[dict[str, Any]]) -> None:
    """Draw eigenvalues with two errors of the sample, and the laws fitted to them through the cutoff."""
    for i, case in enumerate(cases):
        found = case["spectra"]["covariance"]
        values = np.array(found["eigenvalues"], np.float64)
        if not values.size:
            continue
        ranks = np.arange(1, values.size + 1)
        error = 2 * np.array(found["sampling_stderr"], np.float64)
        color, law = style.SERIES[1 + i % 6], found["laws"]["all"]
        ax.fill_between(
            ranks, np.maximum(values - error, values / 10), values + error, color=color, alpha=0.2, lw=0
        )
        ax.loglog(ranks, values, color=color, label=f"{case['state']}: slope {law['slope']:.2f}")
        ax.loglog(ranks, values[-1] * (ranks / values.size) ** -law["slope"], color=color, lw=0.8, ls="--")
        ax.axvline(found["laws"]["head"]["top"], color=style.INK, lw=0.6, ls=":")
    panels.logarithmic(ax.xaxis)
    panels.logarithmic(ax.yaxis)
    ax.set_xlabel("rank (dotted: an eighth of the batches)")
    ax.set_ylabel("eigenvalue of the covariance")
    ax.legend()


def _rates(axes: Any, data: dict[str, Any]) -> None:
    cases: dict[str, list[dict[str, Any]]] = {}
    for one in data["cases"]:
        cases.setdefault(f"{one['network']}\n{one['state']}", []).append(one)
    place = np.arange(len(cases))
    for ax, (key, title) in zip(
        axes,
        (("power_law_rate", "not rejected as power law"), ("gaussian_rate", "not rejected as normal")),
        strict=True,
    ):  # fmt: skip
        ax.set_title(title)
        for j, (kind, along, words) in enumerate(_SERIES):
            shares = [[one["kinds"][kind][along][key]["value"] for one in some] for some in cases.values()]
            known = [[v for v in some if v is not None and v == v] or [np.nan] for some in shares]
            values = np.array([np.mean(some) for some in known])
            ends = np.abs(np.array([[min(some), max(some)] for some in known]).T - values)
            at = place + 0.2 * (j - 1.5)
            ax.bar(at, values, 0.18, color=style.SERIES[1 + j], label=words, yerr=ends,
                   error_kw={"lw": 0.8, "ecolor": style.INK})  # fmt: skip
        ax.axhline(0.95, color=style.INK, lw=0.8, ls=":")
        ax.set_axisbelow(True)
        ax.set_xticks(place, list(cases))
        ax.set_ylim(0, 1)
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
