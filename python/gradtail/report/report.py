"""Report: what a stream has seen, as text, JSON, a page and pictures."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradtail.report import collect, figures, html, schema, style, tables
from gradtail.stream import GradientStream


class Report:
    """How heavy the tails of each layer's gradients are, and what else is known of a run.

    Made by :meth:`from_stream` or :meth:`load`. Everything shown comes from :attr:`data`, so a
    report that was loaded shows what the one that was saved did.

    Examples
    --------
    >>> import numpy as np
    >>> from gradtail import GradientStream
    >>> stream, rng = GradientStream(), np.random.default_rng(0)
    >>> for step in range(4):
    ...     stream.update({"layer.weight": rng.standard_t(2, 20_000)})
    >>> report = Report.from_stream(stream, title="four steps")
    >>> report.data["whole"]["count"]
    80000
    >>> print(report)  # doctest: +ELLIPSIS
    four steps
    4 steps (0 to 3), 1 layer, 20k parameters, 80k values; ...
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = schema.check(dict(data), "data")

    @classmethod
    def from_stream(
        cls,
        stream: GradientStream,
        *,
        loss: tuple[Sequence[int], Sequence[float]] | None = None,
        accuracy: tuple[Sequence[int], Sequence[float]] | None = None,
        overhead: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        title: str = "gradtail report",
        notes: Sequence[str] = (),
        max_norm: float | None = None,
    ) -> Report:
        """Draw up a report.

        Parameters
        ----------
        stream : GradientStream
            Read, not changed.
        loss : pair of sequences, optional
            Steps, and the loss of each.
        accuracy : pair of sequences, optional
            Likewise; shown under gradient alpha.
        overhead : mapping, optional
            Cost of watching: ``share`` of all the time, ``mean`` and ``mean_step`` (seconds in the
            monitor a step, and of a step, whose ratio it is) or else the medians ``p50`` and ``step``
            are put into words, the rest is listed.
        settings : mapping, optional
            What the reader needs to run this again: seeds, sizes, times, command line.
        title : str
        notes : sequence of str
            Sentences for the headline.
        max_norm : float, optional
            The clip threshold in use, whose clip rate is told; default: ``settings["max_norm"]``, if
            that is a number.

        Raises
        ------
        TypeError, ValueError
            ``stream`` is none, ``loss`` is not two sequences of one length, or ``max_norm`` is not
            positive.
        """
        data = collect.collect(
            stream, loss=loss, accuracy=accuracy, overhead=overhead, settings=settings, title=title,
            notes=notes, max_norm=max_norm,
        )  # fmt: skip
        return cls(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report.json, or the one in a folder.

        Raises
        ------
        ValueError
            Not a report, or one that another version of gradtail laid out otherwise.
        """
        return cls(schema.load(path))

    @property
    def data(self) -> dict[str, Any]:
        """What report.json holds, as a copy: plain dicts, lists, numbers and None."""
        return copy.deepcopy(self._data)

    def __str__(self) -> str:
        return tables.text(self._data)

    def __repr__(self) -> str:
        run = self._data["run"]
        return f"Report({self._data['title']!r}, steps={run['steps']}, layers={run['arrays']})"

    def _repr_html_(self) -> str:
        return html.part(self._data)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """Write report.json; a file that is there is replaced at once and never left half written."""
        return _replace(Path(path), schema.dumps(self._data).encode())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write report.json, report.html and a PNG of every plot into a folder.

        The folder is made if need be. An earlier report in it is replaced; other files there are
        left alone, and a file of a name that is needed here is overwritten only if a report.json
        next to it says that it belongs to a report.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        FileExistsError
            A file that is not of a report is in the way.
        ImportError
            matplotlib is not installed; report.json has been written by then, and
            ``gradtail report`` draws the rest from it later.
        """
        folder = Path(folder)
        _check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_json(folder / "report.json")
        style.matplotlib()
        written = set()
        for name, image in figures.pngs(self._data):
            _replace(folder / name, image)
            written.add(name)
        for name in set(figures.FILES) - written:  # of an earlier report
            (folder / name).unlink(missing_ok=True)
        return _replace(folder / "report.html", html.page(self._data).encode())


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"folder: expected a folder or a new name, got the file {folder}")
    names = [name for name in ("report.json", "report.html", *figures.FILES) if (folder / name).exists()]
    if not names:
        return
    try:
        schema.load(folder)
    except (ValueError, OSError):
        raise FileExistsError(
            f"folder: expected one without files of these names, or with an earlier report, got {folder} "
            f"with {', '.join(names)} and no report.json of this version"
        ) from None


def _replace(path: Path, content: bytes) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
    return path
