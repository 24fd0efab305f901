"""One merge: shards of a step, steps of a run, or both, in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradtail.states.budget import Plan
from gradtail.states.log_sums import add_logs
from gradtail.states.packed import PackedTable
from gradtail.states.table import SummaryTable, merge_records
from gradtail.states.timeline import PackedBlock, placed
from gradtail.stream.settings import Settings
from gradtail.stream.state import State


def merge(a: State, b: State) -> State:
    """Return what both hold; see :meth:`gradtail.GradientStream.merge`."""
    _check(a, b)
    if a.plan is None and b.plan is None:
        new = State(a.settings, None, a.backend)
        new.groups, new.declared = a.groups.copy(), {**a.declared, **b.declared}
        return new
    if a.plan is None or b.plan is None:
        full = a if b.plan is None else b
        empty = b if b.plan is None else a
        return _joined(full, _like(empty, full))
    return _joined(a, b)


def _check(a: State, b: State) -> None:
    for name in ("bits", "sketch", "seed"):
        mine, theirs = getattr(a.settings, name), getattr(b.settings, name)
        if mine != theirs:
            raise ValueError(f"other: expected a stream of {name}={mine}, got {name}={theirs}")
    if a.plan is not None and b.plan is not None and a.plan.cell != b.plan.cell:
        raise ValueError(
            f"other: expected coordinates={a.plan.cell} as here, got coordinates={b.plan.cell}; "
            "give both streams the number"
        )
    for name, group in b.groups.of.items():
        if a.groups.of.get(name, group) != group:
            raise ValueError(
                f"other: expected array {name!r} in group {a.groups.of[name]!r}, got {group!r}; "
                "give both streams the same groups"
            )
        if name in a.elements and a.elements[name] != b.elements[name]:
            raise ValueError(
                f"other: expected {a.elements[name]} elements of {name!r}, got {b.elements[name]}"
            )
    if found := a.ledger.overlap(b.ledger):
        raise ValueError(f"other: expected values not counted here, got {found}, counted by both")


def _settings(a: State, b: State) -> Settings:
    """Return the settings that both have kept to."""
    least = {
        key: min(getattr(a.settings, key), getattr(b.settings, key))
        for key in ("window", "tracks", "history")
    }
    both = (a.settings.stable, b.settings.stable)
    stable = False if False in both else True if True in both else None
    memory = max(a.settings.memory, b.settings.memory)
    return replace(a.settings, **least, memory=memory, stable=stable)


def _like(empty: State, full: State) -> State:
    """Return a state with the groups of another one and nothing in them."""
    new = State(empty.settings, None, empty.backend)
    new.plan = full.plan
    new.rows, new.elements, new.keys = dict(full.rows), dict(full.elements), dict(full.keys)
    new.groups.of = dict(full.groups.of)
    new.grow(len(new.rows))
    return new


def _joined(a: State, b: State) -> State:
    new = State(_settings(a, b), None, a.backend)
    assert a.plan is not None
    assert b.plan is not None
    new.plan = Plan(min(a.plan.groups, b.plan.groups), min(a.plan.blocks, b.plan.blocks), a.plan.cell)
    new.groups = a.groups.copy()
    new.groups.of = {**a.groups.of, **b.groups.of}
    new.declared = {**a.declared, **b.declared}
    new.elements, new.keys = {**a.elements, **b.elements}, {**a.keys, **b.keys}
    for name in new.elements:
        known = list(a.known.get(name, ()))
        known += [own for own in b.known.get(name, ()) if all(own.place != k.place for k in known)]
        new.known[name] = known
    for group in [*a.rows, *b.rows]:
        new.rows.setdefault(group, len(new.rows))
    rows = len(new.rows)
    new.grow(rows)
    mine, theirs = (np.array([new.rows[group] for group in s.rows], np.intp) for s in (a, b))
    new.ledger, new.counted = a.ledger.merge(b.ledger), a.counted.union(b.counted)
    new.log = a.log.merge(b.log, mine, theirs, rows)
    one = np.zeros(1, np.intp)
    new.ring = a.ring.merge(b.ring, one, one, 1)
    new.group_ring = a.group_ring.merge(b.group_ring, mine, theirs, rows)
    new.tracks = a.tracks.merge(b.tracks)
    new.coordinates = a.coordinates.merge(b.coordinates)
    found = [place for place in (a.first_nonfinite, b.first_nonfinite) if place is not None]
    new.first_nonfinite = min(found, key=lambda f: (f.step, f.name, f.index), default=None)
    _join_summaries(new, (a, mine), (b, theirs))
    return new


def _join_summaries(new: State, *parts: tuple[State, np.ndarray[tuple[int], np.dtype[np.intp]]]) -> None:
    """Join the newest steps if they are one, else the older one becomes part of the time line."""
    rows, last = len(new.rows), new.last_step
    blocks: list[PackedBlock] = []
    new.timeline.most = min(state.timeline.most for state, _ in parts)
    new.timeline.pace = max(state.timeline.pace for state, _ in parts)
    for state, index in parts:
        blocks += placed(state.timeline.packed(), index, rows)
        if not state.has_newest:
            continue
        assert state.last_step is not None
        if state.last_step == last:
            newest = new.newest
            table = SummaryTable.empty(rows, new.settings.bits)
            table.records[index], table.counts[index] = state.newest.records, state.newest.counts
            newest.counts[...] += table.counts
            merge_records(newest.records, table.records)
            if newest.logs is not None and state.newest.logs is not None:
                for row, own in zip(index, state.newest.logs, strict=True):
                    add_logs(newest.logs[row], own)
            new.sketch += state.sketch
            new.row_sketches[index] += state.row_sketches
            new.present[index] |= state.present
            new.newest_step = last
        else:
            packed = PackedBlock(state.last_step, state.last_step, PackedTable.pack(state.newest))
            blocks += placed([packed], index, rows)
    new.timeline.set(blocks, rows)
