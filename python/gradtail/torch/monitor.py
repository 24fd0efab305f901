"""Monitor: watches the gradients of a model in training, and clips them from the same pass."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from gradtail.states.summary import Summary
from gradtail.stream import GradientStream
from gradtail.torch.overhead import Overhead, Stopwatch
from gradtail.torch.turn import Turn

if TYPE_CHECKING:
    from gradtail.report import Report

T = TypeVar("T")
OnError = Literal["disable", "raise"]


class Monitor:
    """Statistics of every parameter's gradient, once per optimizer step.

    Call :meth:`step`, or :meth:`clip_` where gradients are clipped, once between ``backward`` and
    ``optimizer.step()``: gradients are then complete, unscaled and not yet clipped.

    Parameters
    ----------
    model : nn.Module
        Parameters are watched whenever they have a gradient, under their qualified names; tied
        ones count once. Nothing is attached to the model.
    optimizer : torch.optim.Optimizer, optional
        Tells steps apart, so that a second call in one step can be refused; needed only if it
        does not hold the parameters of the model (master copies). Without it, any torch
        optimizer that steps one of the parameters ends a step.
    every : int, default 1
        Observe one step of so many. ``clip_`` clips every step all the same.
    bits : int, default 4
        Mantissa bits of the histograms.
    on_error : {"disable", "raise"}
        What an error inside the monitor does: by default it warns once and switches the monitor
        off; training goes on, and ``clip_`` still clips.
    backend : {None, "native", "numpy"}

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
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: int = 1,
        bits: int = 4,
        on_error: OnError = "disable",
        backend: str | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"every: expected a positive int, got {every!r}")
        if every < 1:
            raise ValueError(f"every: expected a positive int, got {every}")
        if on_error not in ("disable", "raise"):
            raise ValueError(f"on_error: expected 'disable' or 'raise', got {on_error!r}")
        self.stream = GradientStream(bits=bits, backend=backend)
        self.enabled = os.environ.get("GRADTAIL") != "0"
        self._parameters = named_parameters(model)
        self._trained = {name for name, p in self._parameters if p.requires_grad}
        self._every = every
        self._on_error = on_error
        self._calls = 0
        self._norm: Tensor | None = None
        self._loss: list[tuple[int, Any]] = []
        self._clipped = 0
        self._bad_loss = False
        self._off: str | None = None
        self._clip_calls = 0
        self._skipped_nonfinite = 0
        self._stopwatch = Stopwatch()
        self._turn = Turn([p for _, p in self._parameters], optimizer)

    def step(self, loss: Tensor | float | None = None) -> None:
        """Observe the gradients as they are.

        Parameters
        ----------
        loss : float or 0-dim tensor, optional
            For the time line of the report.

        Raises
        ------
        RuntimeError
            Second call for the same gradients.
        """
        if not self.enabled:
            return
        self._turn.take("step")
        with self._stopwatch:
            self._guarded(lambda: self._observe(loss), None)

    @torch.no_grad()
    def clip_(self, max_norm: float, loss: Tensor | float | None = None) -> Tensor:
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

        Returns
        -------
        Tensor
            Norm before clipping, 0-dim, float64; of all parameters together.

        Raises
        ------
        ValueError
            ``max_norm`` is not a positive number.
        RuntimeError
            Second call for the same gradients.
        """
        if not isinstance(max_norm, (int, float)) or isinstance(max_norm, bool):
            raise TypeError(f"max_norm: expected a positive number, got {max_norm!r}")
        if not max_norm > 0:
            raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
        if self.enabled:
            self._turn.take("clip_")
            with self._stopwatch:
                observed = self._guarded(lambda: self._observe(loss), False)
        else:
            observed = False
        if not observed:
            self._norm = self._plain_norm()
        assert self._norm is not None
        self._scale(self._norm, float(max_norm))
        self._turn.clipped()
        return self._norm

    def grad_norm(self) -> Tensor:
        """Return the joint norm of the gradients at the last call, before any clipping.

        Returns
        -------
        Tensor
            0-dim, float64: NaN or infinite if any value was.

        Raises
        ------
        RuntimeError
            Nothing has been observed yet.

        Notes
        -----
        Of a monitor that is switched off, and of a step that :meth:`step` left out, it is the norm
        of the gradients as they are now, which takes a pass of its own.
        """
        if self._norm is not None:
            return self._norm
        if self.enabled and not self._calls:
            raise RuntimeError("grad_norm: expected a call of step or clip_ before, got none yet")
        return self._plain_norm()

    def summary(self, group: str | None = None, steps: Literal["all", "newest"] = "all") -> Summary:
        """Return the summary of a parameter, a module (any dotted prefix), or everything.

        See :meth:`gradtail.GradientStream.summary`.
        """
        return self.stream.summary(group, steps)

    @property
    def unobserved(self) -> dict[str, int]:
        """Observed steps in which a trained parameter had no gradient, for those with any."""
        steps, observed = self.stream.steps, self.stream.observed
        watched = [name for name, _ in self._parameters if name in self._trained or name in observed]
        missing = {name: steps - observed.get(name, 0) for name in watched}
        return {name: count for name, count in missing.items() if count}

    @property
    def overhead(self) -> Overhead:
        """What the monitor has cost so far, as a share of the time between its calls."""
        return self._stopwatch.overhead()

    @property
    def losses(self) -> tuple[list[int], list[float]]:
        """Steps and the losses given with them."""
        return [step for step, _ in self._loss], [float(value) for _, value in self._loss]

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
        from gradtail.report import Report

        own = {
            "every": self._every,
            "bits": self.stream.bits,
            "parameters": len(self._parameters),
            "clip_calls": self._clip_calls,
            "clipped": self._clipped,
            "left_unclipped_nonfinite": self._skipped_nonfinite,
        }
        steps = self.stream.steps
        notes = [] if self._off is None else [self._off]
        if self._calls and not steps:
            notes.append("no call found a gradient: call between backward() and zero_grad()")
        notes += [f"{name}: no gradient in {n} of {steps} steps" for name, n in self.unobserved.items()]
        return Report.from_stream(
            self.stream,
            loss=self.losses if self._loss else None,
            overhead=self.overhead.as_dict(),
            settings={**own, **(settings or {})},
            title=title,
            notes=notes,
        )

    def _observe(self, loss: Tensor | float | None) -> bool:
        """Make the pass, if it is this step's turn; False if not."""
        step = self._calls
        self._calls += 1
        self._norm = None
        if step % self._every:
            return False
        grads = {name: grad for name, p in self._parameters if (grad := p.grad) is not None}
        if grads:
            self.stream.update(grads, step)
        norm = self.stream.norm() if grads else 0.0
        if grads and self.stream.nonfinite():
            newest = self.stream.summary(steps="newest")
            norm = math.nan if newest.nan else math.inf
        self._norm = torch.tensor(norm, dtype=torch.float64)
        if loss is not None:
            self._note_loss(step, loss)
        return True

    def _note_loss(self, step: int, loss: Tensor | float) -> None:
        if not (isinstance(loss, (int, float)) or (isinstance(loss, Tensor) and loss.numel() == 1)):
            if not self._bad_loss:
                self._bad_loss = True
                what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                warnings.warn(
                    f"gradtail: loss: expected a number or a tensor of one, got {what}; it is left out",
                    RuntimeWarning,
                    stacklevel=5,
                )
            return
        # A loss on a GPU is kept as it is, and read when the report asks: reading it now would wait.
        if isinstance(loss, Tensor):
            loss = loss.detach()
            loss = float(loss) if loss.device.type == "cpu" else loss
        self._loss.append((step, loss))
        if len(self._loss) > 2 * 2048:
            del self._loss[1::2]

    @torch.no_grad()
    def _plain_norm(self) -> Tensor:
        """Take the norm as the pass would: in float64, whatever the dtypes and devices."""
        grads = [p.grad for _, p in self._parameters if p.grad is not None]
        squares = [torch.linalg.vector_norm(g, dtype=torch.float64).square().cpu() for g in grads]
        return torch.stack(squares).sum().sqrt() if squares else torch.tensor(0.0, dtype=torch.float64)

    def _scale(self, norm: Tensor, max_norm: float) -> None:
        self._clip_calls += 1
        value = float(norm)
        if not math.isfinite(value):
            self._skipped_nonfinite += 1
            return
        factor = max_norm / (value + 1e-6)  # as torch does
        if factor < 1:
            self._clipped += 1
            torch._foreach_mul_([p.grad for _, p in self._parameters if p.grad is not None], factor)

    def _guarded(self, action: Callable[[], T], otherwise: T) -> T:
        """Run ``action``; an error in it must not stop training."""
        try:
            return action()
        except Exception as error:
            if self._on_error == "raise":
                raise
            self.enabled = False
            self._off = f"monitoring is off from step {self._calls - 1} on: {type(error).__name__}: {error}"
            warnings.warn(
                f"gradtail: {self._off}; training is not affected",
                RuntimeWarning,
                stacklevel=4,
            )
            return otherwise


def named_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters, each once, under the names of the bare model."""
    return [(bare_name(name), p) for name, p in _unwrapped(model).named_parameters()]


def bare_name(name: str) -> str:
    """Remove what ``torch.compile`` adds to qualified names."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _unwrapped(model: nn.Module) -> nn.Module:
    """Take off what data parallelism and ``torch.compile`` wrap around a model, in any order."""
    while True:
        parallel = type(model).__name__ in ("DistributedDataParallel", "DataParallel")
        inner = getattr(model, "module", None) if parallel else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
