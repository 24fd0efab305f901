"""Who is watched, and how: a table to be read before a long run."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any

from gradtail.states.budget import format_bytes
from gradtail.torch.observer import Observer
from gradtail.torch.sharding import is_sharded

NONE = "-"


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
        Under which its statistics are kept, or will be; "-" of a frozen parameter that has had no gradient.
    state_bytes : int
        Its share of the monitor's memory: of what is held now, or before the first observation of what is
        expected.
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


@dataclass(frozen=True, repr=False)
class Plan:
    """A row a parameter; prints as a table.

    Attributes
    ----------
    rows : tuple of PlanRow
    nbytes : int
        Memory of the monitor: of now, or before the first observation what is expected.
    expected : bool
        Whether nothing has been observed yet.
    cadence : str
        Which steps are observed, if not simply every one.
    """

    rows: tuple[PlanRow, ...]
    nbytes: int
    expected: bool
    cadence: str = ""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        cells = [[field.name for field in fields(PlanRow)]]
        cells += [[str(value) for value in astuple(row)] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        groups = len({row.group for row in self.rows} - {NONE})
        word = "expected" if self.expected else "of state"
        bytes_ = f", {format_bytes(self.nbytes)} {word}" if self.nbytes else ""
        cadence = f", {self.cadence}" if self.cadence else ""
        return "\n".join([*lines, f"{len(self.rows)} parameters in {groups} groups{bytes_}{cadence}"])


def plan_of(observer: Observer, *, when: str, scaled: bool) -> Plan:
    """Draw up the plan; what has not been observed yet is shown as it will be."""
    groups, nbytes = _groups(observer)
    members: dict[str, int] = {}
    for group in groups.values():
        members[group] = members.get(group, 0) + 1
    rows = []
    for name, p in observer.parameters:
        place, scope = _where(observer, name, p)
        share = nbytes // len(members) // members[groups[name]] if name in groups else 0
        rows.append(
            PlanRow(
                name=name,
                source=".grad" if p.requires_grad else "none (frozen)",
                dtype=str((p if p.grad is None else p.grad).dtype).removeprefix("torch."),
                place=place,
                scale="unscaled by GradScaler" if scaled else "as it is",
                scope=scope,
                when=when,
                group=groups.get(name, NONE),
                state_bytes=share,
            )
        )
    cadence = "" if observer.cadence.is_plain else str(observer.cadence)
    return Plan(tuple(rows), nbytes, not observer.stream.steps, cadence)


def _groups(observer: Observer) -> tuple[dict[str, str], int]:
    """Return the group of each parameter that is observed or will be, and the bytes of all."""
    stream = observer.stream
    seen = {name: stream.group_of(name) for name in stream.names}
    expected = [name for name, p in observer.parameters if p.requires_grad and name not in seen]
    planned = stream.plan()
    groups = {name: group for name in expected if (group := planned["groups"].get(name)) is not None}
    return {**groups, **seen}, (stream.nbytes if seen or not groups else int(planned["bytes"]))


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
