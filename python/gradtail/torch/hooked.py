"""Observation by hooks of optimizers, on and off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch.optim import Optimizer

from gradtail.torch.arguments import check_optimizer, check_steps_without_closure
from gradtail.torch.attach import Attachment
from gradtail.torch.checkpoint import Checkpoints
from gradtail.torch.scaling import unscale_within
from gradtail.torch.turn import Turn

H = TypeVar("H", bound="Hooked")


class Hooked(Checkpoints):
    """The part of :class:`gradtail.torch.Monitor` that optimizers call."""

    _turn: Turn

    def attach(self: H, optimizer: Optimizer) -> H:
        """Observe before each step of an optimizer from now on; doing so twice changes nothing.

        Other monitors of the same optimizer go on observing.

        Returns
        -------
        Monitor
            Itself: as a context manager it detaches at the end.

        Raises
        ------
        TypeError, ValueError
            Not an optimizer, or one whose step needs a closure (LBFGS): its gradients come after the hook.
        """
        check_optimizer(optimizer)
        check_steps_without_closure(optimizer)
        if not any(a.optimizer() is optimizer for a in self._attached):
            self._attached.append(Attachment(optimizer, self._before_step))
        return self

    def detach(self) -> None:
        """Take off all hooks; what was observed stays, and so does a factor handed to an optimizer."""
        for attached in self._attached:
            attached.remove()
        self._attached.clear()

    def __enter__(self: H) -> H:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

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

        try:
            self._observe(action)
        except BaseException:
            self._stepped.discard(id(optimizer))
            raise

    def _observe(self, action: Callable[[], bool]) -> bool:
        """Make an observation on the clock and under guard; False if no pass was made."""
        self._norm = None
        if (device_time := getattr(self.stream, "extra_seconds", None)) is not None:
            self._stopwatch.add(device_time())
        with self._stopwatch:
            try:
                observed = self._guard.run(action, False, self._observer.next)
            except BaseException:
                self._turn.give_back()  # nothing was observed: the same gradients may come again
                raise
            if (number := self._observer.last) is not None and (trajectory := self._trajectory) is not None:
                self._guard.run(lambda: trajectory.record(number), None, number)
        if number is not None:
            self._observer.cadence.note(number, observed, *self._stopwatch.newest)
        return observed

    @property
    def _is_hooked(self) -> bool:
        """Whether a hook of an optimizer observes."""
        return any(attached.optimizer() is not None for attached in self._attached)
