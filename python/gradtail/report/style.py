"""Colours and type of the plots, and how matplotlib is brought in when a plot is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers; the page swaps each colour for a
# CSS variable, which has a lighter value in the dark.
INK, MUTED, GRID, PAPER = "#1b1f24", "#666e78", "#d5d9df", "#fdfdfc"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#c77700", "#00865f", "#c44e00", "#a8548a", "#3d93c9"
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper",
    BLUE: "--blue", ORANGE: "--orange", GREEN: "--green", RED: "--red", PURPLE: "--purple", SKY: "--sky",
}  # fmt: skip
SERIES = (INK, BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

_RC = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # placed by pad alone: finding room for it costs a sixth of the drawing
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradtail",  # the same report gives the same bytes
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name of a layer is a dollar
    "xtick.color": MUTED,
    "xtick.labelsize": 8,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelsize": 8,
    "ytick.minor.size": 0,
}


class MissingExtra(ImportError):
    """matplotlib is not installed."""


def matplotlib() -> Any:
    """Import matplotlib, or name the extra that brings it.

    Raises
    ------
    ImportError
        It is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra(
            "matplotlib: expected to be installed, since plots are drawn with it, got none; "
            "remedy: pip install 'gradtail[report]'"
        ) from error
    return matplotlib


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, and leave the user's settings as they are."""
    with matplotlib().rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in other scripts
        yield


def figure(width: float, height: float) -> Figure:
    """Make a figure that pyplot does not know of. Inches; within :func:`styled`."""
    matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def tick(value: float, _: int | None = None) -> str:
    """Label a tick of a logarithmic axis.

    Examples
    --------
    >>> tick(1.0), tick(100.0), tick(1e-6), tick(2e5)
    ('1', '100', '10⁻⁶', '2·10⁵')
    """
    if value <= 0:
        return "0"
    if 0.1 <= value < 1000:
        return f"{value:g}"
    digits, power = f"{value:.0e}".split("e")
    raised = "10" + str(int(power)).translate(_SUPERSCRIPTS)
    return raised if digits == "1" else f"{digits}·{raised}"
