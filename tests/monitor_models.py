"""Small models for the tests of the monitor, and torch's own numbers to compare with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3)
    )


def batch(seed: int, size: int = 16) -> torch.Tensor:
    return torch.randn(size, 6, generator=torch.Generator().manual_seed(seed))


def backward(model: nn.Module, seed: int, scale: float = 1.0, *, zero: bool = True) -> torch.Tensor:
    if zero:
        model.zero_grad()
    loss = scale * model(batch(seed)).square().mean()
    loss.backward()
    return loss


def norm64(model: nn.Module) -> float:
    """Norm of all gradients in float64."""
    return math.sqrt(
        sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    )


def same_summaries(a: Any, b: Any, names: list[str]) -> None:
    """Two streams saw the same values: integers equal, sums within the bounds of the pass."""
    for name in names:
        x, y = a.summary(name), b.summary(name)
        assert (x.count, x.zeros, x.nan, x.max_abs) == (y.count, y.zeros, y.nan, y.max_abs), name
        assert x.norm == y.norm or abs(x.norm - y.norm) < 1e-6 * y.norm, name
