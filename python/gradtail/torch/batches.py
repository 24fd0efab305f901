"""Minibatches for looking at a model: which examples each has, and in what form data may come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from gradtail.states.budget import format_bytes
from gradtail.torch.frozen import RandomStates

Sampling = Literal["shuffle", "replacement", "in order"]
Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One minibatch: what the model takes, what the loss takes besides, and how many examples."""

    inputs: Any
    targets: Any
    size: int

    def to(self, device: torch.device) -> tuple[Any, Any]:
        """Return inputs and targets on a device."""
        return _moved(self.inputs, device), _moved(self.targets, device)


@dataclass(frozen=True)
class Batches:
    """The batches of one collection, and those of a pass over all of the data.

    Attributes
    ----------
    count : int
        Batches, or the most that there will be.
    batch_size : int or None
        None: as they come.
    in_full : int
        Batches of a pass over the data.
    examples : int or None
    sampling : str
    each, full : callable
        Return an iterator over the batches, and over those of the pass.
    """

    count: int
    batch_size: int | None
    in_full: int
    examples: int | None
    sampling: str
    each: Callable[[], Iterator[Batch]]
    full: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.each()


def batches_of(
    data: Any,
    batches: int | None,
    batch_size: int | None,
    sampling: Sampling | None,
    centre: bool,
    seed: int,
) -> Batches:
    """Check what was asked for, and make the batches; nothing is taken from the data yet.

    Raises
    ------
    TypeError, ValueError
        In the voice of :func:`collect_gradients`, whose arguments these are.
    """
    if sampling is not None and sampling not in get_args(Sampling):
        expected = ", ".join(map(repr, get_args(Sampling)))
        raise ValueError(f"sampling: expected one of {expected}, got {sampling!r}")
    for name, value in (("batches", batches), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if batches is not None and batches < 2:
        raise ValueError(f"batches: expected at least 2, got {batches}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if _is_pair(data) or _is_indexable(data):
        if batches is None or batch_size is None:
            missing = "batches" if batches is None else "batch_size"
            raise ValueError(f"{missing}: expected an int for data that is not in batches, got None")
        return _drawn(_Examples(data), int(batches), int(batch_size), sampling or "shuffle", seed)
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping, Tensor, np.ndarray)):
        raise TypeError(
            "data: expected a pair of tensors, an indexable data set or an iterable of batches, "
            f"got {type(data).__name__}"
        )
    if batch_size is not None or sampling is not None:
        what = "batch_size" if batch_size is not None else "sampling"
        raise ValueError(f"{what}: expected none where batches come ready, in their order, got one")
    return _ready(data, batches, centre)


def _drawn(examples: _Examples, batches: int, batch_size: int, sampling: Sampling, seed: int) -> Batches:
    if sampling == "replacement" and not examples.count:
        raise ValueError("data: expected at least 1 example, got none")
    if sampling != "replacement" and examples.count < batch_size:
        raise ValueError(f"data: expected at least {batch_size} examples for a batch, got {examples.count}")

    def each() -> Iterator[Batch]:
        for index in numbers(sampling, examples.count, batch_size, batches, seed):
            yield examples.take(index)

    # A last batch of one example would be refused by batch normalisation: it joins the one before.
    in_full = -(-examples.count // batch_size)
    if batch_size > 1 and in_full > 1 and examples.count % batch_size == 1:
        in_full -= 1

    def full() -> Iterator[Batch]:
        for i in range(in_full):
            end = examples.count if i == in_full - 1 else (i + 1) * batch_size
            yield examples.take(np.arange(i * batch_size, end))

    return Batches(batches, batch_size, in_full, examples.count, sampling, each, full)


def _ready(data: Iterable[Any], batches: int | None, centre: bool) -> Batches:
    # A loader's iterator draws a seed and starts workers: to ask iter(data) would change random states.
    if isinstance(data, Iterator) and centre:
        raise ValueError(
            "data: expected something to go through twice (a list, a DataLoader) for the full gradient, or "
            f"centre=False, got {type(data).__name__}"
        )
    there = _length(data)
    if there is None and centre:
        raise ValueError(
            "data: expected something that knows how many batches it has for the full gradient, or "
            f"centre=False, got {type(data).__name__}"
        )
    if there is None and batches is None:
        raise ValueError("batches: expected an int for data that does not know how many it has, got None")
    count = min(x for x in (there, batches) if x is not None)
    if count < 2:
        raise ValueError(f"data: expected at least 2 batches, got {count}")

    def full() -> Iterator[Batch]:
        return _each(data)

    return Batches(
        count, None, there or count, None, "as they come",
        lambda: itertools.islice(_each(data), count), full,
    )  # fmt: skip


def _each(data: Iterable[Any]) -> Iterator[Batch]:
    """Check ready batches as they come."""
    if not isinstance(data, IterableDataset):
        yield from map(_checked, data)
        return
    for batch in data:
        if not isinstance(batch, (tuple, list, Mapping)) or (len(batch) == 2 and _is_single(batch)):
            raise TypeError(
                "data: expected batches from an IterableDataset, which are taken as they come, got single "
                "examples; a DataLoader makes batches of them"
            )
        yield _checked(batch)


def numbers(sampling: Sampling, count: int, batch_size: int, batches: int, seed: int) -> Iterator[Numbers]:
    """Draw the examples of each batch.

    Parameters
    ----------
    sampling : {"shuffle", "replacement", "in order"}
    count : int
        Examples.
    batch_size, batches, seed : int
    """
    rng = np.random.default_rng(seed)
    whole = count // batch_size
    order = np.arange(count)
    for i in range(batches):
        if sampling == "replacement":
            yield rng.integers(0, count, batch_size)
            continue
        if sampling == "shuffle" and i % whole == 0:
            order = rng.permutation(count)
        begin = (i % whole) * batch_size
        yield order[begin : begin + batch_size]


class _Examples:
    """Data of which any examples can be taken."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._tensors = _is_pair(data)
        if self._tensors:
            self._data = tuple(map(torch.as_tensor, data))
        if self._tensors and len(data[0]) != len(data[1]):
            raise ValueError(
                f"data: expected as many inputs as targets, got {len(data[0])} and {len(data[1])}"
            )
        self.count = len(data[0]) if self._tensors else len(data)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the pair, where it is one."""
        inputs, targets = self._data
        return inputs, targets

    def take(self, index: Numbers) -> Batch:
        """Collect the examples of these numbers."""
        if self._tensors:
            inputs, targets = self._data
            at = torch.from_numpy(index)
            return Batch(inputs[at.to(inputs.device)], targets[at.to(targets.device)], len(index))
        return _checked(default_collate([self._data[int(i)] for i in index]), len(index))


def _checked(batch: Any, size: int | None = None) -> Batch:
    if isinstance(batch, Mapping):
        inputs = targets = batch
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, targets = batch
    else:
        shown = type(batch).__name__
        if isinstance(batch, (tuple, list)):
            shown = f"a {shown} of {len(batch)}"
        raise TypeError(f"data: expected batches of (inputs, targets) or mappings, got {shown}")
    if size is None:
        counted = next(itertools.chain(_tensors(targets), _tensors(inputs)), None)
        if counted is None:
            raise TypeError(f"data: expected tensors in each batch, got {type(inputs).__name__} without any")
        size = len(counted)
    return Batch(inputs, targets, size)


def _is_single(pair: Any) -> bool:
    """Whether the target of a pair is a number, which that of a batch is not."""
    target = None if isinstance(pair, Mapping) else pair[1]
    return isinstance(target, (int, float, np.number)) or (isinstance(target, Tensor) and not target.ndim)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors with a first dimension, which is that of the examples."""
    if isinstance(value, Tensor):
        if value.ndim:
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _length(data: Iterable[Any]) -> int | None:
    try:
        return len(data) if isinstance(data, Sized) else None
    except TypeError:  # a loader of a data set that does not know
        return None


def _is_pair(data: Any) -> bool:
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(isinstance(part, (Tensor, np.ndarray)) and part.ndim > 0 for part in data)
    )


def _is_indexable(data: Any) -> bool:
    """Whether it is a data set; lists and tuples are of ready batches, and loaders have no index.

    An IterableDataset inherits an index that raises.
    """
    others = (list, tuple, str, bytes, Mapping, Tensor, np.ndarray, IterableDataset)
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, others)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        moved = [_moved(part, device) for part in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    return value


def held_batches(data: Any, batch_size: int | None, default: int, most: int | None = None) -> list[Batch]:
    """Return all of the data in batches that stay the same; of a pair of tensors they are no copies.

    Parameters
    ----------
    data : pair of tensors, indexable data set, or iterable of batches
    batch_size : int or None
        None is ``default``, or as the batches come.
    default : int
    most : int, optional
        Bytes that batches may take which are not of a pair of tensors.

    Raises
    ------
    TypeError, ValueError
        Data or a batch size that is none, or more bytes than ``most``.
    """
    if batch_size is not None and (
        isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer))
    ):
        raise TypeError(f"batch_size: expected an int, got {type(batch_size).__name__}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if _is_pair(data):
        tensors = _Examples(data).tensors
        size = int(batch_size or default)
        found = [
            Batch(inputs, targets, len(inputs))
            for inputs, targets in zip(*(torch.split(part, size) for part in tensors), strict=True)
        ]
    elif _is_indexable(data):
        examples, size = _Examples(data), int(batch_size or default)
        with RandomStates():
            found = _within(
                most,
                (
                    examples.take(np.arange(begin, min(begin + size, examples.count)))
                    for begin in range(0, examples.count, size)
                ),
            )
    elif not isinstance(data, Iterable):
        raise TypeError(
            "data: expected a pair of tensors, an indexable data set or an iterable of batches, "
            f"got {type(data).__name__}"
        )
    elif batch_size is not None:
        raise ValueError("batch_size: expected none where batches come ready, in their order, got one")
    else:
        with RandomStates(data):
            found = _within(most, _each(data))
    if sum(batch.size for batch in found) < 1:
        raise ValueError("data: expected at least 1 example, got none")
    return [batch for batch in found if batch.size]


def batch_bytes(batches: Iterable[Batch]) -> int:
    """Return the memory that the tensors of batches take."""
    return sum(
        tensor.numel() * tensor.element_size()
        for batch in batches
        for part in (batch.inputs, batch.targets)
        for tensor in _tensors(part)
    )


def _within(most: int | None, batches: Iterable[Batch]) -> list[Batch]:
    """Collect batches while they fit into memory."""
    found, taken = [], 0
    for batch in batches:
        found.append(batch)
        taken += batch_bytes([batch])
        if most is not None and taken > most:
            raise ValueError(
                f"memory: expected room for the data, got {format_bytes(most)}, which {len(found)} batches "
                "exceed; a pair of tensors needs no room of its own"
            )
    return found
