"""A monitor that stops and goes on: states for checkpoints, and going back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradtail.torch.arguments import as_step
from gradtail.torch.clip import Clip
from gradtail.torch.fold import Fold
from gradtail.torch.packing import pack, reading_state, unpack
from gradtail.torch.readings import Readings

STATE_VERSION = 1


class Checkpoints(Readings):
    """The part of :class:`gradtail.torch.Monitor` that saves, loads and goes back."""

    _fold: Fold
    _stepped: set[int]

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
            Not such a state, or one of a monitor of parameters of other names or sizes. The monitor is left
            as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected the state_dict of a Monitor, got {type(state).__name__}")
        if not {"version", "stream"} <= state.keys():
            keys = ", ".join(repr(key) for key in list(state)[:3]) or "nothing"
            raise ValueError(
                f"state: expected the state_dict of a Monitor, got a mapping with {keys}"
                + (", ..." if len(state) > 3 else "")
            )
        if state["version"] != STATE_VERSION:
            raise ValueError(f"state: expected version {STATE_VERSION}, got {state['version']!r}")
        if missing := {*self._observer.parts, "clip"} - state.keys():
            raise ValueError(f"state: expected the part {min(missing)!r}, got none of that name")
        clip = Clip(self._observer.gradients, self._fold)
        with reading_state("the state_dict of a Monitor"):
            plain = unpack(state)
            clip.load_state_dict(plain["clip"])
            self._observer.load_state_dict(plain)
        if self._trajectory is not None:  # the weights are others now
            self._trajectory.cut()
        self._clip = clip
        self._norm = None
        self._stepped.clear()

    def rollback(self, step: int) -> int | None:
        """Forget what came after ``step``: training goes on from an earlier checkpoint.

        Loading the state that was saved with that checkpoint loses nothing; this is for those who have none.
        Lost besides the later steps are: to summaries and the report over all steps, a block of steps that
        reaches beyond ``step``, as a whole, for it cannot be divided; and the moments of coordinates over
        steps, which start anew. Clip counts, losses, accuracies and the record of norms are those of then.

        Parameters
        ----------
        step : int
            At least 0. To start from nothing make a new Monitor.

        Returns
        -------
        int or None
            Newest observed step that is kept; it may be earlier than ``step``, if that was not observed.
            None if there is none.

        Raises
        ------
        TypeError, ValueError
            Not such a number.
        """
        last = as_step(step)
        if last is None or last < 0:
            raise ValueError(f"step: expected an int of at least 0, got {step}")
        kept = self._observer.rollback(last)
        self._clip.cut(last)
        if self._trajectory is not None:
            self._trajectory.cut(last)
        self._norm = None
        self._stepped.clear()
        return kept
