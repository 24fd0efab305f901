"""Training small classifiers, as the published studies do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts


@dataclass(frozen=True)
class Training:
    """Stochastic gradient descent with momentum.

    The settings of the studies for LeNet on MNIST: batches of 128, the rate a tenth after 40 % and a
    hundredth after 80 % of the epochs, but a rate of 0.01: lower than the 0.1 in print, at which
    units of the LeNet here may end as never above zero, and their parameters without a gradient.
    """

    epochs: int
    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def rate_at(self, done: float) -> float:
        """Learning rate where a share of the epochs is done."""
        return self.rate * (1.0 if done < 0.4 else 0.1 if done < 0.8 else 0.01)


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    recipe: Training,
    seed: int,
    *,
    interrupts: Interrupts | None = None,
    progress: bool | None = None,
) -> None:
    """Train a classifier in place, with cross-entropy."""
    inputs, targets = data
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    order = torch.Generator().manual_seed(seed)
    batch = min(recipe.batch, len(inputs))
    steps = len(inputs) // batch
    model.train()
    with Countdown("training", recipe.epochs * steps, progress) as countdown:
        for epoch in range(recipe.epochs):
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
