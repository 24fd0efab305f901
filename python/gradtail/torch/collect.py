"""Minibatch gradients of a model whose parameters stay as they are: the protocol of the published studies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor, nn

from gradtail.build import build_info
from gradtail.estimators.structure import FEWEST_IN_TAIL, LEVEL, ColumnTests
from gradtail.states.budget import format_bytes, parse_memory
from gradtail.stream import GradientStream
from gradtail.stream.settings import Settings
from gradtail.torch.asked import checked_int
from gradtail.torch.batches import Batch, Batches, Sampling, batches_of
from gradtail.torch.collected_noise import Kind
from gradtail.torch.collection import GradientCollection
from gradtail.torch.countdown import Countdown
from gradtail.torch.frozen import Frozen, Mode, mode_of, random_parts, seed_all
from gradtail.torch.interrupts import Interrupts
from gradtail.torch.parameters import Filter, Named, watched_parameters

Loss = Callable[[Any, Any], Tensor]

BITS = 7
"""Of the histograms: so fine that the tests of a tail lose nothing to bins."""

_BUCKETS_A_BATCH = 8
_LEAST_SKETCH, _LARGEST_SKETCH = 4096, 65536
_FEWEST = 2
_ALIKE = 1e-5  # of the losses of two passes: so far float32 tells apart


def collect_gradients(
    model: nn.Module,
    loss: Loss,
    data: Any,
    batches: int | None = None,
    batch_size: int | None = None,
    *,
    sampling: Sampling | None = None,
    centre: bool = True,
    exact: bool = False,
    memory: str | int = "4GiB",
    params: Filter | None = None,
    top: int = 1000,
    layers: bool = True,
    mode: Mode | None = None,
    seed: int = 0,
    sketch: int | None = None,
    tracks: int = 4096,
    coordinates: Literal["auto", "dense"] | int | None = "dense",
    stable: bool | None = None,
    progress: bool | None = None,
) -> GradientCollection:
    """Stream the gradients of many minibatches at fixed parameters.

    Parameters
    ----------
    model : nn.Module
        As it was afterwards, bit for bit: parameters, buffers, gradients, modes; random states of torch,
        NumPy, Python and a loader's own generators too.
    loss : callable
        Of the model's output and the target; the mean over the batch.
    data : pair of tensors, indexable data set, or iterable of batches
        ``(inputs, targets)`` of equal length; something with ``len`` and indexing to an ``(input, target)``;
        or an iterable of ready ``(inputs, targets)`` batches, such as a DataLoader, taken in order. Where an
        item or a batch is a mapping, both the model and the loss get all of it.
    batches : int, optional
        How many, T; of ready batches at most so many, by default all. An iterator that ends before that
        gives fewer.
    batch_size : int, optional
        Examples of each, B; not for ready batches.
    sampling : {"shuffle", "replacement", "in order"}, optional
        Disjoint batches of a new permutation for every epoch, the default; every example drawn independently;
        or disjoint batches in the order of the data. Of epochs the rest that fills no batch is left out. Not
        for ready batches.
    centre : bool
        Take the full-batch gradient in a pass of its own, and stream the noise, which is each gradient less
        the full one, as well.
    exact : bool
        Keep the gradients themselves too, for comparison on small models: 4 T n bytes, or 8 T n where a
        parameter is float64; twice that with noise.
    memory : str or int
        What ``exact`` may take, such as "4GiB".
    params : filter, optional
        Which parameters, as for :class:`Monitor`; those that require no gradient are left out.
    top : int
        Largest magnitudes that a power law is held against in each batch; a tenth of the nonzero values if
        that is less. At least 50, as fewer are not tested.
    layers : bool
        Test the columns of every parameter, not of the whole alone: about a millisecond for each of them and
        each batch.
    mode : {"train", "eval"}, optional
        What the model is set to meanwhile; default: as it is.
    seed : int
        Of the sampling, of dropout, and of the hashes of the streams.
    sketch : int, optional
        Buckets; default: 8 a batch, as the whole of a spectrum asks for, from 4,096 to 65,536.
    tracks, coordinates
        As for :class:`gradtail.GradientStream`: parameters followed batch by batch, and those with moments
        over the batches, by default all.
    stable : bool, optional
        Likewise: take the sums of neighbours that alpha needs without ``exact``; default: in host memory.
    progress : bool, optional
        Say how far it is on the standard error stream; default: on a terminal.

    Returns
    -------
    GradientCollection

    Raises
    ------
    TypeError, ValueError
        Arguments that are none of these or do not go together, data too short for a batch or of fewer than
        two batches, a loss that is no scalar or does not depend on the parameters, a full-batch gradient
        that is not finite, or more gradients to keep than ``memory`` has room for.
    KeyboardInterrupt
        Ctrl-C before the second batch; later it ends the collection early, and what was gathered is returned.

    Notes
    -----
    A parameter that a batch does not reach has a gradient of zero there. A batch with NaN is counted by the
    streams and tested by its finite values.

    Xie et al., "On the Overlooked Structure of Stochastic Gradients" (2023): the gradient matrix G of
    n parameters by T batches, tested by columns and by rows. Nothing of its size is kept. Time is that of
    T + N / B gradients, a pass over each gradient and each noise, and the tests of every parameter's columns.
    Memory is T sketches of float32 and, besides the model and its graph, up to 16 times the parameters: of
    these 8 are for the four moments of every coordinate in each of two streams (``coordinates="dense"``);
    without them and without ``centre`` it is 3 times.

    In training mode batch normalisation makes the gradient of an example depend on its batch, so that the
    full-batch gradient, taken in batches of ``batch_size``, is no mean of them. Under dropout the full-batch
    gradient is one draw of a random vector, with one mask for each of its batches: the noise is about that
    draw, not about the mean over masks. ``mode="eval"`` has neither.

    Examples
    --------
    >>> x, y = torch.randn(64, 5), torch.randn(64, 1)
    >>> model = nn.Linear(5, 1)
    >>> found = collect_gradients(model, nn.functional.mse_loss, (x, y), 30, 8)
    >>> found.gradients.steps, found.noise.steps, found.full["bias"].shape
    (30, 30, torch.Size([1]))
    """
    named = [(name, p) for name, p in watched_parameters(model, params) if p.requires_grad]
    if not named:
        raise ValueError("model: expected parameters that require a gradient, got none")
    if not callable(loss):
        raise TypeError(f"loss: expected a callable, got {type(loss).__name__}")
    for name, value in (("centre", centre), ("exact", exact), ("layers", layers)):
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    top = checked_int("top", top, FEWEST_IN_TAIL)
    if mode not in (None, "train", "eval"):
        raise ValueError(f"mode: expected None, 'train' or 'eval', got {mode!r}")
    Settings.checked(
        bits=BITS, window=_FEWEST, sketch=sketch, tracks=tracks, coordinates=coordinates, seed=seed,
        history=16, memory="64MiB", stable=stable,
    )  # fmt: skip
    source = batches_of(data, batches, batch_size, sampling, centre, seed)
    run = _Run(model, loss, named, source, exact=exact, top=top, layers=layers)
    if exact:
        run.check_room(parse_memory(memory), 2 if centre else 1)
    run.open(centre, sketch, tracks, coordinates, seed, stable)
    began = time.perf_counter()
    with Frozen(model, mode, seed, data), torch.enable_grad(), Interrupts() as interrupts:
        if centre:
            run.take_full(Countdown("full gradient", source.in_full, progress), interrupts)
        seed_all(seed)
        run.take_all(Countdown("gradients", source.count, progress), interrupts)
        modes, parts = mode_of(model), random_parts(model)
    if interrupts.stopped and run.done < _FEWEST:
        raise KeyboardInterrupt
    if run.done < _FEWEST:
        raise ValueError(f"data: expected at least {_FEWEST} batches, got {run.done}")
    provenance = {
        "batches": run.done, "asked_for": source.count, "batch_size": source.batch_size,
        "examples": source.examples, "sampling": source.sampling, "centre": centre,
        "mode": modes, "random": parts, "whole": run.is_whole, "seed": seed, "parameters": run.elements,
        "dtype": sorted({str(p.dtype).removeprefix("torch.") for _, p in named}),
        "device": sorted({str(p.device) for _, p in named}), "top": top, "cutoff": "rank", "level": LEVEL,
        "sketch": run.sketch, "tracks": tracks, "coordinates": coordinates, "stable": stable,
        "bits": BITS, "exact": exact, "sizes": run.sizes, "layers": layers,
        "seconds": time.perf_counter() - began,
        "torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
        "gradtail": build_info()["version"], "backend": run.streams["gradient"].backend,
        "model": type(model).__name__, "loss": getattr(loss, "__name__", type(loss).__name__),
    }  # fmt: skip
    interrupted = interrupts.stopped and run.done < source.count
    return GradientCollection(
        run.streams["gradient"], run.streams.get("noise"), run.full, run.done, interrupted, provenance,
        run.columns, {kind: matrix[: run.done] for kind, matrix in run.matrices.items()},
        {name: p.numel() for name, p in named},
    )  # fmt: skip


class _Run:
    """One collection while it goes on."""

    def __init__(
        self, model: nn.Module, loss: Loss, named: list[Named], source: Batches, *,
        exact: bool, top: int, layers: bool,
    ) -> None:  # fmt: skip
        self._model, self._loss, self._source, self._exact, self._top = model, loss, source, exact, top
        self._layers = [name for name, _ in named] if layers else []
        self._names = [name for name, _ in named]
        self._parameters = [p for _, p in named]
        self._device = self._parameters[0].device
        self.elements = sum(p.numel() for p in self._parameters)
        self.streams: dict[Kind, GradientStream] = {}
        self.columns: dict[tuple[Kind, str | None], ColumnTests] = {}
        wide = any(p.dtype == torch.float64 for p in self._parameters)
        self._dtype = torch.float64 if wide else torch.float32
        self.matrices: dict[Kind, npt.NDArray[np.floating]] = {}
        self.full: dict[str, Tensor] | None = None
        self.done = 0
        self.sketch = 0
        self._seen: list[tuple[int, float]] = []  # examples and loss of each ready batch

    def open(
        self,
        centre: bool,
        sketch: int | None,
        tracks: int,
        coordinates: Literal["auto", "dense"] | int | None,
        seed: int,
        stable: bool | None,
    ) -> None:
        """Make the streams and all that is kept."""
        window = self._source.count
        if sketch is None:
            wanted = 1 << max(_BUCKETS_A_BATCH * window - 1, 1).bit_length()
            sketch = min(max(wanted, _LEAST_SKETCH), _LARGEST_SKETCH)
        self.sketch = sketch
        kinds: list[Kind] = ["gradient", "noise"] if centre else ["gradient"]
        sizes = {name: p.numel() for name, p in zip(self._names, self._parameters, strict=True)}
        memory = _memory(window, sketch, tracks, self.elements, len(sizes))
        for kind in kinds:
            stream = GradientStream(
                bits=BITS, window=window, sketch=sketch, tracks=tracks, coordinates=coordinates, seed=seed,
                history=max(window, 16), memory=memory, stable=stable,
            )  # fmt: skip
            stream.declare(sizes)
            self.streams[kind] = stream
            for group in (None, *self._layers):
                self.columns[kind, group] = ColumnTests(kind, self._top)
            if self._exact:
                self.matrices[kind] = np.empty(
                    (window, self.elements), np.float64 if self._dtype == torch.float64 else np.float32
                )

    def check_room(self, memory: int, kinds: int) -> None:
        """Refuse to keep more gradients than there is room for, before any is taken."""
        needed = kinds * self._source.count * self.elements * self._dtype.itemsize
        if needed > memory:
            raise ValueError(
                f"memory: expected at least {format_bytes(needed)} for {self._source.count} gradients of "
                f"{self.elements} elements{' and their noise' if kinds > 1 else ''} (exact=True), got "
                f"{format_bytes(memory)}; fewer batches or params need less"
            )

    def take_full(self, progress: Countdown, interrupts: Interrupts) -> None:
        """Take the full-batch gradient, in batches weighted by their sizes."""
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self._parameters]
        examples = 0
        with progress:
            for batch in self._source.full():
                if interrupts.stopped:
                    raise KeyboardInterrupt
                for sum_, gradient in zip(total, self._gradients(batch), strict=True):
                    sum_.add_(gradient, alpha=batch.size)
                examples += batch.size
                progress.advance()
        self.full = {name: sum_.div_(examples) for name, sum_ in zip(self._names, total, strict=True)}
        for name, whole in self.full.items():
            if not whole.isfinite().all():
                raise ValueError(f"data: expected a finite full-batch gradient, got another in {name}")

    def take_all(self, progress: Countdown, interrupts: Interrupts) -> None:
        """Take the gradient of every batch."""
        full = None
        if self.full is not None:
            full = [
                g.to(torch.promote_types(p.dtype, torch.float32))
                for g, p in zip(self.full.values(), self._parameters, strict=True)
            ]
        with progress:
            for batch in self._source:
                if interrupts.stopped:
                    return
                found = self._gradients(batch)
                self._observe("gradient", found)
                if full is not None:
                    noise = [g.to(whole.dtype) - whole for g, whole in zip(found, full, strict=True)]
                    self._observe("noise", noise)
                self.done += 1
                progress.advance()

    @property
    def sizes(self) -> list[int]:
        """Sizes of the batches that were taken, each once."""
        if self._source.batch_size is not None:
            return [self._source.batch_size]
        return sorted({size for size, _ in self._seen[len(self._seen) - self.done :]})

    @property
    def is_whole(self) -> bool:
        """Whether ready batches were a pass like that of the full gradient, which they then add up to.

        Their losses are those of that pass: else a loader has left others out, or drawn something anew.
        """
        full, each = self._seen[: -self.done or None], self._seen[-self.done :]
        if self.full is None or not full or len(full) != len(each):
            return False
        first, second = (math.fsum(size * loss for size, loss in seen) for seen in (full, each))
        return abs(first - second) <= _ALIKE * math.fsum(size * abs(loss) for size, loss in full)

    def _gradients(self, batch: Batch) -> list[Tensor]:
        """Return dense gradients in the order of their elements; of parameters without a part in it, zero."""
        inputs, targets = batch.to(self._device)
        value = self._loss(self._model(inputs), targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss: expected a scalar tensor, the mean over the batch, got {shown}")
        if not value.requires_grad:
            raise ValueError("loss: expected a value that depends on the parameters, got one without a graph")
        if self._source.batch_size is None:
            self._seen.append((batch.size, value.item()))
        found = torch.autograd.grad(value, self._parameters, allow_unused=True)
        if any(g is None for g in found) and _is_reentrant(value):
            raise ValueError(
                "model: expected activation checkpointing with use_reentrant=False, got the re-entrant kind, "
                "which gives no gradients of chosen tensors"
            )
        whole = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, self._parameters, strict=True)
        ]
        return [(g.to_dense() if g.layout != torch.strided else g).detach().contiguous() for g in whole]

    def _observe(self, kind: Kind, gradients: list[Tensor]) -> None:
        stream = self.streams[kind]
        there = dict(zip(self._names, gradients, strict=True))
        stream.update(there, step=self.done)
        self.columns[kind, None].add(stream.summary(steps="newest"))
        for name in self._layers:
            self.columns[kind, name].add(stream.summary(name, "newest"))
        if self._exact:
            row, begin = self.matrices[kind][self.done], 0
            for name, p in zip(self._names, self._parameters, strict=True):
                row[begin : begin + p.numel()] = there[name].to(self._dtype).cpu().numpy().reshape(-1)
                begin += p.numel()


def _is_reentrant(value: Tensor) -> bool:
    """Whether re-entrant checkpointing is part of a graph: autograd leaves its gradients out in silence."""
    seen: set[Any] = set()
    nodes = [value.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
    return False


def _memory(window: int, sketch: int, tracks: int, elements: int, groups: int) -> int:
    """Bound what a stream may take, with room: rings of float64, moments of all coordinates, histograms."""
    rings = 2 * window * (8 * sketch + 5 * tracks) + 2 * 64 * 8 * 128 * groups
    return int(rings + 64 * elements + groups * 4 * 8 * (1 << (9 + BITS)) * (2 + math.log2(window + 2))) + (
        256 << 20
    )
