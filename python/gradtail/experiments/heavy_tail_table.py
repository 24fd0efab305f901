"""The tables of `gradtail reproduce heavy-tail-sgd`, and how its columns go with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from gradtail.estimators.stable.result import ENOUGH

_FEWEST = 5  # networks of which an order is spoken of


def gap(case: dict[str, Any]) -> float:
    """Return the test loss less the training loss."""
    return known(case["test_loss"]) - known(case["train_loss"])


def orders(networks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rank correlations over networks: of step over batch, alpha of layers, sharpness and gap.

    Spearman's correlation with its 95 % interval by Fisher's z and a standard error of
    sqrt((1 + r^2 / 2) / (n - 3)) (Bonett and Wright 2000, Psychometrika 65, 23). Networks are counted as
    independent, as if seeds and batch orders had nothing in common.
    """
    if len(networks) < _FEWEST:
        return []
    columns: dict[str, list[float]] = {
        "eta / b": [case["noise"] for case in networks],
        "largest eigenvalue": [known(case["largest_eigenvalue"]) for case in networks],
        "generalization gap": [gap(case) for case in networks],
    }
    for name in networks[0]["layers"]:
        columns[f"alpha of {name}"] = [alpha_of(case, name) for case in networks]
    pairs = [
        *((one, name) for name in columns if name.startswith("alpha") for one in list(columns)[:3]),
        ("eta / b", "largest eigenvalue"), ("eta / b", "generalization gap"),
        ("largest eigenvalue", "generalization gap"),
    ]  # fmt: skip
    return [found for one, other in pairs if (found := _order(one, other, columns)) is not None]


def _order(one: str, other: str, columns: dict[str, list[float]]) -> dict[str, Any] | None:
    x, y = np.array(columns[one]), np.array(columns[other])
    there = np.isfinite(x) & np.isfinite(y)
    n = int(there.sum())
    if n < _FEWEST or np.ptp(x[there]) == 0 or np.ptp(y[there]) == 0:
        return None
    r = float(stats.spearmanr(x[there], y[there]).statistic)
    reach = float(special.ndtri(0.975)) * math.sqrt((1 + r * r / 2) / (n - 3))
    z = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12))
    return {
        "of": [one, other], "spearman": r, "ci95": [math.tanh(z - reach), math.tanh(z + reach)],
        "networks": n,
    }  # fmt: skip


def table(data: dict[str, Any]) -> str:
    """Lay out least squares beside theory, networks by step over batch, and what goes with what."""
    squares = [case for case in data["cases"] if case["kind"] == "squares"]
    networks = [case for case in data["cases"] if case["kind"] == "network"]
    lines: list[str] = []
    if squares:
        lines += [*_squares(squares, data["settings"]), ""]
    if networks:
        lines += [*_networks(networks, data), ""]
    if data["orders"]:
        lines += [*_orders(data["orders"]), ""]
    return "\n".join([*lines, *_notes(squares, networks)])


def _squares(cases: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    head = f"{'step':>8}{'batch':>7}{'dim':>5}{'eta_crit':>10}{'eta_max':>10}{'rho':>10}{'alpha':>9}"
    head += f"{'Hill of distances':>20}{'min(alpha, 2)':>15}{'averaged iterates':>20}"
    title = f"Least squares: theory, and {settings['chains']} chains of {settings['steps']} steps"
    lines = [title, head, "-" * len(head)]
    for case in cases:
        alpha = case["alpha"]
        line = f"{case['eta']:>8.4g}{case['batch']:>7}{case['dimension']:>5}{case['eta_crit']:>10.4g}"
        line += (
            f"{case['eta_max']:>10.4g}{case['rho']:>10.3g}{'none' if alpha is None else f'{alpha:.3f}':>9}"
        )
        hill, averaged = (
            f"{known(case[name]):.3f} +- {known(case[f'{name}_stderr']):.3f}" for name in ("hill", "averaged")
        )
        limit = "" if alpha is None else f"{min(alpha, 2):.3f}"
        mark = "" if case["state"] == "stationary" else f"  {case['state']}"
        lines.append(f"{line}{hill:>20}{limit:>15}{averaged:>20}{mark}")
    return lines


def _networks(cases: list[dict[str, Any]], data: dict[str, Any]) -> list[str]:
    settings = data["settings"]
    names = next((list(case["layers"]) for case in cases if case["lost"] is None), [])
    head = f"{'eta / b':>10}{'step':>8}{'batch':>6}{'seed':>5}"
    head += "".join(f"{name[-16:]:>18}" for name in names)
    head += f"{'lambda_max':>12}{'eta lambda':>11}{'train loss':>11}{'test loss':>10}{'gap':>9}"
    head += f"{'accuracy':>10}{'growth':>8}"
    lines = [
        f"Networks on {data['data']}, {data['images']} images: {settings['depth']} layers, width "
        f"{settings['width']}, no biases, {settings['iterations']} steps of plain SGD; alpha of the average "
        f"of the last {settings['last']} iterates, by layer",
        head, "-" * len(head),
    ]  # fmt: skip
    for case in sorted(cases, key=lambda one: (one["noise"], one["batch"], one["seed"])):
        line = f"{case['noise']:>10.4g}{case['eta']:>8.4g}{case['batch']:>6}{case['seed']:>5}"
        if case["lost"] is not None:
            lines.append(f"{line}  {case['lost']}")
            continue
        for name in names:
            line += f"{_index(case['layers'][name]['after']):>18}"
        sharp, train, test = (known(case[name]) for name in ("largest_eigenvalue", "train_loss", "test_loss"))
        lines.append(
            f"{line}{sharp:>12.4g}{case['eta'] * sharp:>11.3g}{train:>11.4f}{test:>10.4f}{gap(case):>9.4f}"
            f"{100 * case['test_accuracy']:>8.2f} %{known(case['growth']):>8.3f}"
        )
    start = next((case for case in cases if case["lost"] is None), None)
    if start is not None:
        texts = [_index(start["layers"][name]["before"]) for name in names]
        lines.append(f"{'at initialisation':>29}" + "".join(f"{text:>18}" for text in texts))
    return lines


def _orders(found: list[dict[str, Any]]) -> list[str]:
    lines = ["Rank correlation over networks, with 95 % as if they were independent"]
    for one in found:
        low, high = one["ci95"]
        what = f"{one['of'][0]} with {one['of'][1]}"
        lines.append(
            f"  {what:<52}{one['spearman']:>7.2f}  ({low:.2f} to {high:.2f}), {one['networks']} networks"
        )
    return lines


def _notes(squares: list[dict[str, Any]], networks: list[dict[str, Any]]) -> list[str]:
    lines = []
    if squares:
        lines += [
            "alpha: of P(|x - x*| > t) ~ t^-alpha in theory, none where rho > 0; averages of iterates have",
            "the index min(alpha, 2). Where a run diverges both estimates are of its spread so far, no tail,",
            "and where it is not stationary they are of the way there.",
        ]
    if networks:
        lines += [
            "* something else explains an index below 2, or no stable law is seen: mixed scales, zeros,",
            f"weights in an order (findings in results.json); ? too few weights, below {ENOUGH}, to tell a",
            "stable law from mixed scales, and no mark clears a layer of them. The weights of one layer of",
            "one run are no sample of one law: an index below 2 is by itself no evidence of infinite",
            "variance. growth: norm of all weights at the end over that when averaging began: where it is",
            "not near 1 nothing is stationary.",
        ]
    return lines


def known(value: float | None) -> float:
    """Return a number, NaN for one that JSON has no word for."""
    return math.nan if value is None else float(value)


def alpha_of(case: dict[str, Any], name: str) -> float:
    """Return the index of a layer after training; NaN where there is none."""
    found = case["layers"][name]["after"]
    return math.nan if found is None else known(found["alpha"])


def _index(found: dict[str, Any] | None) -> str:
    """Write the index of a layer; ? where it has too few weights to be told from a mixture of scales."""
    if found is None:
        return "too few "
    mark = "*" if found["findings"] else " " if found["told"] else "?"
    return f"{known(found['alpha']):.3f} +- {known(found['stderr']):.3f}{mark}"
