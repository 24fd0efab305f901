"""Adapter over the compiled pass: the same function names as the specification."""

from __future__ import annotations

from gradtail.buffers import Views
from gradtail.native import core
from gradtail.states.table import SummaryTable

name = "native"


def summarize(views: Views, table: SummaryTable) -> None:
    """Add every view to its row of ``table``, reading each value once."""
    assert core is not None
    core.summarize(views.table, table.records, table.counts, table.bits)


def fold(into: SummaryTable, table: SummaryTable) -> None:
    """Add each row of ``table`` to the same row of ``into``."""
    assert core is not None
    core.fold(into.records, into.counts, table.records, table.counts, table.bits)


def clear(table: SummaryTable) -> None:
    """Empty every row of ``table``."""
    assert core is not None
    core.clear(table.records, table.counts, table.bits)
