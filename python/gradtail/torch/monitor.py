"""Monitor: watches the gradients of a model in training, and clips them from the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradtail.states.batch_log import IntArray
from gradtail.torch.arguments import (
    Optimizers,
    as_batch,
    as_every,
    as_max_norm,
    as_max_overhead,
    as_optimizers,
    as_step,
    check_groups,
    check_loss,
    check_options,
    check_parameters,
    check_steps_without_closure,
)
from gradtail.torch.attach import Attachment
from gradtail.torch.cadence import Cadence
from gradtail.torch.clip import Clip
from gradtail.torch.directions import Trajectory, as_trajectory
from gradtail.torch.fold import Fold
from gradtail.torch.guard import Guard, OnError
from gradtail.torch.hints import Hints
from gradtail.torch.observer import Observer
from gradtail.torch.overhead import Stopwatch
from gradtail.torch.parameters import Filter, Named, unwatched_parameters, watched_parameters
from gradtail.torch.scalar import Norm, as_scalar, is_bad
from gradtail.torch.scaling import Scaling
from gradtail.torch.turn import Turn
from gradtail.torch.within import Within

OWN = ("optimizer", "every", "max_overhead", "when", "params", "scaler", "on_error", "directions")


class Monitor(Within):
    """Statistics of every parameter's gradient, once per optimizer step.

    Call :meth:`step`, or :meth:`clip_` where gradients are clipped, once between ``backward`` and
    ``optimizer.step()``: gradients are then complete, unscaled and not yet clipped.

    Ask :meth:`report` for everything, or :meth:`summary`, :attr:`history`, :meth:`spectrum`,
    :meth:`suggest_clip`, :meth:`tracks`, :meth:`coordinates`, :meth:`autocorrelation`, :meth:`noise_scale`,
    :meth:`sampling` and :attr:`micro`; :meth:`latest` for the newest norm without waiting, :meth:`scalars`
    for a logger and :meth:`plan` for what will be watched. :meth:`note` takes accuracies for the report;
    :meth:`state_dict` is for checkpoints, :meth:`save` for ``gradtail report``.

    Parameters
    ----------
    model : nn.Module
        Parameters are watched whenever they have a gradient, under their qualified names; tied
        ones count once. Nothing is attached to the model. Shard it (``fully_shard``) before.
    optimizer : Optimizer or sequence of Optimizer, optional
        Tells steps apart, so that a second call in one step can be refused; needed for ``when="optimizer"``
        and ``scaler``, or if it does not hold the parameters of the model (master copies). Without it, any
        torch optimizer that steps one of the parameters ends a step.
    every : int, default 1
        Observe the steps whose number is a multiple. ``clip_`` clips every step all the same.
    max_overhead : float, optional
        Share of the time that observation may take, such as 0.01. While the median over the newest 8
        observed steps is above it, ``every`` is doubled, and halved again once that costs well below it.
        Of gradients on a GPU the time that the GPU takes is counted as well.
    when : {"call", "optimizer"}
        "optimizer" observes from a hook before each step of ``optimizer``, for loops that do not
        clip (the hook would see clipped gradients). :meth:`step` then only takes the loss. Not for optimizers
        that compute gradients within their step (LBFGS): call :meth:`step` in the closure.
    params : str, pattern, callable, or iterable of names or parameters, optional
        Parameters to watch: a regular expression searched for in the name, ``f(name, p)``, or a list.
        Norms are of these alone, and :meth:`clip_` clips these alone.
    scaler : torch.amp.GradScaler, optional
        Of the loop. Gradients are unscaled before they are observed, by ``scaler.unscale_`` unless the
        loop has called it already; ``scaler.step`` then leaves its own pass out. An overflow is no
        observed step, and is listed in :attr:`skipped`; not so with ``when="optimizer"``, unless the
        optimizer is fused, for the scaler then does not call the optimizer, and the overflow takes no number
        either. Without it, a loop with a GradScaler must call
        ``scaler.unscale_(optimizer)`` before :meth:`step` or :meth:`clip_`: all norms would be of scaled
        gradients (which is noticed, and said, with fused optimizers only).
    on_error : {"disable", "raise"}
        What an error inside the monitor does: by default it warns once and switches the monitor
        off; training goes on, and ``clip_`` still clips.
    directions : HessianSpectrum, Tensor of shape (n, k), or Directions, optional
        Record the weights along these at every step, such as eigenvectors of the Hessian from
        ``hessian_spectrum(..., vectors=True)``. A step then reads all k n elements of them besides its pass:
        see :class:`gradtail.torch.directions.Trajectory`, which :attr:`directions` is. No part of a state.
    **options
        Of :class:`gradtail.GradientStream`: bits, window, sketch, tracks, coordinates, groups, seed,
        history, memory, stable, backend.

    Attributes
    ----------
    stream : GradientStream
        What was observed.
    enabled : bool
        False after an error, or if the environment says ``GRADTAIL=0``.

    Notes
    -----
    The pass costs time linear in the number of gradient elements and makes one read of them. A
    gradient that is None was not observed: it counts neither as zero nor as absent.

    Gradients that are DTensors are read where they lie: each rank observes its blocks, ``step`` makes no
    communication, and merging the streams of all ranks gives those of the whole. A joint norm is a sum
    over ranks: :meth:`clip_`, and the first look at :meth:`grad_norm` or :attr:`found_inf` after ``step``,
    are then collective operations that every rank must make.

    Gradients on a GPU are read there. Readings (:meth:`summary`, :meth:`report`, ...), :meth:`micro_step` and
    the first step wait for it, and so does a loop that is several steps ahead of it; other calls do not. All
    of them lie on one device: of a model on several, make a monitor for each with ``params``; norms and
    clipping are then of each part by itself.

    A copied or unpickled monitor knows what the first one knew, and has no optimizer, scaler and hooks.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> monitor = Monitor(model)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> float(monitor.clip_(1.0)) == 8**0.5
    True
    >>> round(float(model.weight.grad.norm() ** 2 + model.bias.grad.norm() ** 2), 5)
    1.0
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers | None = None,
        *,
        every: int = 1,
        max_overhead: float | None = None,
        when: Literal["call", "optimizer"] = "call",
        params: Filter | None = None,
        scaler: Any = None,
        on_error: OnError = "disable",
        directions: Any = None,
        **options: Any,
    ) -> None:
        check_options(options, OWN)
        cadence = Cadence(as_every(every), as_max_overhead(max_overhead))
        if when not in ("call", "optimizer"):
            raise ValueError(f"when: expected 'call' or 'optimizer', got {when!r}")
        optimizers = as_optimizers(optimizer)
        if when == "optimizer" and not optimizers:
            raise ValueError("when: expected an optimizer to be given with 'optimizer', got none")
        for one in optimizers if when == "optimizer" else ():
            check_steps_without_closure(one)
        scaling = None if scaler is None else Scaling(scaler, optimizers)
        parameters = watched_parameters(model, params)
        check_parameters(parameters)
        self._build(parameters, cadence, on_error, options, optimizers, scaling)
        self._trajectory = as_trajectory(directions, parameters)
        check_groups(options.get("groups"), [name for name, _ in parameters])
        self._hints.expect(unwatched_parameters(model, parameters), optimizers)
        if when == "optimizer":
            for one in optimizers:
                self.attach(one)

    def _build(
        self,
        parameters: list[Named],
        cadence: Cadence,
        on_error: OnError,
        options: Mapping[str, Any],
        optimizers: Sequence[Optimizer] = (),
        scaling: Scaling | None = None,
    ) -> None:
        self._guard = Guard(on_error)
        self._options = dict(options)
        self._observer = Observer(parameters, cadence, options)
        if self._guard.enabled:
            self._observer.declare()
        tensors = [p for _, p in parameters]
        self._fold = Fold(tensors)
        self._clip = Clip(self._observer.gradients, self._fold)
        self._hints = Hints()
        self._turn = Turn(tensors, optimizers, self._hints if scaling is None else None)
        self._scaling = scaling
        self._stopwatch = Stopwatch()
        self._attached: list[Attachment] = []
        self._stepped: set[int] = set()  # optimizers whose hook has run in the newest step
        self._norm: Norm | None = None
        self._trajectory: Trajectory | None = None

    def step(self, loss: Tensor | float | None = None, *, step: int | None = None, batch: Any = None) -> None:
        """Observe the gradients as they are.

        Where a hook observes (``when="optimizer"``, :meth:`attach`), this only notes the loss: before
        ``optimizer.step()`` for the step to come, after it for the step that was.

        Parameters
        ----------
        loss : float or 0-dim tensor, optional
            For the time line of the report.
        step : int, optional
            Number of the step, above the one before; default: one more. It also says that this is a new
            step where nothing else does (optimizers that are not torch's, CUDA graphs).
        batch : array, sequence or tensor of int, optional
            The indices of the examples of the step, of all its micro-batches, for :meth:`sampling`. In host
            memory, as the loader gave them: to read them from a device would be to wait for it. Kept are a
            hash of the batch and, of some examples or all, when they came; that costs a sort of them. Steps
            that are not observed count as well; replays of a CUDA graph don't pass here.

        Raises
        ------
        TypeError, ValueError
            ``step`` is no int, or not above the one before, or given where a hook counts; ``loss`` is an
            optimizer; ``batch`` has no indices, or lies on a device. Nothing has changed then.
        RuntimeError
            Second call for the same gradients; a warning as long as no torch optimizer has ended a step.
        """
        step = as_step(step)
        check_loss(loss, "step")
        ids = as_batch(batch)
        if self._is_hooked and not self._observer.inside:
            if step is not None:
                raise ValueError(
                    f"step: expected no number where a hook observes and counts steps, got {step}; leave it "
                    'out, or make the monitor without when="optimizer"'
                )
            if self.enabled and (loss is not None or ids is not None):
                late = self._turn.is_used() or not self._observer.gradients.any()
                self._observer.note_loss(loss, late=late)
                self._note_batch(ids, late=late)
            return
        if self.enabled:
            self._observer.check_number(step)
        self._fold.release()
        self._norm = None
        if not self.enabled:
            return
        closing = bool(self._observer.inside)
        if not closing:
            self._take("step", step)
            if self._turn.is_used():
                self._hints.used("step")
        self._observe(lambda: self._observer.observe("after backward", loss, step, overflow=self._unscale()))
        self._note_batch(ids)
        if closing or self._scaling is not None:  # which has written to the gradients
            self._turn.seen()

    @torch.no_grad()
    def clip_(
        self,
        max_norm: float,
        loss: Tensor | float | None = None,
        into: Optimizer | None = None,
        *,
        step: int | None = None,
        batch: Any = None,
    ) -> Tensor:
        """Observe the gradients, then scale them so that their joint norm is at most ``max_norm``.

        Stands in for :func:`torch.nn.utils.clip_grad_norm_` of the watched parameters, without its pass for
        the norm. Parameters that ``params`` leaves out are neither in the norm nor scaled.
        Gradients of which any value is NaN or infinite are left as they are; the norm returned is then NaN
        or infinite.

        Parameters
        ----------
        max_norm : float
            Positive.
        loss : float or 0-dim tensor, optional
            For the time line of the report.
        into : Optimizer, optional
            A fused optimizer of the watched parameters, to which the factor is handed: it scales the
            gradients as it reads them, which spares their read and write here, and leaves out its
            step if the norm is not finite (:attr:`skipped`).
        step : int, optional
            Number of the step, above the one before; default: one more.
        batch : array, sequence or tensor of int, optional
            As for :meth:`step`.

        Returns
        -------
        Tensor
            Norm before clipping, 0-dim, float64; of all watched parameters together, on all ranks. 0 if
            none has a gradient, which does not count as a call. Of gradients on a GPU it stays there, and so
            does the decision to clip: nothing here waits for the device.

        Raises
        ------
        TypeError, ValueError
            ``max_norm`` is not a positive number, or ``into`` does not read ``grad_scale``, or holds
            other parameters; ``step``, ``loss`` or ``batch`` as :meth:`step` has it. Nothing has changed
            then.

        Warns
        -----
        RuntimeWarning
            Once each: parameters that require a gradient are not watched (and the optimizer given, if any,
            holds some of them); there is no gradient; an optimizer has used the gradients already.

        RuntimeError
            Second call for the same gradients (a warning as long as no torch optimizer has ended a step), or
            gradients that :meth:`observe` has seen in backward.
        """
        bound = as_max_norm(max_norm)
        step = as_step(step)
        check_loss(loss, "clip_")
        ids = as_batch(batch)
        self._give_up()
        if self.enabled and self._observer.inside:
            raise RuntimeError(
                "clip_: expected gradients that are all there at once, got some observed in backward, which "
                "an optimizer may have used already; call step() to close the step"
            )
        if self.enabled:
            self._observer.check_number(step)
        self._fold.release()
        if into is not None:
            self._fold.check(into)
        if self.enabled:
            self._take("clip_", step)
        found = self._observer.gradients.any()
        self._hint_before_clip(found, into)
        overflow, observed, observer = self._unscale(), False, self._observer
        if self.enabled:
            observed = self._observe(
                lambda: observer.observe("before clipping", loss, step, overflow=overflow)
            )
        self._note_batch(ids)
        norm = self._norm = self._joint_norm(observer.known if observed else None)
        number = observer.last or 0
        if found:
            self._clip.apply(number, norm, bound, into)
        if into is not None and overflow is None and self.enabled:
            bad = is_bad(norm)
            self._guard.run(lambda: observer.skip_if(bad, number), None, number)
        self._turn.seen()
        return as_scalar(norm)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "parameters": self._observer.parameters,
            "cadence": (self._observer.cadence.base, self._observer.cadence.bound),
            "on_error": self._guard.on_error,
            # groups that a callable assigned are part of the state, and a callable may not pickle
            "options": {key: value for key, value in self._options.items() if not callable(value)},
            "state": self.state_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._build(state["parameters"], Cadence(*state["cadence"]), state["on_error"], state["options"])
        self.load_state_dict(state["state"])

    def _take(self, method: str, step: int | None) -> None:
        """Begin a step."""
        if not self._turn.take(method, numbered=step is not None):
            self._hints.again(method)

    def _note_batch(self, ids: IntArray | None, *, late: bool = True) -> None:
        """Keep the examples of the newest step, or of the one that a hook is to observe."""
        if ids is None or not self.enabled:
            return
        observer = self._observer
        number = observer.last if late and observer.last is not None else observer.next
        self._guard.run(lambda: observer.batches.add(number, ids), None, number)

    def _hint_before_clip(self, found: bool, into: Optimizer | None) -> None:
        if not found:
            self._hints.empty()
        elif self._turn.is_used():
            self._hints.used("clip_")
        if into is None:  # which has been checked to hold nothing else
            self._hints.partial_clip()

    def _unscale(self) -> float | None:
        """Unscale the gradients; the scale if they have overflowed."""
        return None if self._scaling is None else self._scaling.unscale()
