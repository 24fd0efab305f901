"""Normality of many coordinates at once, beside a loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from gradtail import GradientStream, normality

from .harness import Table, compare

COORDINATES, STEPS = 100_000, 200


def test_jarque_bera_of_many_coordinates(table: Table, benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, COORDINATES)).astype(np.float32)
    stream = GradientStream(window=0, coordinates="dense")
    for row in x:
        stream.update({"w": row})
    moments = stream.coordinates("w")
    few = 2000  # of the loop, whose time is scaled up
    works = {
        "scipy.stats.jarque_bera in a loop": lambda: [stats.jarque_bera(x[:, i]) for i in range(few)],
        "gradtail, from moments": lambda: normality.jarque_bera(moments),
        "gradtail, array": lambda: normality.jarque_bera(x, axis=0),
        "gradtail, K2 of the array": lambda: normality.dagostino(x, axis=0),
        "scipy.stats.jarque_bera, axis=0": lambda: stats.jarque_bera(x, axis=0),
    }
    rows = compare(
        table, f"Jarque-Bera, {COORDINATES} coordinates, {STEPS} steps", works,
        elements=COORDINATES, bytes=x.nbytes, reference=None, rounds=3, warmup=1,
    )  # fmt: skip
    loop = rows["scipy.stats.jarque_bera in a loop"]
    loop.seconds, loop.best = (value * COORDINATES / few for value in (loop.seconds, loop.best))
    loop.case += f" (of {few}, times {COORDINATES // few})"
    benchmark.pedantic(lambda: normality.jarque_bera(moments), rounds=3)
    expected = [float(stats.jarque_bera(x[:, i].astype(np.float64)).statistic) for i in range(50)]
    assert normality.jarque_bera(moments).statistic[:50] == pytest.approx(expected, rel=1e-3, abs=1e-3)
