"""Arrays in host memory that are taken for arrays on a CUDA device, which is simulated.

Streams of the device are lazy: nothing that was enqueued happens before somebody waits, or a test advances
the stream. So arrays are kept as long as an update may still read them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from gradtail import GradientStream, buffers
from gradtail import native as extension
from gradtail.backends import cuda
from gradtail.stream import arrangement

CUDA = 2  # DLPack's number
WAITS = ("synchronizations", "allocations")


class Device:
    """The simulated device, and what lies on it.

    Parameters
    ----------
    module : module
        The simulated device with the engine.

    Attributes
    ----------
    number : int
        Of the device on which arrays lie.
    stream : int
        The one that is current.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.number = module, 0
        self.stream = module.create_stream(0)
        self.kept: list[Any] = []
        self.there = True  # whether arrays given now lie on the device

    def advance(self, n: int | None = None) -> int:
        """Let the device do what was enqueued, or so much of it."""
        return int(self.module.advance(self.stream) if n is None else self.module.advance(self.stream, n))

    def counters(self) -> tuple[int, ...]:
        """Return how often anybody has waited, and allocated."""
        found = self.module.counters()
        return tuple(found[name] for name in WAITS)

    @contextmanager
    def waits_for_nothing(self) -> Iterator[None]:
        """Fail if anything in the block waits for the device or allocates."""
        before = self.counters()
        yield
        assert self.counters() == before, f"{WAITS} were {before}, are {self.counters()}"

    @contextmanager
    def host(self) -> Iterator[None]:
        """Take arrays for what they are."""
        self.there = False
        yield
        self.there = True

    @contextmanager
    def captured(self) -> Iterator[list[int]]:
        """Capture what is enqueued in the block; the list has the number of the graph afterwards."""
        graph: list[int] = []
        before, self.stream = self.stream, self.module.create_stream(0)
        self.module.begin_capture(self.stream)
        try:
            yield graph
        finally:
            capturing, self.stream = self.stream, before
            graph.append(self.module.end_capture(capturing))

    def replay(self, graph: list[int]) -> None:
        """Enqueue a graph on the current stream."""
        self.module.replay(graph[0], self.stream)


def install(module: Any, patch: pytest.MonkeyPatch) -> Device:
    """Have arrays lie on the simulated device from now on."""
    device = Device(module)
    describe = buffers.views_of

    def pretend(x: Any, argument: str = "x", **settings: Any) -> Any:
        found = describe(x, argument, **settings)
        if device.there:
            device.kept.append(x if not isinstance(x, Mapping) else dict(x))
            found.table["device"], found.table["device_id"] = CUDA, device.number
        return found

    patch.setattr(extension, "engine", module)
    patch.setattr(arrangement, "views_of", pretend)
    patch.setattr(cuda, "framework_of", lambda views: "torch")  # whose memory stays until streams are done
    patch.setattr(cuda, "stream_now", lambda number, framework: device.stream)
    return device


def lying_on(module: Any, patch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Have arrays lie on the simulated device during a test, as its fixture."""
    gc.collect()  # engines of tests before: to release memory is to wait
    module.reset()
    yield install(module, patch)
    module.check_redzones()
    module.reset()


class Pair:
    """A stream on the device and one on the host, which are given the same arrays."""

    def __init__(self, device: Device, **settings: Any) -> None:
        small = {"sketch": 256, "tracks": 50, "window": 5, "history": 8, "coordinates": 2, "stable": True}
        self.device = device
        self.there = GradientStream(**{**small, **settings})  # type: ignore[arg-type]
        self.here = GradientStream(**{**small, **settings})  # type: ignore[arg-type]

    def update(self, arrays: Any, step: int | None = None, places: Any = None) -> None:
        """Observe in both."""
        self.there.update(arrays, step, places)
        self.here_update(arrays, step, places)

    def here_update(self, arrays: Any, step: int | None = None, places: Any = None) -> None:
        """Observe on the host alone."""
        with self.device.host():
            self.here.update(arrays, step, places)

    def call(self, action: Callable[[GradientStream], Any]) -> tuple[Any, Any]:
        """Do something to both."""
        found = action(self.there)
        with self.device.host():
            return found, action(self.here)


def gradient(step: int, shapes: Mapping[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Make up arrays of a step."""
    rng = np.random.default_rng([step, 17])
    return {name: rng.standard_t(3, shape).astype(dtype) for name, shape in shapes.items()}
