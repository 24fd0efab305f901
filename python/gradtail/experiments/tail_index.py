"""`gradtail reproduce tail-index`: the stable index of gradient noise, and what explains it.

Simsekli, Sagun and Gurbuzbalaban, "A Tail-Index Analysis of Stochastic Gradient Noise" (2019,
arXiv:1901.06053), over width, depth, batch size and loss, with the controls that its number needs: zeros,
mixed scales, normal noise of the same variances.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradtail.experiments import tail_index_figures
from gradtail.experiments.cases import checksum, go_through, missing, read_results, told
from gradtail.experiments.datasets import DIGITS, Images
from gradtail.experiments.studies import (
    INTERRUPTED,
    BadOption,
    images_of,
    machine,
    make_folder,
    write_results,
)
from gradtail.experiments.tail_index_case import FEWEST_BATCHES, Network, examine
from gradtail.experiments.tail_index_rows import (
    BATCHES,
    CHANNELS,
    CONVOLUTIONAL,
    DEPTH,
    DEPTHS,
    FULLY_CONNECTED,
    LOSSES,
    SWEEPS,
    WIDTH,
    WIDTHS,
)
from gradtail.experiments.tail_index_table import jump, slopes, table
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.TailIndex/1"
_FREE = ("data", "out", "seeds", "sweeps", "losses", "few")  # that leave the numbers of a case as they are
_SMALL = 3  # values of a sweep in the quick form


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's or CIFAR-10's files; None is scikit-learn's digits.
    out : Path
    sweeps, losses : tuple of str
    seeds : int
        Repeats, from seed 0 on.
    iterations : int
        Steps of training.
    looks, batches : int
        Times at which the noise is looked at, and gradients then.
    batch_size : int or None
        Where it is not varied; None is 100, and 20 for the digits, which are few.
    limit : int or None
        Training images at most.
    few : bool
        Three values of each sweep alone.
    """

    data: Path | None = None
    out: Path = Path("gradtail-tail-index")
    sweeps: tuple[str, ...] = SWEEPS
    losses: tuple[str, ...] = LOSSES
    seeds: int = 1
    iterations: int = 4000
    looks: int = 12
    batches: int = 50
    batch_size: int | None = None
    limit: int | None = None
    few: bool = False

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(
            data, out, sweeps=("width", "batch-size"), losses=LOSSES[:1], iterations=300, looks=8, batches=24,
            limit=5000, few=True,
        )  # fmt: skip

    def batch_of(self, images: Images) -> int:
        """Return the batch size where it is not varied."""
        return self.batch_size or (20 if images.name == DIGITS else 100)


def rows(settings: Settings, images: Images) -> list[dict[str, Any]]:
    """Return the rows of all sweeps: what is varied, its value, the loss and the network."""
    batch = settings.batch_of(images)
    most = len(images.train[0]) // FEWEST_BATCHES
    made = []
    for seed in range(settings.seeds):
        for loss in settings.losses:
            for sweep in settings.sweeps:
                for value in _values(sweep, settings.few, most):
                    width, depth, network, own = WIDTH, DEPTH, FULLY_CONNECTED, batch
                    if sweep == "width":
                        width = value
                    elif sweep == "depth":
                        depth = value
                    elif sweep == "batch-size":
                        own = value
                    else:
                        network, width, depth = CONVOLUTIONAL, value, 0
                    item = Network(
                        network, loss, width, depth, own, seed, settings.iterations, settings.looks,
                        settings.batches,
                    )  # fmt: skip
                    made.append({"sweep": sweep, "value": value, "loss": loss, "seed": seed, "item": item})
    return made


def _values(sweep: str, few: bool, most: int) -> tuple[int, ...]:
    values = {"width": WIDTHS, "depth": DEPTHS, "batch-size": BATCHES, "channels": CHANNELS}[sweep]
    if sweep == "batch-size":
        values = tuple(value for value in values if value <= most)
    if few and len(values) > _SMALL:
        cut = values[:-2] if sweep == "width" else values  # the widest take longest
        values = cut[:: max((len(cut) - 1) // (_SMALL - 1), 1)][:_SMALL]
    return values


def run(settings: Settings, *, progress: bool | None = None) -> int:
    """Run all cases that the folder does not hold yet, write it anew, and return the exit code.

    Raises
    ------
    BadOption
        Data that cannot be read, or a folder that cannot be made or holds results of other settings.
    """
    images = images_of(settings.data, settings.limit)
    fewest = min(len(images.train[0]), len(images.test[0]))
    if fewest < FEWEST_BATCHES:
        raise BadOption(
            f"data: expected at least {FEWEST_BATCHES} images to train on and as many to test, got {fewest}"
        )
    study = _Study(settings, images, progress)
    make_folder(settings.out)
    study.read()
    with Interrupts() as interrupts:
        study.run(interrupts)
    if not study.cases:
        print("Interrupted before the first case was done: there is nothing to show.", file=sys.stderr)
        return INTERRUPTED
    data = study.write()
    tail_index_figures.write(settings.out, data)
    return told(settings.out, table(data), data["complete"])


class _Study:
    """Rows that are wanted, and cases that are done."""

    def __init__(self, settings: Settings, images: Images, progress: bool | None) -> None:
        self._settings, self._images, self._progress = settings, images, progress
        self._rows = rows(settings, images)
        self._items: dict[str, Network] = {row["item"].key: row["item"] for row in self._rows}
        kept = {name: value for name, value in asdict(settings).items() if name not in _FREE}
        self._identity = {"data": images.name, "checksum": checksum(images), **kept}
        self._identity["batch_size"] = settings.batch_of(images)
        self._began, self._before = time.perf_counter(), 0.0
        self._earlier: list[dict[str, Any]] = []
        self.cases: dict[str, dict[str, Any]] = {}

    def read(self) -> None:
        """Take over what the folder holds."""
        data = read_results(self._settings.out, SCHEMA, self._identity)
        if data is None:
            return
        self.cases = {case["key"]: case for case in data["cases"]}
        wanted = {(row["sweep"], row["item"].key) for row in self._rows}
        self._earlier = [
            row for row in data["rows"]
            if row["key"] in self.cases and (row["sweep"], row["key"]) not in wanted
        ]  # fmt: skip
        self._before = data["seconds"]

    def run(self, interrupts: Interrupts) -> None:
        """Go through all that is not done."""
        left = missing(self._items, self.cases)
        if left:
            print(
                f"{len(left)} networks of {self._settings.iterations} steps each. Ctrl-C keeps what is done, "
                "and the same command goes on from there.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        self.write()
        go_through(
            left, self.cases, lambda key, item: examine(item, self._images, interrupts, self._progress),
            self.write, interrupts,
        )  # fmt: skip

    def write(self) -> dict[str, Any]:
        """Write the numbers of the cases done so far, so that none is lost."""
        own = [
            {**{name: row[name] for name in ("sweep", "value", "loss", "seed")}, "key": row["item"].key}
            for row in self._rows
        ]
        every = [*self._earlier, *own]
        data = {
            "schema": SCHEMA, "identity": self._identity, "data": self._images.name,
            "images": len(self._images.train[0]), "sha256": self._images.sha256,
            "settings": asdict(self._settings), **machine(), "rows": every,
            "complete": all(key in self.cases for key in self._items),
            "seconds": self._before + time.perf_counter() - self._began,
            "slopes": slopes(every, self.cases),
            "jumps": {key: jump(case) for key, case in self.cases.items()},
            "cases": list(self.cases.values()),
        }  # fmt: skip
        write_results(self._settings.out, data, table(data))
        return data
