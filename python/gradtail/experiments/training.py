"""The training loop of `gradtail demo`: any loop with one call to the monitor in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradtail.experiments.gpt import GPT
from gradtail.torch import Monitor

OnGradients = Callable[[int, GPT], None]


@dataclass(frozen=True)
class Recipe:
    """How the model is trained."""

    steps: int
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.1
    max_norm: float = 1.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, then a cosine down to a tenth."""
        warmup = min(self.warmup, max(1, self.steps // 10))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Step:
    """What one training step did, and how long it took."""

    number: int
    loss: float
    norm: float
    seconds: float
    tokens: int


def as_tensor(text: bytes) -> Tensor:
    """Return the bytes as a tensor of uint8."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def windows(data: Tensor, starts: Tensor, length: int, device: torch.device) -> Tensor:
    """Cut out ``length`` bytes from each start: shape (starts, length), int64."""
    return data[starts[:, None] + torch.arange(length)].long().to(device)


def train(
    model: GPT, data: Tensor, recipe: Recipe, monitor: Monitor, *, on_gradients: OnGradients | None = None
) -> Iterator[Step]:
    """Train, and yield after every step; what the caller does in between is not in a step's time.

    Parameters
    ----------
    model : GPT
        On the device where it is to be trained.
    data : Tensor of uint8
        The text; windows of it are drawn at random by ``recipe.seed``.
    recipe : Recipe
    monitor : Monitor
        Of the model.
    on_gradients : callable, optional
        Called with the step and the model before the monitor sees the gradients.
    """
    device = model.tokens.weight.device
    length = model.config.context + 1
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    for step in range(recipe.steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        starts = torch.randint(len(data) - length + 1, (recipe.batch,), generator=generator)
        loss = model.loss(windows(data, starts, length, device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if on_gradients is not None:
            on_gradients(step, model)
        norm = monitor.clip_(recipe.max_norm, loss)
        optimizer.step()
        value = loss.item()
        seconds = time.perf_counter() - started
        yield Step(step, value, float(norm), seconds, recipe.batch * model.config.context)


@torch.no_grad()
def heldout_loss(model: GPT, data: Tensor, *, most: int = 64) -> float:
    """Mean loss in nats a byte over at most ``most`` windows, evenly spread over the text."""
    length = model.config.context + 1
    count = min(most, len(data) // length)
    starts = torch.linspace(0, len(data) - length, count).long()
    losses = [
        model.loss(windows(data, some, length, model.tokens.weight.device)).item() * len(some)
        for some in torch.split(starts, 16)
    ]
    return sum(losses) / count
