"""Text that is on every machine: the sources of Python's own standard library."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

LIMIT = 4_000_000
"""Bytes read at most: more than the demo trains on, little enough to read at once."""

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})
TABLES = frozenset({"encodings", "pydoc_data"})  # generated: nothing to learn from but numbers
MACHINE_WRITTEN = "_sysconfigdata"  # holds the paths and flags of whoever built this Python


@dataclass(frozen=True)
class Text:
    """Bytes to train on, bytes held out, and where they came from."""

    train: bytes
    heldout: bytes
    source: str


def stdlib_files(folder: Path | None = None) -> list[Path]:
    """Return the .py files of the standard library, without tests and tables, in a fixed order.

    Parameters
    ----------
    folder : Path, optional
        Where to look; by default, where the running Python keeps its library.
    """
    root = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    found = []
    for parent, folders, names in os.walk(root):
        # Pruned, since site-packages may hold far more files than all the rest.
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        inner = Path(parent).relative_to(root)
        if inner.parts[:1] and inner.parts[0] in TABLES:
            folders.clear()
            continue
        found += [inner / n for n in names if n.endswith(".py") and not n.startswith(MACHINE_WRITTEN)]
    # As POSIX strings, so that the order is the same on every system.
    return [root / inner for inner in sorted(found, key=Path.as_posix)]


def read_stdlib(limit: int = LIMIT, folder: Path | None = None) -> bytes:
    """Join the standard library's sources up to ``limit`` bytes; files that cannot be read are left out."""
    parts: list[bytes] = []
    size = 0
    for path in stdlib_files(folder):
        if size >= limit:
            break
        try:
            part = path.read_bytes()
        except OSError:
            continue
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:limit]


def load_text(path: Path | None = None, *, least: int = 0, limit: int = LIMIT) -> Text:
    """Read a text and hold out its last tenth.

    Parameters
    ----------
    path : Path, optional
        A file of any kind, taken byte by byte; by default the standard library's sources.
    least : int
        Bytes that each of the two parts must have.
    limit : int
        Bytes read at most.

    Raises
    ------
    ValueError
        The file cannot be read, or is too short.
    """
    if path is None:
        data, source = read_stdlib(limit), "Python standard library sources"
    else:
        try:
            with path.open("rb") as file:
                data = file.read(limit)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"text: expected a file that can be read, got {str(path)!r} ({reason})"
            ) from None
        source = path.name
    cut = len(data) - len(data) // 10
    text = Text(data[:cut], data[cut:], source)
    if len(text.heldout) < least:
        hint = "; give a file with --text" if path is None else ""
        raise ValueError(f"text: expected at least {10 * least} bytes, got {len(data)} from {source}{hint}")
    return text
