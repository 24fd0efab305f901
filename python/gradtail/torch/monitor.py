"""Monitor: watches the gradients of a model in training, and clips them from the same pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradtail.torch.arguments import Optimizers, as_optimizers, check_every, check_max_norm, check_step
from gradtail.torch.attach import Attachment
from gradtail.torch.clip import Clip
from gradtail.torch.fold import Fold
from gradtail.torch.guard import Guard, OnError
from gradtail.torch.observer import Observer
from gradtail.torch.overhead import Stopwatch
from gradtail.torch.packing import pack, unpack
from gradtail.torch.parameters import Filter, Named, watched_parameters
from gradtail.torch.readings import Readings
from gradtail.torch.scaling import Scaling, unscale_within
from gradtail.torch.turn import Turn

STATE_VERSION = 1


class Monitor(Readings):
    """Statistics of every parameter's gradient, once per optimizer step.

    Call :meth:`step`, or :meth:`clip_` where gradients are clipped, once between ``backward`` and
    ``optimizer.step()``: gradients are then complete, unscaled and not yet clipped.

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
    when : {"call", "optimizer"}
        "optimizer" observes from a hook before each step of ``optimizer``, for loops that do not
        clip (the hook would see clipped gradients).
    params : str, pattern, callable, or iterable of names or parameters, optional
        Parameters to watch: a regular expression searched for in the name, ``f(name, p)``, or a list.
    scaler : torch.amp.GradScaler, optional
        Of the loop. Gradients are unscaled before they are observed, by ``scaler.unscale_`` unless the
        loop has called it already; ``scaler.step`` then leaves its own pass out. An overflow is no
        observed step, and is listed in :attr:`skipped`.
    on_error : {"disable", "raise"}
        What an error inside the monitor does: by default it warns once and switches the monitor
        off; training goes on, and ``clip_`` still clips.
    **options
        Of :class:`gradtail.GradientStream`: bits, window, sketch, tracks, coordinates, groups, seed,
        history, memory, backend.

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
        when: Literal["call", "optimizer"] = "call",
        params: Filter | None = None,
        scaler: Any = None,
        on_error: OnError = "disable",
        **options: Any,
    ) -> None:
        check_every(every)
        if when not in ("call", "optimizer"):
            raise ValueError(f"when: expected 'call' or 'optimizer', got {when!r}")
        optimizers = as_optimizers(optimizer)
        if when == "optimizer" and not optimizers:
            raise ValueError("when: expected an optimizer to be given with 'optimizer', got none")
        scaling = None if scaler is None else Scaling(scaler, optimizers)
        self._build(watched_parameters(model, params), every, on_error, options, optimizers, scaling)
        if when == "optimizer":
            for one in optimizers:
                self.attach(one)

    def _build(
        self,
        parameters: list[Named],
        every: int,
        on_error: OnError,
        options: Mapping[str, Any],
        optimizers: Sequence[Optimizer] = (),
        scaling: Scaling | None = None,
    ) -> None:
        self._guard = Guard(on_error)
        self._options = dict(options)
        self._observer = Observer(parameters, every, options)
        if self._guard.enabled:
            self._observer.declare()
        tensors = [p for _, p in parameters]
        self._fold = Fold(tensors)
        self._clip = Clip(self._observer.gradients, self._fold)
        self._turn = Turn(tensors, optimizers)
        self._scaling = scaling
        self._stopwatch = Stopwatch()
        self._attached: list[Attachment] = []
        self._stepped: set[int] = set()  # optimizers whose hook has run in the newest step
        self._norm: Tensor | None = None
        self._in_backward = False

    def step(self, loss: Tensor | float | None = None, *, step: int | None = None) -> None:
        """Observe the gradients as they are.

        Parameters
        ----------
        loss : float or 0-dim tensor, optional
            For the time line of the report.
        step : int, optional
            Number of the step, above the one before; default: one more.

        Raises
        ------
        RuntimeError
            Second call for the same gradients.
        """
        check_step(step)
        self._fold.release()
        self._norm = None
        if not self.enabled:
            return
        closing = bool(self._observer.inside)
        if not closing:
            self._turn.take("step")
        self._observe(lambda: self._observer.observe("after backward", loss, step, overflow=self._unscale()))
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
    ) -> Tensor:
        """Observe the gradients, then scale them so that their joint norm is at most ``max_norm``.

        Stands in for :func:`torch.nn.utils.clip_grad_norm_` without its pass for the norm.
        Gradients of which any value is NaN or infinite are left as they are; the norm returned is
        then NaN or infinite.

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

        Returns
        -------
        Tensor
            Norm before clipping, 0-dim, float64; of all parameters together, on all ranks.

        Raises
        ------
        TypeError, ValueError
            ``max_norm`` is not a positive number, or ``into`` does not read ``grad_scale``, or holds
            other parameters.
        RuntimeError
            Second call for the same gradients, or gradients that :meth:`observe` has seen in backward.
        """
        bound = check_max_norm(max_norm)
        check_step(step)
        if self._in_backward:
            raise RuntimeError(
                "clip_: expected gradients that are all there at once, got some observed in backward, which "
                "an optimizer may have used already; call step() to close the step"
            )
        self._fold.release()
        if into is not None:
            self._fold.check(into)
        if self.enabled:
            self._turn.take("clip_")
        overflow, observed, observer = self._unscale(), False, self._observer
        if self.enabled:
            observed = self._observe(
                lambda: observer.observe("before clipping", loss, step, overflow=overflow)
            )
        self._norm = self._joint_norm(observer.known if observed else None)
        number = observer.last or 0
        finite = self._clip.apply(number, float(self._norm), bound, into)
        if not finite and into is not None and overflow is None and self.enabled:
            self._guard.run(lambda: observer.skip(number, "found_inf"), None, number)
        self._turn.seen()
        return self._norm

    def observe(self, p: nn.Parameter, *, step: int | None = None) -> None:
        """Observe the gradient of one parameter, where the optimizer runs within ``backward``.

        For hooks of :meth:`torch.Tensor.register_post_accumulate_grad_hook`: call it before the
        optimizer that sets the gradient to None, and :meth:`step` after ``backward``.

        Raises
        ------
        ValueError
            Not a watched parameter.
        """
        if id(p) not in self._observer.ids:
            raise ValueError("p: expected a watched parameter of the model, got another tensor")
        check_step(step)
        self._in_backward = True
        if self.enabled:
            with self._stopwatch.part():
                self._guard.run(lambda: self._observer.observe_one(p, step), None, self._observer.next)

    def micro_step(self, *, step: int | None = None) -> None:
        """Note what a micro-batch has added to the gradients; call it after the ``backward`` of each.

        Costs a pass over the gradients. :attr:`micro` has the squared norms of the increments and of
        their sum, which gradient-noise estimates are made of.

        Parameters
        ----------
        step : int, optional
            Number of the step that will be given, if any.
        """
        check_step(step)
        if not self.enabled:
            return

        def action() -> None:
            scale = 1.0 if self._scaling is None else self._scaling.scale
            self._observer.sketch_micro(scale, step)

        with self._stopwatch.part():
            self._guard.run(action, None, self._observer.next)

    def attach(self, optimizer: Optimizer) -> Monitor:
        """Observe before each step of an optimizer from now on; doing so twice changes nothing.

        Returns
        -------
        Monitor
            Itself: as a context manager it detaches at the end.
        """
        if not any(a.optimizer() is optimizer for a in self._attached):
            self._attached.append(Attachment(optimizer, self._observer.ids, self._before_step))
        return self

    def detach(self) -> None:
        """Take off all hooks; what was observed stays, and so does a factor handed to an optimizer."""
        for attached in self._attached:
            attached.remove()
        self._attached.clear()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return what was observed, for a checkpoint: tensors, numbers, strings, lists and dicts.

        ``torch.load(weights_only=True)`` reads it back.
        """
        state = {"version": STATE_VERSION, **self._observer.state_dict(), "clip": self._clip.state_dict()}
        return dict(pack(state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the monitor that gave ``state`` was, with the settings of its stream.

        Raises
        ------
        TypeError, ValueError
            Not such a state. The monitor is left as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected the state_dict of a Monitor, got {type(state).__name__}")
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"state: expected version {STATE_VERSION}, got {state.get('version')!r}")
        if missing := {*self._observer.parts, "clip"} - state.keys():
            raise ValueError(f"state: expected the part {min(missing)!r}, got none of that name")
        plain = unpack(state)
        clip = Clip(self._observer.gradients, self._fold)
        clip.load_state_dict(plain["clip"])
        self._observer.load_state_dict(plain)
        self._clip = clip
        self._norm = None

    def rollback(self, step: int) -> int | None:
        """Forget what came after ``step``: training goes on from an earlier checkpoint.

        Returns
        -------
        int or None
            Newest step that is kept; it may be earlier than ``step``, for steps are kept in blocks.
        """
        check_step(step)
        kept = self._observer.rollback(step)
        self._clip.cut(step)
        self._norm = None
        self._stepped.clear()
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {
            "parameters": self._observer.parameters,
            "every": self._observer.every,
            "on_error": self._guard.on_error,
            # groups that a callable assigned are part of the state, and a callable may not pickle
            "options": {key: value for key, value in self._options.items() if not callable(value)},
            "state": self.state_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._build(state["parameters"], state["every"], state["on_error"], state["options"])
        self.load_state_dict(state["state"])

    def _before_step(self, optimizer: Optimizer) -> None:
        """Observe what an optimizer is about to use; runs in its hook."""
        if not self.enabled or self._turn.is_taken():
            return
        again = bool(self._stepped) and id(optimizer) not in self._stepped
        if not again:
            self._stepped.clear()
        self._stepped.add(id(optimizer))
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}

        def action() -> bool:
            overflow = unscale_within(self._scaling, optimizer)
            only = lambda _, p: id(p) in held
            return self._observer.observe(
                "before optimizer step", None, None, only=only, overflow=overflow, again=again
            )

        self._observe(action)

    def _observe(self, action: Callable[[], bool]) -> bool:
        """Make an observation on the clock and under guard; False if no pass was made."""
        self._norm = None
        with self._stopwatch:
            return self._guard.run(action, False, self._observer.next)

    def _unscale(self) -> float | None:
        """Unscale the gradients; the scale if they have overflowed."""
        return None if self._scaling is None else self._scaling.unscale()
