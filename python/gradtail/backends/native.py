"""Adapter over the compiled pass: the same function names as the specification."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradtail.buffers import Views
from gradtail.native import core
from gradtail.states.outputs import Outputs
from gradtail.states.table import SummaryTable

name = "native"


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``, reading each value once."""
    assert core is not None
    core.summarize(views.table, table.records, table.counts, table.bits, table.logs)


def observe(views: Views, table: SummaryTable, out: Outputs) -> None:
    """Do all that one pass can do; see :func:`gradtail.backends.numpy.observe`."""
    assert core is not None
    t = out.tracks
    tracks = None if t is None else (t.first, t.offset, t.value)
    core.observe(
        views.table, table.records, table.counts, table.bits, out.records, out.sketch, out.row_sketches,
        tracks, out.pieces, table.logs,
    )  # fmt: skip


def sketch(views: Views, out: npt.NDArray[np.float64]) -> None:
    """Add the sketch of every view to ``out``, of shape (r,)."""
    assert core is not None
    core.sketch(views.table, out)


def update_coordinates(views: Views, pieces: npt.NDArray[np.void]) -> None:
    """Update the CoordinateMoments of every view: PIECE, shape (n_views,)."""
    assert core is not None
    core.update_coordinates(views.table, pieces)


def fold(into: SummaryTable, table: SummaryTable) -> None:
    """Add each row of ``table`` to the same row of ``into``."""
    assert core is not None
    core.fold(into.records, into.counts, table.records, table.counts, table.bits, into.logs, table.logs)


def clear(table: SummaryTable) -> None:
    """Empty every row of ``table``."""
    assert core is not None
    core.clear(table.records, table.counts, table.bits, table.logs)
