"""Who is watched, and how: a table to be read before a long run."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any

from gradtail.torch.observer import Observer
from gradtail.torch.sharding import is_sharded


@dataclass(frozen=True)
class PlanRow:
    """How one parameter is watched.

    Attributes
    ----------
    name, source, dtype : str
        Qualified name; where the gradient is read; dtype of the gradient.
    place : str
        "whole", or full shape and offset of the block that this rank holds.
    scale : str
        What the statistics are of: gradients as they are, or unscaled by the GradScaler.
    scope : str
        "local" (all of the gradient, as this process has it), "shard" (this rank counts its block and
        merging gives the whole), "owner" or "replica" (of replicas one rank counts), or why it is refused.
    when : str
        The moment of observation.
    group : str
        Under which its statistics are kept.
    state_bytes : int
        Its share of the monitor's memory.
    """

    name: str
    source: str
    dtype: str
    place: str
    scale: str
    scope: str
    when: str
    group: str
    state_bytes: int


@dataclass(frozen=True)
class Plan:
    """A row a parameter; prints as a table.

    Attributes
    ----------
    rows : tuple of PlanRow
    """

    rows: tuple[PlanRow, ...]

    def __str__(self) -> str:
        cells = [[field.name for field in fields(PlanRow)]]
        cells += [[str(value) for value in astuple(row)] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        total = sum(row.state_bytes for row in self.rows)
        return "\n".join([*lines, f"{len(self.rows)} parameters, {total} bytes of state"])


def plan_of(observer: Observer, *, when: str, scaled: bool) -> Plan:
    """Draw up the plan; before the first observation groups and bytes are not settled."""
    stream = observer.stream
    known = set(stream.names)
    groups = {name: stream.group_of(name) for name in known}
    members: dict[str, int] = {}
    for group in groups.values():
        members[group] = members.get(group, 0) + 1
    rows = []
    for name, p in observer.parameters:
        place, scope = _where(observer, name, p)
        share = stream.nbytes // len(members) // members[groups[name]] if name in known else 0
        rows.append(
            PlanRow(
                name=name,
                source=".grad" if p.requires_grad else "none (frozen)",
                dtype=str((p if p.grad is None else p.grad).dtype).removeprefix("torch."),
                place=place,
                scale="unscaled by GradScaler" if scaled else "as it is",
                scope=scope,
                when=when,
                group=groups.get(name, "not seen yet"),
                state_bytes=share,
            )
        )
    return Plan(tuple(rows))


def _where(observer: Observer, name: str, p: Any) -> tuple[str, str]:
    if not is_sharded(p):
        return "whole", "local"
    try:
        block = observer.gradients.block(name, p if p.grad is None else p.grad)
    except TypeError as error:
        return "?", f"refused: {error}"
    if block.is_whole:
        return "whole", "owner" if block.owner else "replica"
    place = f"{list(block.shape)} of {list(block.full_shape)} at {list(block.offset)}"
    return place, "shard" if block.owner else "replica"
