"""The tables of `gradtail reproduce hessian-spectrum`, from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradtail.experiments.hessian_published import GAPS, LANGUAGE_CORRELATIONS, SOURCE, audit
from gradtail.experiments.hessian_sweeps import LANGUAGE
from gradtail.experiments.studies import mean


def groups(data: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return what is done by sweep and setting: each row with its case, over seeds, but for failures."""
    cases = {case["key"]: case for case in data["cases"]}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in data["rows"]:
        if row["key"] in cases and "failed" not in cases[row["key"]]:
            some = found.setdefault(row["sweep"], {}).setdefault(row["setting"], [])
            some.append({**row, "case": cases[row["key"]]})
    return found


def table(data: dict[str, Any]) -> str:
    """Lay out all rows: the power law of each beside print, and below what else is known of it."""
    lines = [
        f"{data['data']}, {data['images']} images, Hessians of networks over "
        f"{min(data['settings']['samples'], data['images'])} examples, {len(data['cases'])} cases"
    ]
    for sweep, settings in groups(data).items():
        lines += ["", *_laws(sweep, settings), "", *_rest(sweep, settings)]
        if sweep == LANGUAGE:
            lines += ["", *_correlation(data)]
    lines += ["", *_notes(data)]
    return "\n".join(lines)


def verdict(laws: Sequence[dict[str, Any] | None]) -> str:
    """Say whether a power law is rejected, of all seeds; * where the printed value says otherwise."""
    known = [law for law in laws if law is not None]
    if not known:
        return "too few"
    rejected = [law["ks"] >= law["critical"] for law in known]
    printed = [law["ks"] >= law["printed"] for law in known]
    mark = "*" if rejected != printed else ""
    if len(set(rejected)) == 1:
        return ("rejected" if rejected[0] else "not rejected") + mark
    return f"{sum(rejected)} of {len(rejected)} rejected{mark}"


def _laws(sweep: str, settings: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = f"{sweep:<22}{'K':>6}{'distance':>10}{'5 %':>8}{'printed':>9}  {'power law':<15}{'exponent':>16}"
    head += f"{'slope':>16}{'log-log':>9}{'gaps':>7} |{'in print':>9}  {'':<13}{'slope':>6}"
    lines = [head, "-" * len(head)]
    for setting, some in settings.items():
        laws = [one["case"]["spectrum"]["power_law"] for one in some]
        known = [law for law in laws if law is not None]
        if known:
            ks, critical, printed, exponent, slope, error, loglog = (
                mean(law[key] for law in known)
                for key in ("ks", "critical", "printed", "exponent", "slope", "slope_stderr", "loglog_slope")
            )
            gaps = mean(one["slope"] for s in some if (one := s["case"]["spectrum"]["gaps"]) is not None)
            own = mean((law["exponent"] - 1) / math.sqrt(law["top"]) for law in known)
            shown = f"{_range(law['top'] for law in known):>6}{ks:>10.4f}{critical:>8.4f}{printed:>9.4f}  "
            shown += f"{verdict(laws):<15}{f'{exponent:.3f} +- {own:.3f}':>16}"
            shown += f"{f'{slope:.3f} +- {error:.3f}':>16}{loglog:>9.3f}{gaps:>7.2f} |"
        else:
            positive = _range(one["case"]["spectrum"]["positive"] for one in some)
            shown = f"{positive:>6}{'':>27}  {'too few positive eigenvalues':<63} |"
        other = some[0]["published"]
        if other is not None:
            word = "not rejected" if other["accepted"] else "rejected"
            number = "" if other["slope"] is None else f"{other['slope']:.3f}"
            shown += f"{other['ks']:>9.4f}  {word:<13}{number:>6}"
        lines.append(f"{setting:<22}{shown}".rstrip())
    return lines


def _rest(sweep: str, settings: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = f"{sweep:<22}{'asked':>6}{'positive':>9}{'largest':>11}{'K-th':>11}{'trace':>20}"
    head += f"{'tr H2 / n':>11}{'ranks':>7}{'test loss':>11}{'accuracy':>10}{'rests on':>10}{'products':>10}"
    lines = [head, "-" * len(head)]
    for setting, some in settings.items():
        cases = [one["case"] for one in some]
        spectra, densities = [case["spectrum"] for case in cases], [case["density"] for case in cases]
        trace, error = (mean(one[key] for one in densities) for key in ("trace", "trace_stderr"))
        largest, last = (mean(one["eigenvalues"][i] for one in spectra) for i in (0, -1))
        hits = [case["test_accuracy"] for case in cases]
        accuracy = "" if None in hits else f"{100 * mean(hits):.2f} %"
        lines.append(
            f"{setting:<22}{spectra[0]['asked']:>6}{_range(one['positive'] for one in spectra):>9}"
            f"{largest:>11.4g}{last:>11.3g}{f'{trace:.4g} +- {error:.2g}':>20}"
            f"{mean(one['moments'][1] for one in densities):>11.3g}"
            f"{_range(one['bounded_ranks'] for one in spectra):>7}"
            f"{mean(case['test_loss'] for case in cases):>11.4f}{accuracy:>10}"
            f"{mean(case['rests_on'] for case in cases):>10.0f}"
            f"{_range(one['products'] for one in spectra):>10}"
        )
    return lines


def _correlation(data: dict[str, Any]) -> list[str]:
    lines = []
    for seed, found in data["correlation"].items():
        if found is None:
            lines.append(f"seed {seed}: too few checkpoints for a correlation")
            continue
        for one, which in ((found, "checkpoints"), (found["after_start"], "of them, without step 0")):
            if one is not None:
                low, high = one["ci95"]
                lines.append(
                    f"seed {seed}: distance against held-out loss over {one['pairs']} {which}, Pearson's "
                    f"correlation {one['pearson']:.3f} (95 % {low:.3f} to {high:.3f})"
                )
    low, high = LANGUAGE_CORRELATIONS
    return [*lines, f"in print: {low:.3f} (GPT2-nano, training) and {high:.3f} (GPT2-small, fine-tuning)"]


def _notes(data: dict[str, Any]) -> list[str]:
    lines = [
        "power law: whether the K largest eigenvalues reject one at 5 %, exponent fitted; * where the",
        "printed value of 1.36 / sqrt(K) says otherwise. Eigenvalues are no independent draws: a convention",
        "of the study, no p-value. K: of those asked for, the ones surely positive. Slope by maximum",
        "likelihood, with the error of independent draws, and by least squares; gaps: slope of the larger",
        "half of the eigenvalue gaps; ranks: directions whose turn by a perturbation of 1 % of the largest",
        "eigenvalue is bounded; rests on: of how many of the examples the Hessian is, as if those were",
        "alike: one whose class is certain has hardly a part in it. Means over seeds; all else in",
        "results.json.",
    ]
    if any(row["published"] is not None for row in data["rows"]):
        count = len(audit())
        lines += [
            f"In print: {SOURCE}; K = 1000, Hessian over all training examples;",
            f"gaps of the trained LeNet have a slope of {GAPS.slope} there (distance {GAPS.ks});",
            f"{count} of its rows contradict themselves (audit in results.json).",
        ]
    failed = [f"{case['key']}: {case['failed']}" for case in data["cases"] if "failed" in case]
    warned = [
        f"{case['key']}: {warning}"
        for case in data["cases"]
        if "failed" not in case
        for warning in dict.fromkeys(case["spectrum"]["warnings"] + case["density"]["warnings"])
    ]
    return [*lines, *failed, *warned, *data["left_out"]]


def _range(values: Any) -> str:
    every = sorted(set(values))
    return f"{every[0]}" if len(every) == 1 else f"{every[0]}-{every[-1]}"
