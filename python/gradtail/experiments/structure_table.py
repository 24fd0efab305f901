"""The table of `gradtail reproduce gradient-structure`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gradtail.experiments.studies import mean

LEARNED = 0.8
"""Test accuracy below which a network is not to be called trained."""

_ALONG = (
    ("parameters", "dimension_wise"),
    ("batches", "iteration_wise"),
    ("batches, tenth", "iteration_wise_tenth"),
)
_LAWS = {"all": "largest K", "head": "head", "beyond": "beyond the drop"}


def table(data: dict[str, Any]) -> str:
    """Lay the results out: what was looked at, tests along both ways, and spectra; means over seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in data["cases"]:
        groups.setdefault(f"{case['network']}, {case['state']}", []).append(case)
    settings = data["settings"]
    seeds = {case["seed"] for case in data["cases"]}
    batches, training, normal = settings["batches"], data["training"], data["normal_rows"]
    shares = [100 * normal[key]["value"] for key in ("power_law_rate", "printed_power_law_rate")]
    lines = [
        f"{data['data']}, {data['images']} images: {batches} batches of {settings['batch_size']}, "
        f"{len(seeds)} seeds, {len(data['cases'])} cases; trained for {training['epochs']} epochs at rate "
        f"{training['rate']}",
        "",
        *_networks(groups), "", *_tests(groups), "", *_spectra(groups), "",
        "power law: share of vectors for which it is not rejected at 5 %, exponent fitted; printed: by",
        "1.36 / sqrt(K); normal: by K2, where 95 % of normal vectors pass; means over seeds, and in brackets",
        "the least and the most. K values are looked at; of normal vectors by the largest tenth of",
        f"{batches}, {shares[0]:.0f} % pass as a power law ({shares[1]:.0f} % as printed). kurtosis: of the",
        "median parameter, 0 of a normal one.",
        "Slopes of the rank by maximum likelihood, with the errors of independent draws and of the sketch;",
        "head: an eighth as many eigenvalues as batches, still bent by the finite sample; beyond the drop:",
        "without the eigenvalues before the largest drop among the first. overlap: of first directions of",
        "both halves of the batches. Intervals and everything else are in results.json.",
    ]  # fmt: skip
    return "\n".join(lines)


def _networks(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = f"{'network, state':<26}{'accuracy':>9}{'constant':>10}{'tracked':>9}{'directions':>12}"
    head += f"{'overlap':>9}{'largest drop':>18}"
    lines = [head, "-" * len(head)]
    for name, some in groups.items():
        rows = [one["kinds"]["noise"]["iteration_wise"] for one in some]
        skipped = sum(row["skipped_constant"] + row["skipped_few"] for row in rows)
        tested = sum(row["gaussian_rate"]["tested"] for row in rows)
        spectra = [one["spectra"]["covariance"] for one in some]
        drops = [one["drop"] for one in spectra if one["drop"] is not None]
        size = mean(one["ratio"] for one in drops)
        drop = f"x {size:.3g} after {drops[0]['after']}" if drops else "no gradient"
        lines.append(
            f"{name:<26}{100 * mean(one['test_accuracy'] for one in some):>7.1f} %{skipped:>10}"
            f"{skipped + tested:>9}{mean(one['participation_ratio'] for one in spectra):>12.3g}"
            f"{mean(_known(one['stability']['overlap'][-1]) for one in some):>9.3f}{drop:>18}"
        )
    lines += [
        f"warning: {name} has a test accuracy below {100 * LEARNED:.0f} %: it has not learned"
        for name, some in groups.items()
        if some[0]["state"] == "trained" and mean(one["test_accuracy"] for one in some) < LEARNED
    ]
    return lines


def _tests(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = f"{'network, state':<26}{'values':<10}{'along':<16}{'K':>5}{'distance':>10}{'power law':>18}"
    head += f"{'printed':>10}{'normal':>18}{'kurtosis':>10}"
    lines = [head, "-" * len(head)]
    for name, some in groups.items():
        for kind in ("gradient", "noise"):
            for along, key in _ALONG:
                found = [one["kinds"][kind][key] for one in some]
                k, ks = (mean(_known(one[what]) for one in found) for what in ("mean_n_tail", "mean_ks"))
                printed = 100 * mean(_known(one["printed_power_law_rate"]["value"]) for one in found)
                line = f"{name:<26}{kind:<10}{along:<16}{k:>5.0f}{ks:>10.4f}"
                line += f"{_range(found, 'power_law_rate'):>18}{printed:>8.1f} %"
                line += f"{_range(found, 'gaussian_rate'):>18}"
                if key == "iteration_wise":
                    kurtosis = mean(_known(one["kinds"][kind]["median_excess_kurtosis"]) for one in some)
                    line += f"{kurtosis:>10.3g}"
                lines.append(line)
    return lines


def _spectra(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = f"{'network, state':<26}{'spectrum':<15}{'fitted to':<17}{'K':>5}{'distance':>10}{'5 %':>9}"
    head += f"{'rejected':>10}{'slope':>17}{'log-log':>9}"
    lines = [head, "-" * len(head)]
    for name, some in groups.items():
        for kind in some[0]["spectra"]:
            for key, words in _LAWS.items():
                laws = [one["spectra"][kind]["laws"].get(key) for one in some]
                found = [law for law in laws if law is not None]
                if not found:
                    continue
                rejected = sum(law["ks"] >= law["critical"] for law in found)
                ks, critical, loglog = (
                    mean(law[what] for law in found) for what in ("ks", "critical", "loglog_slope")
                )
                lines.append(
                    f"{name:<26}{kind:<15}{words:<17}{found[0]['top']:>5}{ks:>10.4f}{critical:>9.4f}"
                    f"{f'{rejected} of {len(found)}':>10}{_slope(found):>17}{loglog:>9.3f}"
                )
    return lines


def _range(found: list[dict[str, Any]], key: str) -> str:
    values = [100 * one[key]["value"] for one in found if one[key]["tested"]]
    if not values:
        return "none"
    ends = f" ({min(values):.0f}-{max(values):.0f})" if len(values) > 1 else ""
    return f"{mean(values):.1f} %{ends}"


def _slope(found: Iterable[dict[str, Any]]) -> str:
    laws = list(found)
    slope, own, sketch = (
        mean(one[key] for one in laws) for key in ("slope", "slope_stderr", "slope_sketch_stderr")
    )
    return f"{slope:.3f} +- {math.hypot(own, sketch):.3f}"


def _known(value: float | None) -> float:
    return math.nan if value is None else value
