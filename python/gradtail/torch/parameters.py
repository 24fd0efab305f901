"""Which parameters of a model are watched, and under what names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import nn

Named = tuple[str, nn.Parameter]
Filter = str | re.Pattern[str] | Callable[[str, nn.Parameter], object] | Iterable[str | nn.Parameter]

_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


def watched_parameters(model: nn.Module, chosen: Filter | None = None) -> list[Named]:
    """Return the parameters that pass a filter, each once, under the names of the bare model.

    Parameters
    ----------
    model : nn.Module
        Wrapped by data parallelism, ``torch.compile`` or activation checkpointing, or not.
    chosen : str, compiled pattern, callable, or iterable of names or parameters, optional
        A regular expression that is searched for in the name, or a callable of name and parameter.

    Raises
    ------
    TypeError, ValueError
        No model, no filter, or a filter that no parameter passes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise TypeError(
            "model: expected plain or DTensor parameters (FSDP2, fully_shard), got FullyShardedDataParallel, "
            "whose flat shards do not say which part of a parameter they hold"
        )
    named = [(bare_name(name), p) for name, p in _unwrapped(model).named_parameters()]
    return named if chosen is None else _filtered(named, chosen)


def unwatched_parameters(model: nn.Module, watched: Iterable[Named]) -> list[Named]:
    """Return the parameters of a model that are not among ``watched``."""
    ids = {id(p) for _, p in watched}
    return [(bare_name(name), p) for name, p in _unwrapped(model).named_parameters() if id(p) not in ids]


def bare_name(name: str) -> str:
    """Remove what ``torch.compile`` and other wrappers add to qualified names."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def check_same(ours: Mapping[str, int], theirs: Mapping[str, int]) -> None:
    """Refuse the state of a monitor of other parameters, by the first whose number of elements differs."""
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            here, there = (
                f"{n} elements" if (n := sizes.get(name)) is not None else "none of that name"
                for sizes in (ours, theirs)
            )
            raise ValueError(
                f"state: expected that of a monitor of the same parameters; {name}: {here} here, "
                f"{there} in the state"
            )


def _filtered(named: list[Named], chosen: Filter) -> list[Named]:
    if isinstance(chosen, str):
        try:
            chosen = re.compile(chosen)
        except re.error as error:
            raise ValueError(f"params: expected a regular expression, got {chosen!r} ({error})") from None
    if isinstance(chosen, re.Pattern):
        pattern = chosen
        found = [(name, p) for name, p in named if pattern.search(name)]
    elif callable(chosen):
        found = [(name, p) for name, p in named if chosen(name, p)]
    elif isinstance(chosen, Iterable):
        found = _listed(named, list(chosen))
    else:
        raise TypeError(
            "params: expected a regular expression, a callable, or an iterable of names or parameters, "
            f"got {type(chosen).__name__}"
        )
    if not found:
        shown = chosen.pattern if isinstance(chosen, re.Pattern) else chosen
        raise ValueError(f"params: expected a filter that some parameter passes, got {shown!r}")
    return found


def _listed(named: list[Named], wanted: list[str | nn.Parameter]) -> list[Named]:
    names, ids = {name for name, _ in named}, {id(p) for _, p in named}
    for i, item in enumerate(wanted):
        if isinstance(item, str):
            if item not in names:
                raise ValueError(f"params[{i}]: expected the name of a parameter, got {item!r}")
        elif not isinstance(item, nn.Parameter):
            raise TypeError(f"params[{i}]: expected a name or a parameter, got {type(item).__name__}")
        elif id(item) not in ids:
            raise ValueError(f"params[{i}]: expected a parameter of the model, got another")
    by_name = {item for item in wanted if isinstance(item, str)}
    by_id = {id(item) for item in wanted}
    return [(name, p) for name, p in named if name in by_name or id(p) in by_id]


def _unwrapped(model: nn.Module) -> nn.Module:
    """Take off what data parallelism and ``torch.compile`` wrap around a model, in any order."""
    while True:
        parallel = type(model).__name__ in ("DistributedDataParallel", "DataParallel")
        inner = getattr(model, "module", None) if parallel else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
