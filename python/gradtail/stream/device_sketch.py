"""Sketches of arrays on a CUDA device that are counted nowhere: the increments of micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail import native as extension
from gradtail.backends import cuda
from gradtail.backends.device import TRACK
from gradtail.buffers import Views
from gradtail.stream.arrangement import Arrangement

_MOST_PLANS = 4  # sets of arrays that the device stays prepared for


class DeviceSketcher:
    """Keeps an engine for sketches alone, so that only the first call allocates. Every call waits.

    Parameters
    ----------
    device : int
        Number of the CUDA device.
    buckets : int
    """

    def __init__(self, device: int, buckets: int) -> None:
        assert extension.engine is not None
        self._engine: Any = extension.engine.Engine(
            device=device, rows=1, bits=0, buckets=buckets, wide_counts=True
        )
        self._plans: list[tuple[Arrangement, int]] = []  # the newest last

    @property
    def nbytes(self) -> int:
        """Memory on the device, in bytes."""
        return int(self._engine.nbytes)

    def sketch(self, arrangement: Arrangement, views: Views) -> npt.NDArray[np.float64]:
        """Return the sketch of arrays."""
        table = views.table.copy()
        table["row"] = 0
        number = next((number for known, number in self._plans if known is arrangement), None)
        if number is None:
            number = self._engine.prepare(table, np.zeros(0, TRACK), None)
            self._plans.append((arrangement, number))
            for _, old in self._plans[:-_MOST_PLANS]:
                self._engine.forget(old)
            del self._plans[:-_MOST_PLANS]
        stream = cuda.current_stream(views)
        self._engine.update(number, table, 0, True, False, False, stream)
        self._engine.wait(stream)
        found: npt.NDArray[np.float64] = self._engine.read("sketch").view(np.float64)
        return found
