"""`gradtail reproduce epoch-noise`: what noise that cancels over an epoch does to weights.

Kuehn and Rosenow, "Correlated Noise in Epoch-Based Stochastic Gradient Descent: Implications for Weight
Variances" (2023, arXiv:2306.05300): a quadratic, least squares with the gradients of its own examples, and a
network near a minimum along the eigenvectors of its Hessian.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradtail.experiments import epoch_noise_figures
from gradtail.experiments.cases import checksum, go_through, missing, read_results, told
from gradtail.experiments.datasets import Images
from gradtail.experiments.epoch_noise_network import (
    Minimum,
    Network,
    examine,
    find_minimum,
    parameters_of,
)
from gradtail.experiments.epoch_noise_table import table
from gradtail.experiments.epoch_noise_theory import (
    Quadratic,
    Squares,
    exact_table,
    examine_quadratic,
    examine_squares,
)
from gradtail.experiments.studies import (
    BadOption,
    images_of,
    machine,
    make_folder,
    write_results,
)
from gradtail.theory.epochs import Policy
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.EpochNoise/1"
_FREE = ("data", "out", "seeds", "policies")  # settings that leave the numbers of a case as they are
_FEWEST = 3  # batches of an epoch


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's or CIFAR-10's files; None is scikit-learn's digits, shifted.
    out : Path
    seeds : int
        Repeats of the network, from seed 0 on.
    policies : tuple of str
        Ways of drawing batches for the network.
    batch, rate, momentum, decay, width, training, epochs, directions
        Of the network: see :class:`gradtail.experiments.epoch_noise_network.Network`.
    simulated : tuple of int
        Epochs and runs of the quadratic.
    squares : tuple of (float, int)
        Step sizes of least squares, and epochs of each.
    runs : int
        Of least squares.
    limit : int or None
        Training images at most.
    """

    data: Path | None = None
    out: Path = Path("gradtail-epoch-noise")
    seeds: int = 1
    policies: tuple[Policy, ...] = ("reshuffle", "replacement")
    batch: int = 50
    rate: float = 0.006
    momentum: float = 0.9
    decay: float = 2e-3
    width: int = 32
    training: int = 30
    epochs: int = 100
    directions: int = 300
    simulated: tuple[int, int] = (400, 32)
    squares: tuple[tuple[float, int], ...] = ((0.02, 400), (0.004, 1200))
    runs: int = 16
    limit: int | None = 20_000

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(
            data, out, policies=("reshuffle",), training=15, epochs=40, directions=200, simulated=(100, 16),
            squares=((0.02, 150),), runs=8, limit=10_000,
        )  # fmt: skip


def run(settings: Settings, *, progress: bool | None = None) -> int:
    """Run all cases that the folder does not hold yet, write it anew, and return the exit code.

    Raises
    ------
    BadOption
        Data that cannot be read, batches that are too large for them, more directions than the network has
        parameters or memory holds, a step size at which SGD is unstable or diverges, or a folder that cannot
        be made or holds results of other settings.
    """
    study = _Study(settings, images_of(settings.data, settings.limit), progress)
    make_folder(settings.out)
    study.read()
    with Interrupts() as interrupts:
        study.run(interrupts)
    data = study.write()
    epoch_noise_figures.write(settings.out, data)
    return told(settings.out, table(data), data["complete"])


class _Study:
    """Cases that are wanted, and those that are done."""

    def __init__(self, settings: Settings, images: Images, progress: bool | None) -> None:
        self._settings, self._images, self._progress = settings, images, progress
        if settings.batch * _FEWEST > len(images.train[0]):
            raise BadOption(
                f"batch-size: expected at most {len(images.train[0]) // _FEWEST}, a third of the images, "
                f"got {settings.batch}"
            )
        parameters = parameters_of(images, settings.width)
        if settings.directions > parameters:
            raise BadOption(
                f"directions: expected at most {parameters}, the parameters of the network, got "
                f"{settings.directions}"
            )
        items: list[Quadratic | Squares | Network] = [
            Quadratic(policy, *settings.simulated) for policy in ("reshuffle", "replacement", "fixed")
        ]
        items += [Squares(eta, epochs, settings.runs) for eta, epochs in settings.squares]
        items += [
            Network(
                policy, settings.batch, settings.rate, settings.momentum, settings.decay, settings.width,
                settings.training, settings.epochs, settings.directions, seed,
            )
            for seed in range(settings.seeds)
            for policy in settings.policies
        ]  # fmt: skip
        self._items = {item.key: item for item in items}
        kept = {name: value for name, value in asdict(settings).items() if name not in _FREE}
        self._identity = {
            "data": images.name, "checksum": checksum(images),
            **{name: _plain(value) for name, value in kept.items()},
        }  # fmt: skip
        self._began, self._before = time.perf_counter(), 0.0
        self._cases: dict[str, dict[str, Any]] = {}
        self._minimum: Minimum | None = None

    def read(self) -> None:
        """Take over what the folder holds."""
        data = read_results(self._settings.out, SCHEMA, self._identity)
        if data is not None:
            self._cases = {case["key"]: case for case in data["cases"]}
            self._before = data["seconds"]

    def run(self, interrupts: Interrupts) -> None:
        """Go through all that is not done."""
        left = missing(self._items, self._cases)
        if left:
            print(
                f"{len(left)} cases: a quadratic, least squares, and a network along "
                f"{self._settings.directions} eigenvectors. Ctrl-C keeps what is done, and the same command "
                "goes on from there.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        self.write()

        def examined(key: str, item: Quadratic | Squares | Network) -> dict[str, Any] | None:
            if isinstance(item, Quadratic):
                return {"kind": "quadratic", **examine_quadratic(item)}
            if isinstance(item, Squares):
                found = examine_squares(item, interrupts)
                return None if found is None else {"kind": "squares", **found}
            found = self._network(item, interrupts)
            return None if found is None else {"kind": "network", **found}

        go_through(left, self._cases, examined, self.write, interrupts)

    def _network(self, item: Network, interrupts: Interrupts) -> dict[str, Any] | None:
        if self._minimum is None or self._minimum.start != item.start:
            self._minimum = find_minimum(item, self._images, interrupts, self._progress)
        if self._minimum is None:
            return None
        return examine(item, self._minimum, interrupts, self._progress)

    def write(self) -> dict[str, Any]:
        """Write the numbers of the cases done so far, so that none is lost."""
        cases = [self._cases[key] for key in self._items if key in self._cases]
        cases += [case for key, case in self._cases.items() if key not in self._items]
        data = {
            "schema": SCHEMA, "identity": self._identity, "data": self._images.name,
            "images": len(self._images.train[0]), "sha256": self._images.sha256,
            "settings": asdict(self._settings), **machine(), "exact": exact_table(),
            "complete": all(key in self._cases for key in self._items),
            "seconds": self._before + time.perf_counter() - self._began, "cases": cases,
        }  # fmt: skip
        write_results(self._settings.out, data, table(data))
        return data


def _plain(value: Any) -> Any:
    """Return tuples as the lists that JSON makes of them."""
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value
