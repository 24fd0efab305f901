"""What a monitor can be asked: nothing here changes what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from gradtail.estimators.autocorrelation_result import Autocorrelation
from gradtail.estimators.batch_order import batch_order
from gradtail.estimators.batch_order_result import BatchOrder
from gradtail.estimators.clip import ClipSuggestion
from gradtail.estimators.cosines import StepCosines
from gradtail.estimators.noise_scale import NoiseScale, noise_scale_from_micro
from gradtail.estimators.spectrum import CovarianceSpectrum
from gradtail.estimators.stable_sums import StreamAlpha
from gradtail.estimators.subspace import SubspaceStability
from gradtail.states.budget import FOLD
from gradtail.states.coordinate_moments import CoordinateMoments
from gradtail.states.record_log import RecordLog
from gradtail.states.summary import Summary
from gradtail.states.track_ring import Tracks
from gradtail.stream import GradientStream, Latest
from gradtail.torch.attach import Attachment
from gradtail.torch.clip import Clip
from gradtail.torch.directions import Trajectory
from gradtail.torch.guard import Guard
from gradtail.torch.micro import MicroSteps
from gradtail.torch.observer import Observer
from gradtail.torch.overhead import Overhead, Stopwatch
from gradtail.torch.plan import Plan, plan_of
from gradtail.torch.scalar import Norm, as_flag, as_scalar, is_bad
from gradtail.torch.scalars import scalars_of
from gradtail.torch.scaling import Scaling
from gradtail.torch.skips import Skipped

if TYPE_CHECKING:
    from gradtail.report import Report


class Readings:
    """The reading half of :class:`gradtail.torch.Monitor`, which sets all of these attributes."""

    _observer: Observer
    _guard: Guard
    _clip: Clip
    _stopwatch: Stopwatch
    _norm: Norm | None
    _attached: list[Attachment]
    _scaling: Scaling | None
    _trajectory: Trajectory | None

    def __repr__(self) -> str:
        observer = self._observer
        steps = observer.stream.steps
        seen = f"{steps} steps observed, newest {observer.stream.last_step}" if steps else "nothing observed"
        cadence = "" if observer.cadence.is_plain else f", {observer.cadence}"
        state = "" if self.enabled else ", off"
        return f"Monitor({len(observer.parameters)} parameters, {seen}{cadence}{state})"

    @property
    def stream(self) -> GradientStream:
        """What was observed."""
        return self._observer.stream

    @property
    def enabled(self) -> bool:
        """Whether anything is observed; may be set."""
        return self._guard.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._guard.enabled = bool(value)

    def grad_norm(self) -> Tensor:
        """Return the joint norm of the watched gradients at the last call, before any clipping.

        Returns
        -------
        Tensor
            0-dim, float64: NaN or infinite if any value was. Of gradients on a GPU it is there too, and
            asking does not wait for it.

        Raises
        ------
        RuntimeError
            Nothing has been observed yet.

        Notes
        -----
        Of a monitor that is switched off, and of a step that :meth:`step` left out, it is the norm
        of the gradients as they are now, which takes a pass of its own.
        """
        return as_scalar(self._newest_norm("grad_norm"))

    def _newest_norm(self, asked: str) -> Norm:
        if self._norm is not None:
            return self._norm
        if self.enabled and self._observer.last is None:
            raise RuntimeError(f"{asked}: expected a call of step or clip_ before, got none yet")
        known = self._observer.known if self.enabled else None
        norm = self._joint_norm(known)
        if known is not None:
            self._norm = norm
        return norm

    def latest(self) -> Latest | None:
        """Return number, norm and non-finite values of the newest step that is finished; never waits.

        Where gradients are on a GPU, it may lag behind the loop by a few steps. Of sharded gradients it is
        what this rank holds.

        Returns
        -------
        Latest or None
            None before the first.
        """
        return self.stream.latest()

    def wait(self) -> Latest | None:
        """Return what :meth:`latest` does of the newest observed step, having waited for it."""
        return self.stream.wait()

    @property
    def found_inf(self) -> Tensor:
        """1 if the norm at the last call is NaN or infinite, else 0; float32, where the gradients are.

        ``optimizer.found_inf = monitor.found_inf`` has a fused optimizer leave out a bad step. A bad step
        for which this was read is taken for left out, and listed in :attr:`skipped`.

        Raises
        ------
        RuntimeError
            Nothing has been observed yet.
        """
        bad = is_bad(self._newest_norm("found_inf"))
        if self.enabled and (step := self._observer.last) is not None:
            self._guard.run(lambda: self._observer.skip_if(bad, step), None, step)
        return as_flag(bad, self._observer.gradients.device)

    def summary(self, group: str | None = None, steps: Literal["all", "newest"] = "all") -> Summary:
        """Return the summary of a parameter, a module (any dotted prefix), or everything.

        See :meth:`gradtail.GradientStream.summary`.
        """
        return self.stream.summary(group, steps)

    def stable_index(
        self,
        group: str | None = None,
        block: int | None = None,
        steps: Literal["all", "newest"] = "all",
    ) -> StreamAlpha:
        """Estimate the stable index of raw gradients: :meth:`gradtail.GradientStream.stable_index`."""
        return self.stream.stable_index(group, block, steps)

    def stable_curve(
        self, group: str | None = None, block: int | None = None
    ) -> list[tuple[int, int, float]]:
        """Return it over blocks of steps: :meth:`gradtail.GradientStream.stable_curve`."""
        return self.stream.stable_curve(group, block)

    @property
    def history(self) -> RecordLog:
        """Norms of every group and of the whole, a row a step: :attr:`gradtail.GradientStream.history`."""
        return self.stream.history

    def spectrum(
        self, group: str | None = None, *, centred: bool = True, top: int | None = None
    ) -> CovarianceSpectrum:
        """Estimate the spectrum of the gradient's covariance: :meth:`gradtail.GradientStream.spectrum`."""
        return self.stream.spectrum(group, centred=centred, top=top)

    def subspace_stability(
        self, group: str | None = None, *, top: int = 10, centred: bool = True
    ) -> SubspaceStability:
        """Compare leading directions in time: :meth:`gradtail.GradientStream.subspace_stability`."""
        return self.stream.subspace_stability(group, top=top, centred=centred)

    def suggest_clip(self, rate: float | None = None, **settings: Any) -> ClipSuggestion:
        """Suggest ``max_norm`` from the norms so far: :meth:`gradtail.GradientStream.suggest_clip`."""
        return self.stream.suggest_clip(rate, **settings)

    def tracks(self, names: Sequence[str] | None = None) -> Tracks:
        """Return some coordinates over the newest steps: :meth:`gradtail.GradientStream.tracks`."""
        return self.stream.tracks(names)

    def coordinates(self, name: str) -> CoordinateMoments:
        """Return moments over steps of coordinates: :meth:`gradtail.GradientStream.coordinates`."""
        return self.stream.coordinates(name)

    def sampling(
        self, *, period: int | None = None, examples: int | None = None, level: float = 1e-6
    ) -> BatchOrder:
        """Tell how batches were drawn from the examples given with the steps: ``step(batch=)``.

        See :func:`gradtail.batch_order`. Gradients of training cannot tell (:meth:`autocorrelation`).

        Parameters
        ----------
        period : int, optional
            Batches of an epoch, such as ``len(loader)``.
        examples : int, optional
            Of the data set, such as ``len(dataset)``: that each of them comes is checked then. Of a rank that
            has a share of them its own number.
        level : float
            Largest chance of a false alarm, each.

        Raises
        ------
        RuntimeError
            No step has had its batch given.
        TypeError, ValueError
            Settings out of range.
        """
        if not len(self._observer.batches):
            raise RuntimeError("sampling: expected step(batch=...) or clip_(..., batch=...) before, got none")
        return batch_order(self._observer.batches, period=period, examples=examples, level=level)

    def autocorrelation(self, group: str | None = None, **settings: Any) -> Autocorrelation:
        """Estimate how gradients go with later ones: :meth:`gradtail.GradientStream.autocorrelation`.

        Of a training run that says whether the order of batches repeats, and no more.
        """
        return self.stream.autocorrelation(group, **settings)

    def cosines(self, group: str | None = None, lag: int = 1) -> StepCosines:
        """Return the cosine of each gradient with an earlier one: :meth:`gradtail.GradientStream.cosines`."""
        return self.stream.cosines(group, lag)

    def noise_scale(self, group: str | None = None, *, batch_size: int | None = None) -> NoiseScale:
        """Estimate the noise scale, or critical batch size, from the micro-batches of :meth:`micro_step`.

        See :func:`gradtail.noise_scale_from_micro`.

        Parameters
        ----------
        group : str, optional
            A parameter's group, or a dotted prefix of several, such as a layer: by its sketches of 128
            buckets, whose error is in the interval. Default: the whole, by the stream's sketch.
        batch_size : int, optional
            Examples in a micro-batch. By default the result is in micro-batches, and says so.

        Returns
        -------
        NoiseScale
            Of the averages over the steps that are kept.

        Raises
        ------
        TypeError, ValueError
            No such group with micro-batches (of gradients on a GPU there is the whole alone), or fewer than
            4 steps of two micro-batches or more.

        Notes
        -----
        The micro-batches of a step are taken for equal in size, and for independent. Of sharded gradients it
        is that of the shards of this rank.
        """
        micro = self._observer.micro
        records = micro.records if group is None else micro.of_group(group)
        most = int(self.stream.settings["sketch"])
        buckets = most if group is None else min(most, FOLD)
        return noise_scale_from_micro(records, batch_size=batch_size, buckets=buckets)

    @property
    def directions(self) -> Trajectory | None:
        """Weights along the directions given, step by step; None without."""
        return self._trajectory

    def save(self, path: str | PathLike[str]) -> None:
        """Write the stream to a file that ``gradtail report`` reads: :meth:`gradtail.GradientStream.save`.

        What only the monitor knows (losses, accuracies, clip counts, skipped steps) is in :meth:`state_dict`.
        """
        self.stream.save(path)

    @property
    def unobserved(self) -> dict[str, int]:
        """Observed steps in which a gradient was None that had been there before or was to come."""
        return self._observer.unobserved

    @property
    def pending(self) -> list[str]:
        """Trained parameters that have not had a gradient yet."""
        return self._observer.pending

    @property
    def skipped(self) -> list[Skipped]:
        """Steps that an overflow or a non-finite norm has voided, and where the value lay.

        A non-finite norm voids a step where it is handed to the optimizer: by ``clip_(into=)``, or by
        :attr:`found_inf`. An optimizer that steps all the same is not listed here, nor is an overflow where a
        hook observes (``when="optimizer"``) and the scaler does not call the optimizer. Of more than 4096
        steps some are left out.

        Of gradients on a GPU, which steps were bad is read now, and waited for. Where the value lay is then
        known only of the first step of the run that has one.
        """
        return list(self._observer.skipped.values)

    @property
    def micro(self) -> MicroSteps:
        """What :meth:`micro_step` has found: ``.records``, one a step; ``.increments`` of the newest."""
        return self._observer.micro

    @property
    def when(self) -> list[tuple[int, str]]:
        """Moments of observation: the step from which each holds, and its name."""
        log = self._observer.when
        return list(zip(log.steps, log.values, strict=True))

    @property
    def overhead(self) -> Overhead:
        """What the monitor has cost so far, as a share of the time between its calls."""
        return self._stopwatch.overhead()

    @property
    def losses(self) -> tuple[list[int], list[float]]:
        """Steps and the losses given with them."""
        return self._observer.losses.read()

    @property
    def accuracies(self) -> tuple[list[int], list[float]]:
        """Steps and the accuracies that :meth:`note` was told after them."""
        return self._observer.accuracies.read()

    def scalars(self, limit: int = 20) -> dict[str, float]:
        """Return at most ``limit`` numbers of the newest step for a logger, by name."""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit: expected a positive int, got {limit!r}")
        known = self._norm is not None or not self._observer.gradients.sharded
        norm = float(self._newest_norm("scalars")) if known and self._observer.known is not None else None
        return scalars_of(
            self._observer, norm=norm, clip=self._clip.counts, overhead=self.overhead, limit=limit
        )

    def plan(self) -> Plan:
        """Return how each parameter is watched, to be printed."""
        planned = "before optimizer step" if self._attached else "at step() or clip_()"
        when = self._observer.when.newest() or planned
        return plan_of(self._observer, when=when, scaled=self._scaling is not None)

    def report(self, *, title: str = "gradtail report", settings: Mapping[str, Any] | None = None) -> Report:
        """Draw up what is known: per-layer table, tails, histograms and time lines.

        Parameters
        ----------
        title : str
        settings : mapping, optional
            Settings of the run, to be printed with the report.

        Returns
        -------
        gradtail.report.Report
        """
        from gradtail.torch.reporting import report_of

        return report_of(
            self._observer,
            clip=self._clip.counts,
            overhead=self.overhead,
            off=self._guard.off,
            title=title,
            settings=settings or {},
        )

    def _joint_norm(self, known: Norm | None) -> Norm:
        return self._observer.gradients.norm(known, there=self._observer.there)
