"""Gradient alpha of a stream: of a group, and of its blocks of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from gradtail.estimators.stable_sums import LogMeans, StreamAlpha, stable_sums
from gradtail.states.log_sums import BLOCK_SIZES
from gradtail.states.packed import PackedTable
from gradtail.stream.state import State


class StableReadings(ABC):
    """What a stream tells of the sums of neighbours that its pass has taken."""

    @property
    @abstractmethod
    def _state(self) -> State:
        """The states, up to date."""

    def stable_index(
        self,
        group: str | None = None,
        block: int | None = None,
        steps: Literal["all", "newest"] = "all",
    ) -> StreamAlpha:
        """Estimate the stable index of a group from sums of neighbouring values: gradient alpha.

        Parameters
        ----------
        group : str, optional
            A group, or a dotted prefix of several; None is everything. Each group is held against its own
            mean of logarithms, so that unequal scales of groups do not count; those within a group do.
        block : {None, 64, 256, 1024, 4096}
            Values of a block; None is the largest with at least 100 sums that are not zero.
        steps : {"all", "newest"}
            Over all steps, with an error from the spread between blocks of steps, or the newest alone.

        Returns
        -------
        StreamAlpha

        Raises
        ------
        TypeError, ValueError
            No such group, block or steps; a stream of ``stable=False``, or one whose arrays lie on a CUDA
            device without ``stable=True``; fewer than two sums that are not zero.
        """
        state = self._state
        rows = state.group_rows(group)
        if not state.settings.takes_block_sums:
            raise ValueError(
                f"stable_index: expected a stream that takes block sums, got {state.no_block_sums}"
            )
        if steps not in ("all", "newest"):
            raise ValueError(f"steps: expected 'all' or 'newest', got {steps!r}")
        return stable_sums([part for _, _, part in self._log_means(rows, steps)], block)

    def stable_curve(
        self, group: str | None = None, block: int | None = None
    ) -> list[tuple[int, int, float]]:
        """Return gradient alpha over the run: first step, last step and alpha of each block of steps.

        Blocks are those of :meth:`blocks`; ``group`` and ``block`` are as for :meth:`stable_index`, of which
        None is settled once, over all steps. Blocks of steps with fewer than two sums are left out.
        """
        size = self.stable_index(group, block).block
        found = []
        for first, last, part in self._log_means(self._state.group_rows(group), "all"):
            if part.blocks(BLOCK_SIZES.index(size)) >= 2:
                found.append((first, last, stable_sums([part], size).alpha))
        return found

    def _log_means(self, rows: Sequence[int], steps: str) -> list[tuple[int, int, LogMeans]]:
        """Return first step, last step and log means of each block of steps; as :meth:`blocks` has them."""
        state = self._state
        newest = (
            []
            if not state.has_newest or state.last_step is None
            else [(state.last_step, state.last_step, LogMeans.of_table(PackedTable.pack(state.newest), rows))]
        )
        if steps == "newest":
            if not newest:
                raise ValueError("steps: expected a newest step, got a stream without")
            return newest
        parts = [
            (one.first_step, one.last_step, LogMeans.of_table(one.table, rows))
            for one in state.timeline.packed()
        ]
        if parts and newest and state.timeline.together(parts[-1][0], newest[0][0]):
            first, _, means = parts.pop()
            newest = [(first, newest[0][1], LogMeans.joined([means, newest[0][2]]))]
        if not parts + newest:
            raise ValueError("stable_index: expected a stream with a step, got one without")
        return parts + newest
