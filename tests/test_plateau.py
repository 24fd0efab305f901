"""The verdict, a plateau of the Hill curve or none, and the warnings."""

import numpy as np
import pytest
from tails import LAWS, as_bfloat16, has

from gradtail import summarize
from gradtail.estimators import hill


def test_plateau_is_rarely_denied_to_a_pareto_law():
    rng = np.random.default_rng(15)
    denied = unsure = 0
    for _ in range(300):
        x = rng.pareto(rng.uniform(0.5, 5), 20_000) + 1
        for k in ("auto", 0.002, 0.02, 0.3):
            plateau = hill(x, k=k).plateau
            denied, unsure = denied + (plateau is False), unsure + (plateau is None)
    assert denied / 1200 <= 0.05
    assert unsure / 1200 <= 0.05


@pytest.mark.parametrize("n", [100_000, 1_000_000])
@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_no_plateau_where_there_is_no_index(law, n):
    rng = np.random.default_rng(16)
    for _ in range(40 if n < 1_000_000 else 10):
        x = LAWS[law](rng, n).astype(np.float32)
        found, binned = hill(x), hill(summarize(x))
        assert found.plateau is binned.plateau is False
    assert found.verdict.startswith("no plateau: alpha slides from ")
    assert found.verdict.endswith("no single index")
    assert any(w.startswith("no plateau") for w in found.warnings)
    assert found.slide.alpha_wide < found.slide.alpha_narrow


def test_the_verdict_names_the_index_where_there_is_one():
    found = hill(np.random.default_rng(17).pareto(1.5, 100_000) + 1, k=2000)
    low, high = found.ci()
    assert found.verdict == f"power-law tail, alpha {found.alpha:.3g} (95 % {low:.3g} to {high:.3g})"
    assert found.verdict in str(found)
    assert found.warnings == ()
    few = hill(np.random.default_rng(17).pareto(1.5, 300) + 1)
    assert few.plateau is None
    assert few.verdict.startswith("too few points to tell a power law: alpha ")
    assert "\n  warning: " in str(few)
    wide = hill(summarize(np.random.default_rng(17).random(1_000_000)))
    assert wide.plateau is None or wide.plateau is False


def test_warnings_speak_and_keep_silent():
    x = np.random.default_rng(18).pareto(2.0, 20_000) + 1
    clean = hill(x, k=500)
    assert clean.warnings == hill(np.append(x, np.zeros(15)), k=500).warnings == ()
    assert has(hill(np.append(x, np.zeros(2000)), k=500), "2000 zeros are left out, 9.09 % of")
    assert hill(np.append(x, np.zeros(2000)), k=500).alpha == clean.alpha
    assert has(hill(np.append(x, [np.nan, np.inf]), k=500), "2 non-finite values")
    assert has(hill(summarize(np.append(x, [np.nan, 0.0])), k=500), "1 non-finite values")
    assert has(hill(x, k=49), "k = 49 is small")
    assert has(hill(x[:400]), "400 values are too few to choose k")
    assert hill(x[:400]).k == 40
    assert has(hill(np.round(x), k=2000), "distinct ones") or has(
        hill(np.round(x), k=2000), "equal the threshold"
    )
    assert has(hill(np.ceil(np.minimum(x, 9)), k=500), "the 501 largest values are")
    assert has(hill(np.append(x, np.full(900, 4.0)), k=1500), "equal the threshold")
    assert has(hill(summarize(as_bfloat16(x), bits=0), k=500), "bins are wide")
    assert not has(hill(summarize(x), k=500), "bins")
