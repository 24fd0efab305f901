"""A stream as numbers, text and arrays, and back."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gradtail.states.budget import Plan
from gradtail.states.coordinate_moments import CoordinateStore
from gradtail.states.groups import Rule
from gradtail.states.hashing import tensor_key
from gradtail.states.ledger import Ledger
from gradtail.states.packed import PackedTable
from gradtail.states.places import Place
from gradtail.states.record_log import RecordLog
from gradtail.states.ring import SketchRing
from gradtail.states.steps import StepSet
from gradtail.states.timeline import Timeline
from gradtail.states.track_ring import TrackRing
from gradtail.stream.arrangement import Known
from gradtail.stream.settings import Settings
from gradtail.stream.state import NonFinite, State

SCHEMA = "gradtail.GradientStream/1"


def state_dict(state: State) -> dict[str, Any]:
    """Return a flat dict; parts of a state have their name and a slash before their keys."""
    names = list(state.elements)
    parts: dict[str, Mapping[str, Any]] = {
        "settings": state.settings.as_dict(),
        "groups": state.groups.state_dict(),
        "ledger": state.ledger.state_dict(),
        "log": state.log.state_dict(len(state.rows)),
        "ring": state.ring.state_dict(),
        "group_ring": state.group_ring.state_dict(),
        "tracks": state.tracks.state_dict(),
        "coordinates": state.coordinates.state_dict(),
        "timeline": state.timeline.state_dict(),
        "newest": PackedTable.pack(state.newest).state_dict(),
        "known": _known_dict(state),
    }
    first = state.first_nonfinite
    flat: dict[str, Any] = {
        "schema": SCHEMA,
        "names": np.array(names, np.str_),
        "elements": np.array([state.elements[name] for name in names], np.int64),
        "declared": np.array(list(state.declared), np.str_),
        "declared_elements": np.array(list(state.declared.values()), np.int64),
        "rows": np.array(list(state.rows), np.str_),
        "plan": np.array(
            [] if state.plan is None else [state.plan.groups, state.plan.blocks, state.plan.cell]
        ),
        "counted": state.counted.to_array(),
        "has_newest": int(state.has_newest),
        "present": state.present.copy(),
        "sketch": state.sketch.copy(),
        "row_sketches": state.row_sketches.copy(),
        "first_nonfinite_name": "" if first is None else first.name,
        "first_nonfinite": np.array([] if first is None else [first.step, first.index], np.int64),
    }
    for part, values in parts.items():
        flat.update({f"{part}/{key}": value for key, value in values.items()})
    return flat


def from_state_dict(flat: Mapping[str, Any], backend: ModuleType, rule: Rule | None = None) -> State:
    """Rebuild a state; TypeError or ValueError if it is none."""
    if not isinstance(flat, Mapping):
        raise TypeError(f"state: expected a mapping, got {type(flat).__name__}")
    schema = str(np.asarray(flat.get("schema", "nothing")).item())
    if schema != SCHEMA:
        raise ValueError(f"state: expected schema {SCHEMA}, got {schema}")
    try:
        return _rebuilt(flat, backend, rule)
    except KeyError as missing:
        raise ValueError(f"state: expected the key {missing}, got none") from None
    except (IndexError, OverflowError) as error:
        raise ValueError(f"state: expected numbers that fit together, got {error}") from None


def save(path: str | PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state beside ``path``, and then put it in its place."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **state)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a state; OSError or ValueError if that cannot be."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("path: expected a file that GradientStream.save wrote, got a single array")
            return dict(found)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"path: expected a file that GradientStream.save wrote, got {error}") from None
    except ValueError as error:
        if str(error).startswith("path:"):
            raise
        raise ValueError("path: expected a file that GradientStream.save wrote, got another one") from None


def _rebuilt(flat: Mapping[str, Any], backend: ModuleType, rule: Rule | None) -> State:
    settings = _settings(_part(flat, "settings"))
    state = State(settings, rule, backend)
    names = [str(name) for name in np.asarray(flat["names"]).tolist()]
    state.elements = dict(zip(names, np.asarray(flat["elements"]).tolist(), strict=True))
    declared = [str(name) for name in np.asarray(flat["declared"]).tolist()]
    state.declared = dict(zip(declared, np.asarray(flat["declared_elements"]).tolist(), strict=True))
    state.keys = {name: tensor_key(settings.seed, name) for name in names}
    state.rows = {str(name): row for row, name in enumerate(np.asarray(flat["rows"]).tolist())}
    plan = np.asarray(flat["plan"], np.int64).tolist()
    state.plan = Plan(*plan) if plan else None
    state.groups.load_state_dict(_part(flat, "groups"))
    if set(state.groups.of) != set(names) or not set(state.groups.of.values()) <= set(state.rows):
        raise ValueError("state: expected a group for every array, got groups that do not fit")
    state.grow(len(state.rows))
    rows = len(state.rows)
    _load_known(state, _part(flat, "known"))
    state.ledger = Ledger.from_state_dict(_part(flat, "ledger"))
    state.counted = StepSet.from_array(np.asarray(flat["counted"]))
    state.log = RecordLog.from_state_dict(_part(flat, "log"))
    state.ring = SketchRing.from_state_dict(_part(flat, "ring"))
    state.group_ring = SketchRing.from_state_dict(_part(flat, "group_ring"))
    wanted = ((state.ring, 1, state.sketch.size), (state.group_ring, rows, state.row_sketches.shape[1]))
    for ring, sets, buckets in wanted:
        if (ring.rows, ring.buckets) != (sets, buckets):
            raise ValueError(
                f"state: expected a ring of {sets} sketches of {buckets}, got {ring.rows} of {ring.buckets}"
            )
    state.tracks = TrackRing.from_state_dict(_part(flat, "tracks"), settings.seed)
    state.coordinates = CoordinateStore.from_state_dict(_part(flat, "coordinates"))
    state.timeline = Timeline.from_state_dict(
        _part(flat, "timeline"), settings.bits, rows, backend, settings.takes_block_sums
    )
    part = _part(flat, "newest")
    if settings.takes_block_sums and "logs" not in part:
        raise KeyError("newest/logs")
    newest = PackedTable.from_state_dict(part, settings.bits).unpack()
    state.newest_step = state.last_step if flat["has_newest"] else None
    arrays = {"present": state.present, "sketch": state.sketch, "row_sketches": state.row_sketches}
    for key, own in arrays.items():
        found = np.asarray(flat[key])
        if found.shape != own.shape:
            raise ValueError(f"state: expected {key!r} of shape {own.shape}, got {found.shape}")
        own[...] = found
    if len(newest.records) != rows:
        raise ValueError(f"state: expected {rows} rows of the newest step, got {len(newest.records)}")
    state.newest = newest
    first, name = np.asarray(flat["first_nonfinite"], np.int64).tolist(), str(flat["first_nonfinite_name"])
    if first:
        state.first_nonfinite = NonFinite(first[0], name, first[1])
    return state


def _part(flat: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key[len(name) + 1 :]: value for key, value in flat.items() if key.startswith(f"{name}/")}


def _settings(part: Mapping[str, Any]) -> Settings:
    values = {"stable": False, **{key: np.asarray(value).item() for key, value in part.items()}}
    if missing := set(Settings.__dataclass_fields__) - set(values):
        raise KeyError(f"settings/{min(missing)}")
    known: dict[str, Any] = {key: None if value == "none" else value for key, value in values.items()}
    return Settings.checked(**known)


def _known_dict(state: State) -> dict[str, Any]:
    """Return what each array was like, so that a change is noticed after a restart too."""
    flat = [(name, own) for name, some in state.known.items() for own in some]
    return {
        "names": np.array([name for name, _ in flat], np.str_),
        "words": np.array([own.words for _, own in flat], np.str_),
        "layouts": np.array([own.layout for _, own in flat], np.uint64).view(np.int64),
        "axes": np.array([len(own.place.shape) for _, own in flat], np.int64),
        "places": np.array([n for _, own in flat for n in own.place.numbers()], np.int64),
    }


def _load_known(state: State, part: Mapping[str, Any]) -> None:
    layouts = np.ascontiguousarray(part["layouts"], np.int64).view(np.uint64).tolist()
    columns = [np.asarray(part[key]).tolist() for key in ("names", "words", "axes")]
    numbers = np.asarray(part["places"], np.int64).tolist()
    for name, words, axes, layout in zip(*columns, layouts, strict=True):
        place, numbers = Place.from_numbers(numbers, axes)
        state.known.setdefault(str(name), []).append(Known(place, layout, str(words)))
