"""What a report says of the formal tests: the estimators' numbers in words, or why there are none."""

import json

import numpy as np
import pytest

from gradtail import GradientStream, normality, powerlaw
from gradtail.report import Report, html, laws, laws_text, words
from gradtail.report.findings import findings
from gradtail.report.tables import text

EVIL = "<script>alert(1)</script>\x1b[2J"
STEPS = 24


def arrays(step):
    rng = np.random.default_rng([7, step])
    return {
        "pareto": (rng.pareto(1.5, 20_000) + 1) * rng.choice([-1, 1], 20_000),
        "normal": rng.standard_normal(100_000),
        "lognormal": np.exp(1.5 * rng.standard_normal(20_000)),
        "nan": np.where(np.arange(5000) % 5, rng.standard_t(3, 5000), np.nan),
        f"a.{EVIL}": rng.standard_normal(499),
        "a.zeros": np.zeros(3000),
        "a.constant": np.full(3000, 2.0),
        "a.lost": np.full(700, np.inf),
        **({"a.absent": rng.standard_normal(2000)} if step < STEPS - 1 else {}),
        **({"a.late": rng.standard_normal(2000)} if step > STEPS - 10 else {}),
    }


@pytest.fixture(scope="module")
def stream():
    stream = GradientStream(window=32)
    for step in range(STEPS):
        stream.update(arrays(step), step=2 * step)
    return stream


@pytest.fixture(scope="module")
def report(stream):
    return Report.from_stream(stream)


def of_row(report, name):
    data = report.data
    return next(row for row in [data["whole"], *data["layers"]] if row["name"] == name)["tests"]


def said(report):
    found = [one for one in findings(report.data) if one.title == "Formal tests"]
    return found[0] if found else None


@pytest.mark.parametrize("name", ["pareto", "normal", "lognormal", "nan", "whole model"])
def test_power_law_numbers_are_those_of_the_estimator(stream, report, name):
    got = of_row(report, name)["power_law"]
    newest = stream.summary(None if name == "whole model" else name, "newest")
    nonzero = newest.moments.count - newest.moments.zeros
    found = powerlaw.fit(newest, top=min(1000, nonzero // 10))
    assert (got["n"], got["n_tail"], got["xmin"]) == (nonzero, found.n_tail, found.xmin)
    assert (got["exponent"], got["stderr"], got["ks"]) == (found.exponent, found.stderr, found.ks)
    assert got["ci95"] == list(found.ci())
    assert got["pvalue"] == found.pvalue(1000, seed=0)
    assert got["critical"] == pytest.approx(found.critical(0.05), rel=0.06)  # of four times the samples
    assert got["ruled_out"] is (got["pvalue"] < 0.1)
    for rival, one in found.compare_all().items():
        numbers = got["rivals"][rival]
        assert (numbers["statistic"], numbers["pvalue"], numbers["ratio"]) == (
            one.statistic, one.pvalue, one.ratio,
        )  # fmt: skip
        assert ((rival in got["better"]) + (rival in got["as_well"])) == one.rival_is_as_good
    ratios = [got["rivals"][rival]["ratio"] for rival in got["better"]]
    assert ratios == sorted(ratios)


def test_values_of_the_newest_step_alone_are_tested():
    stream, rng = GradientStream(), np.random.default_rng(0)
    for scale in (1e6, 1.0):
        stream.update({"a": scale * (rng.pareto(2, 10_000) + 1)})
    found = of_row(Report.from_stream(stream), "a")["power_law"]
    assert found["n"] == 10_000
    assert found["exponent"] == pytest.approx(3, abs=0.3)
    assert not found["ruled_out"]


def test_verdicts_of_planted_laws(report):
    pareto, normal, lognormal = (
        of_row(report, name)["power_law"] for name in ("pareto", "normal", "lognormal")
    )
    low, high = pareto["ci95"]
    assert low < 2.5 < high
    assert not pareto["ruled_out"]
    assert pareto["ks"] < pareto["critical"]
    assert "lognormal" in pareto["as_well"]  # it comes as near to a power law as one likes
    assert "exponential" not in pareto["better"] + pareto["as_well"]
    assert pareto["verdict"].startswith(f"power law not ruled out (p {pareto['pvalue']:.3f}); ")
    assert pareto["verdict"].endswith(" fit as well")
    assert normal["ruled_out"]
    assert normal["ks"] > normal["critical"]
    assert {"truncated_power_law", "lognormal"} <= set(normal["better"])
    assert normal["verdict"].startswith("power law ruled out (p < 0.001); ")
    assert "truncated power law" in normal["verdict"]
    assert "as well" not in normal["verdict"]  # as well as a law that does not hold is no praise
    assert "lognormal" in lognormal["better"] + lognormal["as_well"]


@pytest.mark.parametrize(
    ("name", "why", "normal"),
    [
        (f"a.{EVIL}", "499 nonzero values of 500 needed", None),
        ("a.zeros", "0 nonzero values of 500 needed", "expected values that are not all equal"),
        (
            "a.constant",
            "expected at least 2 distinct nonzero values in all, got 1",
            "expected values that are not all equal",
        ),
        ("a.lost", "no finite values in the newest step", "no finite values in the newest step"),
        ("a.absent", "not in the newest step", "not in the newest step"),
    ],
)
def test_layers_without_a_test_say_why(report, name, why, normal):
    tests = of_row(report, name)
    assert tests["power_law"] == {"why": why}
    if normal is None:
        assert tests["normal"]["n"] == 499
    else:
        assert tests["normal"]["why"].startswith(normal)


def test_normal_across_coordinates(stream, report):
    for name in ("pareto", "normal", "nan"):
        got, found = (
            of_row(report, name)["normal"],
            normality.jarque_bera(stream.summary(name, "newest")),
        )
        assert (got["statistic"], got["pvalue"], got["n"]) == (found.statistic, found.pvalue, found.n)
        assert (got["verdict"], got["rejected"]) == (found.verdict, name != "normal")
    assert "1000 non-finite values are left out" in of_row(report, "nan")["normal"]["warnings"]
    assert "1000 non-finite values are left out" in of_row(report, "nan")["power_law"]["warnings"]


def test_normal_over_steps(stream, report):
    for name in ("pareto", "normal", "lognormal"):
        pvalue = normality.dagostino(stream.tracks([name])).pvalue
        got = of_row(report, name)["over_steps"]
        rejected = int(np.sum(pvalue <= 0.05))
        assert (got["tested"], got["rejected"]) == (pvalue.size, rejected)
        assert got["rate"] == rejected / pvalue.size
        found = normality.RejectionRate(0.05, None, rejected, pvalue.size)
        assert (got["ci95"], got["spread"]) == (list(found.ci()), "iid")
    normal, pareto = (of_row(report, name)["over_steps"] for name in ("normal", "pareto"))
    assert normal["rate"] < 0.1 < 0.5 < pareto["rate"]
    whole = of_row(report, "whole model")["over_steps"]
    every = [row["tests"]["over_steps"] for row in report.data["layers"]]
    for field in ("tested", "rejected"):
        assert whole[field] == sum(found.get(field, 0) for found in every)
    assert of_row(report, "a.zeros")["over_steps"] == {"why": "no coordinate moves"}
    assert of_row(report, "a.lost")["over_steps"] == {"why": "no coordinate in 20 steps"}
    assert of_row(report, "a.late")["over_steps"] == {"why": "no coordinate in 20 steps"}
    assert of_row(report, "a.absent")["over_steps"]["tested"] > 0  # it was there before
    assert whole["skipped"]["constant"] > 0
    assert whole["skipped"]["few"] > 0
    assert whole["tested"] + sum(whole["skipped"].values()) == whole["coordinates"]


def test_what_the_tests_have_in_common(stream, report):
    common = report.data["tests"]
    assert (common["step"], common["top"], common["repeats"]) == (2 * (STEPS - 1), 1000, 1000)
    assert common["over_steps"] == {"first_step": 0, "last_step": 46, "steps": STEPS, "fewest": 20}
    assert "tests" not in report.data["modules"][0]
    assert Report.from_stream(stream).data == report.data  # seeds are fixed


def test_few_steps_and_none():
    assert Report.from_stream(GradientStream()).data["tests"] is None
    assert said(Report.from_stream(GradientStream())) is None
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(3):
        stream.update({"a": rng.standard_t(2, 10_000)})
    report = Report.from_stream(stream)
    assert of_row(report, "a")["over_steps"] == {"why": "3 of 20 steps needed"}
    assert "pass as normal" not in said(report).text
    assert "normal: not tested over fewer than 20 tracked steps." in " ".join(str(report).split())
    untracked = GradientStream(window=0)
    untracked.update({"a": rng.standard_t(2, 100)})
    report = Report.from_stream(untracked)
    assert "why" in of_row(report, "a")["over_steps"]
    assert said(report) is None  # nothing was tested
    assert "100 nonzero values of 500 needed" in str(report)
    assert "... 1 layer not held against a power law" in str(report)


def test_a_step_that_was_forgotten_is_not_tested():
    stream = GradientStream()
    for seed in range(3):
        stream.update({"a": np.random.default_rng(seed).standard_t(2, 10_000)})
    stream.discard()
    assert of_row(Report.from_stream(stream), "a")["power_law"] == {"why": "not in the newest step"}


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), ValueError("x: expected more")])
def test_no_number_stops_a_report(monkeypatch, error):
    def fails(*_, **__):
        raise error

    stream = GradientStream()
    stream.update({"a": np.random.default_rng(0).standard_t(2, 10_000)})
    monkeypatch.setattr(laws, "fit", fails)
    monkeypatch.setattr(laws, "jarque_bera", fails)
    report = Report.from_stream(stream)
    why = "expected more" if isinstance(error, ValueError) else "division by zero"
    assert of_row(report, "a")["power_law"] == of_row(report, "a")["normal"] == {"why": why}
    assert why in str(report)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])  # of the first, all are below the bins
def test_extreme_scales(scale):
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(20):
        stream.update({"a": (scale * rng.standard_t(2, 10_000)).astype(np.float32)})
    report = Report.from_stream(stream)
    found = of_row(report, "a")["power_law"]
    assert "got 1" in found["why"] if scale == 1e-42 else 900 < found["n_tail"] < 1100
    json.dumps(report.data, allow_nan=False)


def test_few_distinct_values_are_said():
    stream, rng = GradientStream(), np.random.default_rng(0)
    stream.update({"a": rng.choice([1.0, 2.0], 10_000, p=[0.9, 0.1])})
    found = of_row(Report.from_stream(stream), "a")["power_law"]
    assert found["n_tail"] == 10_000
    assert "few distinct values: 10000 of them are tested and not 1000" in found["warnings"]


def test_headline(report):
    one = said(report)
    assert one.level == "note"
    found = [row["tests"]["power_law"] for row in report.data["layers"]]
    tested = [test for test in found if "why" not in test]
    out = sum(test["ruled_out"] for test in tested)
    assert 0 < out < len(tested)
    assert one.text.startswith("Step 46, largest tenth of each layer (at most 1000 values): a power law is")
    assert (
        f"ruled out (p < 0.1) in {out} of {len(tested)} tested layers, left in {len(tested) - out}"
        in one.text
    )
    assert "in all of these a rival fits as well or better, most often" in one.text
    assert "nowhere is it the only law left" in one.text
    whole = of_row(report, "whole model")["over_steps"]
    share = words.percent(1 - whole["rejected"] / whole["tested"])
    assert f"Steps 0 to 46: {share} of {whole['tested']:,} tracked coordinates pass as normal" in one.text
    assert len(one.text) < 420


def test_terminal(report):
    lines = str(report).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("formal tests"))
    assert lines[at].split("  ")[-1].strip() == "normal"
    assert "power law, step 46" in lines[at]
    block = lines[at + 2 : lines.index("", at)]
    rows = sorted(report.data["layers"], key=words.heaviness)
    tested = [row["name"] for row in rows if "why" not in row["tests"]["power_law"]]
    assert [line.split()[0] for line in block[1:-1]] == tested
    assert len(tested) == 5
    assert block[-1] == "... 5 layers not held against a power law (too small, or not in step 46)"
    assert max(map(len, lines[at:])) <= 100
    pareto, found = next(line for line in block if line.startswith("pareto")), of_row(report, "pareto")
    assert f"{found['power_law']['pvalue']:.3f}  not ruled out; " in pareto
    assert pareto.endswith(laws_text.normal_share(found["over_steps"]))
    assert "drift counts against it" in " ".join(lines[at:])
    assert "\x1b" not in str(report)


def test_terminal_shows_ten_layers_at_most():
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(3):
        stream.update({f"l{i}": rng.standard_t(2, 600) for i in range(14)})
    report = Report.from_stream(stream)
    assert "... 4 more in report.json" in str(report)
    assert "... 12 more in report.json" in text(report.data, most=2)
    assert "not held against" not in str(report)


def test_page(report):
    page = html.page(report.data)
    assert "<script>alert" not in page
    assert "\x1b" not in page
    section = page[page.index("<h2>Formal tests</h2>") :].partition("</section>")[0]
    body = section.partition("<tbody>")[2]
    assert body.count("<tr") == len(report.data["layers"]) + 1
    assert body.count("not tested: ") == 5
    found = of_row(report, "pareto")["power_law"]
    row = body[body.index('data-sort="pareto"') :].partition("</tr>")[0]
    assert f"<b>{words.number(found['exponent'])}</b>" in row
    assert f"critical {words.number(found['critical'])}" in row
    assert f'data-sort="{found["pvalue"]:g}"' in row
    assert ">not ruled out<" in row
    assert "4 rivals" in row
    assert "&lt; 0.001" in body or "< 0.001" in body
    assert "<b>ruled out</b>" in page[page.index("<h2>How to read this</h2>") :]


def test_what_is_said_of_each_rival(report):
    rivals = of_row(report, "normal")["power_law"]["rivals"]
    assert "truncated power law fits better: log likelihood ratio −" in laws_text.rival_text(
        "truncated_power_law", rivals["truncated_power_law"]
    )
    rivals = of_row(report, "pareto")["power_law"]["rivals"]
    assert "exponential fits worse" in laws_text.rival_text("exponential", rivals["exponential"])
    unknown = {"pvalue": None, "ratio": None, "nested": False, "warnings": []}
    assert laws_text.rival_text("lognormal", unknown).endswith("ratio –, p –")


def test_json_is_strict_and_lossless(report, tmp_path):
    path = report.write_json(tmp_path / "report.json")
    json.dumps(report.data, allow_nan=False)
    loaded = Report.load(path)
    assert loaded.data == report.data
    assert str(loaded) == str(report)
    assert html.page(loaded.data) == html.page(report.data)


def test_report_saved_before_there_were_tests_draws(report):
    old = report.data
    del old["tests"]
    for row in (old["whole"], *old["layers"]):
        del row["tests"]
    before = Report(old)
    assert said(before) is None
    assert "formal tests" not in str(before).lower()
    assert "formally" not in html.page(old)
    assert "Formal tests" not in html.page(old) + before._repr_html_()
    assert str(before) == str(report).replace(formal_part(str(report)), "").replace(headline_part(report), "")


def formal_part(shown):
    return shown[shown.index("\n\nformal tests") :]


def headline_part(report):
    shown = str(report)
    begin = shown.index("* Formal tests: ")
    return shown[begin : shown.index("\n* ", begin) + 1]
