"""The autocovariance of a thousand noise vectors at all lags: by FFT, and lag by lag."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gradtail

from .harness import Table, compare

STEPS, SIZE = 1000, 4096


def directly(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean inner product at each lag."""
    n = len(x)
    return np.array([np.einsum("tm,tm->", x[: n - lag], x[lag:]) / (n - lag) for lag in range(n)])


def by_gram(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same from all inner products at once, which takes a matrix of steps by steps."""
    g = x @ x.T
    return np.array([np.diagonal(g, lag).mean() for lag in range(len(x))])


def test_autocorrelation(table: Table, benchmark: Any) -> None:
    x = np.random.default_rng(0).standard_normal((STEPS, SIZE))
    x = x + 0.5 * np.roll(x, 7, axis=0)  # lag 7 has something to show
    ours, loop = "gradtail, by FFT, with errors and repeats", "NumPy, lag by lag"
    works = {
        loop: lambda: directly(x),
        "NumPy, diagonals of the Gram matrix": lambda: by_gram(x),
        ours: lambda: gradtail.autocorrelation(x),
    }
    compare(
        table, f"autocovariance of {STEPS} x {SIZE} at all lags, 1 thread", works, elements=x.size,
        bytes=x.nbytes, reference=loop, rounds=3, warmup=1,
    )  # fmt: skip
    found = gradtail.autocorrelation(x)
    expected = directly(x)
    assert found.covariance == pytest.approx(expected, abs=1e-9 * expected[0])
    assert found.covariance == pytest.approx(by_gram(x), abs=1e-9 * expected[0])
    assert found.correlation[7] == pytest.approx(0.4, abs=5 * found.stderr[7])
    benchmark.pedantic(lambda: gradtail.autocorrelation(x), rounds=3)
