"""Moments and Magnitudes in one read, against torch.sum of the same bytes and the ways of peers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import gradtail
from gradtail.backends import native
from gradtail.buffers import views_of
from gradtail.states.table import SummaryTable

from .harness import Table, Work, compare

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REFERENCE = "torch.sum of the same bytes"


def eager_statistics(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Compute what a Summary holds the way a peer would, a temporary an operation."""
    x = x.float()
    centred = x - x.mean()
    square = centred * centred
    magnitude = x.abs()
    logs = torch.log2(magnitude)
    return (
        square.mean(), (square * centred).mean(), (square * square).mean(), magnitude.max(),
        torch.isfinite(x).sum(), (x == 0).sum(), torch.histc(logs, 64, -40.0, 10.0),
    )  # fmt: skip


@pytest.mark.parametrize("n", [10**7, 10**8], ids=["1e7", "1e8"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_one_read(n: int, dtype: str, pool: Any, table: Table, largest: int, benchmark: Any) -> None:
    if n > largest:
        pytest.skip(f"--largest={largest}")
    x = torch.from_numpy(np.resize(pool, n)).to(DTYPES[dtype])
    same_bytes = x if dtype == "float32" else x.view(torch.float32)
    rows, views = SummaryTable.empty(1, 4), views_of(x)
    works: dict[str, Work] = {
        REFERENCE: same_bytes.sum,
        "gradtail: moments, counts, histogram": lambda: native.summarize(views, rows),
        "torch norm alone": lambda: torch.linalg.vector_norm(x),
    }
    if n == 10**7:
        works["torch eager, same numbers"] = lambda: eager_statistics(x)
        if dtype == "float32":
            magnitude = x.abs().numpy()
            works["NumPy partition, one Hill value"] = lambda: hill_by_partition(magnitude, n // 100)
    goals = {"gradtail: moments, counts, histogram": 4.5 if n == 10**7 else 3.5} if dtype == "float32" else {}
    compare(
        table, f"{dtype} {n:.0e}, 1 thread", works,
        elements=n, bytes=x.nbytes, reference=REFERENCE, goals=goals, rounds=15 if n == 10**7 else 9,
    )  # fmt: skip
    benchmark.pedantic(lambda: native.summarize(views, rows), rounds=3)
    summary = gradtail.summarize(x)
    wide = x.double()
    assert summary.count == n
    assert summary.norm == pytest.approx(float(torch.linalg.vector_norm(wide)), rel=1e-6)
    assert summary.max_abs == float(wide.abs().max())


def hill_by_partition(magnitude: Any, k: int) -> float:
    top = np.partition(magnitude, magnitude.size - k - 1)[magnitude.size - k - 1 :]
    return float(1 / np.mean(np.log(top[1:] / top[0])))


def test_bfloat16_costs_no_more_than_float32(pool: Any, table: Table, largest: int) -> None:
    n = min(10**8, largest)
    x = torch.from_numpy(np.resize(pool, n))
    works: dict[str, Work] = {}
    for name, dtype in DTYPES.items():
        works[name] = partial(native.summarize, views_of(x.to(dtype)), SummaryTable.empty(1, 4))
    compare(
        table, f"per element, {n:.0e}, 1 thread", works, elements=n, bytes=0, reference="float32",
        goals={"bfloat16": 1.0}, rounds=9,
    )  # fmt: skip


def test_two_threads(pool: Any, table: Table, largest: int) -> None:
    n = min(10**8, largest)
    x = torch.from_numpy(np.resize(pool, n))
    views, rows = views_of(x), SummaryTable.empty(1, 4)

    def with_threads(threads: int) -> None:
        gradtail.set_num_threads(threads)
        native.summarize(views, rows)

    def torch_with_threads(threads: int) -> None:
        torch.set_num_threads(threads)
        x.sum()

    with_threads(2)
    works = {
        "gradtail, 1 thread": lambda: with_threads(1),
        "gradtail, 2 threads": lambda: with_threads(2),
        "torch.sum, 1 thread": lambda: torch_with_threads(1),
        "torch.sum, 2 threads": lambda: torch_with_threads(2),
    }
    compare(
        table, f"float32 {n:.0e}, threads", works, elements=n, bytes=x.nbytes, reference="gradtail, 1 thread",
        goals={"gradtail, 2 threads": 1 / 1.6}, rounds=9,
    )  # fmt: skip
    once, twice = SummaryTable.empty(1, 4), SummaryTable.empty(1, 4)
    native.summarize(views, once)
    gradtail.set_num_threads(2)
    native.summarize(views, twice)
    assert once.records.tobytes() == twice.records.tobytes()
    assert np.array_equal(once.counts, twice.counts)
