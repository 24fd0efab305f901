"""Published data sets, which lie outside the repository: a test that needs one skips without it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(os.environ.get("GRADTAIL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


@dataclass(frozen=True)
class Published:
    """One row of Clauset, Shalizi and Newman (2009): their Table 3, and the tests of Tables 4 and 5."""

    n: int
    xmin: float
    exponent: str  # as printed, with the digit in brackets left off
    n_tail: int
    pvalue: float
    ks: float  # computed by another program, not in print
    ratios: dict[str, tuple[float, float]]  # statistic (of the nested one: the ratio) and p
    unit: float = 1.0
    logarithms: bool = False
    discrete: bool = False


def _ratios(*pairs: tuple[float, float]) -> dict[str, tuple[float, float]]:
    names = ("lognormal", "exponential", "stretched_exponential", "truncated_power_law")
    return dict(zip(names, pairs, strict=True))


CLAUSET = {
    "words": Published(
        18855, 7, "1.95", 2958, 0.49, 0.00825,
        _ratios((0.395, 0.69), (9.09, 0.00), (4.13, 0.00), (-0.899, 0.18)), discrete=True,
    ),
    "blackouts": Published(
        211, 230, "2.3", 59, 0.62, 0.06067,
        _ratios((-0.412, 0.68), (1.21, 0.23), (-0.417, 0.68), (-0.382, 0.38)), 1e3,
    ),
    "cities": Published(
        19447, 52.46, "2.37", 580, 0.76, 0.01885,
        _ratios((-0.090, 0.93), (3.65, 0.00), (0.204, 0.84), (-0.123, 0.62)), 1e3,
    ),
    "fires": Published(
        203785, 6324, "2.2", 521, 0.05, 0.03570,
        _ratios((-1.78, 0.08), (4.00, 0.00), (-1.82, 0.07), (-5.02, 0.00)),
    ),
    "quakes": Published(
        19302, 0.794, "1.64", 11697, 0.00, 0.09209,
        _ratios((-7.14, 0.00), (11.6, 0.00), (-7.09, 0.00), (-24.4, 0.00)), 1e3, logarithms=True,
    ),
    "surnames": Published(
        2753, 111.92, "2.5", 239, 0.20, 0.04077,
        _ratios((-0.836, 0.40), (2.89, 0.00), (-0.844, 0.40), (-1.36, 0.10)), 1e3,
    ),
}  # fmt: skip


def clauset(name: str) -> np.ndarray:
    """Read one of the data sets in the units of the table, or skip the test."""
    folder = FOLDER / "powerlaw_csn2009"
    found = [file for file in (folder / f"{name}.txt", folder / f"{name}.txt.gz") if file.is_file()]
    if not found:
        pytest.skip(f"needs the data sets of Clauset, Shalizi and Newman (2009) in {folder} (GRADTAIL_DATA)")
    values = np.loadtxt(found[0])
    row = CLAUSET[name]
    return (10**values if row.logarithms else values) / row.unit
