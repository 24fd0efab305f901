"""One network of `gradtail reproduce tail-index`: the stable index of its gradient noise in training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradtail.estimators.stable import StableEstimate
from gradtail.experiments.classifiers import evaluate
from gradtail.experiments.datasets import Images
from gradtail.experiments.networks import convolutional, fully_connected
from gradtail.experiments.tail_index_rows import CONVOLUTIONAL, HINGE
from gradtail.torch import collect_gradients
from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts

FEWEST_BATCHES = 16
"""That data are cut into at least: for larger batches there is too little of them."""

_MEMORY = "6GiB"
_CONTROLS = (
    "zeros_kept", "quantiles", "characteristic", "gaussian", "gaussian_typical", "standardised", "shuffled",
    "standardised_shuffled", "across_batches",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A network without biases, trained by plain SGD; the rate is halved after each third.

    Attributes
    ----------
    network, loss : str
    width, depth : int
        Of a fully connected one; the channels of the first layer and 0 of a convolutional one.
    batch, seed : int
    iterations, looks, batches : int
        Steps; times at which the noise is looked at, evenly in the logarithm of the step; and gradients then.
    rate : float
    """

    network: str
    loss: str
    width: int
    depth: int
    batch: int
    seed: int
    iterations: int
    looks: int
    batches: int
    rate: float = 0.1

    @property
    def key(self) -> str:
        """Name it."""
        shape = f"{self.width}" if self.network == CONVOLUTIONAL else f"{self.depth}x{self.width}"
        return f"{self.network}-{shape}-{self.loss}-b{self.batch}-s{self.seed}".replace(" ", "_")

    def make(self, images: Images) -> nn.Module:
        """Make it as it is before training."""
        torch.manual_seed(self.seed)
        if self.network == CONVOLUTIONAL:
            return convolutional(images.side, self.width, channels=images.channels)
        return fully_connected(images.side, self.width, self.depth, channels=images.channels, bias=False)

    @property
    def looked_at(self) -> list[int]:
        """Steps before which the noise is looked at: the first, and up to the last."""
        first = min(10, self.iterations)
        between = max(self.looks - 2, 0)
        ratio = (self.iterations / first) ** (1 / max(between, 1))
        return sorted({0, self.iterations, *(round(first * ratio**i) for i in range(between))})


def linear_hinge(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over examples and classes of max(0, 1 - t o), t = 1 for the class and -1 for others."""
    signs = 2 * nn.functional.one_hot(target, output.shape[1]).to(output.dtype) - 1
    return torch.relu(1 - signs * output).mean()


def examine(
    at: Network, images: Images, interrupts: Interrupts, progress: bool | None
) -> dict[str, Any] | None:
    """Train a network and look at its noise on the way; None after Ctrl-C."""
    began = time.perf_counter()
    model = at.make(images)
    loss: Callable[[Tensor, Tensor], Tensor] = (
        linear_hinge if at.loss == HINGE else nn.functional.cross_entropy
    )
    inputs, targets = images.train
    order = torch.Generator().manual_seed(at.seed)
    parameters: list[Tensor] = list(model.parameters())
    looks: list[dict[str, Any]] = []
    waiting = at.looked_at
    index, place = torch.empty(0, dtype=torch.int64), 0
    batch = min(at.batch, len(inputs))
    ended = "all steps"
    with Countdown("training", at.iterations, progress) as countdown:
        for step in range(at.iterations + 1):
            if interrupts.stopped:
                return None
            if waiting and step == waiting[0]:
                waiting.pop(0)
                found = look(model, loss, images.train, at, images)
                if found is None or interrupts.stopped:
                    return None  # the noise may be of fewer batches
                looks.append({"step": step, **found})
                if not math.isfinite(found["loss"]):
                    ended = "diverged"
                elif found["accuracy"] == 1:
                    ended = "all training examples right"
                if ended != "all steps":
                    break
            if step == at.iterations:
                break
            if place + batch > len(index):
                index, place = torch.randperm(len(inputs), generator=order), 0
            chosen = index[place : place + batch]
            place += batch
            slopes = torch.autograd.grad(loss(model(inputs[chosen]), targets[chosen]), parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, slopes, alpha=-at.rate * 0.5 ** (3 * step // at.iterations))
            countdown.advance()
    of_test: dict[str, Any] | None = None
    if ended != "diverged":
        of_test = _noise(model, loss, images.test, at)
        if of_test is None or interrupts.stopped:
            return None
    return {
        **asdict(at), "parameters": sum(p.numel() for p in parameters), "ended": ended, "looks": looks,
        "on_test_data": of_test, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def look(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], data: tuple[Tensor, Tensor], at: Network,
    images: Images,
) -> dict[str, Any] | None:  # fmt: skip
    """Return loss, accuracies and the index of the noise at the present parameters; None after Ctrl-C."""
    _, accuracy = evaluate(model, data)
    _, test_accuracy = evaluate(model, images.test)
    with torch.no_grad():
        parts = zip(torch.split(data[0], 1000), torch.split(data[1], 1000), strict=True)
        value = sum(float(loss(model(x), y)) * len(y) for x, y in parts) / len(data[1])
    found: dict[str, Any] = {"loss": value, "accuracy": accuracy, "test_accuracy": test_accuracy}
    if not math.isfinite(value):
        return {**found, "noise": None}
    noise = _noise(model, loss, data, at)
    return None if noise is None else {**found, "noise": noise}


def _noise(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], data: tuple[Tensor, Tensor], at: Network
) -> dict[str, Any] | None:
    """Return the stable index of noise at fixed parameters, or why there is none; None after Ctrl-C."""
    batch = min(at.batch, len(data[0]) // FEWEST_BATCHES)
    try:
        collected = collect_gradients(
            model, loss, data, min(at.batches, len(data[0]) // batch), batch, exact=True, memory=_MEMORY,
            coordinates=None, layers=False, tracks=64, top=100, seed=at.seed, progress=False,
        )  # fmt: skip
        found = collected.stable_index()
    except KeyboardInterrupt:
        return None
    except ValueError as error:
        return {"failed": str(error)}
    assert isinstance(found, StableEstimate)  # as exact=True has kept the gradients
    return {**_as_dict(found), "batches": collected.batches, "batch": batch, "layers": {
        name: _as_dict(own) for name, own in found.layers.items()
    }}  # fmt: skip


def _as_dict(found: StableEstimate) -> dict[str, Any]:
    low, high = found.ci()
    return {
        "alpha": found.alpha, "ci95": [low, high], "stderr": found.stderr,
        "observed_stderr": found.observed_stderr, "k1": found.k1, "k2": found.k2, "n": found.n,
        "zeros": found.zeros, "findings": list(found.findings), "warnings": list(found.warnings),
        "controls": {
            name: {"alpha": found.controls[name].alpha, "stderr": found.controls[name].stderr}
            for name in _CONTROLS if name in found.controls
        },
    }  # fmt: skip
