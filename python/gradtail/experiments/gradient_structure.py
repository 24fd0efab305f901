"""`gradtail reproduce gradient-structure`: whether gradients are heavy-tailed, and along what.

Xie et al., "On the Overlooked Structure of Stochastic Gradients" (2023): gradients of minibatches at fixed
parameters, before and after training, tested for power laws and for normality across parameters and across
batches, and the spectrum of their covariance against a power law of the rank.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradtail.experiments import structure_figures
from gradtail.experiments.classifiers import Training, evaluate, train
from gradtail.experiments.datasets import DIGITS, Images
from gradtail.experiments.networks import LeNet, fully_connected
from gradtail.experiments.structure_numbers import normal_rows, spectrum, stability, tests
from gradtail.experiments.structure_table import table
from gradtail.experiments.studies import (
    INTERRUPTED,
    BadOption,
    images_of,
    machine,
    make_folder,
    write_results,
)
from gradtail.torch import GradientCollection, collect_gradients
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.GradientStructure/1"
NETWORKS: dict[str, Callable[..., nn.Module]] = {"LeNet": LeNet, "fully connected": fully_connected}
STATES = ("random", "trained")

_DIRECTIONS = 10  # compared between both halves of the batches


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's or CIFAR-10's files; None is scikit-learn's digits.
    out : Path
    networks : tuple of str
    seeds : int
        Repeats, from seed 0 on.
    batches, batch_size : int
        T gradients of B examples each.
    eigenvalues : int
        K, which the power law of the rank is fitted to.
    epochs : int or None
        Of training; None is 5 for MNIST and 100 for the digits, of which an epoch has 11 steps.
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
    epochs: int | None = None
    limit: int | None = None

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(data, out, seeds=1, batches=200, eigenvalues=100, limit=10_000)

    def epochs_of(self, images: Images) -> int:
        """Return the epochs of training."""
        return self.epochs or (100 if images.name == DIGITS else 5)


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
    most = len(images.train[0]) // 2
    if settings.batch_size > most:
        raise BadOption(
            f"batch-size: expected at most {most}, half of the training images, got {settings.batch_size}"
        )
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
            settings.batch_size, seed=case.seed, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None


def _write(settings: Settings, images: Images, done: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Write the numbers of the cases done so far, so that none is lost."""
    data = {
        "schema": SCHEMA, "data": images.name, "images": len(images.train[0]), "settings": asdict(settings),
        "training": asdict(Training(settings.epochs_of(images))), "sha256": images.sha256, **machine(),
        "normal_rows": normal_rows(settings.batches),
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
        return NETWORKS[case.network](images.side, channels=images.channels)
    train(
        before, images.train, Training(settings.epochs_of(images)), case.seed, interrupts=interrupts,
        progress=progress,
    )  # fmt: skip
    return before


def _case(
    case: Case, model: nn.Module, images: Images, found: GradientCollection, settings: Settings
) -> dict[str, Any]:
    loss, accuracy = evaluate(model, images.test)
    top = min(settings.eigenvalues, found.batches // 2)
    return {
        **asdict(case),
        "test_loss": loss,
        "test_accuracy": accuracy,
        "kinds": tests(found),
        "spectra": {
            name: spectrum(found.spectrum(centred=centred), top)
            for name, centred in (("second moment", False), ("covariance", True))
        },
        "stability": stability(found.subspace_stability(top=min(_DIRECTIONS, found.batches // 2 - 2))),
        "provenance": found.provenance,
    }  # fmt: skip
