"""Streams that give norms as a GPU would, and a guard that fails where the host looks at a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from monitor_models import small_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradtail import GradientStream
from gradtail.torch import Monitor

READS = ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__")
READING_OPS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "scalar_tensor")


class Unreadable(TorchDispatchMode):
    """Refuses what a GPU would have to finish for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in READING_OPS:
            raise AssertionError(f"read by {func}")
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing_is_read() -> Iterator[None]:
    """Fail where a number of a tensor is looked at, or one is made of a number of the host's."""

    def refuse(name: str) -> Any:
        def refused(*_: Any, **__: Any) -> Any:
            raise AssertionError(f"read by {name}")

        return refused

    with pytest.MonkeyPatch.context() as patch, Unreadable():
        for name in READS:
            patch.setattr(torch.Tensor, name, refuse(name))
        patch.setattr(torch, "tensor", refuse("torch.tensor"))  # onto a GPU: a copy that waits
        yield


def give_norms_as_tensors(patch: pytest.MonkeyPatch) -> None:
    """Have streams give the norm in memory that the next step overwrites, as they do on a GPU."""

    def device_norm(self: GradientStream) -> torch.Tensor:
        buffer = vars(self).setdefault("_buffer", torch.zeros((), dtype=torch.float64))
        newest = self.latest()
        assert newest is not None
        return buffer.fill_(newest.norm)

    patch.setattr(GradientStream, "device_norm", device_norm, raising=False)


@contextmanager
def asynchronous() -> Iterator[None]:
    """Have streams work asynchronously, and the host look at nothing, in the block."""
    with pytest.MonkeyPatch.context() as patch:
        give_norms_as_tensors(patch)
        with nothing_is_read():
            yield


def pair(*, seed: int = 0, **options: Any) -> tuple[nn.Module, nn.Module, Monitor, Monitor]:
    ours, theirs = small_model(seed), small_model(seed)
    return (
        ours,
        theirs,
        Monitor(ours, on_error="raise", **options),
        Monitor(theirs, on_error="raise", **options),
    )
