"""The table of `gradtail reproduce tail-index`, and the slopes of its sweeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from gradtail.estimators.changepoint import FEWEST, jump_after_minimum

NUMBERS = {
    "zeros_kept": "as published", "": "without zeros", "gaussian": "normal, same variances",
    "standardised": "standardised",
}  # fmt: skip
"""The index in four forms: what is kept under each name, and what it is called."""

_SHORT = {
    "zeros_kept": "published", "": "no zeros", "gaussian": "normal", "standardised": "standardised",
    "standardised_shuffled": "and shuffled", "across_batches": "over batches",
}  # fmt: skip
_FEWEST = 3
_SURE = 0.05


def number(noise: Mapping[str, Any] | None, name: str, what: str = "alpha") -> float:
    """Return one of the numbers of a look; NaN where it is not known."""
    if noise is None or "failed" in noise:
        return math.nan
    if name == "zeros_kept" and not noise["zeros"]:
        name = ""  # there is nothing to keep
    found = noise if not name else noise["controls"].get(name)
    return math.nan if found is None or found[what] is None else float(found[what])


def last(case: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the noise of the last look that has any."""
    known = [
        one["noise"] for one in case["looks"] if one["noise"] is not None and "failed" not in one["noise"]
    ]
    return known[-1] if known else None


def jump(case: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the most marked rise of the published number on the way; None where there are too few looks."""
    alphas = [number(one["noise"], "zeros_kept") for one in case["looks"]]
    if sum(map(math.isfinite, alphas)) < FEWEST:
        return None
    return asdict(jump_after_minimum(alphas, [one["step"] for one in case["looks"]]))


def is_jump(found: Mapping[str, Any] | None) -> bool:
    """Whether it is more than scatter."""
    return found is not None and bool(found["pvalue"] <= _SURE)


def jump_text(found: Mapping[str, Any] | None) -> str:
    """Say between which steps it is, "none" where scatter does as much, "?" where it is not known."""
    if found is None:
        return "?"
    return f"{found['before']:.0f}-{found['after']:.0f}" if is_jump(found) else "none"


def slopes(rows: Sequence[dict[str, Any]], cases: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by how much alpha changes as what is varied doubles, with 95 % by least squares."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["key"] in cases:
            groups.setdefault((row["sweep"], row["loss"]), []).append(row)
    made = []
    for (sweep, loss), some in groups.items():
        for name, called in NUMBERS.items():
            x = np.log2([float(row["value"]) for row in some])
            y = np.array([number(last(cases[row["key"]]), name) for row in some])
            known = np.isfinite(y)
            if known.sum() < _FEWEST or np.ptp(x[known]) == 0:
                continue
            fit = stats.linregress(x[known], y[known])
            reach = float(stats.t.ppf(0.975, int(known.sum()) - 2)) * float(fit.stderr)
            made.append(
                {
                    "sweep": sweep, "loss": loss, "of": called, "slope": float(fit.slope),
                    "ci95": [float(fit.slope) - reach, float(fit.slope) + reach],
                    "networks": int(known.sum()),
                }
            )  # fmt: skip
    return made


def table(data: dict[str, Any]) -> str:
    """Lay out every sweep: the index in its forms, on training and test data, and its slope."""
    cases = {case["key"]: case for case in data["cases"]}
    settings = data["settings"]
    lines = [
        f"{data['data']}, {data['images']} images: networks without biases, {settings['iterations']} steps "
        f"of plain SGD at a rate of 0.1, halved twice; noise of up to {settings['batches']} batches at fixed "
        "weights",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in data["rows"]:
        if row["key"] in cases:
            groups.setdefault((row["sweep"], row["loss"]), []).append(row)
    for (sweep, loss), some in groups.items():
        lines += ["", *_sweep(sweep, loss, some, cases, data["jumps"])]
        lines += [
            f"  {one['of']}: {one['slope']:+.3f} (95 % {one['ci95'][0]:+.3f} to {one['ci95'][1]:+.3f}) "
            f"for each doubling"
            for one in data["slopes"] if (one["sweep"], one["loss"]) == (sweep, loss)
        ]  # fmt: skip
    return "\n".join([*lines, "", *_notes()])


def _sweep(
    sweep: str, loss: str, some: list[dict[str, Any]], cases: dict[str, dict[str, Any]],
    jumps: Mapping[str, dict[str, Any] | None],
) -> list[str]:  # fmt: skip
    head = f"{sweep + ', ' + loss:<28}{'steps':>6}{'loss':>9}{'right':>8}{'test':>8}{'zeros':>8}"
    head += "".join(f"{name:>14}" for name in _SHORT.values())
    head += f"{'least':>8}{'at':>7}{'jump at':>11}{'test data':>11}  why"
    lines = [head, "-" * len(head)]
    for row in some:
        case = cases[row["key"]]
        end = case["looks"][-1]
        noise = last(case)
        line = f"{row['value']:<22}{'seed ' + str(row['seed']):<6}{end['step']:>6}{_text(end['loss'], 4):>9}"
        line += f"{100 * end['accuracy']:>6.1f} %{100 * end['test_accuracy']:>6.1f} %"
        if noise is None:
            lines.append(f"{line}  no noise: {case['ended']}")
            continue
        line += f"{100 * noise['zeros'] / max(noise['n'], 1):>6.1f} %"
        line += "".join(f"{_text(number(noise, name)):>14}" for name in _SHORT)
        alphas = [(number(one["noise"], "zeros_kept"), one["step"]) for one in case["looks"]]
        least, step = min((pair for pair in alphas if pair[0] == pair[0]), default=(math.nan, 0))
        of_test = case["on_test_data"]
        # of other batches the number is another
        same = of_test is not None and of_test.get("batch") == noise["batch"]
        test = number(of_test, "zeros_kept") if same else math.nan
        why = ", ".join(noise["findings"]) or "-"
        line += f"{_text(least):>8}{step:>7}{jump_text(jumps[row['key']]):>11}{_text(test):>11}"
        lines.append(f"{line}  {why}")
    return lines


def _text(value: float | None, digits: int = 3) -> str:
    return "?" if value is None or value != value else f"{value:.{digits}f}"


def _notes() -> list[str]:
    return [
        "published: the pooled number of the study, zeros in the blocks and machine epsilon added; no",
        "zeros: of what is not exactly zero; normal: of normal noise with the same variances and zeros;",
        "standardised: each coordinate by its typical size, and shuffled: coordinates in another order as",
        "well, against neighbours that depend on each other. least, at: the least published number on the",
        "way, and its step; jump at: the steps between which it rises by more than scatter does (p < 0.05;",
        f"? of fewer than {FEWEST} looks), be it at once or all the way; over batches: sums of each",
        "coordinate by itself; test data: the published number there, ? where its batches had to be smaller.",
        "why: what explains a number below 2 other than a stable law. A pooled number below 2 by itself is",
        "no evidence of infinite variance: mixed scales and zeros give 1.0 to 1.6.",
    ]
