"""`gradtail reproduce gradient-structure`: whether gradients are heavy-tailed, and along what.

Xie et al., "On the Overlooked Structure of Stochastic Gradients" (2023): gradients of minibatches at fixed
parameters, before and after training, tested for power laws and for normality across parameters and across
batches, and the spectrum of their covariance against a power law of the rank.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradtail.estimators.ranks import STEPS_A_RANK, eigengaps, rank_power_law
from gradtail.estimators.spectrum_result import CovarianceSpectrum
from gradtail.estimators.structure import Rate, Structure
from gradtail.estimators.subspace import SubspaceStability
from gradtail.experiments import structure_figures
from gradtail.experiments.classifiers import Training, evaluate, train
from gradtail.experiments.datasets import Images
from gradtail.experiments.networks import LeNet, fully_connected
from gradtail.experiments.studies import (
    INTERRUPTED,
    images_of,
    machine,
    make_folder,
    mean,
    power_law,
    write_results,
)
from gradtail.report.schema import rounded
from gradtail.torch import GradientCollection, collect_gradients
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.GradientStructure/1"
NETWORKS: dict[str, Callable[[int], nn.Module]] = {"LeNet": LeNet, "fully connected": fully_connected}
STATES = ("random", "trained")

_DIRECTIONS = 10  # compared between both halves of the batches
_FEWEST_IN_HEAD = 20


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's files; None is scikit-learn's digits.
    out : Path
    networks : tuple of str
    seeds : int
        Repeats, from seed 0 on.
    batches, batch_size : int
        T gradients of B examples each.
    eigenvalues : int
        K, which the power law of the rank is fitted to.
    epochs : int
        Of training.
    limit : int or None
        Training images at most.
    """

    data: Path | None = None
    out: Path = Path("gradtail-gradient-structure")
    networks: tuple[str, ...] = tuple(NETWORKS)
    seeds: int = 3
    batches: int = 1000
    batch_size: int = 100
    eigenvalues: int = 500
    epochs: int = 5
    limit: int | None = None

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(data, out, seeds=1, batches=200, eigenvalues=100, epochs=2, limit=10_000)


@dataclass(frozen=True)
class Case:
    """One network in one state with one seed."""

    network: str
    state: str
    seed: int


def cases(settings: Settings) -> Iterator[Case]:
    """Go through all cases; the trained network is the random one, trained."""
    for seed in range(settings.seeds):
        for network in settings.networks:
            for state in STATES:
                yield Case(network, state, seed)


def run(settings: Settings, *, progress: bool | None = None) -> int:
    """Run all cases, write results.json, table.txt and the pictures, and return the exit code.

    Raises
    ------
    BadOption
        Data that cannot be read, or a folder that cannot be made.
    """
    images = images_of(settings.data, settings.limit)
    make_folder(settings.out)
    began = time.perf_counter()
    done: list[dict[str, Any]] = []
    drawn: dict[str, Any] = {}
    with Interrupts() as interrupts:
        model: nn.Module | None = None
        for case in cases(settings):
            print(f"{images.name}, {case.network}, {case.state}, seed {case.seed}", file=sys.stderr)
            model = _model(case, model, images, settings, interrupts, progress)
            found = None if interrupts.stopped else _collected(case, model, images, settings, progress)
            if found is None or found.interrupted:
                break
            done.append(_case(case, model, images, found, settings))
            if case.seed == 0:
                drawn[f"{case.network}, {case.state}"] = structure_figures.taken(found)
            _write(settings, images, done, time.perf_counter() - began)
    if not done:
        print("Interrupted before the first case was done: there is nothing to write.", file=sys.stderr)
        return INTERRUPTED
    data = _write(settings, images, done, time.perf_counter() - began)
    structure_figures.write(settings.out, drawn, data)
    print(table(data))
    print(f"\nWritten to {settings.out}: results.json, table.txt and the pictures.")
    return 0 if data["complete"] else INTERRUPTED


def _collected(
    case: Case, model: nn.Module, images: Images, settings: Settings, progress: bool | None
) -> GradientCollection | None:
    """Collect the gradients of a case; None after Ctrl-C before there were any."""
    try:
        return collect_gradients(
            model, nn.functional.cross_entropy, images.train, settings.batches,
            min(settings.batch_size, len(images.train[0])), seed=case.seed, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None


def _write(settings: Settings, images: Images, done: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Write the numbers of the cases done so far, so that none is lost."""
    data = {
        "schema": SCHEMA, "data": images.name, "images": len(images.train[0]), "settings": asdict(settings),
        "training": asdict(Training(settings.epochs)), **machine(),
        "complete": len(done) == len(list(cases(settings))), "seconds": seconds, "cases": done,
    }  # fmt: skip
    write_results(settings.out, data, table(data))
    return data


def _model(
    case: Case, before: nn.Module | None, images: Images, settings: Settings, interrupts: Interrupts,
    progress: bool | None,
) -> nn.Module:  # fmt: skip
    if case.state == "random" or before is None:
        torch.manual_seed(case.seed)
        return NETWORKS[case.network](images.side)
    train(
        before, images.train, Training(settings.epochs), case.seed, interrupts=interrupts, progress=progress
    )
    return before


def _case(
    case: Case, model: nn.Module, images: Images, found: GradientCollection, settings: Settings
) -> dict[str, Any]:
    loss, accuracy = evaluate(model, images.test)
    kinds: dict[str, Any] = {}
    for kind in ("gradient", "noise"):
        columns, rows = found.dimension_wise(kind), found.iteration_wise(kind)
        every = found.all_coordinates(kind).rate()
        kinds[kind] = {
            "dimension_wise": structure(columns),
            "iteration_wise": structure(rows),
            "iteration_wise_pearson": rate(found.iteration_wise(kind, test="pearson_chi2").gaussian_rate),
            "all_coordinates": {
                "test": "jarque_bera", "tested": every.tested, "gaussian_rate": every.gaussian_rate,
            },
            "layers": {
                name: {
                    "dimension_wise": structure(found.dimension_wise(kind, name)),
                    "iteration_wise": structure(found.iteration_wise(kind, [name])),
                }
                for name in found.stream(kind).names
            },
        }  # fmt: skip
    top = min(settings.eigenvalues, found.batches // 2)
    return {
        **asdict(case),
        "test_loss": loss,
        "test_accuracy": accuracy,
        "kinds": kinds,
        "spectra": {
            name: spectrum(found.spectrum(centred=centred), top)
            for name, centred in (("second moment", False), ("covariance", True))
        },
        "stability": stability(found.subspace_stability(top=min(_DIRECTIONS, found.batches // 2 - 2))),
        "provenance": found.provenance,
    }  # fmt: skip


def structure(found: Structure) -> dict[str, Any]:
    """Flatten the tests of columns or rows."""
    return {
        "mean_ks": found.mean_ks,
        "mean_critical": float(np.nanmean(found.critical)) if np.isfinite(found.critical).any() else None,
        "power_law_rate": rate(found.power_law_rate),
        "printed_power_law_rate": rate(found.printed_power_law_rate),
        "test": found.test,
        "gaussian_rate": rate(found.gaussian_rate),
        "skipped_constant": found.skipped_constant,
        "skipped_few": found.skipped_few,
        "top": found.top,
    }


def rate(found: Rate) -> dict[str, Any]:
    """Flatten a rate."""
    return {"value": found.value, "ci95": list(found.ci()), "tested": found.tested}


def spectrum(found: CovarianceSpectrum, top: int) -> dict[str, Any]:
    """Flatten a spectrum and its power laws: of the largest, of what so many steps can tell, of gaps."""
    positive = int(np.count_nonzero(found.eigenvalues > 0))
    law = rank_power_law(found, min(top, positive))
    head = rank_power_law(found, min(max(found.steps // STEPS_A_RANK, _FEWEST_IN_HEAD), law.top))
    gaps = eigengaps(found.eigenvalues[: law.top + 1])
    return {
        **power_law(law),
        "head": power_law(head),
        "gaps": power_law(rank_power_law(gaps, int(np.count_nonzero(gaps > 0)))),
        "trace": found.trace, "trace_stderr": found.trace_stderr,
        "participation_ratio": found.participation_ratio,
        "participation_ratio_ci95": list(found.participation_ratio_ci()),
        "eigenvalues": rounded(found.eigenvalues[: law.top]),
        "sketch_stderr": rounded(found.sketch_stderr[: law.top]),
        "sampling_stderr": rounded(found.sampling_stderr[: law.top]),
    }  # fmt: skip


def stability(found: SubspaceStability) -> dict[str, Any]:
    """Flatten the comparison of the leading directions of both halves of the batches."""
    return {
        "overlap": rounded(found.overlap), "sine": rounded(found.sine), "bound": rounded(found.bound),
        "perturbation": found.perturbation,
    }  # fmt: skip


def table(data: dict[str, Any]) -> str:
    """Lay the results out: a line for each network, state and kind, means over seeds."""
    head = f"{'network, state':<26}{'values':<10}{'along':<12}{'distance':>9}"
    head += f"{'power law':>11}{'printed':>10}{'normal':>9}"
    lines = [f"{data['data']}, {data['images']} images, {len(data['cases'])} cases", ""]
    lines += [head, "-" * len(head)]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for case in data["cases"]:
        groups.setdefault((case["network"], case["state"]), []).append(case)
    for (network, state), some in groups.items():
        name = f"{network}, {state}"
        for kind in ("gradient", "noise"):
            for along, key in (("parameters", "dimension_wise"), ("batches", "iteration_wise")):
                found = [one["kinds"][kind][key] for one in some]
                ks = mean(one["mean_ks"] for one in found)
                law, printed, normal = (
                    100 * mean(one[rate]["value"] for one in found)
                    for rate in ("power_law_rate", "printed_power_law_rate", "gaussian_rate")
                )
                lines.append(
                    f"{name:<26}{kind:<10}{along:<12}{ks:>9.4f}{law:>9.1f} %{printed:>8.1f} %{normal:>7.1f} %"
                )
    head = f"{'network, state':<26}{'spectrum':<15}{'K':>5}{'distance':>10}{'5 %':>9}{'slope':>17}"
    head += f"{'log-log':>9}{'K':>6}{'slope':>17}{'gaps':>7}{'overlap':>9}"
    lines += ["", head, "-" * len(head)]
    for (network, state), some in groups.items():
        overlap = mean(one["stability"]["overlap"][-1] for one in some)
        for name in some[0]["spectra"]:
            found = [one["spectra"][name] for one in some]
            heads, gaps = [one["head"] for one in found], [one["gaps"] for one in found]
            means = [mean(one[key] for one in found) for key in ("ks", "critical", "loglog_slope")]
            lines.append(
                f"{network + ', ' + state:<26}{name:<15}{found[0]['top']:>5}{means[0]:>10.4f}{means[1]:>9.4f}"
                f"{_slope(found):>17}{means[2]:>9.3f}{heads[0]['top']:>6}{_slope(heads):>17}"
                f"{mean(one['slope'] for one in gaps):>7.2f}"
                + (f"{overlap:>9.3f}" if name == "covariance" else "")
            )
    lines += [
        "",
        "power law: share of vectors for which it is not rejected at 5 %, exponent fitted; printed: by",
        "1.36 / sqrt(K); normal: by K2, where 95 % of normal vectors pass. Slopes of the rank by maximum",
        "likelihood, with the errors of independent draws and of the sketch, for the K asked for and for as",
        "many eigenvalues as the batches can tell of the law; gaps: slope of eigenvalue gaps; overlap: of",
        f"the first {_DIRECTIONS} directions of both halves of the batches. Means over seeds; the rest is in",
        "results.json.",
    ]
    return "\n".join(lines)


def _slope(found: list[dict[str, Any]]) -> str:
    slope, own, sketch = (
        mean(one[key] for one in found) for key in ("slope", "slope_stderr", "slope_sketch_stderr")
    )
    return f"{slope:.3f} +- {math.hypot(own, sketch):.3f}"
