"""`gradtail reproduce heavy-tail-sgd`: when the iterates of SGD become heavy-tailed.

Gurbuzbalaban, Simsekli and Zhu, "The Heavy-Tail Phenomenon in SGD" (2021, arXiv:2006.04740): least squares,
where theory gives the tail index, and networks over step size and batch size, with the index of each layer's
averaged iterates, the largest eigenvalue of the Hessian and the generalization gap side by side.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradtail.experiments import heavy_tail_figures, heavy_tail_squares
from gradtail.experiments.cases import checksum, go_through, missing, read_results, told
from gradtail.experiments.datasets import Images
from gradtail.experiments.heavy_tail_network import BATCHES, RATES, Network
from gradtail.experiments.heavy_tail_network import examine as examine_network
from gradtail.experiments.heavy_tail_squares import POINTS, Squares
from gradtail.experiments.heavy_tail_table import orders, table
from gradtail.experiments.studies import images_of, machine, make_folder, write_results
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.HeavyTailSGD/1"
_FREE = ("data", "out", "seeds")  # settings that leave the numbers of a case as they are


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's or CIFAR-10's files; None is scikit-learn's digits.
    out : Path
    seeds : int
        Repeats of the networks, from seed 0 on.
    rates, batches : tuple
        Step sizes and batch sizes of the networks: all pairs.
    width, depth : int
        Of the networks, which are fully connected and have no biases.
    iterations, last : int
        Steps of each, and iterates at the end that are averaged.
    samples : int
        Training examples that the largest eigenvalue of the Hessian is taken over.
    chains, steps : int
        Of the simulation of least squares.
    limit : int or None
        Training images at most.
    """

    data: Path | None = None
    out: Path = Path("gradtail-heavy-tail-sgd")
    seeds: int = 1
    rates: tuple[float, ...] = RATES
    batches: tuple[int, ...] = BATCHES
    width: int = 128
    depth: int = 3
    iterations: int = 10_000
    last: int = 1000
    samples: int = 512
    chains: int = 20_000
    steps: int = 1000
    limit: int | None = None

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(
            data, out, rates=(0.01, 0.03, 0.1), batches=(1, 10), iterations=2000, last=500, chains=2000,
            steps=400, limit=10_000,
        )  # fmt: skip


def run(settings: Settings, *, progress: bool | None = None) -> int:
    """Run all cases that the folder does not hold yet, write it anew, and return the exit code.

    Raises
    ------
    BadOption
        Data that cannot be read, or a folder that cannot be made or holds results of other settings.
    """
    study = _Study(settings, images_of(settings.data, settings.limit), progress)
    make_folder(settings.out)
    study.read()
    with Interrupts() as interrupts:
        study.run(interrupts)
    data = study.write()
    heavy_tail_figures.write(settings.out, data)
    return told(settings.out, table(data), data["complete"])


class _Study:
    """Cases that are wanted, and those that are done."""

    def __init__(self, settings: Settings, images: Images, progress: bool | None) -> None:
        self._settings, self._images, self._progress = settings, images, progress
        items: list[Squares | Network] = [
            Squares(*point, settings.chains, settings.steps) for point in POINTS
        ]
        items += [
            Network(eta, batch, seed, settings.width, settings.depth, settings.iterations, settings.last)
            for seed in range(settings.seeds)
            for batch in settings.batches
            for eta in settings.rates
        ]
        self._items = {item.key: item for item in items}
        kept = {name: value for name, value in asdict(settings).items() if name not in _FREE}
        self._identity = {
            "data": images.name, "checksum": checksum(images),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()},
        }  # fmt: skip
        self._curves: list[dict[str, Any]] = []
        self._began, self._before = time.perf_counter(), 0.0
        self._cases: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """Take over what the folder holds."""
        data = read_results(self._settings.out, SCHEMA, self._identity)
        if data is not None:
            self._cases = {case["key"]: case for case in data["cases"]}
            self._curves, self._before = data["curves"], data["seconds"]

    def run(self, interrupts: Interrupts) -> None:
        """Go through all that is not done."""
        left = missing(self._items, self._cases)
        if left:
            print(
                f"{len(left)} cases: least squares, and networks of {self._settings.iterations} steps each. "
                "Ctrl-C keeps what is done, and the same command goes on from there.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if not self._curves:
            self._curves = heavy_tail_squares.curves()
        self.write()

        def examined(key: str, item: Squares | Network) -> dict[str, Any] | None:
            if isinstance(item, Squares):
                found, kind = heavy_tail_squares.examine(item, interrupts), "squares"
            else:
                samples, kind = self._settings.samples, "network"
                found = examine_network(item, self._images, samples, interrupts, self._progress)
            return None if found is None else {"kind": kind, **found}

        go_through(left, self._cases, examined, self.write, interrupts)

    def write(self) -> dict[str, Any]:
        """Write the numbers of the cases done so far, so that none is lost."""
        cases = [self._cases[key] for key in self._items if key in self._cases]
        cases += [case for key, case in self._cases.items() if key not in self._items]
        networks = [case for case in cases if case["kind"] == "network" and case["lost"] is None]
        data = {
            "schema": SCHEMA, "identity": self._identity, "data": self._images.name,
            "images": len(self._images.train[0]), "sha256": self._images.sha256,
            "settings": asdict(self._settings), **machine(), "curves": self._curves,
            "complete": all(key in self._cases for key in self._items),
            "seconds": self._before + time.perf_counter() - self._began, "orders": orders(networks),
            "cases": cases,
        }  # fmt: skip
        write_results(self._settings.out, data, table(data))
        return data
