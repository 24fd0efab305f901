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
    for _ in range(2):  # coordinate moments find their scale in the first step, and then join the pass
        stream.update(arrays)
    state = stream._state
    arrangement = state.current
    assert arrangement is not None
    assert (arrangement.out.pieces is None) == (stream.settings["cell"] == 0)
    views = arrangement.views(arrays)

    def one_pass() -> None:
        native.observe(views, state.newest, arrangement.out)  # the arrangement owns what the pass writes to

    return one_pass, stream
