"""The stable index of ten million values, beside what SciPy's levy_stable can do."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

import gradtail

from .harness import Table, compare

ALPHA = 1.5
FIT_UP_TO = 300  # values of which SciPy finds the maximum of the likelihood within minutes
QUANTILES_UP_TO = 10**6


def stable(n: int) -> npt.NDArray[np.float64]:
    """Symmetric stable values (Chambers, Mallows and Stuck 1976)."""
    rng = np.random.default_rng(0)
    angle, wait = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.exponential(size=n)
    left = np.sin(ALPHA * angle) / np.cos(angle) ** (1 / ALPHA)
    return np.asarray(left * (np.cos((1 - ALPHA) * angle) / wait) ** ((1 - ALPHA) / ALPHA))


@pytest.mark.parametrize("n", [10**6, 10**7])
def test_stable_index(n: int, table: Table, benchmark: Any, largest: int) -> None:
    if n > largest:
        pytest.skip(f"needs --largest of at least {n}")
    x = stable(n)
    works = {
        "NumPy, one logarithm of each magnitude": lambda: np.log(np.abs(x)).mean(),
        "gradtail, block sums alone": lambda: gradtail.stable_index(x, checks=False),
        "gradtail, two other estimators and all checks": lambda: gradtail.stable_index(x),
    }
    if n <= QUANTILES_UP_TO:
        works["SciPy, levy_stable's start of a fit (quantiles)"] = lambda: stats.levy_stable._fitstart(x)
    group = f"stable index, {n:.0e} values, 1 thread".replace("e+0", "e")
    compare(
        table, group, works, elements=n, bytes=8 * n, reference="NumPy, one logarithm of each magnitude",
        rounds=3, warmup=1, limits={"gradtail, block sums alone": 15e-9 * n},
    )  # fmt: skip
    found = gradtail.stable_index(x)
    assert abs(found.alpha - ALPHA) < 4 * found.stderr
    assert found.findings == ()
    quantiles = found.controls["quantiles"]
    assert abs(quantiles.alpha - ALPHA) < 4.5 * quantiles.stderr
    if n <= QUANTILES_UP_TO:
        alpha = float(stats.levy_stable._fitstart(x)[0])
        assert alpha == pytest.approx(quantiles.alpha, abs=0.02)  # it reads a printed table
    benchmark.pedantic(lambda: gradtail.stable_index(x, checks=False), rounds=3)


def test_a_fit_by_likelihood(table: Table, benchmark: Any) -> None:
    x = stable(FIT_UP_TO)
    fitted = []

    def fit() -> None:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fitted.append(stats.levy_stable.fit(x, f1=0.0))  # beta = 0: symmetric

    group = f"stable index, {FIT_UP_TO} values"
    works = {"gradtail, two other estimators and all checks": lambda: gradtail.stable_index(x)}
    compare(table, group, works, elements=FIT_UP_TO, bytes=8 * FIT_UP_TO, reference=None, rounds=5)
    compare(
        table, group, {"SciPy, levy_stable.fit, the likelihood": fit}, elements=FIT_UP_TO,
        bytes=8 * FIT_UP_TO, reference=None, rounds=1, warmup=0,
    )  # fmt: skip
    found = gradtail.stable_index(x)
    assert abs(found.alpha - ALPHA) < 4 * found.stderr
    for rival in (found.controls["quantiles"], found.controls["characteristic"]):
        assert abs(rival.alpha - float(fitted[-1][0])) < 4 * rival.stderr
    benchmark.pedantic(lambda: gradtail.stable_index(x), rounds=3)
