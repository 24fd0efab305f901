"""How a set of named arrays, each a block of its parameter, maps onto the states of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.buffers import DTYPES, VIEW, Views, layout_signature, views_of
from gradtail.dlpack import CPU, HOST_DEVICES
from gradtail.states.coordinate_moments import LivePiece
from gradtail.states.ledger import Pieces
from gradtail.states.outputs import Outputs
from gradtail.states.places import Place, check_place, whole
from gradtail.states.tracks import TrackList

IntArray = npt.NDArray[np.int64]
Places = Mapping[str, Any]

GROWTH = 20
"""Doublings beyond the scale of CoordinateMoments after which they are scaled anew."""


@dataclass(frozen=True)
class Known:
    """What an array was like when it was first seen."""

    place: Place
    layout: int
    words: str
    placed: bool = False  # the caller said where


def home_of(views: Views) -> tuple[int, int]:
    """Return DLPack device type and number of where arrays lie; all host memory is one place."""
    device = int(views.table["device"][0]) if len(views) else CPU
    return (CPU, 0) if device in HOST_DEVICES else (device, int(views.table["device_id"][0]))


def describe(arrays: Mapping[str, Any], places: Places | None) -> tuple[dict[str, Known], Views]:
    """Check arrays and places, and say what each is and where its memory lies.

    Raises
    ------
    TypeError, ValueError
        An array that :func:`gradtail.summarize` refuses, or a place that is none.
    """
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"arrays: expected names of type str, got {name!r}")
        if "\0" in name:  # NumPy's strings, which states are saved as, cannot end in one
            raise ValueError(f"arrays: expected names without NUL, got {name!r}")
    views = views_of(arrays, "arrays")
    places = {} if places is None else places
    if not isinstance(places, Mapping):
        raise TypeError(f"places: expected a mapping of names to places, got {type(places).__name__}")
    for name in places:
        if name not in arrays:
            raise ValueError(f"places[{name!r}]: expected the name of an array, got none of that name")
    known = {}
    for (name, array), view in zip(arrays.items(), views.table, strict=True):
        shape = tuple(int(n) for n in getattr(array, "shape", (int(view["size"]),)))
        place = whole(shape)
        if name in places:
            place = check_place(places[name], shape, f"places[{name!r}]")
        layout, words = int(view["layout"]), _words(array, shape)
        in_order = layout == layout_signature(shape, tuple(axis for axis, n in enumerate(shape) if n > 1))
        if not place.is_whole and place.size and not in_order:
            raise ValueError(f"arrays[{name!r}]: expected a block of a larger whole in C order, got {words}")
        known[name] = Known(place, layout, words, name in places)
    return known, views


class Arrangement:
    """One set of names with their places; made once, used at every step that brings the same.

    Views are ordered by row, and a block that is not one run of its parameter is several views.

    Parameters
    ----------
    known : mapping of name to Known
        In the order in which the caller has them.
    rows, keys : mapping of name to int
        Row of the table, and key of the hashes.
    """

    def __init__(self, known: Mapping[str, Known], rows: Mapping[str, int], keys: Mapping[str, int]) -> None:
        self.given = list(known)
        self.names = sorted(known, key=lambda name: rows[name])  # stable
        self._known = [known[name] for name in self.names]
        self.pieces: Pieces = tuple((name, known[name].place) for name in self.names)
        self.rows = np.array(sorted({rows[name] for name in known}), np.int64)
        spans = [(i, span) for i, own in enumerate(self._known) for span in own.place.spans()]
        self.source = np.array([i for i, _ in spans], np.int64)
        self._one_each = len(spans) == len(self.names)
        self._offset = np.array([span.offset for _, span in spans], np.uint64)
        self._table = np.zeros(len(spans), VIEW)
        for field in ("size", "start", "stride"):
            self._table[field] = [getattr(span, field) for _, span in spans]
        self._table["run"] = [max(span.run, 1) for _, span in spans]
        self._table["row"] = [rows[self.names[i]] for i, _ in spans]
        self._table["key"] = np.array([keys[self.names[i]] for i, _ in spans], np.uint64)
        self._sizes = np.array([own.place.size for own in self._known], np.int64)
        self._layouts = np.array([own.layout for own in self._known], np.uint64)
        self._placed = {name: own.place for name, own in known.items() if own.placed}
        self._in_order = self.names == self.given
        self._itemsizes = np.array([dtype.itemsize for dtype in DTYPES], np.uint64)
        self.out = Outputs.empty(len(spans))
        self.columns: npt.NDArray[np.intp] = np.zeros(0, np.intp)
        self._live: list[LivePiece] = []
        self.pieces_of_views: npt.NDArray[np.void] | None = None
        self._scaled = np.zeros(0, bool)
        self._ready = True

    def fits(self, arrays: Mapping[str, Any], places: Places | None) -> bool:
        """Whether these are the names and places that this was made for."""
        if self.given != list(arrays):
            return False
        if not places:
            return not self._placed and places in (None, {})
        if not isinstance(places, Mapping) or places.keys() != self._placed.keys():
            return False
        return all(_same_place(places[name], arrays[name], place) for name, place in self._placed.items())

    def views(self, arrays: Mapping[str, Any]) -> Views:
        """Describe where the arrays lie now.

        Raises
        ------
        TypeError, ValueError
            An array that is none, or whose size or memory layout is not that of the first time.
        """
        ordered = arrays if self._in_order else {name: arrays[name] for name in self.names}
        found = views_of(ordered, "arrays")
        same = (found.table["size"] == self._sizes) & (found.table["layout"] == self._layouts)
        if not same.all():
            i = int(np.argmin(same))
            name, was = self.names[i], self._known[i]
            if was.place.size != found.table["size"][i]:
                raise ValueError(
                    f"arrays[{name!r}]: expected {was.place.size} elements as before, "
                    f"got {found.table['size'][i]}"
                )
            shape = tuple(getattr(arrays[name], "shape", ()))
            raise ValueError(
                f"arrays[{name!r}]: expected the layout of before, {was.words}, "
                f"got {_words(arrays[name], shape)}"
            )
        table, first = self._table, found.table
        if self._one_each:
            table["data"] = first["data"]
        else:
            first = first[self.source]
            table["data"] = first["data"] + self._offset * self._itemsizes[first["dtype"]]
        for field in ("layout", "dtype", "device", "device_id"):
            table[field] = first[field]
        return Views(table, found.owners)

    def track(self, offsets: list[IntArray], columns: IntArray) -> None:
        """Set which values the pass picks out of each view, and the columns they belong to."""
        self.out.tracks = TrackList.of(offsets)
        self.columns = columns

    def follow(self, live: list[LivePiece]) -> None:
        """Set the memory of CoordinateMoments, one block a name, which other arrangements may share."""
        self._live = live
        self.refresh()

    def refresh(self) -> None:
        """Read the scales of CoordinateMoments again: another arrangement may have changed them."""
        if self._live:
            self.pieces_of_views = np.concatenate([piece.pieces for piece in self._live])
            self._scaled = np.concatenate([piece.scaled for piece in self._live])
            self._ready = bool(self._scaled.all())

    @property
    def followed(self) -> bool:
        """Whether CoordinateMoments are kept."""
        return bool(self._live)

    @property
    def scaled(self) -> bool:
        """Whether CoordinateMoments of every view have their scale."""
        return self._ready

    def rescale(self) -> None:
        """Give CoordinateMoments the scale of the values just seen, where they have none or one too small."""
        pieces = self.pieces_of_views
        assert pieces is not None
        largest = self.out.records["max_abs"]
        exponents = np.frexp(largest)[1]
        wanting = (largest > 0) & (~self._scaled | (exponents > pieces["exponent"] + GROWTH))
        if not wanting.any():
            return
        first = 0
        for piece in self._live:
            part = slice(first, first + len(piece.pieces))
            piece.rescale(exponents[part], wanting[part])
            pieces[part], self._scaled[part] = piece.pieces, piece.scaled
            first = part.stop
        self._ready = bool(self._scaled.all())

    def spans(self) -> list[tuple[str, int, int, int, int]]:
        """Return (name, start, run, stride, size) of each view."""
        return [
            (self.names[i], int(view["start"]), int(view["run"]), int(view["stride"]), int(view["size"]))
            for i, view in zip(self.source.tolist(), self._table, strict=True)
        ]


def _same_place(given: Any, array: Any, place: Place) -> bool:
    if isinstance(given, Place):
        return given == place
    try:
        full, offset = given
        same = tuple(full) == place.full_shape and tuple(offset) == place.offset
    except (TypeError, ValueError):
        return False  # to be told what is wrong with it
    return same and tuple(array.shape) == place.shape


def _words(array: Any, shape: tuple[int, ...]) -> str:
    strides = getattr(array, "stride", None)
    if callable(strides):
        return f"shape {shape} with strides {tuple(strides())}"
    strides = getattr(array, "strides", None)
    if strides is None:
        return f"shape {shape}"
    return f"shape {shape} with strides {tuple(s // array.itemsize for s in strides)}"
