"""What a stream holds, and what can be asked of it without a gradient buffer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gradtail.dlpack import HOST_DEVICES
from gradtail.states.budget import (
    FOLD,
    GROUP_WINDOW,
    Plan,
    Sizes,
    divide,
    fixed_bytes,
    format_bytes,
    group_bytes,
)
from gradtail.states.coordinate_moments import CoordinateStore
from gradtail.states.groups import Groups, Rule
from gradtail.states.ledger import Ledger
from gradtail.states.places import Place
from gradtail.states.record_log import RecordLog
from gradtail.states.ring import SketchRing
from gradtail.states.steps import StepSet
from gradtail.states.table import SummaryTable
from gradtail.states.timeline import Timeline
from gradtail.states.track_ring import TrackRing
from gradtail.stream.arrangement import Arrangement, Known
from gradtail.stream.settings import Settings

if TYPE_CHECKING:
    from gradtail.stream.device_sketch import DeviceSketcher
    from gradtail.stream.on_device import DeviceSide

FloatArray = npt.NDArray[np.float64]

_PAGE = 4096
_ROOM = (
    "settings", "plan", "rows", "groups", "elements", "keys", "known", "newest", "present", "home",
    "timeline", "row_sketches", "group_ring", "tracks", "coordinates", "arrangements",
)  # fmt: skip


@dataclass(frozen=True)
class NonFinite:
    """Where the first NaN or infinity of a run appeared.

    Attributes
    ----------
    step : int
    name : str
    index : int
        Of the element: in the memory order of the array; for a block, in the C order of the parameter.
    """

    step: int
    name: str
    index: int


class State:
    """The states of all groups and of everything together; empty until the first update.

    Parameters
    ----------
    settings : Settings
    rule : mapping or callable, optional
        Which groups arrays belong to.
    backend : module
    """

    def __init__(self, settings: Settings, rule: Rule | None, backend: ModuleType) -> None:
        self.settings, self.backend = settings, backend
        self.groups = Groups(rule)
        self.plan: Plan | None = None
        self.rows: dict[str, int] = {}  # of each group
        self.declared: dict[str, int] = {}  # elements of the parameters that may come
        self.elements: dict[str, int] = {}  # of each whole parameter that came
        self.keys: dict[str, int] = {}
        self.known: dict[str, list[Known]] = {}
        self.ledger = Ledger()
        self.counted = StepSet()
        self.first_nonfinite: NonFinite | None = None
        self.newest = SummaryTable.empty(0, settings.bits, settings.takes_block_sums)
        self.present = np.zeros(0, bool)  # groups that the newest step has
        self.newest_step: int | None = None  # whose summaries ``newest`` has
        self.home: tuple[int, int] | None = None  # DLPack device type and number, where arrays lie
        self.sketcher: DeviceSketcher | None = None  # of arrays there that are not counted
        self.device: DeviceSide | None = None  # what lies there, if that is no host memory
        self.replay_cadence = 1
        self.timeline = Timeline(settings.bits, 32, backend, settings.takes_block_sums)
        self.log = RecordLog(settings.history)
        self.sketch = np.zeros(settings.sketch)
        self.row_sketches = np.zeros((0, min(FOLD, settings.sketch)))
        window = settings.window if settings.sketch else 0
        self.ring = SketchRing(window, 1, settings.sketch)
        self.group_ring = SketchRing(min(window, GROUP_WINDOW), 0, min(FOLD, settings.sketch))
        self.tracks = TrackRing(settings.window, settings.tracks, settings.seed)
        self.coordinates = CoordinateStore()
        self.arrangements: dict[tuple[str, ...], list[Arrangement]] = {}  # by names, the newest last
        self.current: Arrangement | None = None

    @property
    def no_block_sums(self) -> str:
        """Why there are no block sums, in words."""
        on_device = self.device is not None or (self.home is not None and self.home[0] not in HOST_DEVICES)
        return "one on a device, where it needs stable=True" if on_device else "stable=False"

    def settle_block_sums(self, on_device: bool) -> None:
        """Decide whether block sums are taken, where the settings leave it to where arrays lie."""
        if self.settings.stable is not None:
            return
        self.settings = replace(self.settings, stable=not on_device)
        if on_device:
            self.newest = replace(self.newest, logs=None)
            self.timeline.leave_out_block_sums()

    @property
    def has_newest(self) -> bool:
        """Whether anything of the newest step can still be told from the steps before."""
        return self.newest_step is not None or (self.device is not None and self.device.has_steps)

    @property
    def last_step(self) -> int | None:
        """Number of the newest step."""
        return self.counted.last

    @property
    def next_step(self) -> int:
        """Number of the next step, if none is given."""
        last = -1 if self.last_step is None else self.last_step
        return 1 + (last if self.device is None else max(last, self.device.newest))

    def declare(self, elements: Mapping[str, int]) -> None:
        """Say which parameters may come; see :meth:`gradtail.GradientStream.declare`."""
        if self.plan is not None:
            raise RuntimeError("declare: expected a call before the first update, got one after it")
        self._divide(elements)  # raises where memory is too small
        self.declared = dict(elements)

    def set_replay_cadence(self, every: int) -> None:
        """See :meth:`gradtail.GradientStream.set_replay_cadence`."""
        self.replay_cadence = every
        if self.device is not None:
            self.device.set_every(every)

    def begin(self, elements: Mapping[str, int], on_device: bool = False) -> None:
        """Settle how memory is divided, when the first arrays come."""
        expected = {**self.declared, **elements}
        self.plan = self._divide(expected, on_device)
        self.groups.begin(list(expected), self.plan.groups)
        self.timeline.most = self.plan.blocks
        self.coordinates = CoordinateStore(self.plan.cell)
        self.tracks.expect(sum(expected.values()))

    def _divide(self, elements: Mapping[str, int], on_device: bool = False) -> Plan:
        settings = self.settings
        sizes = Sizes(
            settings.bits, settings.window, settings.sketch, settings.tracks, settings.history, on_device
        )
        wanted = len(set(self.groups.preview(list(elements)).values()))
        plan = divide(settings.memory, sizes, list(elements.values()), wanted, settings.coordinates)
        if self.groups.by_rule and wanted > plan.groups:
            raise ValueError(
                f"groups: expected at most {plan.groups} groups in memory={format_bytes(settings.memory)}, "
                f"got {wanted}"
            )
        return plan

    def preview(self) -> dict[str, Any]:
        """Return the groups of all arrays declared or seen, and the memory that states may take."""
        elements = {**self.declared, **self.elements}
        on_device = self.device is not None
        plan = self.plan or self._divide(elements)
        groups = self.groups.copy()
        if groups.most is None:
            groups.begin(list(elements), plan.groups)
        of = {**groups.assign([name for name in elements if name not in groups.of]), **groups.of}
        settings = self.settings
        sizes = Sizes(
            settings.bits, settings.window, settings.sketch, settings.tracks, settings.history, on_device
        )
        each = group_bytes(sizes, plan.blocks)
        return {
            "groups": {name: of[name] for name in elements},
            "bytes": fixed_bytes(sizes, list(elements.values()), plan.cell) + each * len(set(of.values())),
            "cell": plan.cell,
        }

    def grow(self, rows: int) -> None:
        """Make room for more groups."""
        held = len(self.newest.records)
        if rows <= held:
            return
        newest = SummaryTable.empty(rows, self.settings.bits, self.settings.takes_block_sums)
        self.newest.copy_to(newest)
        row_sketches = np.zeros((rows, self.row_sketches.shape[1]))
        row_sketches[:held] = self.row_sketches
        self.group_ring.grow(rows)
        self.timeline.grow(rows)
        self.newest, self.row_sketches = newest, row_sketches
        self.present = np.append(self.present, np.zeros(rows - held, bool))

    def room(self) -> dict[str, Any]:
        """Return what making room for arrays changes, for :meth:`give_back_room`."""
        held = {name: copy.copy(value) for name, value in vars(self).items() if name in _ROOM}
        for name in ("known", "arrangements"):
            held[name] = {key: list(some) for key, some in held[name].items()}
        held["groups"] = self.groups.copy()
        for name in ("tracks", "coordinates"):  # which hold dicts of their own
            held[name] = copy.copy(held[name])
            parts = vars(held[name])
            parts.update({key: dict(part) for key, part in parts.items() if isinstance(part, dict)})
        return {**held, "device": self.device, "current": self.current}

    def give_back_room(self, room: Mapping[str, Any]) -> None:
        """Forget the arrays that have come since, of which no value was counted."""
        vars(self).update(room)

    def group_rows(self, group: str | None) -> list[int]:
        """Return the rows of a group, of a prefix of several, or of all."""
        if group is None:
            return list(self.rows.values())
        if group in self.rows:
            return [self.rows[group]]
        rows = [row for name, row in self.rows.items() if name.startswith(f"{group}.")]
        if not rows:
            found = (self.groups.of[name] for name in self.groups.of if f"{name}.".startswith(f"{group}."))
            within = next(found, None)
            if within is not None:
                raise ValueError(
                    f"group: expected one of stream.groups, got {group!r}, which is kept within {within!r}"
                )
            raise ValueError(f"group: expected an array name or a prefix of some, got {group!r}")
        return rows

    def norm(self) -> float:
        """Euclidean norm of the newest step, finite values only."""
        return joint_norm(self.newest.records)

    def nonfinite(self) -> int:
        """Non-finite values in the newest step."""
        r = self.newest.records
        return int(r["nan"].sum() + r["posinf"].sum() + r["neginf"].sum())

    def group_norms(self) -> FloatArray:
        """Norm of each group in the newest step; NaN if it is not there, inf if it is not finite."""
        records = self.newest.records
        norms = np.where(self.present, group_norms(records), np.nan)
        norms[records["nan"] + records["posinf"] + records["neginf"] > 0] = np.inf
        return norms

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each array that were seen here: blocks that overlap (resharding) count once."""
        return {name: _covered([own.place for own in some]) for name, some in self.known.items()}

    @property
    def nbytes(self) -> int:
        """Memory, in bytes; of bins, those that values reach."""
        records = self.newest.records
        used = np.maximum(records["high_bin"] - records["low_bin"] + 1, 0) * (records["high_bin"] >= 0)
        bins = 2 * 2 * (8 * int(used.sum()) + 2 * _PAGE * len(records))  # two signs, two tables
        rings = self.ring.nbytes + self.group_ring.nbytes + self.tracks.nbytes
        sketches = self.sketch.nbytes + self.row_sketches.nbytes
        return (
            bins
            + 2 * records.nbytes
            + self.timeline.nbytes
            + self.log.nbytes
            + rings
            + sketches
            + (self.coordinates.nbytes)
        )

    def account(self) -> dict[str, Any]:
        """Return the settings, and what memory allowed."""
        account = self.settings.as_dict()
        if self.plan is not None:
            account["cell"] = self.plan.cell
            account["most_groups"] = self.plan.groups
            account["arrays"], account["groups"] = len(self.elements), len(self.rows)
        return account

    def expected_groups(self) -> set[str]:
        """Return the groups of all arrays declared or seen."""
        groups = self.groups.copy()
        return {
            *self.rows,
            *groups.assign([name for name in self.declared if name not in groups.of]).values(),
        }

    def close_newest(self) -> None:
        """Give the summaries of the newest step to its block of steps, and make room for another step."""
        assert self.newest_step is not None
        closed = self.timeline.add(self.newest_step, self.newest)
        self.newest_step = None
        self._shrink(closed)
        self.backend.clear(self.newest)
        self.sketch[...] = 0
        self.row_sketches[...] = 0
        self.present[...] = False

    def add_block(self, first: int, last: int, table: SummaryTable) -> None:
        """Add the summaries of steps later than all before."""
        self._shrink(self.timeline.add_block(first, last, table))

    def _shrink(self, closed: bool) -> None:
        while closed and self.nbytes > self.settings.memory and self.timeline.shrink():
            pass

    def note_nonfinite(self, step: int, name: str, index: int) -> None:
        """Keep where the first value that is not finite was."""
        if self.first_nonfinite is None:
            self.first_nonfinite = NonFinite(step, name, index)

    def cut(self, last: int) -> None:
        """Forget everything after ``last``."""
        if self.last_step is None or self.last_step <= last:
            return
        self.forget(last + 1)
        self.timeline.cut(last)
        self.coordinates.clear()
        self.arrangements, self.current = {}, None  # they hold the memory of CoordinateMoments
        if self.device is not None:
            self.device.forget_plans()

    def forget(self, step: int) -> None:
        """Forget the newest step, and what rings and records hold of it and of later ones.

        CoordinateMoments cannot give a step back: of one that was broken off they keep what they have taken.
        """
        last = step - 1
        self.backend.clear(self.newest)
        self.sketch[...], self.row_sketches[...] = 0, 0
        self.present[...], self.newest_step = False, None
        self.log.cut(last)
        self.ring.cut(last)
        self.group_ring.cut(last)
        self.tracks.cut(last)
        self.ledger.cut(last)
        self.counted = self.counted.cut(last)
        if self.first_nonfinite is not None and self.first_nonfinite.step > last:
            self.first_nonfinite = None
        if self.device is not None:
            self.device.go_back()


def _covered(places: list[Place]) -> int:
    apart: list[Place] = []
    for place in sorted(places, key=lambda place: -place.size):
        if not any(place.overlaps(other) for other in apart):
            apart.append(place)
    return sum(place.size for place in apart)


def group_norms(records: npt.NDArray[np.void]) -> FloatArray:
    """Norm of each row's finite values."""
    exponent = np.frexp(records["max_abs"])[1]
    return np.asarray(np.ldexp(np.sqrt(records["sum2"]), exponent))


def joint_norm(records: npt.NDArray[np.void]) -> float:
    """Norm of all rows together, without overflow on the way."""
    if len(records) == 0:
        return 0.0
    exponents = np.frexp(records["max_abs"])[1]
    top = int(np.frexp(records["max_abs"].max())[1])
    total = float(np.sum(np.ldexp(records["sum2"], 2 * (exponents - top))))
    return float(np.ldexp(np.sqrt(total), top))
