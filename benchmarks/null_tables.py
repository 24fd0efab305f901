"""Null laws of Kolmogorov-Smirnov distances with fitted parameters, by Monte Carlo.

    python -m benchmarks.null_tables                       # prints the table file; minutes on one core
    python -m benchmarks.null_tables --write               # writes gradtail/estimators/lilliefors_table.py
    python -m benchmarks.null_tables --check 17 150 10000  # sizes of the tests at these n, from other seeds
    python -m benchmarks.null_tables --values 1e7          # a rough table, in seconds

What it prints does not depend on the hardware: the seeds are fixed, one for each law and n. The laws are
defined in gradtail.estimators.lilliefors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray: TypeAlias = npt.NDArray[np.float64]

TABLE = Path(__file__).resolve().parents[1] / "python" / "gradtail" / "estimators" / "lilliefors_table.py"
FEWEST = {"exponential": 2, "exponential_rank": 3, "normal": 3}
FIRST_OF_SURFACE = 10  # below it each n has its own quantiles
GRID = (10, 11, 12, 14, 16, 20, 25, 32, 45, 65, 100, 160, 300, 600, 1000, 2000, 5000, 20_000)
DEGREE = 3  # of the surface in 1 / sqrt(n)
MOST_REPEATS = 8_000_000
LEVELS = (
    0.9999, 0.999, 0.995, 0.99, 0.98, 0.96, 0.93, 0.9, 0.86, 0.82, 0.77, 0.72, 0.66, 0.6, 0.55, 0.5, 0.45,
    0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.125, 0.1, 0.07, 0.05, 0.032, 0.02, 0.015, 0.01, 0.005, 0.0025, 0.001,
    0.0003, 0.0001,
)  # fmt: skip
CHECKED = (0.5, 0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-5)
CHUNK = 1 << 17  # values at a time: what a cache holds


def distances(law: str, n: int, repeats: int, rng: np.random.Generator) -> FloatArray:
    """Draw ``repeats`` samples of n values under a law and return their distances."""
    found = np.empty(repeats)
    rows = max(1, CHUNK // n)
    for first in range(0, repeats, rows):
        size = min(rows, repeats - first)
        if law == "normal":
            drawn = _normal(rng, size, n)
        else:
            drawn = _exponential(rng, size, n, zeros=int(law == "exponential_rank"))
        found[first : first + size] = drawn
    return found


def _exponential(rng: np.random.Generator, size: int, n: int, zeros: int) -> FloatArray:
    """Clauset's distance of n values, none or one of them 0 and the others exponential; rate n / sum.

    Sorted exponentials are sums of independent spacings (Rényi 1953), so nothing is sorted.
    """
    y = rng.standard_exponential((size, n - zeros))
    y /= np.arange(n - zeros, 0, -1)
    np.cumsum(y, axis=1, out=y)
    y *= -n / y.sum(axis=1, keepdims=True)
    np.exp(y, out=y)
    y -= 1 - np.arange(zeros, n) / n  # survival function of the law less that of the sample
    return np.asarray(np.maximum(y.max(axis=1), -y.min(axis=1)))  # the value 0 has F = 0 = i / n, i = 0


def _normal(rng: np.random.Generator, size: int, n: int) -> FloatArray:
    """Two-sided distance of n normal values whose mean and standard deviation are fitted."""
    x = rng.standard_normal((size, n))
    x -= x.mean(axis=1, keepdims=True)
    x /= np.sqrt(np.einsum("ij,ij->i", x, x) / (n - 1))[:, None]
    x.sort(axis=1)
    special.ndtr(x, out=x)
    x -= np.arange(n) / n
    return np.asarray(np.maximum(x.max(axis=1), 1 / n - x.min(axis=1)))


def repeats_of(n: int, values: float) -> int:
    """Return how many samples of n values to draw where about ``values`` numbers may be."""
    return int(min(MOST_REPEATS, max(10_000, values / n)))


def quantiles(law: str, n: int, values: float, seed: int) -> FloatArray:
    """Return sqrt(n) times the distances exceeded with probability LEVELS."""
    rng = np.random.default_rng([seed, list(FEWEST).index(law), n])
    found = distances(law, n, repeats_of(n, values), rng)
    return np.asarray(np.quantile(found, 1 - np.array(LEVELS)) * float(n) ** 0.5)


def surface(grid: Sequence[int], rows: FloatArray, values: float) -> FloatArray:
    """Fit each level's quantiles by a polynomial in 1 / sqrt(n), as MacKinnon (1994) does.

    Returns the coefficients, shape (DEGREE + 1, levels), by least squares with the repeats as weights.
    """
    n = np.array(grid, np.float64)
    weight = np.sqrt([repeats_of(int(m), values) for m in grid])[:, None]
    powers = n[:, None] ** (-0.5 * np.arange(DEGREE + 1))
    return np.asarray(np.linalg.lstsq(powers * weight, rows * weight, rcond=None)[0])


def table(values: float, seed: int) -> Iterator[str]:
    """Yield the lines of the table file."""
    yield '"""Quantiles of Kolmogorov-Smirnov distances with fitted parameters: numbers only.'
    yield ""
    yield "Written by benchmarks/null_tables.py, read by lilliefors.py, which says how good they are."
    yield '"""'
    yield ""
    yield f"FIRST_OF_SURFACE = {FIRST_OF_SURFACE}"
    yield '"""The smallest n that the surfaces serve; below it each n has its own quantiles."""'
    yield ""
    yield from _lines("LEVELS: tuple[float, ...] = (", [f"{level:g}" for level in LEVELS], ")  # fmt: skip")
    yield '"""Probabilities of a larger distance, falling."""'
    yield ""
    yield "SMALL: dict[str, dict[int, tuple[float, ...]]] = {"
    for law, fewest in FEWEST.items():
        yield f'    "{law}": {{'
        for n in range(fewest, FIRST_OF_SURFACE):
            print(law, n, file=sys.stderr)
            numbers = [f"{q:.4f}" for q in quantiles(law, n, values, seed)]
            yield from _lines(f"{n}: (", numbers, "),", 8)
        yield "    },"
    yield "}  # fmt: skip"
    yield '"""sqrt(n) times the distance, at each level."""'
    yield ""
    yield "SURFACES: dict[str, tuple[tuple[float, ...], ...]] = {"
    for law in FEWEST:
        print(law, GRID, file=sys.stderr)
        rows = np.array([quantiles(law, n, values, seed) for n in GRID])
        yield f'    "{law}": ('
        for coefficients in surface(GRID, rows, values):
            yield from _lines("(", [f"{c:.4f}" for c in coefficients], "),", 8)
        yield "    ),"
    yield "}  # fmt: skip"
    yield '"""Coefficients of n**0, n**-0.5, n**-1, ... of the same at large n, each at every level."""'


def _lines(opening: str, numbers: Sequence[str], closing: str, indent: int = 0) -> Iterator[str]:
    """Yield a tuple of numbers in lines of at most 110 characters."""
    margin = " " * indent
    yield margin + opening
    line = ""
    for number in numbers:
        if len(margin) + 4 + len(line) + len(number) + 2 > 110:
            yield margin + "    " + line.rstrip()
            line = ""
        line += f"{number}, "
    yield margin + "    " + line.rstrip(", ") + closing


def check(n: int, values: float, seed: int) -> Iterator[str]:
    """Yield how often the tests in use reject under each law at n, with a standard error, in percent."""
    from gradtail.estimators import lilliefors

    for law in get_args(lilliefors.Law):
        if n < FEWEST[law]:
            continue
        rng = np.random.default_rng([seed, list(FEWEST).index(law), n])
        repeats = repeats_of(n, values)
        p = lilliefors.pvalue(law, n, distances(law, n, repeats, rng))
        found = [(level, float(np.mean(p <= level))) for level in CHECKED]
        errors = [100 * (q * (1 - q) / repeats) ** 0.5 for _, q in found]
        cells = (f"{100 * q:.4g} +- {e:.1g} of {100 * a:g}" for (a, q), e in zip(found, errors, strict=True))
        yield f"{law:16} n = {n:6}: {'; '.join(cells)}"


def main(given: Sequence[str] | None = None) -> None:
    """Print or write the table file, or check the one in use."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--values", type=float, default=1e9, help="numbers to draw for each law and n")
    parser.add_argument("--seed", type=int, default=2009)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} and print nothing")
    parser.add_argument("--check", type=int, nargs="+", metavar="N", help="sizes of the tests at these n")
    chosen = parser.parse_args(given)
    if chosen.check:
        for n in chosen.check:
            for line in check(n, chosen.values, chosen.seed + 1):
                print(line, flush=True)
        return
    text = "\n".join(table(chosen.values, chosen.seed)) + "\n"
    if chosen.write:
        TABLE.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
