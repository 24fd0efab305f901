"""One step: arrays are checked, read once, and what the pass found is put where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.backends import cuda
from gradtail.buffers import Views
from gradtail.dlpack import device_name
from gradtail.states.hashing import tensor_key
from gradtail.states.projection import fold
from gradtail.states.table import NO_INDEX
from gradtail.states.tracks import local_offsets
from gradtail.stream.arrangement import Arrangement, Known, Places, describe, home_of
from gradtail.stream.device_sketch import DeviceSketcher
from gradtail.stream.on_device import NOT_SEEN, DeviceSide
from gradtail.stream.state import NonFinite, State

MOST_STEPS = 2**62

_MOST_PLACES = 8  # arrangements remembered of the same names: blocks that move
_MOST_ARRANGEMENTS = 32  # sets of names remembered: where experts take turns, each set has its own


def observe(state: State, arrays: Mapping[str, Any], step: int | None, places: Places | None) -> None:
    """Count arrays of a step; see :meth:`gradtail.GradientStream.update`."""
    if state.device is not None:
        state.device.catch_up()
    step = _checked_step(state, step)
    arrangement = _remembered(state, arrays, places)
    if arrangement is None:
        known, views = describe(arrays, places)
        _check_known(state, known)
        _check_home(state, home_of(views))
        _check_counted(state, tuple((name, own.place) for name, own in known.items()), step)
        if cuda.takes(views):
            _observe_new(state, arrays, known, views, step)
            return
        arrangement = _arrange(state, known, home_of(views), False)
    else:
        _check_counted(state, arrangement.pieces, step)
    views = arrangement.views(arrays)
    _check_home(state, home_of(views))
    if state.device is not None:
        state.device.update(arrangement, views, step)
        return
    if step != state.last_step:
        _begin(state)
    try:
        _make_pass(state, arrangement, views)
        _note(state, arrangement, step)
    except BaseException:  # a signal too: half a step must not stay
        state.forget(step)
        raise


def _observe_new(
    state: State, arrays: Mapping[str, Any], known: Mapping[str, Known], views: Views, step: int
) -> None:
    """Count arrays on a device that are new there; where it has no room for them, nothing has changed."""
    if cuda.is_capturing(cuda.current_stream(views)):
        raise RuntimeError(NOT_SEEN)
    if state.device is not None:
        state.device.settle()  # the host's tables are about to be made anew
    room = state.room()
    try:
        arrangement = _arrange(state, known, home_of(views), True)
        assert state.device is not None
        state.device.update(arrangement, arrangement.views(arrays), step)
    except BaseException:
        pieces = tuple((name, own.place) for name, own in known.items())
        if step != state.last_step or not state.ledger.counted(pieces, step):  # it was not enqueued
            state.give_back_room(room)
        raise


def _make_pass(state: State, arrangement: Arrangement, views: Views) -> None:
    out = arrangement.out
    out.sketch = state.sketch if state.settings.sketch else None
    out.row_sketches = state.row_sketches if state.settings.sketch else None
    ready = arrangement.scaled
    out.pieces = arrangement.pieces_of_views if ready else None
    state.backend.observe(views, state.newest, out)
    if arrangement.followed:
        arrangement.rescale()
        if not ready:
            assert arrangement.pieces_of_views is not None
            state.backend.update_coordinates(views, arrangement.pieces_of_views)


def sketch_of(state: State, arrays: Mapping[str, Any], places: Places | None) -> npt.NDArray[np.float64]:
    """Return the sketch of arrays; see :meth:`gradtail.GradientStream.sketch`."""
    arrangement, views = _to_sketch(state, arrays, places)
    if cuda.takes(views):
        return _sketch_there(state, arrangement, views)
    found = np.zeros(state.settings.sketch)
    state.backend.sketch(views, found)
    return found


def sketches_of(
    state: State, arrays: Mapping[str, Any], places: Places | None
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """Return the sketch of arrays and those of their groups; see :meth:`gradtail.GradientStream.sketches`."""
    arrangement, views = _to_sketch(state, arrays, places)
    if cuda.takes(views):
        return _sketch_there(state, arrangement, views), {}
    of = dict(state.groups.of)
    of |= state.groups.copy().assign([name for name in arrangement.names if name not in of])
    groups = list(dict.fromkeys(of[name] for name in arrangement.names))
    group = np.array([groups.index(of[name]) for name in arrangement.names], np.intp)[arrangement.source]
    whole, parts = np.zeros(state.settings.sketch), {}
    for i, name in enumerate(groups):
        own = np.zeros(state.settings.sketch)
        state.backend.sketch(Views(views.table[group == i], views.owners), own)
        whole += own
        parts[name] = fold(own, state.row_sketches.shape[1])
    return whole, parts


def _to_sketch(state: State, arrays: Mapping[str, Any], places: Places | None) -> tuple[Arrangement, Views]:
    if not state.settings.sketch:
        raise ValueError("sketch: expected a stream that keeps sketches, got one with sketch=0")
    arrangement = _remembered(state, arrays, places)
    if arrangement is None:
        known, _ = describe(arrays, places)
        _check_known(state, known)
        keys = {name: tensor_key(state.settings.seed, name) for name in known}
        arrangement = Arrangement(known, dict.fromkeys(known, 0), keys)
    return arrangement, arrangement.views(arrays)


def _sketch_there(state: State, arrangement: Arrangement, views: Views) -> npt.NDArray[np.float64]:
    if state.sketcher is None:
        state.sketcher = DeviceSketcher(home_of(views)[1], state.settings.sketch)
    return state.sketcher.sketch(arrangement, views)


def _checked_step(state: State, step: int | None) -> int:
    last = state.last_step
    if step is None:
        return state.next_step
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"step: expected an int, got {step!r}")
    if not 0 <= step < MOST_STEPS:
        raise ValueError(f"step: expected an int from 0 to 2**62 - 1, got {step}")
    if last is not None and step < last:
        raise ValueError(f"step: expected a number of at least {last}, got {step}")
    if last == step and not state.has_newest:
        raise ValueError(f"step: expected a number above {last}, got {step}")
    return int(step)


def _remembered(state: State, arrays: Mapping[str, Any], places: Places | None) -> Arrangement | None:
    """Return the arrangement of an earlier step that had the same names and places."""
    known = state.arrangements.get(tuple(arrays), ())
    for arrangement in known:
        if arrangement.fits(arrays, places):
            if arrangement is not state.current:
                arrangement.refresh()
                state.current = arrangement
            return arrangement
    return None


def _check_known(state: State, known: Mapping[str, Known]) -> None:
    """Compare arrays with what they were before."""
    for name, own in known.items():
        if name in state.elements and state.elements[name] != own.place.elements:
            raise ValueError(
                f"arrays[{name!r}]: expected {state.elements[name]} elements as before, "
                f"got {own.place.elements}"
            )
        for before in state.known.get(name, ()):
            if before.place == own.place and before.layout != own.layout:
                raise ValueError(
                    f"arrays[{name!r}]: expected the layout of before, {before.words}, got {own.words}"
                )


def _check_counted(state: State, pieces: Any, step: int) -> None:
    if step == state.last_step and (found := state.ledger.counted(pieces, step)):
        raise ValueError(f"arrays: expected values not counted in step {step} before, got {found} again")


def _check_home(state: State, home: tuple[int, int]) -> None:
    """Refuse arrays that lie elsewhere than those before."""
    if state.home is not None and home != state.home:
        raise ValueError(
            f"arrays: expected arrays on {device_name(*state.home)} as before, got some on "
            f"{device_name(*home)}; make a stream for each device and merge them"
        )


def _arrange(state: State, known: Mapping[str, Known], home: tuple[int, int], on_device: bool) -> Arrangement:
    """Make room for what is new, and an arrangement."""
    new = {name: own.place.elements for name, own in known.items() if name not in state.elements}
    if state.plan is None:
        state.begin(new, on_device)
    assert state.plan is not None
    assigned = state.groups.assign(list(new))
    rows = dict(state.rows)
    for group in assigned.values():
        rows.setdefault(group, len(rows))
    state.grow(len(rows))  # all memory first: if there is none, the stream is as it was
    state.tracks.add(new)
    state.rows = rows
    state.groups.of.update(assigned)
    state.elements.update(new)
    for name, own in known.items():
        if name in new:
            state.keys[name] = tensor_key(state.settings.seed, name)
        if all(before.place != own.place for before in state.known.get(name, ())):
            state.known.setdefault(name, []).append(own)
    arrangement = Arrangement(
        known, {name: rows[state.groups.of[name]] for name in known}, {n: state.keys[n] for n in known}
    )
    if state.tracks.total:
        _track(state, arrangement)
    if state.home is None:
        state.home = home
        state.device = DeviceSide(state, home[1]) if on_device else None
        state.settle_block_sums(on_device)
    make = None if state.device is None else state.device.make_piece
    if state.plan.cell:
        arrangement.follow(
            [
                state.coordinates.live(name, place, state.keys[name], make)
                for name, place in arrangement.pieces
            ]
        )
    alike = state.arrangements.setdefault(tuple(known), [])
    alike.append(arrangement)
    del alike[:-_MOST_PLACES]
    state.current = arrangement
    # Sets of names that come and go for ever are forgotten; those that make up one step never.
    arranged = sum(len(names) * len(found) for names, found in state.arrangements.items())
    while arranged > _MOST_ARRANGEMENTS * max(len(state.elements), 1) and len(state.arrangements) > 1:
        names = next(iter(state.arrangements))
        arranged -= len(names) * len(state.arrangements.pop(names))
    return arrangement


def _track(state: State, arrangement: Arrangement) -> None:
    """Find the tracked coordinates that lie in each view."""
    offsets, columns = [], []
    for name, start, run, stride, size in arrangement.spans():
        first, index = state.tracks.index(name)
        offset = local_offsets(index, start, run, stride, size)
        whole = start + offset // run * stride + offset % run
        offsets.append(offset)
        columns.append(first + np.searchsorted(index, whole))
    arrangement.track(offsets, np.concatenate(columns) if columns else np.zeros(0, np.int64))


def _begin(state: State) -> None:
    """Close the newest step and begin another."""
    if state.newest_step is not None:
        state.close_newest()


def _note(state: State, arrangement: Arrangement, step: int) -> None:
    """Put what the pass found into rings and records."""
    state.ledger.add(arrangement.pieces, step)
    state.counted.add(step)
    state.newest_step = step
    state.present[arrangement.rows] = True
    bad, norm = state.nonfinite(), state.norm()
    norms = state.group_norms()
    if bad and state.first_nonfinite is None:
        state.first_nonfinite = _first_nonfinite(arrangement, step)
    state.log.add(step, norms, norm, bad)
    if state.settings.sketch:
        state.ring.store(step, state.sketch[None, :], np.array([np.inf if bad else norm]))
        state.group_ring.store(step, state.row_sketches, norms)
    tracks = arrangement.out.tracks
    if tracks is not None:
        state.tracks.store(step, arrangement.columns, tracks.value)


def _first_nonfinite(arrangement: Arrangement, step: int) -> NonFinite | None:
    """Locate the first non-finite value among the arrays, in the order in which they were given."""
    first = arrangement.out.records["first_nonfinite"]
    found: dict[str, int] = {}
    for i in np.flatnonzero(first != NO_INDEX):
        name = arrangement.names[arrangement.source[i]]
        found[name] = min(found.get(name, NO_INDEX), int(first[i]))
    name = next((name for name in arrangement.given if name in found), None)
    return None if name is None else NonFinite(step, name, found[name])
