"""Power-law fits with a search for xmin: arrays, histograms, and the peer that does the same."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import powerlaw as peer
import pytest

import gradtail
from gradtail import powerlaw

from .harness import Table, compare

PEER_UP_TO = 10**4  # values that the peer fits in less than a minute

_SECONDS = {10**6: 1.0, 5 * 10**6: 2.0}


@pytest.mark.parametrize("n", [10**4, 10**5, 10**6, 5 * 10**6])
@pytest.mark.parametrize("law", ["pareto", "t(3)"])
def test_fit_with_search_for_xmin(n: int, law: str, table: Table, benchmark: Any, largest: int) -> None:
    if n > largest:
        pytest.skip(f"needs --largest of at least {n}")
    rng = np.random.default_rng(0)
    x = rng.pareto(2.0, n) + 1 if law == "pareto" else np.abs(rng.standard_t(3, n))
    magnitudes = gradtail.summarize(x).magnitudes
    works = {
        "gradtail, from the histogram of a pass": lambda: powerlaw.fit(magnitudes),
        "gradtail, array": lambda: powerlaw.fit(x),
    }
    group = f"power-law fit with search for xmin, {law}, {n:.0e} values".replace("e+0", "e")
    limits = {"gradtail, from the histogram of a pass": 0.01}
    if n in _SECONDS:
        limits["gradtail, array"] = _SECONDS[n]
    compare(table, group, works, elements=n, bytes=8 * n, reference=None, rounds=5, limits=limits)
    found, binned = powerlaw.fit(x), powerlaw.fit(magnitudes)
    assert found.alpha == pytest.approx(binned.alpha, abs=3 * (found.stderr + binned.stderr))
    assert binned.ks == pytest.approx(found.ks, abs=0.02)
    if n <= PEER_UP_TO:
        fitted = []
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # with the range that it has by default it would stop at 3 without a word
            settings = {"parameter_ranges": {"alpha": [1, None]}, "verbose": 0}
            compare(
                table, group, {"powerlaw 2.0": lambda: fitted.append(peer.Fit(x, **settings))},
                elements=n, bytes=8 * n, reference=None, rounds=1, warmup=0,
            )  # fmt: skip
            exponent = fitted[-1].power_law.alpha
        at_same = powerlaw.fit(x, xmin=float(fitted[-1].xmin))
        assert exponent == pytest.approx(at_same.exponent, abs=0.02)
        assert found.ks <= at_same.ks + 1e-12  # and no worse an xmin
    benchmark.pedantic(lambda: powerlaw.fit(magnitudes), rounds=3)


def test_tests_of_a_fit(table: Table, benchmark: Any) -> None:
    x = np.random.default_rng(1).lognormal(size=10**6)
    magnitudes = gradtail.summarize(x).magnitudes

    def everything() -> Any:
        found = powerlaw.fit(magnitudes, top=1000)
        return found.pvalue(1000), found.compare_all()

    works = {
        "p-value, 1000 samples": lambda: powerlaw.fit(magnitudes, top=1000).pvalue(1000),
        "likelihood ratios with four rivals": lambda: powerlaw.fit(magnitudes, top=1000).compare_all(),
        "p-value with search for xmin, 1000 samples": lambda: powerlaw.fit(magnitudes).pvalue(1000),
    }
    compare(table, "tests of a binned tail", works, elements=0, bytes=0, reference=None, rounds=5)
    benchmark.pedantic(everything, rounds=3)
    pvalue, rivals = everything()
    assert 0 <= pvalue <= 1
    assert rivals["lognormal"].ratio <= 0
