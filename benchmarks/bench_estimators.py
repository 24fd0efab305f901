"""Estimators on a finished pass: their cost depends on bins, not on points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradtail

from .harness import Table, compare


def test_hill_from_a_finished_pass(pool: Any, table: Table, benchmark: Any) -> None:
    n = 10**7
    x = torch.from_numpy(np.resize(pool, n))
    magnitudes = gradtail.summarize(x).magnitudes
    works = {
        "hill at every k": lambda: gradtail.hill_curve(magnitudes),
        "hill, k = 1 %": lambda: gradtail.hill(magnitudes, 0.01),
        "hill, k = auto": lambda: gradtail.hill(magnitudes),
    }
    compare(
        table, "tail estimates after the pass", works, elements=0, bytes=0, reference=None, rounds=51,
        limits={"hill at every k": 1e-4},
    )  # fmt: skip
    benchmark(lambda: gradtail.hill_curve(magnitudes))
    top = np.sort(np.abs(x.numpy()))[::-1][: n // 100 + 1].astype(np.float64)
    expected = 1 / np.mean(np.log(top[:-1] / top[-1]))
    assert gradtail.hill(magnitudes, 0.01).alpha == pytest.approx(expected, rel=0.02)
