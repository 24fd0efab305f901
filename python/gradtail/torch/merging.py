"""One stream out of the monitors of many processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradtail.stream import GradientStream
from gradtail.torch.packing import unpack


def merge_states(states: Iterable[Mapping[str, Any]], *, backend: str | None = None) -> GradientStream:
    """Merge what the monitors of all ranks, or of several runs, have seen.

    Parameters
    ----------
    states : iterable of mapping
        What :meth:`Monitor.state_dict` gave on each, in any order.
    backend : {None, "native", "numpy"}

    Returns
    -------
    GradientStream
        Of the shards of one gradient: that of the whole.

    Raises
    ------
    TypeError, ValueError
        No states, one that is none, or values that two of them have counted: ranks of data parallelism have
        the same, averaged gradients, so the state of one of them says it all.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> from gradtail.torch import Monitor
    >>> parts = [Monitor(model, params=name) for name in ("weight", "bias")]
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> for monitor in parts:
    ...     monitor.step()
    >>> merge_states(monitor.state_dict() for monitor in parts).summary().count
    8
    """
    merged: GradientStream | None = None
    for i, state in enumerate(states):
        if not isinstance(state, Mapping) or "stream" not in state:
            raise TypeError(f"states[{i}]: expected the state_dict of a Monitor, got {type(state).__name__}")
        stream = GradientStream.from_state_dict(unpack(state["stream"]), backend=backend)
        merged = stream if merged is None else _merged(merged, stream, i)
    if merged is None:
        raise ValueError("states: expected at least one state, got none")
    return merged


def _merged(merged: GradientStream, stream: GradientStream, i: int) -> GradientStream:
    try:
        return merged.merge(stream)
    except ValueError as error:
        if "counted by both" not in str(error):
            raise
        found = str(error).partition("got ")[2]
        raise ValueError(
            f"states[{i}]: expected values that no state before it has counted, got {found}; ranks that hold "
            "the same gradients (data parallelism without shards) have seen the same: merge only one of them"
        ) from error
