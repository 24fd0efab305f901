"""What a loop may call besides the step: in backward, between micro-batches, and after an evaluation."""

from __future__ import annotations

from torch import Tensor, nn

from gradtail.torch.arguments import as_step
from gradtail.torch.hints import Hints
from gradtail.torch.hooked import Hooked


class Within(Hooked):
    """The part of :class:`gradtail.torch.Monitor` that sees more than complete steps."""

    _hints: Hints

    def observe(self, p: nn.Parameter, *, step: int | None = None) -> None:
        """Observe the gradient of one parameter, where the optimizer runs within ``backward``.

        For hooks of :meth:`torch.Tensor.register_post_accumulate_grad_hook`: call it before the
        optimizer that sets the gradient to None, and :meth:`step` after ``backward``. What was observed in a
        backward that failed, or whose batch was left out, is forgotten when the next one shows new gradients.

        Raises
        ------
        ValueError
            Not a watched parameter, or a number that does not follow.
        """
        if id(p) not in self._observer.ids:
            raise ValueError("p: expected a watched parameter of the model, got another tensor")
        number = as_step(step)
        if not self.enabled:
            return
        self._give_up(p)
        self._observer.check_number(number)
        with self._stopwatch.part():
            self._guard.run(lambda: self._observer.observe_one(p, number), None, self._observer.next)

    def micro_step(self, *, step: int | None = None) -> None:
        """Note what a micro-batch has added to the gradients; call it after the ``backward`` of each.

        Costs a pass over the gradients. :attr:`micro` has the squared norms of the increments and of
        their sum, which gradient-noise estimates are made of. Where there is no gradient it does nothing.
        Micro-batches whose sum the loop has thrown away (``zero_grad()`` before any step) do not count.

        Parameters
        ----------
        step : int, optional
            Number of the step that will be given, if any.
        """
        number = as_step(step)
        if not self.enabled:
            return
        self._observer.check_number(number)

        def action() -> None:
            scale = 1.0 if self._scaling is None else self._scaling.scale
            self._observer.sketch_micro(scale, number)

        with self._stopwatch.part():
            self._guard.run(action, None, self._observer.next)

    def note(self, *, accuracy: Tensor | float) -> None:
        """Keep an accuracy for the time line of the report, under gradient alpha and the loss.

        It belongs to the newest step that was told of; of several there the last one counts. One on a GPU
        stays there until it is read, so that nothing waits.

        Parameters
        ----------
        accuracy : float or 0-dim tensor
            Of whatever the loop evaluates, and whenever it does. What is no number is left out, with one
            warning.
        """
        if self.enabled:
            observer = self._observer
            self._guard.run(lambda: observer.note_accuracy(accuracy), None, observer.next)

    def _give_up(self, p: nn.Parameter | None = None) -> None:
        """Forget a step that was begun in backward and broken off."""
        if not self.enabled:
            return
        observer = self._observer
        if (forgotten := self._guard.run(lambda: observer.give_up(p), None, observer.next)) is not None:
            self._hints.abandoned(forgotten)
