"""What can be read off a stream at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

from gradtail.estimators.autocorrelation import autocorrelation
from gradtail.estimators.autocorrelation_result import Autocorrelation
from gradtail.estimators.clip import ClipSuggestion, suggest_clip
from gradtail.estimators.cosines import StepCosines, step_cosines
from gradtail.estimators.spectrum import CovarianceSpectrum, covariance_spectrum
from gradtail.estimators.subspace import SubspaceStability, subspace_stability
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.packed import table_summary
from gradtail.states.record_log import RecordLog
from gradtail.states.ring import Ring
from gradtail.states.steps import StepSet
from gradtail.states.summary import Summary
from gradtail.states.timeline import Block
from gradtail.states.track_ring import Tracks
from gradtail.stream.latest import Latest
from gradtail.stream.on_device import DeviceNorm
from gradtail.stream.stable import StableReadings
from gradtail.stream.state import NonFinite, State


class Readings(StableReadings):
    """Everything that a :class:`gradtail.GradientStream` tells, and nothing that changes it."""

    _backend: ModuleType
    _held: State  # what can be told without a look at a device

    @property
    def _state(self) -> State:
        """The states, with all that was enqueued on a device: reading waits for it."""
        if self._held.device is not None:
            self._held.device.settle()
        return self._held

    @property
    def _heard(self) -> State:
        """The states with all steps counted: waits for a device only where it replays a CUDA graph."""
        if self._held.device is not None:
            self._held.device.catch_up()
        return self._held

    @property
    def settings(self) -> dict[str, Any]:
        """What the stream was asked to keep, and, after the first update, what memory allowed."""
        return self._held.account()

    @property
    def bits(self) -> int:
        """Mantissa bits of the histograms."""
        return self._held.settings.bits

    @property
    def backend(self) -> str:
        """Name of the backend that does the pass."""
        return str(self._backend.name)

    @property
    def names(self) -> list[str]:
        """Names of arrays seen so far, in the order in which they came."""
        return list(self._held.elements)

    @property
    def groups(self) -> list[str]:
        """Names of groups, in the order in which they came: the columns of :attr:`history`."""
        return list(self._held.rows)

    def group_of(self, name: str) -> str:
        """Return the group of an array; ValueError if none of that name was seen."""
        if name not in self._held.groups.of:
            raise ValueError(f"name: expected that of an array seen before, got {name!r}")
        return self._held.groups.of[name]

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each array that were seen here: of a shard, those of the shard."""
        return dict(self._held.sizes)

    @property
    def observed(self) -> dict[str, int]:
        """Steps in which each array was there."""
        return self._heard.ledger.observed(self.names)

    @property
    def counted(self) -> StepSet:
        """The steps observed."""
        return self._heard.counted.copy()

    @property
    def steps(self) -> int:
        """Steps observed."""
        return len(self._heard.counted)

    @property
    def last_step(self) -> int | None:
        """Number of the newest step; None before the first."""
        return self._heard.last_step

    @property
    def next_step(self) -> int:
        """Number of the next step, if none is given; replays of a CUDA graph that left theirs out count."""
        return self._heard.next_step

    @property
    def is_capturing(self) -> bool:
        """Whether an update would now become part of a CUDA graph, which is being captured."""
        return self._held.device is not None and self._held.device.is_capturing()

    @property
    def first_nonfinite(self) -> NonFinite | None:
        """Where the first NaN or infinity appeared; None if there was none."""
        return self._state.first_nonfinite

    @property
    def history(self) -> RecordLog:
        """One row of scalars a step: norms of every group and of the whole, non-finite values."""
        return self._state.log

    @property
    def nbytes(self) -> int:
        """Memory of the states, in bytes; that on a device, of what was not read yet, too."""
        there = (self._held.device, self._held.sketcher)
        return self._state.nbytes + sum(part.nbytes for part in there if part is not None)

    def norm(self) -> float:
        """Euclidean norm of the newest step, finite values only."""
        return self._state.norm()

    def nonfinite(self) -> int:
        """Non-finite values in the newest step."""
        return self._state.nonfinite()

    def latest(self) -> Latest | None:
        """Return the newest step of which the numbers are there, without waiting for any.

        Returns
        -------
        Latest or None
            None before the first step, and where the newest one was forgotten by
            :meth:`GradientStream.rollback` or :meth:`GradientStream.discard`.
        """
        state = self._held
        newest = None
        if state.newest_step is not None:
            bad, norm = state.nonfinite(), state.norm()
            if bad:
                norm = math.nan if state.newest.records["nan"].any() else math.inf
            newest = Latest(state.newest_step, norm, bad)
        found = None if state.device is None else state.device.latest()
        if found is None:
            return newest
        norm, bad = found["norm"], found["nonfinite"]
        if newest is not None and newest.step == found["step"]:  # read when a part of it was there
            norm = norm + newest.norm if bad or newest.nonfinite else math.hypot(norm, newest.norm)
            bad += newest.nonfinite
        return Latest(found["step"], norm, bad)

    def wait(self) -> Latest | None:
        """Return the newest step, having waited for its numbers; else as :meth:`latest`."""
        if self._held.device is not None:
            self._held.device.wait()
        return self.latest()

    def device_norm(self) -> DeviceNorm | None:
        """Return the norm of the newest step where the device keeps it, to be read in the order of streams.

        Returns
        -------
        object with ``__cuda_array_interface__``, or None
            0-dim, float64; NaN or infinite if any value is. The next step overwrites it. None where
            arrays lie in host memory, and where a step was read before all of it was observed.
        """
        return None if self._held.device is None else self._held.device.norm()

    @property
    def is_captured(self) -> bool:
        """Whether an update is part of a CUDA graph, which goes on writing to the memory of this stream."""
        return self._held.device is not None and self._held.device.is_captured

    def extra_seconds(self) -> float:
        """Return what passes took on the device that have ended since the last call; 0 on the host."""
        return 0.0 if self._held.device is None else self._held.device.elapsed_seconds()

    def summary(self, group: str | None = None, steps: Literal["all", "newest"] = "all") -> Summary:
        """Join the summaries of a group.

        Parameters
        ----------
        group : str, optional
            A group, or a dotted prefix of several; None is everything.
        steps : {"all", "newest"}
            Over all steps, or the newest alone. In "all", values of different steps are different
            values: count is the sum over steps.

        Raises
        ------
        ValueError
            No such group.
        """
        rows = self._state.group_rows(group)
        newest = table_summary(self._state.newest, rows, backend=self.backend)
        if steps == "newest":
            return newest
        if steps != "all":
            raise ValueError(f"steps: expected 'all' or 'newest', got {steps!r}")
        for part in self._state.timeline.summaries(rows):
            newest = newest.merge(part)
        return newest

    def blocks(self, group: str | None = None) -> list[Block]:
        """Return the time line of a group: its summaries over consecutive runs of steps.

        Blocks have as many step numbers each, a power of two; of the first and the last some may be missing.
        """
        state = self._state
        rows = state.group_rows(group)
        blocks = state.timeline.blocks(rows, state.counted)
        if state.last_step is None or not state.has_newest:
            return blocks
        newest = Block(state.last_step, state.last_step, 1, self.summary(group, "newest"))
        if blocks and state.timeline.together(blocks[-1].first_step, state.last_step):
            last = blocks.pop()
            joined = last.summary.merge(newest.summary)
            newest = Block(last.first_step, newest.last_step, last.steps + 1, joined)
        return [*blocks, newest]

    def ring(self, group: str | None = None) -> Ring:
        """Return the sketches of the newest steps.

        Parameters
        ----------
        group : str, optional
            A group, or a dotted prefix of several: sketches of 128 buckets over at most 64 steps. None is
            everything: sketches of all buckets over the whole window.

        Raises
        ------
        ValueError
            No such group.
        """
        if group is None:
            return self._state.ring.ring([0])
        return self._state.group_ring.ring(self._state.group_rows(group))

    def tracks(self, names: Sequence[str] | None = None) -> Tracks:
        """Return the values of the tracked coordinates over the newest steps.

        Parameters
        ----------
        names : sequence of str, optional
            Of arrays; None is all of them.

        Raises
        ------
        ValueError
            A name that was not seen.
        """
        if isinstance(names, str):
            raise TypeError(f"names: expected a sequence of names, got the str {names!r}")
        for name in names or ():
            self.group_of(name)
        return self._state.tracks.tracks(names)

    def coordinates(self, name: str) -> CoordinateMoments:
        """Return moments over steps of the coordinates of one array that are followed.

        One group of 8 neighbours in 64 or more, unless ``coordinates="dense"`` has followed all.

        Raises
        ------
        ValueError
            No array of that name was seen.
        """
        self.group_of(name)
        return self._state.coordinates.moments(name)

    def spectrum(
        self, group: str | None = None, *, centred: bool = True, top: int | None = None
    ) -> CovarianceSpectrum:
        """Estimate the spectrum of the covariance of the gradient over the steps of the window.

        See :func:`gradtail.spectrum.covariance_spectrum`, which is given :meth:`ring`: for everything
        together sketches of all buckets over the whole window, for a group its small ring.
        """
        ring = self.ring(group)
        rows = set(self._state.group_rows(group))
        of = self._state.groups.of
        dimension = sum(n for name, n in self._state.elements.items() if self._state.rows[of[name]] in rows)
        return covariance_spectrum(
            ring.vectors, ring.norms, centred=centred, top=top, dimension=dimension, steps=ring.steps
        )

    def subspace_stability(
        self, group: str | None = None, *, top: int = 10, centred: bool = True
    ) -> SubspaceStability:
        """Compare the leading directions of the covariance over both halves of the window.

        See :func:`gradtail.spectrum.subspace_stability`, which is given :meth:`ring`.
        """
        ring = self.ring(group)
        return subspace_stability(ring.vectors, ring.norms, top=top, centred=centred)

    def autocorrelation(
        self,
        group: str | None = None,
        *,
        period: int | None = None,
        lags: int | None = None,
        frozen: bool = False,
        centred: bool = True,
    ) -> Autocorrelation:
        """Estimate the autocorrelation of what was observed over the steps of the window.

        In training the full gradient answers the noise of the steps before, whatever the sampler: only an
        order of batches that repeats can be told, ``repeats`` of the result, and of the rest it says that it
        cannot tell. Of noise at fixed weights, ``frozen=True, centred=False``.

        See :func:`gradtail.autocorrelation`, which is given :meth:`ring`.

        Parameters
        ----------
        group : str, optional
            As for :meth:`ring`.
        period, lags, centred
            As for that function.
        frozen : bool
            Whether all steps were at the same weights.

        Raises
        ------
        ValueError
            No such group, or fewer than two finite steps.
        """
        ring = self.ring(group)
        return autocorrelation(
            ring.vectors,
            ring.norms,
            steps=ring.steps,
            lags=lags,
            period=period,
            centred=centred,
            frozen=frozen,
        )

    def cosines(self, group: str | None = None, lag: int = 1) -> StepCosines:
        """Return the cosine of each step of the window with the step ``lag`` before, and the sketch's error.

        Parameters
        ----------
        group : str, optional
            As for :meth:`ring`.
        lag : int

        Raises
        ------
        TypeError, ValueError
            No such group, fewer than two finite steps, or no positive lag.
        """
        ring = self.ring(group)
        return step_cosines(ring.vectors, steps=ring.steps, lag=lag, sketched=True)

    def suggest_clip(self, rate: float | None = None, **settings: Any) -> ClipSuggestion:
        """Suggest a clip threshold from the recorded norms.

        See :func:`gradtail.suggest_clip`, which is given the norms of :attr:`history`.
        """
        if rate is not None:
            settings["rate"] = rate
        return suggest_clip(self.history.norm, steps=self.history.steps, **settings)
