"""The small networks of the published studies."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998): 61,706 parameters on 28 x 28 pixels.

    Parameters
    ----------
    side : int
        Pixels along a side: 28, or 8, where filters of 3 x 3 replace those of 5 x 5.
    classes, channels : int
    """

    def __init__(self, side: int = 28, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        filters, padding = (5, 2) if side > 16 else (3, 1)
        self.first = nn.Conv2d(channels, 6, filters, padding=padding)
        self.second = nn.Conv2d(6, 16, filters if side > 16 else 3, padding=0 if side > 16 else 1)
        with torch.no_grad():
            flat = self._features(torch.zeros(1, channels, side, side)).shape[1]
        self.third = nn.Linear(flat, 120)
        self.fourth = nn.Linear(120, 84)
        self.last = nn.Linear(84, classes)

    def _features(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        return nn.functional.max_pool2d(torch.relu(self.second(x)), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (n, channels, side, side) to logits."""
        x = torch.relu(self.third(self._features(x)))
        logits: Tensor = self.last(torch.relu(self.fourth(x)))
        return logits


def fully_connected(
    side: int = 28, width: int = 100, depth: int = 2, classes: int = 10, *, channels: int = 1,
    bias: bool = True,
) -> nn.Sequential:  # fmt: skip
    """Make a fully connected network with ReLU.

    Parameters
    ----------
    side, width : int
    depth : int
        Layers, the last included; 1 is a linear classifier.
    classes, channels : int
    bias : bool
    """
    sizes = [channels * side * side, *[width] * (depth - 1)]
    layers: list[nn.Module] = [nn.Flatten()]
    for size, next_ in pairwise(sizes):
        layers += [nn.Linear(size, next_, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes, bias=bias))


def convolutional(side: int = 28, width: int = 16, classes: int = 10, *, channels: int = 1) -> nn.Sequential:
    """Make a network without biases: two layers of 3 x 3 filters with pooling, and a linear one.

    Parameters
    ----------
    side : int
    width : int
        Channels of the first layer; the second has twice as many.
    classes, channels : int
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, classes, bias=False),
    )  # fmt: skip
