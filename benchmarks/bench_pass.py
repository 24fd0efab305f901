"""The whole pass (counts, moments, histogram, sketches, tracks, coordinate moments) in one read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from .harness import Table, Work, compare
from .whole import whole_pass

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REFERENCE = "torch.sum of the same bytes"
PIECES: dict[str, dict[str, Any]] = {
    "counts, moments, histogram": {"sketch": 0, "tracks": 0, "coordinates": None},
    "... and sketches of 4096 and 128": {"tracks": 0, "coordinates": None},
    "... and 4096 tracks": {"coordinates": None},
    "the whole pass": {},
}


@pytest.mark.parametrize("n", [10**7, 10**8], ids=["1e7", "1e8"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_whole_pass(n: int, dtype: str, pool: Any, table: Table, largest: int, benchmark: Any) -> None:
    if n > largest:
        pytest.skip(f"--largest={largest}")
    x = torch.from_numpy(np.resize(pool, n)).to(DTYPES[dtype])
    same_bytes = x if dtype == "float32" else x.view(torch.float32)
    works: dict[str, Work] = {REFERENCE: same_bytes.sum}
    for name, settings in PIECES.items():
        works[name], stream = whole_pass({"w": x}, **settings)
    if dtype == "float32" and n == 10**7:
        buckets = torch.randint(4096, (n,), generator=torch.Generator().manual_seed(0))
        signs = torch.randint(2, (n,), generator=torch.Generator().manual_seed(1)).mul_(2).sub_(1).float()
        works["CountSketch alone by index_add_, map stored"] = lambda: torch.zeros(4096).index_add_(
            0, buckets, x * signs
        )
    goals = {"the whole pass": 5.5 if n == 10**7 else 4.5} if dtype == "float32" else {}
    compare(
        table, f"{dtype} {n:.0e}, 1 thread", works,
        elements=n, bytes=x.nbytes, reference=REFERENCE, goals=goals, rounds=15 if n == 10**7 else 7,
    )  # fmt: skip
    benchmark.pedantic(works["the whole pass"], rounds=3)
    norm = float(torch.linalg.vector_norm(x.double()))
    assert stream.summary().count % n == 0
    assert stream.ring().norms[0] == pytest.approx(norm, rel=1e-6)
    assert np.linalg.norm(stream.ring().vectors[0]) == pytest.approx(norm, rel=0.2)


def test_the_sample_of_coordinates(pool: Any, table: Table, largest: int) -> None:
    n = min(10**8, largest)
    x = torch.from_numpy(np.resize(pool, n))
    works: dict[str, Work] = {}
    works["without coordinate moments"], _ = whole_pass({"w": x}, coordinates=None)
    works["one group of 8 in 64"], stream = whole_pass({"w": x}, coordinates=64)
    compare(
        table, f"coordinate moments within the pass, float32 {n:.0e}, 1 thread", works,
        elements=n, bytes=x.nbytes, reference="without coordinate moments",
        goals={"one group of 8 in 64": 1.1}, rounds=9,
    )  # fmt: skip
    own = stream.coordinates("w")
    np.testing.assert_allclose(own.mean, x.numpy()[own.index], rtol=1e-5)


def test_whole_pass_costs_no_more_for_bfloat16(pool: Any, table: Table, largest: int) -> None:
    n = min(10**8, largest)
    x = torch.from_numpy(np.resize(pool, n))
    works = {name: whole_pass({"w": x.to(dtype)})[0] for name, dtype in DTYPES.items()}
    compare(
        table, f"whole pass per element, {n:.0e}, 1 thread", works, elements=n, bytes=0, reference="float32",
        goals={"bfloat16": 1.0}, rounds=9,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_block_sums(dtype: str, pool: Any, table: Table, largest: int) -> None:
    n = min(10**8, largest)
    x = torch.from_numpy(np.resize(pool, n)).to(DTYPES[dtype])
    works: dict[str, Work] = {}
    works["without block sums"], _ = whole_pass({"w": x}, stable=False)
    works["block sums of 64 to 4096"], stream = whole_pass({"w": x})
    compare(
        table, f"block sums within the whole pass, {dtype} {n:.0e}, 1 thread", works,
        elements=n, bytes=x.nbytes, reference="without block sums",
        goals={"block sums of 64 to 4096": 1.15}, rounds=15,
    )  # fmt: skip
    found = stream.summary("w", "newest").block_logs
    assert found is not None
    for one in found:
        whole = x[: n // one.block * one.block].reshape(-1, one.block)
        sums = whole.sum(dim=1, dtype=torch.float64).numpy()
        logs = np.log(np.abs(sums[sums != 0]))
        assert one.count % sums.size == 0  # of as many passes as there were
        assert one.mean == pytest.approx(logs.mean(), abs=1e-4)
