"""A model while its parameters are fixed: whatever looking at it changes is put back, bit for bit."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Mode = Literal["train", "eval"]


class Frozen:
    """Put back parameters, buffers, gradients, modes and random states at the end of a ``with`` block.

    Parameters
    ----------
    model : nn.Module
    mode : {"train", "eval"}, optional
        What all modules are set to meanwhile; None leaves each as it is.
    seed : int
        Of torch's generators meanwhile, so that dropout repeats.

    Notes
    -----
    Holds one copy of parameters and buffers. Batch normalisation in training mode changes its buffers, and
    some modules (spectral normalisation) change them in any mode; a module may even put a new tensor in
    the place of an old one, so the old ones are put back by identity and by value.
    """

    def __init__(self, model: nn.Module, mode: Mode | None, seed: int) -> None:
        self._model, self._mode, self._seed = model, mode, seed

    def __enter__(self) -> Frozen:
        self._modes = [(module, module.training) for module in self._model.modules()]
        self._slots: list[tuple[dict[str, Any], str, Tensor | None, Tensor | None]] = [
            (slots, name, tensor, None if tensor is None else tensor.detach().clone())
            for module in self._model.modules()
            for slots in (module._parameters, module._buffers)
            for name, tensor in slots.items()
        ]
        self._grads = [(p, p.grad) for p in self._model.parameters()]
        self._random = _random_states()
        if self._mode is not None:
            self._model.train(self._mode == "train")
        seed_all(self._seed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for slots in {id(slots): slots for slots, *_ in self._slots}.values():
                for name in set(slots) - {own for held, own, *_ in self._slots if held is slots}:
                    del slots[name]  # registered meanwhile
            with torch.no_grad():
                for slots, name, tensor, value in self._slots:
                    slots[name] = tensor
                    if tensor is not None and value is not None and not _same_bits(tensor, value):
                        tensor.copy_(value)
        finally:
            for p, grad in self._grads:
                p.grad = grad
            for module, training in self._modes:
                module.training = training
            _set_random_states(self._random)


def seed_all(seed: int) -> None:
    """Seed torch's generators, those of CUDA only where they are: else the seed would wait for them."""
    torch.default_generator.manual_seed(seed)
    if _has_cuda():
        torch.cuda.manual_seed_all(seed)


def _has_cuda() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether nothing needs to be put back: writing would tell autograd that the tensor has changed."""
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != torch.strided:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the user's, which data sets may draw from
        "python": random.getstate(),
    }
    if _has_cuda():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
