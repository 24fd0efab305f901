"""Theory: stable samples beside scipy's, tail indices, and ensembles of chains."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gradtail.theory import least_squares, levy

from .harness import Table, Work, compare

_N = 10**6


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_stable_samples(alpha: float, table: Table, benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    law = stats.levy_stable(alpha, 0.0)
    works: dict[str, Work] = {
        "scipy levy_stable.rvs": lambda: law.rvs(_N, random_state=rng),
        "gradtail sample": lambda: levy.sample(alpha, _N, seed=rng),
    }
    compare(
        table, f"symmetric stable samples, alpha = {alpha:g}, {_N:.0e} values".replace("e+0", "e"), works,
        elements=_N, bytes=8 * _N, reference="scipy levy_stable.rvs", rounds=5,
        goals={"gradtail sample": 1.0},
    )  # fmt: skip
    benchmark.pedantic(works["gradtail sample"], rounds=3)
    for work in works.values():
        x = work()
        assert np.cos(x).mean() == pytest.approx(np.exp(-1.0), abs=5 / _N**0.5)


def test_tail_indices(table: Table, benchmark: Any) -> None:
    points = {"d = 1, b = 1": (1.0, 1, 1), "d = 2, b = 1": (0.375, 1, 2), "d = 100, b = 10": (0.18, 10, 100)}
    works: dict[str, Work] = {
        name: partial(least_squares.tail_index, *point) for name, point in points.items()
    }
    compare(table, "tail index of SGD by quadrature", works, elements=0, bytes=0, reference=None, rounds=5)
    benchmark.pedantic(works["d = 100, b = 10"], rounds=3)
    for name, want in zip(points, (1.090826, 3.346939, 2.505856), strict=True):
        assert works[name]() == pytest.approx(want, abs=1e-6)


def test_ensemble(table: Table, benchmark: Any) -> None:
    work = partial(least_squares.simulate, 1.0, 1, 1, chains=20_000, steps=200)
    compare(
        table, "SGD chains, 20,000 for 200 steps, d = 1", {"simulate": work},
        elements=20_000 * 200, bytes=0, reference=None, rounds=3,
    )  # fmt: skip
    benchmark.pedantic(work, rounds=3)
    found = work()
    assert found.hill.alpha == pytest.approx(1.09, abs=0.3)
    assert found.averaged.alpha == pytest.approx(1.09, abs=0.15)
