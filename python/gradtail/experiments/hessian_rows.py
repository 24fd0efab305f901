"""What `gradtail reproduce hessian-spectrum` looks at: networks and how they are trained, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from gradtail.experiments.classifiers import MOMENTUM, RATES, Training
from gradtail.experiments.datasets import DIGITS, Images
from gradtail.experiments.hessian_sweeps import (
    BATCHES,
    DEPTHS,
    EPOCHS,
    LANGUAGE,
    NETWORKS,
    NOISES,
    RANDOM_LABELS,
    TRAIN_SIZES,
    WIDTHS,
)

LENET, CONNECTED = "LeNet", "fully connected"


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of MNIST's or CIFAR-10's files; None is scikit-learn's digits.
    out : Path
    sweeps : tuple of str
        Of ``SWEEPS``; none is the networks of the study, random and trained.
    seeds : int
        Repeats, from seed 0 on.
    samples : int
        Training examples that the Hessian is taken over.
    eigenvalues : int or None
        K; None is 1000, and 200 for the digits.
    epochs : int or None
        Of training; None is 50, and 200 for the digits, which have fewer steps in each.
    probes, steps : int
        Random vectors for the density of the spectrum, and products for each.
    limit : int or None
        Training images at most.
    text_steps : int
        Training steps of the language model.
    """

    data: Path | None = None
    out: Path = Path("gradtail-hessian-spectrum")
    sweeps: tuple[str, ...] = ()
    seeds: int = 1
    samples: int = 512
    eigenvalues: int | None = None
    epochs: int | None = None
    probes: int = 10
    steps: int = 50
    limit: int | None = None
    text_steps: int = 1000

    @classmethod
    def quick(cls, data: Path | None, out: Path) -> Settings:
        """Return settings that take less than two minutes on two cores."""
        return cls(
            data, out, samples=256, eigenvalues=50, epochs=100, probes=4, steps=30, limit=2000, text_steps=60
        )

    def top(self, images: Images) -> int:
        """Return K."""
        return self.eigenvalues or (200 if images.name == DIGITS else 1000)

    def epochs_of(self, images: Images) -> int:
        """Return the epochs of training."""
        return self.epochs or (200 if images.name == DIGITS else 50)


@dataclass(frozen=True)
class Net:
    """A classifier, and what it was trained by; one Hessian.

    Attributes
    ----------
    network : str
    width, depth : int
        Of a fully connected one; zero of a LeNet.
    epochs, until : int
        That the rate is planned for, and done; zero is the random network.
    optimizer : str
    batch : int
    examples : int or None
        Training examples; None is all.
    noise : str
        Share of labels that were flipped, or "random labels"; empty is none.
    seed : int
    """

    network: str
    width: int = 0
    depth: int = 0
    epochs: int = 0
    until: int = 0
    optimizer: str = MOMENTUM
    batch: int = Training.batch
    examples: int | None = None
    noise: str = ""
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it, for a file of its own too."""
        parts = [self.network]
        if self.network == CONNECTED:
            parts.append(f"{self.depth}x{self.width}")
        if self.until:
            parts += [f"{self.until}of{self.epochs}", self.optimizer, f"b{self.batch}"]
            parts += [f"n{self.examples}"] if self.examples else []
            parts += [f"noise {self.noise}"] if self.noise else []
        return "-".join([*parts, f"s{self.seed}"]).replace(" ", "_")

    def training(self) -> Training:
        """Return how it is trained."""
        return Training(self.epochs, self.batch, RATES[self.optimizer], optimizer=self.optimizer)


@dataclass(frozen=True)
class Checkpoint:
    """The language model after some steps of training; the Hessian of its last layer."""

    step: int
    of: int
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it, for a file of its own too."""
        return f"GPT-{self.step}of{self.of}-s{self.seed}"


Item: TypeAlias = Net | Checkpoint


@dataclass(frozen=True)
class Row:
    """A line of a table: what is varied, its value, and what it is of.

    Attributes
    ----------
    sweep, setting : str
    item : Net or Checkpoint
    value : float or None
        Of what is varied, where that is a number.
    """

    sweep: str
    setting: str
    item: Item
    value: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is written of it."""
        return {
            "sweep": self.sweep, "setting": self.setting, "seed": self.item.seed, "value": self.value,
            "key": self.item.key, "item": asdict(self.item),
        }  # fmt: skip


def rows(settings: Settings, images: Images) -> list[Row]:
    """Return all rows; several may be of the same network."""
    wanted = settings.sweeps or (NETWORKS,)
    return [
        row
        for seed in range(settings.seeds)
        for sweep in wanted
        for row in _of(sweep, settings, images, seed)
    ]


def left_out(settings: Settings, images: Images) -> list[str]:
    """Say which values of a sweep cannot be had here."""
    said = []
    count = len(images.train[0])
    for sweep, values, most, what in (
        ("batch-size", BATCHES, count, "training images"), ("train-size", TRAIN_SIZES, count, "of them"),
        ("epochs", EPOCHS, settings.epochs_of(images), "epochs"),
    ):  # fmt: skip
        if sweep in settings.sweeps and any(value > most for value in values):
            which = ", ".join(str(value) for value in values if value > most)
            said.append(f"{sweep} {which} left out: there are {most} {what}")
    return said


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which a language model is looked at, evenly in their logarithm."""
    found = {0, steps}
    step = 10.0
    while step < steps:
        found.add(round(step))
        step *= 10**0.25
    return sorted(found)


def _of(sweep: str, settings: Settings, images: Images, seed: int) -> Iterator[Row]:
    lenet = Net(LENET, seed=seed)
    connected = Net(CONNECTED, 100, 2, seed=seed)
    epochs, count = settings.epochs_of(images), len(images.train[0])
    trained = replace(lenet, epochs=epochs, until=epochs)

    def after_training(net: Net) -> Net:
        return replace(net, epochs=epochs, until=epochs)

    if sweep == NETWORKS:
        for net, name in ((lenet, "LeNet"), (connected, "two-layer")):
            yield Row(sweep, f"{name}, random", net)
            yield Row(sweep, f"{name}, trained", after_training(net))
        yield Row(sweep, "one-layer, trained", after_training(replace(connected, width=0, depth=1)))
    elif sweep == "optimizer":
        for name in RATES:
            yield Row(sweep, name, replace(trained, optimizer=name))
    elif sweep == "batch-size":
        for size in BATCHES:
            if size <= count:
                yield Row(sweep, str(size), replace(trained, batch=size), size)
    elif sweep == "train-size":
        for size in TRAIN_SIZES:
            if size <= count:
                yield Row(sweep, str(size), replace(trained, examples=size), size)
    elif sweep == "label-noise":
        yield Row(sweep, "none", trained, 0.0)
        for noise in NOISES:
            setting = noise if noise == RANDOM_LABELS else f"{float(noise):.0%} flipped"
            value = None if noise == RANDOM_LABELS else float(noise)
            yield Row(sweep, setting, replace(trained, noise=noise), value)
    elif sweep == "width":
        for width in WIDTHS:
            yield Row(sweep, str(width), after_training(replace(connected, width=width)), width)
    elif sweep == "depth":
        for depth in DEPTHS:
            net = replace(connected, depth=depth, width=100 if depth > 1 else 0)
            yield Row(sweep, f"{depth}, random", net, depth)
            yield Row(sweep, f"{depth}, trained", after_training(net), depth)
    elif sweep == "epochs":
        for until in EPOCHS:
            if until <= epochs:
                yield Row(sweep, str(until), replace(trained, until=until), until)
    elif sweep == LANGUAGE:
        for step in checkpoints(settings.text_steps):
            yield Row(sweep, f"step {step}", Checkpoint(step, settings.text_steps, seed), step)
