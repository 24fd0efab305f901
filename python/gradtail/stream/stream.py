"""The stream itself: what happens at a step, and what can be read afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gradtail import backends
from gradtail.states.groups import Rule
from gradtail.stream import merging, saved
from gradtail.stream.arrangement import Places
from gradtail.stream.observation import observe, sketch_of, sketches_of
from gradtail.stream.readings import Readings
from gradtail.stream.settings import Settings
from gradtail.stream.state import State


class GradientStream(Readings):
    """Statistics of many named arrays over the steps of a run, in one read of each and bounded memory.

    Every array is a group of its own, unless ``groups`` says otherwise or memory is short; groups that
    share a dotted prefix (a module) are joined when they are read. Kept are, for each group, the summary of
    the newest step and of blocks of steps, a small ring of sketches and its norm at every step of a thinned
    record; of everything together a ring of sketches, the values of some coordinates, and moments of others
    over steps.

    Parameters
    ----------
    bits : int, default 4
        Mantissa bits of the histograms.
    window : int, default 256
        Newest steps whose sketches and tracks are kept; groups keep at most 64.
    sketch : int, default 4096
        Buckets of a sketch, a power of two from 128 to 65536; 0 for no sketches.
    tracks : int, default 4096
        Coordinates whose values are kept, over all arrays of the first step; 0 for none.
    coordinates : {"auto", "dense"}, int or None
        CoordinateMoments of one group of 8 elements in so many (a power of two), or of all ("dense"), or of
        none. "auto" is 64, or more where that would take over a quarter of the memory.
    groups : mapping of str to regular expression, or callable from str to str, optional
        Group of an array: the first pattern found in its name, else "other".
    seed : int, default 0
        Of the hashes that sketches, tracks and coordinates follow from. Streams of one seed merge.
    history : int, default 2048
        Rows of scalars kept at most; the record thins out when they are full.
    memory : str or int, default "64MiB"
        What all of this may take. Where arrays are many, modules share a group.
    stable : bool, optional
        Whether sums of blocks of neighbours are taken, which :meth:`stable_index` is made from. By default
        they are where arrays lie in host memory; on a CUDA device they take a second read of all values.
    backend : {None, "native", "numpy", "cupy"}
        Who reads arrays in host memory; None takes the best that this build has. Those on a CUDA device
        are read there by a build with CUDA, else, if they are CuPy's, by NumPy's code on CuPy, which is
        "cupy" by name.

    Raises
    ------
    TypeError, ValueError
        An argument that is none of these. At the first update: memory that is too small.

    Notes
    -----
    An update takes time linear in the number of elements. Memory (:attr:`nbytes`) does not depend on the
    number of steps, and on array sizes only as far as ``coordinates="dense"`` asks for it.

    All arrays of a stream lie on one device, the host or a GPU; streams of several merge. On a CUDA device an
    update is enqueued on the current stream of torch or CuPy, and what it finds stays there until it is read:
    readings of it wait for the steps before, all but :meth:`latest`.

    Examples
    --------
    >>> import numpy as np
    >>> stream = GradientStream()
    >>> for step in range(3):
    ...     stream.update({"a.w": np.full(4, 2.0 + step), "a.b": np.zeros(2)})
    >>> stream.summary("a").count, stream.summary("a.w", "newest").norm
    (18, 8.0)
    >>> stream.coordinates("a.w").mean
    array([3., 3., 3., 3.])
    """

    def __init__(
        self,
        *,
        bits: int = 4,
        window: int = 256,
        sketch: int = 4096,
        tracks: int = 4096,
        coordinates: Literal["auto", "dense"] | int | None = "auto",
        groups: Rule | None = None,
        seed: int = 0,
        history: int = 2048,
        memory: str | int = "64MiB",
        stable: bool | None = None,
        backend: str | None = None,
    ) -> None:
        self._backend: ModuleType = backends.resolve(backend)
        settings = Settings.checked(
            bits=bits, window=window, sketch=sketch, tracks=tracks,
            coordinates=coordinates, seed=seed, history=history, memory=memory, stable=stable,
        )  # fmt: skip
        self._held = State(settings, groups, self._backend)

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Say which arrays may come, so that memory and tracks are shared out among all of them.

        Without it, those of the first update are taken for all. Arrays that come later than that find
        what room is left.

        Parameters
        ----------
        sizes : mapping of str to int
            Elements of each whole parameter.

        Raises
        ------
        TypeError, ValueError
            Not such a mapping; memory that is too small.
        RuntimeError
            Something has been observed before.
        """
        if not isinstance(sizes, Mapping):
            raise TypeError(f"sizes: expected a mapping of names to ints, got {type(sizes).__name__}")
        for name, size in sizes.items():
            if not isinstance(name, str) or isinstance(size, bool) or not isinstance(size, (int, np.integer)):
                raise TypeError(f"sizes: expected a mapping of names to ints, got {name!r}: {size!r}")
            if size < 0:
                raise ValueError(f"sizes[{name!r}]: expected an int of at least 0, got {size}")
        self._held.declare({name: int(size) for name, size in sizes.items()})

    def plan(self) -> dict[str, Any]:
        """Say how memory is divided among the arrays declared or seen.

        Returns
        -------
        dict
            ``groups`` (group of each array), ``bytes`` (what states may take in all) and ``cell``
            (CoordinateMoments follow one group of 8 elements in so many; 0: none).
        """
        return self._held.preview()

    def update(
        self,
        arrays: Mapping[str, Any] | Sequence[Any],
        step: int | None = None,
        places: Places | None = None,
    ) -> None:
        """Observe arrays of one step.

        Parameters
        ----------
        arrays : mapping of str to array, or sequence of arrays
            What was observed; a name that is missing was not observed. A sequence is named
            "0", "1", ... in order.
        step : int, optional
            Number of the step: the newest one again, if what comes has not been counted in it, or a larger
            one. Default: one more.
        places : mapping of str to (full_shape, offset), optional
            Which block of its parameter an array is; without one it is all of it.

        Raises
        ------
        TypeError, ValueError
            An array that :func:`gradtail.summarize` refuses, one whose size or memory layout is not that of
            the first time, a place that does not fit, a step that does not follow, or values that have
            been counted in this step. The stream is left as it was.
        RuntimeError
            CUDA reports an error, such as too little memory, or a CUDA graph is captured and these arrays
            were not updated before.
        """
        observe(self._held, _named(arrays), step, places)

    def set_replay_cadence(self, every: int) -> None:
        """Say which replays of a CUDA graph observe, where an update is part of one.

        Each replay is a step, numbered on from the newest; observed are those whose number is a multiple.
        What holds now holds for graphs captured before, too. It has no say in other updates, and none where
        arrays lie in host memory.

        Parameters
        ----------
        every : int

        Raises
        ------
        TypeError, ValueError
            Not a positive int.
        """
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)):
            raise TypeError(f"every: expected an int, got {every!r}")
        if not 1 <= every < 2**31:
            raise ValueError(f"every: expected an int from 1 to 2**31 - 1, got {every}")
        self._held.set_replay_cadence(int(every))

    def leave_out(self, step: int) -> None:
        """Say that a step was not observed, so that replays of a CUDA graph are numbered behind it.

        It has no say where arrays lie in host memory.

        Parameters
        ----------
        step : int
            Above the newest.
        """
        if self._held.device is not None:
            self._held.device.leave_out(int(step))

    def sketch(
        self, arrays: Mapping[str, Any] | Sequence[Any], places: Places | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the sketch of arrays, which are counted nowhere.

        The sketch is linear: that of a difference is the difference of sketches.

        Returns
        -------
        ndarray of float64, shape (sketch,)

        Raises
        ------
        TypeError, ValueError
            As :meth:`update`; also where the stream keeps no sketches.
        """
        return sketch_of(self._held, _named(arrays), places)

    def sketches(
        self, arrays: Mapping[str, Any] | Sequence[Any], places: Places | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
        """Return the sketch of arrays, as :meth:`sketch`, and that of each group folded into 128 buckets.

        Returns
        -------
        whole : ndarray of float64, shape (sketch,)
        groups : dict of str to ndarray of float64, shape (min(sketch, 128),)
            Of the groups that are there; empty where arrays lie on a CUDA device, whose pass makes one
            sketch.
        """
        return sketches_of(self._held, _named(arrays), places)

    def merge(self, other: GradientStream) -> GradientStream:
        """Return what both streams have seen; neither is changed.

        Equal steps add, as shards of one gradient do; other steps are united, and of rings the newest stay.

        Parameters
        ----------
        other : GradientStream
            Of the same bits, sketch, seed, cells of coordinates, and groups for the names in common.

        Raises
        ------
        TypeError
            Not a stream.
        ValueError
            Settings that do not agree, or values that both have counted.
        """
        if not isinstance(other, GradientStream):
            raise TypeError(f"other: expected a GradientStream, got {type(other).__name__}")
        return self._wrap(merging.merge(self._state, other._state))

    def rollback(self, step: int) -> int | None:
        """Forget everything after ``step``: the run goes on from there.

        A block of steps that reaches beyond ``step`` cannot be divided and is lost as a whole to summaries
        over all steps; so are CoordinateMoments, which start anew. A state saved at that step loses nothing.

        Returns
        -------
        int or None
            The newest step that is left.
        """
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
            raise TypeError(f"step: expected an int, got {step!r}")
        self._state.cut(int(step))
        return self.last_step

    def discard(self) -> int | None:
        """Forget the newest step, which was broken off: blocks of it may have been counted, others not.

        CoordinateMoments keep what they have taken of it.

        Returns
        -------
        int or None
            The newest step that is left.
        """
        if self._state.has_newest and self.last_step is not None:
            self._state.forget(self.last_step)
        return self.last_step

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as numbers, text and NumPy arrays (``numpy.savez`` takes it; no pickle).

        A callable that assigns groups is not part of it: the groups that it has assigned are.
        """
        return saved.state_dict(self._state)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], *, groups: Rule | None = None, backend: str | None = None
    ) -> GradientStream:
        """Rebuild a stream, which can be read, merged and go on.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` gave.
        groups : callable, optional
            That assigned groups, for arrays that are still to come; patterns are part of the state.
        backend : {None, "native", "numpy", "cupy"}
            As for a new stream.

        Raises
        ------
        TypeError, ValueError
            Not such a state, one of another schema, or numbers that do not fit together.
        """
        module = backends.resolve(backend)
        new = cls.__new__(cls)
        new._backend, new._held = module, saved.from_state_dict(state, module, groups)
        return new

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file (npz without pickle), in place of an earlier one once it is whole."""
        saved.save(path, self.state_dict())

    @classmethod
    def load(cls, path: str | PathLike[str], *, backend: str | None = None) -> GradientStream:
        """Read a stream that :meth:`save` wrote.

        Raises
        ------
        OSError, ValueError
            No such file, or not such a state.
        """
        return cls.from_state_dict(saved.load(path), backend=backend)

    def __repr__(self) -> str:
        last = "" if self.last_step is None else f", newest {self.last_step}"
        return (
            f"GradientStream({len(self.names)} arrays in {len(self.groups)} groups, {self.steps} steps{last})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.state_dict(), self.backend)

    def _wrap(self, state: State) -> GradientStream:
        new = type(self).__new__(type(self))
        new._backend, new._held = self._backend, state
        return new


def _again(cls: type[GradientStream], state: dict[str, Any], backend: str) -> GradientStream:
    """Rebuild a stream that was pickled or copied; with the backend that is there."""
    return cls.from_state_dict(state, backend=backend if backend in backends.available() else None)


def _named(arrays: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and a sequence with its indices as names."""
    if isinstance(arrays, Mapping):
        return arrays
    if isinstance(arrays, (list, tuple)):
        return {str(i): array for i, array in enumerate(arrays)}
    raise TypeError(f"arrays: expected a mapping or list of arrays, got {type(arrays).__name__}")
