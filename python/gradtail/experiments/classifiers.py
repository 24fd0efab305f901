"""Training small classifiers, as the published studies do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts

MOMENTUM = "SGD with momentum"
RATES = {
    MOMENTUM: 0.01, "vanilla SGD": 0.1,
    **dict.fromkeys(("Adam", "AMSGrad", "NAdam", "RAdam", "AdamW"), 0.001),
}  # fmt: skip
"""Optimizers, torch's own, and their learning rates: those in print but for momentum; see Training."""


@dataclass(frozen=True)
class Training:
    """Training by an optimizer of torch, by default gradient descent with momentum.

    The settings of the studies for LeNet on MNIST: batches of 128, the rate a tenth after 40 % and a
    hundredth after 80 % of the epochs, but a rate of 0.01: lower than the 0.1 in print, at which
    units of the LeNet here may end as never above zero, and their parameters without a gradient.
    Without momentum 0.1 takes steps of that size.
    """

    epochs: int
    batch: int = 128
    rate: float = RATES[MOMENTUM]
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: str = MOMENTUM

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer."""
        rate, decay = self.rate, self.weight_decay
        if self.optimizer in (MOMENTUM, "vanilla SGD"):
            momentum = self.momentum if self.optimizer == MOMENTUM else 0.0
            return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay)
        if self.optimizer == "AMSGrad":
            return torch.optim.Adam(parameters, rate, weight_decay=decay, amsgrad=True)
        made: torch.optim.Optimizer = getattr(torch.optim, self.optimizer)(
            parameters, rate, weight_decay=decay
        )
        return made

    def rate_at(self, done: float) -> float:
        """Learning rate where a share of the epochs is done."""
        return self.rate * (1.0 if done < 0.4 else 0.1 if done < 0.8 else 0.01)


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    recipe: Training,
    seed: int,
    *,
    until: int | None = None,
    interrupts: Interrupts | None = None,
    progress: bool | None = None,
) -> None:
    """Train a classifier in place, with cross-entropy.

    ``until`` ends it after so many epochs of those that the rate is planned for.
    """
    inputs, targets = data
    optimizer = recipe.make(model.parameters())
    epochs = recipe.epochs if until is None else until
    order = torch.Generator().manual_seed(seed)
    batch = min(recipe.batch, len(inputs))
    steps = len(inputs) // batch
    model.train()
    with Countdown("training", epochs * steps, progress) as countdown:
        for epoch in range(epochs):
            index = torch.randperm(len(inputs), generator=order)
            for i in range(steps):
                if interrupts is not None and interrupts.stopped:
                    return
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate_at((epoch + i / steps) / recipe.epochs)
                at = index[i * batch : (i + 1) * batch]
                optimizer.zero_grad()
                loss: Tensor = nn.functional.cross_entropy(model(inputs[at]), targets[at])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                countdown.advance()


@torch.no_grad()
def evaluate(model: nn.Module, data: tuple[Tensor, Tensor], batch: int = 1000) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    training = model.training
    model.eval()
    inputs, targets = data
    loss = hits = 0.0
    for x, y in zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True):
        logits = model(x)
        loss += float(nn.functional.cross_entropy(logits, y, reduction="sum"))
        hits += float((logits.argmax(dim=1) == y).sum())
    model.train(training)
    return loss / len(targets), hits / len(targets)
