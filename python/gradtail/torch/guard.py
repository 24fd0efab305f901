"""What an error inside the monitor does: it must not stop training."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Literal, TypeVar

import torch

T = TypeVar("T")
OnError = Literal["disable", "raise"]

_INSIDE = (os.path.dirname(os.path.abspath(__file__)), os.path.dirname(os.path.abspath(torch.__file__)))


class Guard:
    """Runs what may fail; by default the first error switches the monitor off, with one warning.

    Parameters
    ----------
    on_error : {"disable", "raise"}

    Attributes
    ----------
    enabled : bool
        False after an error, or if the environment says ``GRADTAIL=0``.
    off : str or None
        The error that switched monitoring off, in a sentence.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ("disable", "raise"):
            raise ValueError(f"on_error: expected 'disable' or 'raise', got {on_error!r}")
        self.on_error: OnError = on_error
        self.enabled = os.environ.get("GRADTAIL") != "0"
        self.off: str | None = None

    def run(self, action: Callable[[], T], otherwise: T, step: int) -> T:
        """Run ``action`` for ``step``; after an error give ``otherwise``."""
        try:
            return action()
        except Exception as error:
            if self.on_error == "raise":
                raise
            self.enabled = False
            self.off = f"monitoring is off from step {step} on: {type(error).__name__}: {error}"
            warn(f"{self.off}; training is not affected")
            return otherwise


def warn(message: str) -> None:
    """Warn at the line of the user's that led here: the first one outside gradtail.torch and torch."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"gradtail: {message}", RuntimeWarning, stacklevel=level)
