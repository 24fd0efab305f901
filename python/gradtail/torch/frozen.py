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
    data : optional
        A loader whose own generators are put back too.

    Notes
    -----
    Holds one copy of parameters and buffers. Batch normalisation in training mode changes its buffers, and
    some modules (spectral normalisation) change them in any mode; a module may even put a new tensor in
    the place of an old one, so the old ones are put back by identity and by value. What a forward pass
    registers, parameters, buffers or modules, is taken out again.
    """

    def __init__(self, model: nn.Module, mode: Mode | None, seed: int, data: Any = None) -> None:
        self._model, self._mode, self._seed = model, mode, seed
        self._random = RandomStates(data)

    def __enter__(self) -> Frozen:
        modules = list(self._model.modules())
        self._modes = [(module, module.training) for module in modules]
        self._slots: list[tuple[Any, dict[str, Any]]] = [
            (slots, dict(slots.items()))
            for module in modules
            for slots in (module._parameters, module._buffers, module._modules)
        ]
        self._passing = [(m._non_persistent_buffers_set, set(m._non_persistent_buffers_set)) for m in modules]
        self._values = [
            (tensor, tensor.detach().clone())
            for tensor in {
                id(tensor): tensor
                for _, held in self._slots
                for tensor in held.values()
                if isinstance(tensor, Tensor)
            }.values()
        ]
        self._grads = [(p, p.grad) for p in self._model.parameters()]
        self._random.__enter__()
        if self._mode is not None:
            self._model.train(self._mode == "train")
        seed_all(self._seed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for slots, held in self._slots:
                _put_back(slots, held)
            for names, before in self._passing:
                names.clear()
                names.update(before)
            with torch.no_grad():
                for tensor, value in self._values:
                    if not _same_bits(tensor, value):
                        tensor.copy_(value)
        finally:
            for p, grad in self._grads:
                p.grad = grad
            for module, training in self._modes:
                module.training = training
            self._random.__exit__()


class RandomStates:
    """Put back random states at the end of a ``with`` block: of torch, NumPy and Python, and of a loader.

    Parameters
    ----------
    data : optional
        Whose own generators of torch are put back too, where it is a loader that has some.
    """

    def __init__(self, data: Any = None) -> None:
        self._data = data

    def __enter__(self) -> RandomStates:
        self._states = _random_states()
        self._own = [(one, one.get_state()) for one in _generators(self._data)]
        return self

    def __exit__(self, *_: object) -> None:
        _set_random_states(self._states)
        for generator, state in self._own:
            generator.set_state(state)


def _generators(data: Any) -> list[torch.Generator]:
    """List the generators that a loader shuffles by."""
    batched = getattr(data, "batch_sampler", None)
    holders = (data, getattr(data, "sampler", None), batched, getattr(batched, "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _put_back(slots: Any, held: dict[str, Any]) -> None:
    """Make a mapping of a module what it was, in its order, and leave it alone if it is."""
    if list(slots.keys()) != list(held):
        for name in list(slots.keys()):
            del slots[name]
    for name, value in held.items():
        if name not in slots or slots[name] is not value:
            slots[name] = value


def mode_of(model: nn.Module) -> Literal["train", "eval", "mixed"]:
    """Say what mode the modules of a model are in."""
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "train" if modes == {True} else "eval"


def random_parts(model: nn.Module) -> list[str]:
    """Say why the gradient of an example is not the same in every batch, as far as modules of torch tell.

    Returns
    -------
    list of str
        "batch statistics" where batch normalisation takes them, "dropout" where something is drawn.
    """
    found = set()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training or module.running_mean is None:
                found.add("batch statistics")
        elif module.training and _draws(module):
            found.add("dropout")
    return sorted(found)


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return module.dropout > 0
    return isinstance(module, (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d))


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
