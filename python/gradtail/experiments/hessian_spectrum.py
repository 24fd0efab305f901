"""`gradtail reproduce hessian-spectrum`: whether the eigenvalues of the Hessian follow a power law.

Xie et al., "On the Power-Law Hessian Spectrums in Deep Learning" (2022, arXiv:2201.13011): the largest
eigenvalues of random and of trained networks against their rank, and what they depend on.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from gradtail.experiments import hessian_figures
from gradtail.experiments.cases import checksum, go_through, missing, read_results, told
from gradtail.experiments.classifiers import Training
from gradtail.experiments.datasets import MNIST, Images
from gradtail.experiments.gpt import GPTConfig
from gradtail.experiments.hessian_case import Weights, examine
from gradtail.experiments.hessian_cost import estimate
from gradtail.experiments.hessian_language import Language, correlation
from gradtail.experiments.hessian_published import audit, published
from gradtail.experiments.hessian_rows import Checkpoint, Item, Net, Row, Settings, left_out, rows
from gradtail.experiments.hessian_sweeps import LANGUAGE
from gradtail.experiments.hessian_table import groups, table
from gradtail.experiments.studies import (
    INTERRUPTED,
    BadOption,
    duration,
    images_of,
    machine,
    make_folder,
    write_results,
)
from gradtail.experiments.text import load_text
from gradtail.torch.interrupts import Interrupts

SCHEMA = "gradtail.HessianSpectrumStudy/1"
_FREE = ("data", "out", "sweeps", "seeds")  # settings that leave the numbers of a case as they are


def run(settings: Settings, *, progress: bool | None = None, language: GPTConfig | None = None) -> int:
    """Run all cases that the folder does not hold yet, write it anew, and return the exit code.

    Parameters
    ----------
    settings : Settings
    progress : bool, optional
        Show how far each case is; default: on a terminal.
    language : GPTConfig, optional
        Shape of the language model; default: the demo's.

    Raises
    ------
    BadOption
        Data that cannot be read, or a folder that cannot be made or holds results of other settings.
    """
    images = images_of(settings.data, settings.limit)
    study = _Study(settings, images, language or GPTConfig())
    make_folder(settings.out)
    study.read()
    with Interrupts() as interrupts:
        study.run(interrupts, progress)
    if not study.cases:
        print("Interrupted before the first case was done: there is nothing to show.", file=sys.stderr)
        return INTERRUPTED
    data = study.write()
    hessian_figures.write(settings.out, groups(data), data)
    return told(settings.out, table(data), data["complete"])


class _Study:
    """Rows that are wanted, and cases that are done."""

    def __init__(self, settings: Settings, images: Images, config: GPTConfig) -> None:
        self._settings, self._images = settings, images
        self._identity = _identity(settings, images, config)
        self._rows = [self._as_dict(row) for row in rows(settings, images)]
        self._items: dict[str, Item] = {row.item.key: row.item for row in rows(settings, images)}
        self._left_out = left_out(settings, images)
        self._began, self._before = time.perf_counter(), 0.0
        self.cases: dict[str, dict[str, Any]] = {}
        identity = json.dumps(self._identity, sort_keys=True)
        weights = Weights(settings.out / "weights", identity)
        self._weights = weights
        self._language = None
        if LANGUAGE in settings.sweeps:
            try:
                text = load_text(least=config.context + 1)
            except ValueError as error:
                raise BadOption(f"sweep: expected a standard library to train on ({error})") from None
            self._language = Language(text, config, settings, weights)

    def read(self) -> None:
        """Take over what a folder holds, if it is of the same settings.

        Raises
        ------
        BadOption
            It is of others, or something else.
        """
        data = read_results(self._settings.out, SCHEMA, self._identity)
        if data is None:
            return
        self.cases = {case["key"]: case for case in data["cases"]}
        wanted = {(row["sweep"], row["setting"], row["seed"]) for row in self._rows}
        earlier = [row for row in data["rows"] if (row["sweep"], row["setting"], row["seed"]) not in wanted]
        self._rows = [row for row in earlier if row["key"] in self.cases] + self._rows
        self._left_out += [line for line in data["left_out"] if line not in self._left_out]
        self._before = data["seconds"]

    def run(self, interrupts: Interrupts, progress: bool | None) -> None:
        """Go through all that is not done, and write after each."""
        for line in self._left_out:
            print(line, file=sys.stderr)
        left = missing(self._items, self.cases)
        if left:
            seconds = estimate(list(left.values()), self._settings, self._images, self._language)
            self._announce(left, seconds)
        self.write()

        def examined(key: str, item: Item) -> dict[str, Any] | None:
            found = self._examine(item, interrupts, progress)
            return None if found is None else {**asdict(item), **found}

        go_through(left, self.cases, examined, self.write, interrupts)

    def write(self) -> dict[str, Any]:
        """Write the numbers of the cases done so far, so that none is lost."""
        data = {
            "schema": SCHEMA, "identity": self._identity, "data": self._images.name,
            "images": len(self._images.train[0]), "settings": asdict(self._settings),
            "training": asdict(Training(self._settings.epochs_of(self._images))), **machine(),
            "complete": all(key in self.cases for key in self._items),
            "seconds": self._before + time.perf_counter() - self._began, "rows": self._rows,
            "left_out": self._left_out, "correlation": self._correlations(),
            "audit": [
                {"table": of, "setting": setting, "flags": list(flags)}
                for (of, setting), flags in audit().items()
            ],
            "cases": list(self.cases.values()),
        }  # fmt: skip
        write_results(self._settings.out, data, table(data))
        return data

    def _examine(self, item: Item, interrupts: Interrupts, progress: bool | None) -> dict[str, Any] | None:
        if isinstance(item, Net):
            return examine(item, self._images, self._settings, self._weights, interrupts, progress)
        assert self._language is not None
        return self._language.examine(item, interrupts, progress)

    def _announce(self, left: dict[str, Item], seconds: float) -> None:
        sweeps = ", ".join(self._settings.sweeps) or "random and trained networks"
        nets = any(isinstance(item, Net) for item in left.values())
        top, samples = self._settings.top(self._images), self._settings.samples
        of_nets = f", of networks {top} eigenvalues over {samples} examples each" if nets else ""
        print(
            f"{duration(seconds).capitalize()}: {len(left)} cases of {sweeps}{of_nets}. Ctrl-C keeps what "
            "is done, and the same command goes on from there.",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def _as_dict(self, row: Row) -> dict[str, Any]:
        # Print is of MNIST: beside other images it would say nothing.
        other = published(row.sweep, row.setting) if self._images.name == MNIST else None
        if isinstance(row.item, Checkpoint):
            at = {0: "before", row.item.of: "after"}.get(row.item.step, "")
            other = published(row.sweep, at)
        return {**row.as_dict(), "published": None if other is None else asdict(other)}

    def _correlations(self) -> dict[str, Any]:
        """Return the correlation of distance and held-out loss over the checkpoints of each seed.

        "after_start" leaves out the network before training, which is none of its way.
        """
        found: dict[str, Any] = {}
        for seed in sorted({row["seed"] for row in self._rows if row["sweep"] == LANGUAGE}):
            some = [
                self.cases[row["key"]] for row in self._rows
                if row["sweep"] == LANGUAGE and row["seed"] == seed and row["key"] in self.cases
            ]  # fmt: skip
            known = [case for case in some if case.get("spectrum", {}).get("power_law") is not None]
            every, trained = (
                correlation(
                    [case["spectrum"]["power_law"]["ks"] for case in part],
                    [case["test_loss"] for case in part],
                )
                for part in (known, [case for case in known if case["step"]])
            )
            found[str(seed)] = None if every is None else {**every, "after_start": trained}
        return found


def _identity(settings: Settings, images: Images, config: GPTConfig) -> dict[str, Any]:
    """Return what the numbers of a case depend on."""
    kept = {name: value for name, value in asdict(settings).items() if name not in _FREE}
    return {
        "data": images.name, "checksum": checksum(images), **kept, "eigenvalues": settings.top(images),
        "epochs": settings.epochs_of(images),
        "language model": asdict(config),
    }  # fmt: skip
