"""The whole pass over given arrays, set up as a stream does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gradtail import GradientStream
from gradtail.backends import native

from .harness import Work


def whole_pass(arrays: Mapping[str, torch.Tensor], **settings: Any) -> tuple[Work, GradientStream]:
    """Return the native pass over ``arrays`` as a stream of such settings makes it, and that stream."""
    stream = GradientStream(**{"memory": "1GiB", **settings})
    stream.update(arrays)
    state = stream._state
    arrangement = state.current
    assert arrangement is not None
    views, table, out = arrangement.views(arrays), state.newest, arrangement.out
    return lambda: native.observe(views, table, out), stream
