"""One network of `gradtail reproduce heavy-tail-sgd`: the tails of its averaged iterates, by layer."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradtail.estimators.stable import stable_index_iterates
from gradtail.experiments.classifiers import evaluate
from gradtail.experiments.datasets import Images
from gradtail.experiments.networks import fully_connected
from gradtail.torch import hessian_spectrum
from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts

RATES = (
    1e-4, 1e-3, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.045, 0.05, 0.06, 0.07, 0.075, 0.08, 0.09, 0.1,
)  # fmt: skip
BATCHES = (1, 5, 10)
"""Step sizes and batch sizes of the study."""

_TOLERANCE = 1e-3  # of the largest eigenvalue
_CHECKED = 100  # steps between looks at whether the loss is finite


@dataclass(frozen=True)
class Network:
    """A network trained by plain SGD with a constant step.

    Attributes
    ----------
    eta : float
        Step size.
    batch, seed : int
    width, depth : int
        Units of a hidden layer, and layers.
    iterations, last : int
        Steps, and those at the end whose iterates are averaged.
    """

    eta: float
    batch: int
    seed: int = 0
    width: int = 128
    depth: int = 3
    iterations: int = 10_000
    last: int = 1000

    @property
    def key(self) -> str:
        """Name it."""
        return f"network-eta{self.eta:g}-b{self.batch}-s{self.seed}"


def examine(
    at: Network, images: Images, samples: int, interrupts: Interrupts, progress: bool | None
) -> dict[str, Any] | None:
    """Train a network; return its tails, its sharpness and what it has learned, or None after Ctrl-C."""
    began = time.perf_counter()
    torch.manual_seed(at.seed)
    model = fully_connected(images.side, at.width, at.depth, channels=images.channels, bias=False)
    before = {name: _index(p) for name, p in model.named_parameters()}
    run = _Run(model, at)
    if not run.go(images.train, interrupts, progress):
        return None
    lost = "no gradient left" if run.lost is None and _is_dead(model, images) else run.lost
    found: dict[str, Any] = {**asdict(at), "noise": at.eta / at.batch, "lost": lost}
    if lost is None:
        loss, accuracy = evaluate(model, images.train)
        test_loss, test_accuracy = evaluate(model, images.test)
        part = images.train[0][:samples], images.train[1][:samples]
        try:
            sharpest = hessian_spectrum(
                model, nn.functional.cross_entropy, part, 1, mode="eval", tol=_TOLERANCE, seed=at.seed,
                progress=False,
            )  # fmt: skip
        except KeyboardInterrupt:
            return None
        found |= {
            "train_loss": loss, "train_accuracy": accuracy, "test_loss": test_loss,
            "test_accuracy": test_accuracy, "largest_eigenvalue": float(sharpest.eigenvalues[0]),
            "growth": run.growth,
            "layers": {
                name: {"before": before[name], "after": _index(average)}
                for (name, _), average in zip(model.named_parameters(), run.average, strict=True)
            },
        }  # fmt: skip
    return {**found, "seconds": time.perf_counter() - began}


def _is_dead(model: nn.Module, images: Images) -> bool:
    """Whether no unit is above zero for any example, so that nothing is learned any more."""
    loss = nn.functional.cross_entropy(model(images.train[0]), images.train[1])
    return not any(bool(slope.any()) for slope in torch.autograd.grad(loss, list(model.parameters())))


class _Run:
    """Steps, and the average of the last iterates.

    Attributes
    ----------
    average : list of Tensor
        By parameter, float64.
    growth : float
        Norm of all parameters at the end over that at the first of the last iterates.
    lost : str or None
        Why there is no network to look at: the loss was found not to be finite.
    """

    def __init__(self, model: nn.Module, at: Network) -> None:
        self._model, self._at = model, at
        self._parameters: list[Tensor] = list(model.parameters())
        self.average = [torch.zeros_like(p, dtype=torch.float64) for p in self._parameters]
        self.growth = math.nan
        self.lost: str | None = None

    def go(self, data: tuple[Tensor, Tensor], interrupts: Interrupts, progress: bool | None) -> bool:
        """Train; False after Ctrl-C."""
        at, parameters = self._at, self._parameters
        inputs, targets = data
        order = torch.Generator().manual_seed(at.seed)
        batch = min(at.batch, len(inputs))
        index, place, norm = torch.empty(0, dtype=torch.int64), 0, math.nan
        with Countdown("training", at.iterations, progress) as countdown:
            for step in range(at.iterations):
                if interrupts.stopped:
                    return False
                if place + batch > len(index):  # a new epoch, in another order
                    index, place = torch.randperm(len(inputs), generator=order), 0
                chosen = index[place : place + batch]
                place += batch
                loss = nn.functional.cross_entropy(self._model(inputs[chosen]), targets[chosen])
                if step % _CHECKED == 0 and not bool(loss.isfinite()):
                    self.lost = f"diverged at step {step}"
                    return True
                slopes = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, slopes, alpha=-at.eta)
                    if step >= at.iterations - at.last:
                        norm = self._norm() if math.isnan(norm) else norm
                        for average, p in zip(self.average, parameters, strict=True):
                            average += p
                countdown.advance()
        self.growth = self._norm() / norm
        if not math.isfinite(self.growth):
            self.lost = f"diverged at step {at.iterations}"
        for average in self.average:
            average /= at.last
        return True

    @torch.no_grad()
    def _norm(self) -> float:
        return math.sqrt(sum(float(p.double().square().sum()) for p in self._parameters))


def _index(weights: Tensor) -> dict[str, Any] | None:
    """Return the stable index of a layer's weights; None where there are too few."""
    try:
        found = stable_index_iterates(weights.detach().double().numpy())
    except ValueError:
        return None
    return {
        "alpha": found.alpha, "stderr": found.stderr, "n": found.n, "zeros": found.zeros,
        "by_block": dict(zip(map(int, found.k1), map(float, found.alphas), strict=True)),
        "findings": list(found.findings), "told": found.told,
    }  # fmt: skip
