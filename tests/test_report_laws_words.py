"""The words of the formal tests in a report, for outcomes that are made up."""

import itertools

import pytest

from gradtail import powerlaw
from gradtail.report import laws_text


def outcome(ruled_out=False, better=(), as_well=()):
    found = {"ruled_out": ruled_out, "pvalue": 0.05 if ruled_out else 0.5}
    return {**found, "better": list(better), "as_well": list(as_well)}


def made(*found, passing=None):
    over = {"why": "no"} if passing is None else {"tested": 100, "rejected": 100 - passing}
    span = {"first_step": 0, "last_step": 30}
    return {
        "tests": {"step": 30, "top": 1000, "ruled_out_below": 0.1, "level": 0.05, "over_steps": span},
        "whole": {"tests": {"over_steps": over}},
        "layers": [{"tests": {"power_law": test}} for test in found],
    }


@pytest.mark.parametrize(
    ("data", "calm", "part"),
    [
        (made(outcome(), outcome(as_well=["lognormal"])), False, "left in 2; in 1 of these a rival fits"),
        (
            made(outcome(), outcome(as_well=["lognormal"])),
            False,
            "(in 1), and in 1 it is the only law",
        ),
        (
            made(outcome(), outcome(True)),
            False,
            "in 1 of 2 tested layers, left in 1; in 1 it is the only law",
        ),
        (
            made(outcome(better=["exponential"])),
            False,
            "in all of these a rival fits as well",
        ),
        (
            made(outcome(True, ["lognormal"]), {"why": "small"}),
            True,
            "1 of 1 tested layer; most often bet",
        ),
        (made(outcome(True, as_well=["lognormal"])), True, "in 1 of 1 tested layer."),
        (made(outcome(True), passing=95), True, "95 % of 100 tracked coordinates pass as normal (95 % would"),
        (made(outcome(True), passing=40), False, "40 % of 100 tracked coordinates"),
        (made({"why": "small"}, passing=95), True, "Steps 0 to 30: 95 %"),
        (made(outcome(), passing=95), False, "in 1 it is the only law left. Steps 0 to 30: 95 %"),
    ],
)
def test_headline_of_other_outcomes(data, calm, part):
    found = laws_text.headline(data)
    assert found[0] is calm
    assert part in found[1]


def test_headline_names_rivals_that_come_up_equally_often():
    both = ["lognormal", "stretched_exponential"]
    found = laws_text.headline(made(outcome(as_well=both), outcome(as_well=both[::-1])))
    assert "most often lognormal and stretched exponential (in 2)" in found[1]


def test_short_verdicts_fit():
    for size in range(5):
        for names in itertools.permutations(powerlaw.RIVALS, size):
            for ruled_out, kind in itertools.product((True, False), ("better", "as_well")):
                found = {**outcome(ruled_out), kind: list(names)}
                short = laws_text.short_verdict(found, 50)
                assert len(short) <= 50
                assert short.startswith("ruled out" if ruled_out else "not ruled out")
                if names and (kind == "better" or not ruled_out):
                    assert short.endswith(kind.replace("_", " "))
                    assert names[0].partition("_")[0] in short  # the likeliest
                else:
                    assert "no rival fits" in short
    assert laws_text.short_verdict({"why": 60 * "x"}, 50) == 49 * "x" + "…"
