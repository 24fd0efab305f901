"""One case of `gradtail reproduce hessian-spectrum`: a network, its Hessian, and what is taken of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradtail.estimators.ranks import eigengaps, rank_power_law, subspace_bound
from gradtail.experiments.classifiers import evaluate, train
from gradtail.experiments.datasets import Images
from gradtail.experiments.hessian_rows import LENET, Net, Settings
from gradtail.experiments.hessian_sweeps import RANDOM_LABELS
from gradtail.experiments.networks import LeNet, fully_connected
from gradtail.experiments.studies import BadOption, power_law
from gradtail.report.schema import rounded
from gradtail.torch import HessianSpectrum, SpectralDensity, hessian_density, hessian_spectrum
from gradtail.torch.interrupts import Interrupts

PERTURBATION = 0.01
"""Of the largest eigenvalue: what the bound on directions is asked for."""

_BOUNDS = 20  # written
_FEWEST = 3


@dataclass(frozen=True)
class Weights:
    """Trained parameters in a folder, so that a run that goes on need not train again.

    Attributes
    ----------
    folder : Path
    identity : str
        Of settings and data; parameters of others are not taken.
    """

    folder: Path
    identity: str

    def save(self, key: str, model: nn.Module) -> None:
        """Write parameters, whole or not at all."""
        self.folder.mkdir(exist_ok=True)
        new = self.folder / f"{key}.new"
        torch.save({"identity": self.identity, "state": model.state_dict()}, new)
        new.replace(self._file(key))

    def load(self, key: str, model: nn.Module) -> bool:
        """Load parameters into a model; False if there are none."""
        if not self._file(key).is_file():
            return False
        found = torch.load(self._file(key), map_location="cpu", weights_only=True)
        if found["identity"] != self.identity:
            return False
        model.load_state_dict(found["state"])
        return True

    def search(self, key: str) -> Path:
        """Return the file of a search for eigenvalues that was stopped."""
        self.folder.mkdir(exist_ok=True)
        return self.folder / f"{key}.search"

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.pt"


def network(net: Net, side: int, channels: int = 1) -> nn.Module:
    """Make a network as it is before training."""
    torch.manual_seed(net.seed)
    if net.network == LENET:
        return LeNet(side, channels=channels)
    return fully_connected(side, net.width, net.depth, channels=channels)


def training_set(net: Net, images: Images) -> tuple[Tensor, Tensor]:
    """Return what a network is trained on, with the labels that it is given."""
    inputs, targets = (part[: net.examples] for part in images.train)
    generator = torch.Generator().manual_seed(net.seed)
    if net.noise == RANDOM_LABELS:
        return inputs, targets[torch.randperm(len(targets), generator=generator)]
    if net.noise:
        flipped = torch.rand(len(targets), generator=generator) < float(net.noise)
        others = torch.randint(1, 10, (len(targets),), generator=generator)
        targets = torch.where(flipped, (targets + others) % 10, targets)
    return inputs, targets


def examine(
    net: Net, images: Images, settings: Settings, weights: Weights, interrupts: Interrupts,
    progress: bool | None,
) -> dict[str, Any] | None:  # fmt: skip
    """Train a network and take its Hessian; None after Ctrl-C."""
    began = time.perf_counter()
    model = network(net, images.side, images.channels)
    data = training_set(net, images)
    if net.until and not weights.load(net.key, model):
        train(
            model, data, net.training(), net.seed, until=net.until, interrupts=interrupts, progress=progress
        )
        if interrupts.stopped:
            return None
        weights.save(net.key, model)
    trained = time.perf_counter()
    part = data[0][: settings.samples], data[1][: settings.samples]
    found = curvature(
        model, part, settings, settings.top(images), net.seed, search=weights.search(net.key),
        interrupts=interrupts, progress=progress,
    )  # fmt: skip
    if found is None:
        return None
    (loss, accuracy), (fitted, _) = evaluate(model, images.test), evaluate(model, part)
    return {
        "training": asdict(net.training()) if net.until else None,
        "test_loss": loss, "test_accuracy": accuracy, "loss_of_samples": fitted,
        "seconds": {"training": trained - began, "all": time.perf_counter() - began}, **found,
    }  # fmt: skip


def curvature(
    model: nn.Module, data: tuple[Tensor, Tensor], settings: Settings, top: int, seed: int, *,
    search: Path, tol: float = 1e-4, batch_size: int | None = None, interrupts: Interrupts,
    progress: bool | None,
) -> dict[str, Any] | None:  # fmt: skip
    """Return the largest eigenvalues and the density of a Hessian, or why there are none; None after Ctrl-C.

    ``search`` is a file that the search for eigenvalues goes on from, and that is there while it is not done.

    Raises
    ------
    BadOption
        So many eigenvalues need too much memory.
    """
    size = sum(p.numel() for p in model.parameters())
    loss = nn.functional.cross_entropy
    try:
        spectrum = hessian_spectrum(
            model, loss, data, min(top, size), batch_size=batch_size, tol=tol, mode="eval", seed=seed,
            checkpoint=search, progress=progress,
        )  # fmt: skip
        if spectrum.interrupted or interrupts.stopped:
            return None
        density = hessian_density(
            model, loss, data, probes=settings.probes, steps=settings.steps, batch_size=batch_size,
            mode="eval", seed=seed, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    except ValueError as error:
        if str(error).startswith("memory:"):
            raise BadOption(f"eigenvalues: expected fewer ({error})") from None
        if str(error).startswith("checkpoint:"):
            raise BadOption(f"out: expected a new folder, or none of {search} ({error})") from None
        return {"failed": str(error)}  # as after training that diverged; other cases may do better
    if density.interrupted or interrupts.stopped:
        return None
    search.unlink(missing_ok=True)
    return {
        "spectrum": eigenvalues(spectrum, top), "density": spectral_density(density),
        "rests_on": rests_on(model, data[0]),
    }  # fmt: skip


@torch.no_grad()
def rests_on(model: nn.Module, inputs: Tensor) -> float:
    """Return how many of the examples the Hessian rests on, as if those were alike.

    An example whose class is certain has hardly a part in it: the curvature of cross-entropy by logits has
    the trace 1 - sum p**2. This is the participation ratio of those traces, (sum t)**2 / sum t**2.
    """
    training = model.training
    model.eval()
    logits = torch.cat([model(part) for part in torch.split(inputs, 1000)])
    model.train(training)
    traces = 1 - (torch.softmax(logits.double(), dim=1) ** 2).sum(dim=1)
    return float(traces.sum() ** 2 / (traces**2).sum())


def eigenvalues(found: HessianSpectrum, asked: int) -> dict[str, Any]:
    """Flatten a spectrum, with the power laws of what is surely positive in it, and of the gaps there."""
    values, residuals = found.eigenvalues, found.residuals
    positive = found.surely_positive
    head = values[:positive]
    law = gaps = None
    if positive >= _FEWEST and head[0] > head[-1]:
        law = power_law(rank_power_law(head, positive))
        between = np.sort(eigengaps(head))[::-1]
        # The smallest are a matter of chance, and a cutoff at the very smallest would decide the slope.
        half = between[: between.size // 2]
        if half.size >= _FEWEST and half[0] > half[-1] > 0:
            gaps = power_law(rank_power_law(half, half.size))
    perturbation = PERTURBATION * max(float(values[0]), 0.0)
    bound = subspace_bound(values, perturbation) if values.size > 1 else np.array([np.nan])
    vague = values[:-1] - values[1:] <= residuals[:-1] + residuals[1:]
    return {
        "asked": asked, "found": values.size, "positive": positive,
        "negative": int(np.count_nonzero(values < -residuals)),
        "power_law": law, "gaps": gaps, "gaps_below_residuals": int(np.count_nonzero(vague)),
        "perturbation": perturbation, "bounded_ranks": int(np.count_nonzero(bound < 1)),
        "bound": rounded(bound[:_BOUNDS]), "eigenvalues": rounded(values, 7),
        "residuals": rounded(residuals, 3), "products": found.products, "warnings": list(found.warnings),
        "provenance": found.provenance,
    }  # fmt: skip


def spectral_density(found: SpectralDensity) -> dict[str, Any]:
    """Flatten a density."""
    return {
        "trace": found.trace, "trace_stderr": found.trace_stderr,
        "moments": found.moments.tolist(), "moments_stderr": found.moments_stderr.tolist(),
        "nodes": [rounded(nodes) for nodes in found.nodes],
        "weights": [rounded(part) for part in found.weights],
        "size": found.n, "warnings": list(found.warnings), "provenance": found.provenance,
    }  # fmt: skip
