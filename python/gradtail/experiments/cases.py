"""A study as a list of cases, written after each, so that it can be stopped and gone on with."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gradtail.experiments.datasets import Images
from gradtail.experiments.studies import INTERRUPTED, RESULTS, BadOption, duration
from gradtail.torch.interrupts import Interrupts

Case = dict[str, Any]
_Item = TypeVar("_Item")


def read_results(out: Path, schema: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a folder holds of a study with the same settings; None if it holds nothing.

    Raises
    ------
    BadOption
        It holds something else, or a study with other settings.
    """
    file = out / RESULTS
    if not file.exists():
        return None
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = data["schema"] == schema
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BadOption(f"out: expected a new folder or one of this study, got other results in {file}")
    for name, value in identity.items():
        there = data["identity"].get(name)
        if there != value:
            raise BadOption(
                f"out: expected a new folder or one of the same settings, got {out} with {name} {there} and "
                f"not {value}"
            )
    return data


def missing(items: Mapping[str, _Item], cases: Mapping[str, Case]) -> dict[str, _Item]:
    """Return the items by key that no case is of, and say how many there are already."""
    left = {key: item for key, item in items.items() if key not in cases}
    if len(left) < len(items):
        print(f"{len(items) - len(left)} of {len(items)} cases are done already.", file=sys.stderr)
    return left


def go_through(
    items: Mapping[str, _Item], cases: dict[str, Case], examine: Callable[[str, _Item], Case | None],
    write: Callable[[], object], interrupts: Interrupts,
) -> None:  # fmt: skip
    """Examine items one by one, and write after each; what returns None was interrupted."""
    began = time.perf_counter()
    for i, (key, item) in enumerate(items.items()):
        if interrupts.stopped:
            return
        print(f"{i + 1}/{len(items)}: {key}", file=sys.stderr, flush=True)
        found = examine(key, item)
        if found is None:
            return
        cases[key] = {"key": key, **found}
        write()
        left = (time.perf_counter() - began) / (i + 1) * (len(items) - i - 1)
        if i + 1 < len(items):
            print(f"{duration(left)} left", file=sys.stderr, flush=True)


def told(out: Path, table: str, complete: bool) -> int:
    """Print a table and where everything is, and return the exit code."""
    print(table)
    print(f"\nWritten to {out}: results.json, table.txt and the pictures.")
    if complete:
        return 0
    print("Not complete: the same command goes on from here.", file=sys.stderr)
    return INTERRUPTED


def checksum(images: Images) -> int:
    """Return a number that other images do not have."""
    found = 0
    for part in (*images.train, *images.test):
        found = zlib.crc32(part.numpy().tobytes(), found)
    return found
