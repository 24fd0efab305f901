"""What a monitor knows and how it comes to know it; errors and turns are the monitor's business."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from gradtail.stream import GradientStream
from gradtail.torch.gradients import Gradients
from gradtail.torch.losses import Losses
from gradtail.torch.micro import MicroSteps
from gradtail.torch.parameters import Named
from gradtail.torch.sharding import is_sharded
from gradtail.torch.steplog import StepLog


@dataclass(frozen=True)
class Skipped:
    """A step that changed no parameter, because of a NaN or infinity.

    Attributes
    ----------
    step : int
    reason : str
        "overflow" of a GradScaler, or "found_inf" handed to the optimizer.
    name : str or None
        The first parameter with such a value; None if it lies on another rank or is not watched.
    index : int or None
        The first such element, in C order, of the whole parameter.
    scale : float
        Of the loss.
    """

    step: int
    reason: str
    name: str | None
    index: int | None
    scale: float


class Observer:
    """Feeds a stream from the gradients of a model, and keeps what belongs to the steps.

    Parameters
    ----------
    parameters : sequence of (name, parameter)
    every : int
    options : mapping
        Settings of the :class:`gradtail.GradientStream`.

    Attributes
    ----------
    last : int or None
        Number of the newest step, observed or left out.
    known : float or None
        Norm of the gradients of this rank at the newest step; None if no pass was made over them.
    """

    def __init__(self, parameters: Sequence[Named], every: int, options: Mapping[str, Any]) -> None:
        self.stream = GradientStream(**options)
        self.parameters = list(parameters)
        self.gradients = Gradients(parameters)
        self.every = every
        self.last: int | None = None
        self.known: float | None = None
        self.losses = Losses()
        self.micro = MicroSteps()
        self.when: StepLog[str] = StepLog()  # one entry for each change
        self.skipped: StepLog[Skipped] = StepLog()
        self.inside: set[str] = set()  # observed in backward, and their step is not closed
        self._names = {id(p): name for name, p in parameters}
        self._lock = threading.Lock()

    def declare(self) -> None:
        """Tell the stream what may come, so that memory does not depend on what comes first."""
        self.stream.declare({name: p.numel() for name, p in self.parameters if p.requires_grad})

    @property
    def ids(self) -> Collection[int]:
        """``id`` of the watched parameters."""
        return self._names.keys()

    @property
    def next(self) -> int:
        """Number of the next step, if none is given."""
        return 0 if self.last is None else self.last + 1

    def observe(
        self,
        when: str,
        loss: Tensor | float | None,
        step: int | None,
        *,
        only: Callable[[str, nn.Parameter], bool] | None = None,
        overflow: float | None = None,
        again: bool = False,
    ) -> bool:
        """Make the pass, if it is this step's turn; False if not.

        Parameters
        ----------
        when : str
            The moment, to be kept with the step.
        loss, step
            As :meth:`Monitor.step` has them.
        only : callable, optional
            Parameters to look at.
        overflow : float, optional
            The loss scale at which the step has overflowed: it is located and not counted.
        again : bool
            Whether this belongs to the newest step, of which other parameters were seen.
        """
        number = self._begin(step, again)
        if number % self.every:
            self.inside.clear()
            return False
        if loss is not None:
            self.losses.add(number, loss)
        if overflow is not None:
            self.skip(number, "overflow", overflow)
            self.inside.clear()
            self.known = None
            return False
        if self.inside:
            inside, before = frozenset(self.inside), only
            only = lambda name, p: name not in inside and (before is None or before(name, p))
            when = "in backward"
        arrays, places = self.gradients.here(only)
        if arrays:
            self._update(arrays, number, places)
        self.inside.clear()
        self.known = self._newest_norm(number)
        self.micro.close(number, self.known)
        self._tag(number, when)
        return True

    def observe_one(self, p: nn.Parameter, step: int | None) -> None:
        """Observe one gradient within ``backward``; the next :meth:`observe` closes its step."""
        name = self._names[id(p)]
        with self._lock:  # devices run their backward in threads of their own
            if name in self.inside:
                raise RuntimeError(
                    f"observe: expected each parameter once between two calls of step, got {name} a second "
                    "time; call step() after each optimizer step, and checkpoint shared parameters with "
                    "use_reentrant=False"
                )
            number = self._begin(step, bool(self.inside))
            self.inside.add(name)
            if number % self.every:
                return
            arrays, places = self.gradients.one(name, p)
            if arrays:
                self._update(arrays, number, places)

    def sketch_micro(self, scale: float, step: int | None) -> None:
        """Note the gradients accumulated so far, which are ``scale`` times too large."""
        if (self.next if step is None else step) % self.every:
            return
        arrays, places = self.gradients.here()
        sketch = self.stream.sketch(arrays, places)
        self.micro.add(sketch / scale)

    def skip(self, step: int, reason: str, scale: float = 1.0) -> None:
        """Note a step that changed nothing, and where the value lies that spoilt it."""
        name, index = self.gradients.first_nonfinite() or (None, None)
        self.skipped.add(step, Skipped(step, reason, name, index, scale))
        self.micro.drop()

    @property
    def unobserved(self) -> dict[str, int]:
        """Observed steps without each gradient that has been there before."""
        steps, observed = self.stream.steps, self.stream.observed
        missing = {name: steps - observed[name] for name, _ in self.parameters if name in observed}
        return {name: count for name, count in missing.items() if count}

    @property
    def pending(self) -> list[str]:
        """Trained parameters that have not had a gradient yet."""
        observed = self.stream.observed
        waiting = [(name, p) for name, p in self.parameters if p.requires_grad and name not in observed]
        return [name for name, p in waiting if not is_sharded(p) or self.gradients.block(name, p).owner]

    def rollback(self, step: int) -> int | None:
        """Go back to the end of ``step``."""
        kept = self.stream.rollback(step)
        self.last = None if self.last is None else min(self.last, step)
        self.known = None
        self.inside.clear()
        for log in (self.losses.log, self.when, self.skipped, self.micro):
            log.cut(step)
        return kept

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was observed."""
        return {
            "stream": self.stream.state_dict(),
            "last": self.last,
            "losses": self.losses.log.state_dict(float),
            "when": self.when.state_dict(),
            "skipped": self.skipped.state_dict(asdict),
            "micro": self.micro.state_dict(),
        }

    parts = ("stream", "last", "losses", "when", "skipped", "micro")
    """Keys of :meth:`state_dict`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another observed; nothing changes if any part of it is refused."""
        stream = GradientStream.from_state_dict(state["stream"], backend=self.stream.backend)
        losses, when, micro = Losses(), StepLog[str](), MicroSteps()
        skipped: StepLog[Skipped] = StepLog()
        losses.log.load_state_dict(state["losses"], float)
        when.load_state_dict(state["when"], str)
        skipped.load_state_dict(state["skipped"], lambda entry: Skipped(**entry))
        micro.load_state_dict(state["micro"])
        self.stream, self.losses, self.when, self.skipped, self.micro = stream, losses, when, skipped, micro
        self.last = None if state["last"] is None else int(state["last"])
        self.known = None
        self.inside.clear()

    def _begin(self, step: int | None, again: bool) -> int:
        if self.inside or again:
            assert self.last is not None
            if step is not None and step != self.last:
                raise ValueError(f"step: expected {self.last}, whose gradients are being seen, got {step}")
            return self.last
        number = self.next if step is None else step
        if self.last is not None and number <= self.last:
            raise ValueError(
                f"step: expected a number above {self.last}, got {number}; call rollback({number - 1}) when "
                "training goes back"
            )
        self.last, self.known = number, None
        return number

    def _update(self, arrays: dict[str, Tensor], number: int, places: Any) -> None:
        if places is None:
            self.stream.update(arrays, number)
        else:
            self.stream.update(arrays, number, places=places)

    def _newest_norm(self, number: int) -> float:
        stream = self.stream
        if stream.last_step != number:  # there was no gradient
            return 0.0
        if not stream.nonfinite():
            return stream.norm()
        return math.nan if stream.summary(steps="newest").nan else math.inf

    def _tag(self, step: int, when: str) -> None:
        if self.when.newest() != when:
            self.when.add(step, when)
