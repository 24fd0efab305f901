"""Derivatives of gradients as differences, by a step that is tried out, and what they tell of other ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

_STEPS = 9
_SHORTER = 4.0
_GROSSLY = 0.1  # of the longer of two products
_ROUNDINGS = 10.0


@dataclass(frozen=True)
class Difference:
    """A derivative along a vector, the step that it is best taken by, and how far two steps are apart."""

    value: Tensor
    step: float
    apart: float


def longest_and_shortest(at: Tensor, eps: float) -> tuple[float, float]:
    """Return lengths of steps from a point: the best for a smooth function, and the least that arrives.

    The errors of a step h are about h**2 and eps / h. Of one that is too short little is left when it has
    been added to the largest elements.
    """
    longest = eps ** (1 / 3) * (1 + float(torch.linalg.vector_norm(at)))
    return longest, eps * float(at.abs().max()) * at.numel() ** 0.5


def central(at: Callable[[float], Tensor], h: float) -> Tensor:
    """(g(x + hv) - g(x - hv)) / 2h, given g along v."""
    difference: Tensor = at(h) - at(-h)
    return difference.div_(2 * h)


def by_all_steps(at: Callable[[float], Tensor], longest: float, shortest: float) -> list[Difference]:
    """Try steps, each a quarter of the last, and see how far any two that follow are apart.

    Of two the longer errs by kinks and what else is not linear, and the shorter by rounding: the step
    returned is between.
    """
    last, found = central(at, longest), []
    for i in range(1, _STEPS):
        h = longest / _SHORTER**i
        if i > 1 and h < shortest:
            break
        value = central(at, h)
        found.append(Difference(last, h * _SHORTER**0.5, float(torch.linalg.vector_norm(last - value))))
        last = value
    return found


def has_own_functions(value: Tensor) -> bool:
    """Whether a graph has functions whose backward passes are not PyTorch's own."""
    seen, new = set(), [value.grad_fn]
    while new:
        node = new.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction":
            return True
        seen.add(node)
        new += [before for before, _ in node.next_functions]
    return False


def grossly_unlike(
    product: Tensor, at: Callable[[float], Tensor], steps: tuple[float, float], eps: float
) -> bool:
    """Whether a product is not the derivative of a gradient, beyond what kinks and rounding may do.

    Takes up to 19 gradients.
    """
    best = min(by_all_steps(at, *steps), key=lambda one: one.apart)
    lengths = [float(torch.linalg.vector_norm(one)) for one in (product, best.value, at(0.0))]
    allowed = _GROSSLY * max(lengths[:2]) + 2 * best.apart + _ROUNDINGS * eps * lengths[2] / best.step
    return float(torch.linalg.vector_norm(product - best.value)) > allowed
