"""Numbers and findings in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, Literal

Row = dict[str, Any]
Weight = Literal["heavy", "middle", "mild", "unsure"]

HEAVY, LIGHT = 2.0, 4.0
"""Tail exponents below which variance, and fourth moment, of a power law are infinite."""


LEAST_K = 20
"""Values above the threshold below which no alpha is shown: its error is a quarter of it at best."""


def printable(text: object) -> str:
    r"""Show control characters by their codes, so that a name cannot move the cursor.

    Examples
    --------
    >>> print(printable("layer\x1b[2J"))
    layer\x1b[2J
    """
    strange = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in strange else c for c in str(text)
    )


def shorten(text: str, width: int) -> str:
    """Fit the name of a layer: words from the left down to a letter, and at last a cut in the middle.

    Examples
    --------
    >>> shorten("transformer.h.11.attn.c_attn.weight", 26)
    't.h.11.attn.c_attn.weight'
    >>> shorten("transformer.h.11.attn.c_attn.weight", 14)
    't.h.…tn.weight'
    """
    parts = text.split(".")
    for i, part in enumerate(parts[:-2]):
        if sum(map(len, parts)) + len(parts) - 1 <= width:
            break
        parts[i] = part if part.isdigit() else part[:1]
    text = ".".join(parts)
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def number(x: float | None, digits: int = 3) -> str:
    """Write a number in few characters; a dash where it is not known.

    Examples
    --------
    >>> number(0.00012345), number(1234.5), number(None), number(0), number(-3.14159)
    ('1.23e-04', '1.23e+03', '–', '0', '-3.14')
    """
    if x is None:
        return "–"
    if x == 0:
        return "0"
    if 1e-2 <= abs(x) < 1e3:
        return f"{x:.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}"
    return f"{x:.{digits - 1}e}"


def duration(seconds: float) -> str:
    """Write a duration in milliseconds, or in seconds where that is shorter.

    Examples
    --------
    >>> duration(0.00412), duration(0.0873), duration(1.404)
    ('4.12 ms', '87.3 ms', '1.40 s')
    """
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def count(n: int | None) -> str:
    """Write a count with a suffix from ten thousand on.

    Examples
    --------
    >>> count(9999), count(81_200_000), count(None)
    ('9999', '81.2M', '–')
    """
    if n is None:
        return "–"
    if n < 10_000:
        return str(n)
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{suffix}" if n < 999.5 * size else f"{n / size:.0f}{suffix}"
    raise AssertionError


def percent(share: float | None) -> str:
    """Write a share in percent.

    Examples
    --------
    >>> percent(0.0123), percent(0.5), percent(1e-6), percent(0)
    ('1.2 %', '50 %', '< 0.1 %', '0 %')
    """
    if share is None:
        return "–"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def range_text(ends: list[float | None]) -> str:
    """Write an interval in brackets; it may have no upper end.

    Examples
    --------
    >>> range_text([0.5, 1.25]), range_text([0.5, None]), range_text([None, None])
    (' (95 %: 0.500 to 1.25)', ' (95 %: from 0.500, upper end unknown)', '')
    """
    low, high = ends
    if low is None:
        return ""
    last = "from {}, upper end unknown" if high is None else "{} to {}"
    return f" (95 %: {last.format(number(low), number(high))})"


def percent_range(ends: list[float | None]) -> str:
    """Write an interval of a share.

    Examples
    --------
    >>> percent_range([0.012, 0.09]), percent_range([None, None])
    ('1.2 to 9 %', '–')
    """
    low, high = map(percent, ends)
    return "–" if low == high == "–" else f"{low.removesuffix(' %')} to {high}"


def ratio_text(spectrum: Row) -> str:
    """Write a participation ratio, which is a number of directions.

    Examples
    --------
    >>> ratio_text({"participation_ratio": 12.3, "participation_ratio_ci95": [8, 20]})
    '12.3 (95 %: 8.00 to 20.0)'
    >>> ratio_text({"participation_ratio": None, "participation_ratio_ci95": [512, None]})
    'more than 512 (95 %)'
    """
    ratio, ends = spectrum["participation_ratio"], spectrum["participation_ratio_ci95"]
    if ratio is None:
        return "more than these steps can tell" if ends[0] is None else f"more than {number(ends[0])} (95 %)"
    return f"{number(ratio)}{range_text(ends)}"


def of_few_steps(spectrum: Row) -> bool:
    """Whether a participation ratio is only that of the steps seen, which a few of them rule."""
    return spectrum.get("participation_ratio_basis") == "sample"


_MIXED = 3.0  # a factor between the scales of layers from which their mixture has a tail of its own


def mixture(whole: Row) -> str:
    """Warn where the tail of all layers together may come from their scales; empty if there is no reason.

    Examples
    --------
    >>> mixture({"scales": {"largest": 0.2, "in": "head", "smallest": 0.01, "and": "body"}})[:45]
    'layers differ in scale by a factor of 20.0 (r'
    """
    scales = whole.get("scales")
    if not scales or scales["largest"] < _MIXED * scales["smallest"]:
        return ""
    return (
        f"layers differ in scale by a factor of {number(scales['largest'] / scales['smallest'])} "
        f"(root mean square {number(scales['largest'])} in {scales['in']}, {number(scales['smallest'])} in "
        f"{scales['and']}): the tail of all of them together may be that of the mixture and not of any layer"
    )


def overhead_rows(cost: Row) -> Row:
    """Name each of the times of a monitor."""
    names = {
        "calls": "calls", "mean": "mean time in the monitor, a step", "mean_step": "mean time of a step",
        "share": "share of all the time", "p50": "median time of a call", "p99": "99 % of calls within",
        "step": "median time of a step",
    }  # fmt: skip
    rows: Row = {}
    for key in (*(key for key in names if key in cost), *(key for key in cost if key not in names)):
        value = cost[key]
        if key == "share" and isinstance(value, (int, float)):
            value = percent(value)
        elif key in ("mean", "mean_step", "p50", "p99", "step") and isinstance(value, (int, float)):
            value = duration(value)
        rows[names.get(key, key)] = value
    return rows


def plural(n: int, one: str, many: str | None = None) -> str:
    """Count things.

    Examples
    --------
    >>> plural(1, "layer"), plural(3, "layer")
    ('1 layer', '3 layers')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def is_index(tail: Row | None) -> bool:
    """Whether an alpha may be quoted: there is one, it does not slide, and is not of a handful of values."""
    return (
        tail is not None
        and tail["alpha"] is not None
        and tail["plateau"] is not False
        and tail["k"] >= LEAST_K
    )


def weight(tail: Row) -> Weight:
    """Class an index by what the whole of its 95 % interval says, not by the number itself.

    Examples
    --------
    >>> [weight({"ci95": ci}) for ci in ([1.2, 1.9], [1.2, 3.0], [4.5, None], [3.0, 5.0])]
    ['heavy', 'middle', 'mild', 'unsure']
    """
    low, high = tail["ci95"]
    if high is not None and high < LIGHT:
        return "heavy" if high < HEAVY else "middle"
    return "mild" if low is not None and low > LIGHT else "unsure"


WEIGHTS: dict[Weight, str] = {
    "heavy": "below 2 for sure", "middle": "below 4", "mild": "above 4", "unsure": "too wide to say",
}  # fmt: skip
"""What an interval says of alpha, heaviest first."""


def is_small(tail: Row) -> bool:
    """Whether an estimate rests on so few values that it may be heavy by chance."""
    return bool(tail["k"] < 50 or any(" is small" in w or "to choose k" in w for w in tail["warnings"]))


def alpha_text(tail: Row | None) -> str:
    """Write alpha, or that there is none to write."""
    if tail is None or tail["alpha"] is None:
        return "–"
    if is_index(tail):
        return number(tail["alpha"])
    if tail["plateau"] is not False:
        return "too few"
    slide = tail["slide"]
    if slide is None or None in slide:
        return "no plateau"
    return f"no plateau ({number(slide[0], 2)}→{number(slide[1], 2)})"


def interval_text(tail: Row | None) -> str:
    """Write the 95 % interval of an index."""
    if tail is None or not is_index(tail) or None in tail["ci95"]:
        return "–"
    low, high = tail["ci95"]
    return f"{number(low)} to {number(high)}"


def short_verdict(tail: Row) -> str:
    """Say what a tail is, without the numbers that stand beside it."""
    if tail["alpha"] is None:
        return str(tail["verdict"])
    if tail["plateau"] is False:
        return "no plateau: α slides with k, no single index"
    if not is_index(tail):
        return f"too few values: {LEAST_K} above the threshold needed"
    return "power-law tail" if tail["plateau"] else str(tail["verdict"]).partition(":")[0]


INDEX, SLIDES, SMALL, NONE = range(4)
"""Groups of the rows, in their order."""


def heaviness(row: Row) -> tuple[int, float]:
    """Sort key, heaviest first: tails with an index, those without one, those of few values, none.

    Indices are ordered by the upper end of their interval, so that those that are small for sure
    come before those that may be.
    """
    tail = row["tails"]["both"]
    if tail is None or tail["alpha"] is None:
        return NONE, 0.0
    if not is_index(tail):
        return (SLIDES if tail["plateau"] is False else NONE), tail["alpha"]
    high = tail["ci95"][1]
    return SMALL if is_small(tail) else INDEX, tail["alpha"] * 1e3 if high is None else high


def what_alpha_means(tail: Row) -> str:
    """Say what an index means for someone who trains, and how sure it is."""
    low, high = tail["ci95"]
    alpha = tail["alpha"]
    low, high = (alpha if low is None else low), (alpha if high is None else high)
    if high < HEAVY:
        return "below 2 for sure: as a power law its variance would be infinite"
    if low < HEAVY:
        return "around 2, where a power law's variance becomes infinite"
    if high < LIGHT:
        return "between 2 and 4: finite variance, but rare values dominate the fourth moment"
    if low < LIGHT:
        return "around 4, where the fourth moment becomes finite"
    return "above 4: a mild tail"
