"""The tables of `gradtail reproduce epoch-noise`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradtail.experiments.epoch_noise_theory import SIMULATED, TABLE

_SHOWN = 8  # lags


def table(data: dict[str, Any]) -> str:
    """Lay out exact values, simulations, least squares and the network beside theory."""
    of = {kind: [case for case in data["cases"] if case["kind"] == kind] for kind in
          ("quadratic", "squares", "network")}  # fmt: skip
    lines = [*_exact(data["exact"]), ""]
    if of["quadratic"]:
        lines += [*_quadratic(of["quadratic"]), ""]
    for case in of["squares"]:
        lines += [*_squares(case), ""]
    for case in of["network"]:
        lines += [*_network(case, data["data"]), ""]
    if not data["complete"]:
        lines += ["Not complete.", ""]
    return "\n".join(lines[:-1])


def _line(cells: Sequence[str], first: int = 14, width: int = 17) -> str:
    return "  " + cells[0].rjust(first) + "".join(cell.rjust(width) for cell in cells[1:])


def _settings(settings: dict[str, Any]) -> str:
    return f"step size {settings['eta']:g}, momentum {settings['beta']:g}, {settings['M']} batches an epoch"


def _exact(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"Exact variances for noise of variance 1: {_settings(TABLE)}"]
    lines.append(_line(("curvature", "Var theta", "white noise", "ratio", "Var v", "time")))
    for row in rows:
        white = "inf" if row["white"] is None else f"{row['white']:.7g}"
        lines.append(
            _line(
                (
                    f"{row['curvature']:g}", f"{row['weight']:.7g}", white, f"{row['ratio']:.6f}",
                    f"{row['velocity']:.7g}", f"{row['time']:.6g}",
                )
            )
        )  # fmt: skip
    return lines


def _quadratic(cases: list[dict[str, Any]]) -> list[str]:
    lines = [f"Quadratic, simulated: {_settings(SIMULATED)}"]
    lines.append(_line(("batches", "curvature", "Var theta", "+-", "theory", "measured/theory")))
    for case in cases:
        for i, curvature in enumerate(case["curvature"]):
            value, expected = case["weight"][i], case["expected"][i]
            mark = "" if case["relaxed"][i] else "  (may remember its start)"
            lines.append(
                _line(
                    (
                        case["policy"], f"{curvature:g}", f"{value:.5g}", f"{case['weight_stderr'][i]:.2g}",
                        f"{expected:.5g}", f"{value / expected:.4f}",
                    )
                ) + mark
            )  # fmt: skip
    return lines


def _squares(case: dict[str, Any]) -> list[str]:
    lines = [
        f"Least squares with the gradients of its {case['examples']} examples: step size {case['eta']:g}, "
        f"momentum {case['beta']:g}, batches of {case['batch']}, {case['runs']} runs of {case['epochs']} "
        f"epochs; crossover curvature {case['crossover']:.4g}"
    ]
    lines.append(_line(("curvature", "Var theta", "measured/theory", "+-", "white excess", "Var v ratio")))
    for i, curvature in enumerate(case["curvature"]):
        mark = "" if case["relaxed"][i] else "  (cannot have relaxed: not compared)"
        lines.append(
            _line(
                (
                    f"{curvature:.4g}", f"{case['weight'][i]:.4g}", f"{case['ratio'][i]:.3f}",
                    f"{case['ratio_stderr'][i]:.2g}", f"{100 * case['excess'][i]:.2f} %",
                    f"{case['velocity'][i] / case['expected_velocity'][i]:.3f}",
                )
            ) + mark
        )  # fmt: skip
    lines.append(
        f"  fluctuation of the loss: {case['loss']:.4g} +- {case['loss_stderr']:.2g}, theory "
        f"{case['expected_loss']:.4g}, white noise {case['white_loss']:.4g}"
    )
    return lines


def _network(case: dict[str, Any], data: str) -> list[str]:
    frozen = case["frozen"]
    lines = [
        f"Network of {case['parameters']} parameters on {data} ({case['examples']} examples), batches of "
        f"{case['batch']}: {case['policy']}; step size {case['eta']:g}, momentum {case['beta']:g}, weight "
        f"decay {case['decay']:g}; {case['burn_in']} and {case['epochs']} epochs from a minimum, where the "
        f"gradient is {case['minimum']['gradient']:.2g}",
        *("  " + line for line in case["text"].splitlines()),
        *_fluctuation(case),
        f"  noise at fixed weights over {frozen['steps']} steps, autocorrelation by lag (theory):",
        "    " + ", ".join(
            f"{lag}: {value:.4f} ({expected:.4f})" for lag, value, expected in
            zip(frozen["lags"][:_SHOWN], frozen["correlation"], frozen["expected"], strict=False)
        ),
        "    p-values: " + (
            ", ".join(f"{name} {p:.3g}" for name, p in frozen["pvalues"].items())
            or "not tested, as epochs of so many batches have too many pairs of them"
        ),
    ]  # fmt: skip
    return lines


def _fluctuation(case: dict[str, Any]) -> list[str]:
    """Say the measured loss over what theory expects; nothing where no direction is compared."""
    if not case["compared"]:
        return []
    found = case["fluctuation"]
    low, high = found["ci95"]
    said = (
        f"    measured over theory {found['value'] / found['expected']:.3f} (95 % "
        f"{low / found['expected']:.3f} to {high / found['expected']:.3f})"
    )
    if case["policy"] == "reshuffle":
        with_excess = found["expected"] + case["excess"]["value"] * found["white"]
        said += f", over theory with its white noise {found['value'] / with_excess:.3f}"
    return [f"{said}, over white noise {found['value'] / found['white']:.3f}"]
