"""What all studies of `gradtail reproduce` share: their data and folder, and how results are written."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradtail.estimators.ranks import RankPowerLaw
from gradtail.experiments.datasets import Images, load_images
from gradtail.report.schema import jsonable

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended
RESULTS, TABLE = "results.json", "table.txt"


class BadOption(ValueError):
    """Something that the user can mend, said of the option that it is about."""


def images_of(data: Path | None, limit: int | None) -> Images:
    """Load the images of a study.

    Raises
    ------
    BadOption
        They cannot be read.
    """
    try:
        return load_images(data, limit)
    except (ValueError, EOFError) as error:
        raise BadOption(str(error)) from None
    except OSError as error:
        raise BadOption(f"data: expected files that can be read, got {error}") from None


def make_folder(out: Path) -> None:
    """Make the folder that results are written to, if it is not there.

    Raises
    ------
    BadOption
        It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"out: expected a folder or a new name, got {error}") from None


def machine() -> dict[str, Any]:
    """Say what the numbers were computed with."""
    return {
        "platform": platform.platform(), "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in ("scipy", "scikit-learn", "matplotlib") if has(name)},
    }  # fmt: skip


def has(package: str) -> bool:
    """Whether a package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def write_results(out: Path, data: dict[str, Any], table: str) -> None:
    """Write numbers and table; what was there is replaced at once, so that no interruption can lose it."""
    numbers = json.dumps(jsonable(data), indent=1)
    for name, text in ((RESULTS, numbers), (TABLE, table)):
        new = out / f"{name}.new"
        new.write_text(text + "\n", encoding="utf-8")
        os.replace(new, out / name)


def power_law(law: RankPowerLaw) -> dict[str, Any]:
    """Flatten a power law of the rank."""
    return {
        "top": law.top, "ks": law.ks, "critical": law.critical(), "printed": law.critical(calibrated=False),
        "exponent": law.exponent, "slope": law.slope, "slope_stderr": law.slope_stderr,
        "loglog_slope": law.loglog_slope, "slope_sketch_stderr": law.slope_sketch_stderr,
        "uncorrected_ks": law.uncorrected_ks, "verdict": law.verdict, "warnings": list(law.warnings),
    }  # fmt: skip


def duration(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> duration(20), duration(100), duration(1500), duration(9000)
    ('less than a minute', 'about 2 minutes', 'about 25 minutes', 'about 2.5 hours')
    """
    if seconds < 45:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def mean(values: Iterable[float]) -> float:
    """Return the mean of what is known; NaN where nothing is."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
