"""What a monitor knows and how it comes to know it; errors and turns are the monitor's business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gradtail.states.batch_log import BatchLog
from gradtail.stream import GradientStream
from gradtail.torch.cadence import Cadence
from gradtail.torch.gradients import Gradients, Mark, is_marked, mark_of, reading
from gradtail.torch.losses import Losses
from gradtail.torch.micro import MicroSteps
from gradtail.torch.packing import as_int
from gradtail.torch.parameters import Named, check_same
from gradtail.torch.scalar import Norm, taken
from gradtail.torch.sharding import is_sharded
from gradtail.torch.skips import Skipped, Skips
from gradtail.torch.steplog import StepLog


class Observer:
    """Feeds a stream from the gradients of a model, and keeps what belongs to the steps.

    Parameters
    ----------
    parameters : sequence of (name, parameter)
    cadence : Cadence
    options : mapping
        Settings of the :class:`gradtail.GradientStream`.

    Attributes
    ----------
    last : int or None
        Number of the newest step, observed or left out.
    known : float, Tensor or None
        Norm of the gradients of this rank at the newest step; None if no pass was made over them. A tensor
        where the stream works asynchronously.
    """

    def __init__(self, parameters: Sequence[Named], cadence: Cadence, options: Mapping[str, Any]) -> None:
        self.stream = GradientStream(**options)
        self.parameters = list(parameters)
        self.gradients = Gradients(parameters)
        self.cadence = cadence
        self.last: int | None = None
        self.known: Norm | None = None
        self._asynchronous = False  # whether the stream has given a norm that stays on its device
        self.losses, self.accuracies = Losses(), Losses("accuracy")
        self.micro = MicroSteps()
        self.batches = BatchLog()
        self.when: StepLog[str] = StepLog()  # one entry for each change
        self.skips = Skips(self._first_in_stream)
        self.inside: dict[str, Mark] = {}  # observed in backward, and their step is not closed
        self._before: int | None = None  # ``last`` when that step was opened
        rule = options.get("groups")
        self._rule = rule if callable(rule) else None  # patterns are part of a state
        self._names = {id(p): name for name, p in parameters}
        self._loss: Tensor | float | None = None  # for the step to come
        self._with_loss: int | None = None  # the newest step that was given one
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Observer({len(self.parameters)} parameters, {self.stream.steps} steps)"

    @property
    def every(self) -> int:
        """Observed are the steps whose number is a multiple."""
        return self.cadence.every

    @property
    def skipped(self) -> StepLog[Skipped]:
        """The skipped steps; waits for those of which it is not known yet whether they were."""
        return self.skips.read()

    @property
    def there(self) -> bool:
        """Whether norms stay on the device of the gradients, so that nobody waits for them."""
        return self._asynchronous or self.gradients.device.type == "cuda"

    @property
    def elements(self) -> dict[str, int]:
        """Elements of each watched parameter, whole."""
        return {name: p.numel() for name, p in self.parameters}

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
        stream = self.stream.next_step  # it hears of replays of a CUDA graph, which do not come by here
        return stream if self.last is None else max(stream, self.last + 1)

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
        if self.stream.is_capturing:
            self._capture(when, step, only)
            return True
        number, self.known = self._number(step, again), None
        noted = self._loss if loss is None else self.losses.accept(loss)
        due = self.cadence.is_due(number)
        if overflow is not None:
            self.skip(number, "overflow", overflow)
            if self.inside and self.stream.last_step == number:
                self.stream.discard()
        if overflow is not None or not due:
            self._settle(number, None, noted)
            self.stream.leave_out(number)
            return False
        if self.inside:
            inside, before = frozenset(self.inside), only
            only = lambda name, p: name not in inside and (before is None or before(name, p))
            when = "in backward"
        arrays, places = self.gradients.here(only)
        if arrays:
            self._update(arrays, number, places)
        norm = self._newest_norm() if arrays or self.stream.last_step == number else 0.0
        self._settle(number, norm, noted)
        self.micro.close(number, norm, self.gradients.present())
        self._tag(number, when)
        return True

    def _capture(self, when: str, step: int | None, only: Callable[[str, nn.Parameter], bool] | None) -> None:
        """Have the pass become part of a CUDA graph, whose replays are steps that nobody tells of here."""
        arrays, places = self.gradients.here(only)
        self.known = None
        if arrays:
            self.stream.set_replay_cadence(self.cadence.every)
            self._update(arrays, self.next if step is None else step, places)
            self.known = self._newest_norm()
        self._tag(self.next, when)

    def note_loss(self, given: object, *, late: bool) -> None:
        """Keep a loss for the step that a hook will observe, or has observed just now.

        Parameters
        ----------
        late : bool
            Whether the gradients have been used: the loss is that of the newest step, if it has none yet.
        """
        if (loss := self.losses.accept(given)) is None:
            return
        if late and self.last is not None and self._with_loss != self.last:
            self._add_loss(self.last, loss)
        else:
            self._loss = loss

    def note_accuracy(self, given: object) -> None:
        """Keep an accuracy for the newest step that is complete."""
        if (accuracy := self.accuracies.accept(given)) is not None:
            self.accuracies.add(max(self.next - 1 - bool(self.inside), 0), accuracy)

    def check_number(self, step: int | None) -> None:
        """Refuse a number that was given for a step and does not follow; ValueError."""
        if step is None:
            return
        with self._lock:
            if self.inside:
                if step != self.last:
                    raise ValueError(
                        f"step: expected {self.last}, whose gradients are being seen, got {step}"
                    )
            elif self.last is not None and step <= self.last:
                back = f"rollback({step - 1})" if step > 0 else "load_state_dict(), or make a new Monitor,"
                raise ValueError(
                    f"step: expected a number above {self.last}, got {step}; call {back} when training goes "
                    "back"
                )

    def observe_one(self, p: nn.Parameter, step: int | None) -> None:
        """Observe one gradient within ``backward``; the next :meth:`observe` closes its step."""
        name = self._names[id(p)]
        with self._lock:  # devices run their backward in threads of their own
            if name in self.inside:  # and the gradient is the same, see give_up
                raise RuntimeError(
                    f"observe: expected each parameter once between two calls of step, got {name} a second "
                    "time; call step() after each optimizer step, and checkpoint shared parameters with "
                    "use_reentrant=False"
                )
            if p.grad is None:
                return
            number = self._number(step)
            arrays, places = self.gradients.one(name, p)
            if arrays and self.cadence.is_due(number):
                self._update(arrays, number, places)
            if not self.inside:
                self._before, self.last, self.known = self.last, number, None
            self.inside[name] = mark_of(p.grad)

    def give_up(self, p: nn.Parameter | None = None) -> int | None:
        """Forget the open step if the gradients seen in it have made way for others.

        An error in backward, or a batch that is left out, leaves one behind.

        Parameters
        ----------
        p : nn.Parameter, optional
            The one to look at; default: all.

        Returns
        -------
        int or None
            Number of the step that was forgotten.

        Notes
        -----
        CoordinateMoments cannot give back what they have taken.
        """
        with self._lock:
            if not self.inside:
                return None
            for name, other in self.parameters if p is None else [(self._names[id(p)], p)]:
                mark = self.inside.get(name)
                if mark is not None and other.grad is not None and not is_marked(other.grad, mark):
                    break
            else:
                return None
            number, self.last = self.last, self._before
            if number is not None and self.stream.last_step == number:
                self.stream.discard()
            self.inside.clear()
            return number

    def sketch_micro(self, scale: float, step: int | None) -> None:
        """Note the gradients accumulated so far, which are ``scale`` times too large."""
        if not self.cadence.is_due(self.next if step is None else step):
            return
        arrays, places = self.gradients.here()
        if not arrays:
            return
        sketch, parts = reading(arrays, lambda: self.stream.sketches(arrays, places))
        self.micro.follow(self.gradients.present())
        self.micro.add(sketch / scale, {name: part / scale for name, part in parts.items()})

    def skip(self, step: int, reason: str, scale: float = 1.0) -> None:
        """Note a step that changed nothing, and where the value lies that spoilt it."""
        if self.skips.newest == step:
            return
        name, index = self.gradients.first_nonfinite() or (None, None)
        self.skips.add(Skipped(step, reason, name, index, scale))
        self.micro.drop()

    def skip_if(self, bad: bool | Tensor, step: int) -> None:
        """Note a step that changed nothing if its norm was ``bad``, which may be known later."""
        if self.stream.is_capturing:  # one flag for all replays
            return
        if not isinstance(bad, Tensor):
            if bad:
                self.skip(step, "found_inf")
        elif self.skips.newest != step:
            self.skips.wait(step, bad)

    def _first_in_stream(self, step: int) -> tuple[str, int] | None:
        """Name and index of the first non-finite value of a step, if it is the first of the run too."""
        first = self.stream.first_nonfinite
        return None if first is None or first.step != step else (first.name, first.index)

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
        self.known = self._loss = self._with_loss = None
        self.inside.clear()
        every = (
            self.losses.log, self.accuracies.log, self.when, self.skips, self.micro, self.cadence,
            self.batches,
        )  # fmt: skip
        for log in every:
            log.cut(step)
        return kept

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was observed."""
        return {
            "stream": self.stream.state_dict(),
            "parameters": self.elements,
            "last": self.last,
            "losses": self.losses.log.state_dict(float),
            "accuracies": self.accuracies.log.state_dict(float),
            "when": self.when.state_dict(),
            "skipped": self.skips.state_dict(),
            "micro": self.micro.state_dict(),
            "cadence": self.cadence.state_dict(),
            "batches": self.batches.state_dict(),
        }

    parts = ("stream", "parameters", "last", "losses", "when", "skipped", "micro")
    """Keys of :meth:`state_dict` that every state has."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another observed; nothing changes if any part of it is refused."""
        if self.stream.is_captured:
            raise RuntimeError(
                "load_state_dict: expected a monitor of which no step is part of a CUDA graph, got one whose "
                "graph writes to what would be freed; load the state before capturing"
            )
        check_same(self.elements, {str(name): int(size) for name, size in state["parameters"].items()})
        stream = GradientStream.from_state_dict(
            state["stream"], groups=self._rule, backend=self.stream.backend
        )
        last = None if state["last"] is None else as_int(state["last"])
        losses, accuracies, when, micro = Losses(), Losses("accuracy"), StepLog[str](), MicroSteps()
        skips, cadence = Skips(self._first_in_stream), Cadence(self.cadence.base, self.cadence.bound)
        losses.log.load_state_dict(state["losses"], float)
        if "accuracies" in state:  # not in those of older versions
            accuracies.log.load_state_dict(state["accuracies"], float)
        when.load_state_dict(state["when"], str)
        skips.load_state_dict(state["skipped"])
        micro.load_state_dict(state["micro"])
        cadence.load_state_dict(state.get("cadence"))
        batches = BatchLog.from_state_dict(state["batches"]) if "batches" in state else BatchLog()
        self.stream, self.losses, self.when, self.micro = stream, losses, when, micro
        self.accuracies, self.skips, self.cadence, self.batches = accuracies, skips, cadence, batches
        self.last, self.known, self._loss, self._with_loss = last, None, None, None
        self.inside.clear()

    def _number(self, step: int | None, again: bool = False) -> int:
        """Return the number of the step to be observed, which is used up once it was."""
        if (self.inside or again) and self.last is not None:
            return self.last
        return self.next if step is None else step

    def _settle(self, number: int, known: Norm | None, loss: Tensor | float | None) -> None:
        """Use up the number of a step, and the loss that was given for it."""
        self.last, self.known, self._loss = number, known, None
        self.inside.clear()
        if loss is not None:
            self._add_loss(number, loss)

    def _update(self, arrays: dict[str, Tensor], number: int, places: Any) -> None:
        if places is None:
            reading(arrays, lambda: self.stream.update(arrays, number))
        else:
            reading(arrays, lambda: self.stream.update(arrays, number, places=places))

    def _newest_norm(self) -> Norm:
        """Return the norm of the step that was observed just now."""
        if (found := self.stream.device_norm()) is not None:
            self._asynchronous = True
            return taken(found)
        newest = self.stream.wait()
        return 0.0 if newest is None else newest.norm

    def _add_loss(self, number: int, loss: Tensor | float) -> None:
        self._with_loss = number
        if self.cadence.is_due(number):
            self.losses.add(number, loss)

    def _tag(self, step: int, when: str) -> None:
        if self.when.newest() != when:
            self.when.add(step, when)
