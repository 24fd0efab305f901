"""What a study of Hessian spectra will cost: one training step and one product are taken, and multiplied."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradtail.experiments.datasets import Images
from gradtail.experiments.hessian_case import network, training_set
from gradtail.experiments.hessian_language import Language
from gradtail.experiments.hessian_rows import Item, Net, Settings
from gradtail.experiments.training import Recipe, as_tensor, windows

_PRODUCTS = 3  # for each eigenvalue, and some more: about what networks of the study have taken
_MORE = 150
_TIMES = 4
_ROWS = 64


@dataclass(frozen=True)
class Unit:
    """Seconds of a training step, of a product, and of holding one vector against another, of length n."""

    step: float
    product: float
    row: float
    size: int

    def spectrum(self, top: int, more: int) -> float:
        """Return seconds for so many eigenvalues and ``more`` products of their own."""
        products = min(_PRODUCTS * min(top, self.size) + _MORE, self.size)
        return (products + more) * self.product + products**2 / 2 * self.row


def estimate(items: Sequence[Item], settings: Settings, images: Images, language: Language | None) -> float:
    """Return the seconds that so many cases will take."""
    units: dict[tuple[object, ...], Unit] = {}
    more = settings.probes * settings.steps
    total, texts = 0.0, set()
    for item in items:
        if isinstance(item, Net):
            shape = (item.network, item.width, item.depth, item.batch, item.examples)
            if shape not in units:
                units[shape] = _of_net(item, images, settings)
            count = item.examples or len(images.train[0])
            steps = item.until * (count // min(item.batch, count))
            total += steps * units[shape].step + units[shape].spectrum(settings.top(images), more)
        else:
            assert language is not None
            if "language" not in {key[0] for key in units}:
                units["language",] = _of_language(language)
            unit = units["language",]
            if item.seed not in texts:
                texts.add(item.seed)
                total += item.of * unit.step
            total += unit.spectrum(settings.eigenvalues or 1000, more)
    return total


def _of_net(net: Net, images: Images, settings: Settings) -> Unit:
    model = network(net, images.side, images.channels)
    inputs, targets = training_set(net, images)
    batch, samples = min(net.batch, len(inputs)), settings.samples

    def loss(count: int) -> Tensor:
        return nn.functional.cross_entropy(model(inputs[:count]), targets[:count])

    return _unit(model, lambda: loss(batch), lambda: loss(samples))


def _of_language(language: Language) -> Unit:
    model = language.model(0)
    layer, (inputs, targets) = language.last_layer(model)
    length = language.config.context + 1
    starts = torch.zeros(Recipe(1).batch, dtype=torch.int64)
    cut = windows(as_tensor(language.text.train), starts, length, torch.device("cpu"))
    step = _unit(model, lambda: model.loss(cut), None).step
    of_layer = _unit(layer, None, lambda: nn.functional.cross_entropy(layer(inputs), targets))
    return Unit(step, of_layer.product, of_layer.row, of_layer.size)


def _unit(
    model: nn.Module, training: Callable[[], Tensor] | None, whole: Callable[[], Tensor] | None
) -> Unit:
    parameters = list(model.parameters())
    size = sum(p.numel() for p in parameters)
    step = product = row = 0.0
    if training is not None:
        step = _shortest(lambda: torch.autograd.grad(training(), parameters))
    if whole is not None:
        slopes = torch.autograd.grad(whole(), parameters, create_graph=True)
        ones = [torch.ones_like(p) for p in parameters]
        product = _shortest(
            lambda: torch.autograd.grad(slopes, parameters, ones, retain_graph=True, allow_unused=True)
        )
        vectors = torch.ones(_ROWS, size)
        row = _shortest(lambda: vectors.T @ (vectors @ vectors[0])) / _ROWS
    return Unit(step, product, row, size)


def _shortest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some times: the first is slower, and so is what others disturb."""
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
