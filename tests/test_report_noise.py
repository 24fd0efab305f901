"""What a report says of the covariance of the gradient and of clipping, and where it has nothing to say."""

import json

import numpy as np
import pytest

from gradtail import GradientStream
from gradtail.estimators import clip_rate, covariance_spectrum, suggest_clip
from gradtail.report import Report, figures, words
from gradtail.report.findings import findings


def stream_of(steps, seed=0, nonfinite=(), **settings):
    """A run whose noise has three directions, and a norm that falls at first."""
    rng = np.random.default_rng(seed)
    directions, mean = rng.standard_normal((3, 600)), 0.3 * rng.standard_normal(600)
    stream = GradientStream(**settings)
    for step in range(steps):
        g = (1 + 4 * np.exp(-step / 5)) * (mean + rng.standard_normal(3) @ directions)
        if step in nonfinite:
            g[7] = np.nan
        stream.update({"a.weight": g[:500].reshape(20, 25), "a.bias": g[500:]}, step=2 * step)
    return stream


@pytest.fixture(scope="module")
def stream():
    return stream_of(120, nonfinite=(3, 90))


@pytest.fixture(scope="module")
def report(stream):
    return Report.from_stream(stream, max_norm=30.0)


def said(report, title):
    return " ".join(next(one.text for one in findings(report.data) if one.title == title).split())


def test_numbers_are_those_of_the_estimators(stream, report):
    found, ring = report.data["spectrum"], stream.ring()
    exact = covariance_spectrum(ring.vectors, ring.norms, dimension=600, steps=ring.steps)
    second = covariance_spectrum(ring.vectors, ring.norms, centred=False)
    assert found["eigenvalues"] == pytest.approx(exact.eigenvalues, rel=1e-5)
    assert found["trace_ci95"] == list(exact.trace_ci())
    assert found["participation_ratio"] == exact.participation_ratio
    assert (found["centred"], found["second_moment"]["centred"]) == (True, False)
    assert found["second_moment"]["trace"] == second.trace
    assert (found["steps"], found["first_step"], found["last_step"]) == (118, 0, 238)
    assert "2 steps with NaN or infinite values are left out" in found["warnings"]
    clip, log = report.data["clipping"], stream.history
    suggested = suggest_clip(log.norm, steps=log.steps)
    assert (clip["threshold"], clip["ci95"]) == (suggested.threshold, list(suggested.ci()))
    assert (clip["rate"], clip["rate_ci95"]) == (0.05, list(suggested.rate_ci()))
    assert (clip["first_step"], clip["last_step"]) == (suggested.first_step, 238)
    used = clip_rate(log.norm, 30.0, steps=log.steps)
    assert (clip["in_use"]["rate"], clip["in_use"]["rate_ci95"]) == (used.rate, list(used.ci()))


def test_directions_are_found(report):
    found = report.data["spectrum"]
    low, high = found["participation_ratio_ci95"]
    assert low < 3 < high
    assert found["eigenvalues"][3] < 0.1 * found["eigenvalues"][2]


def test_words_in_the_terminal(report):
    clip = report.data["clipping"]
    text = said(report, "Clipping")
    assert f"A threshold of {words.number(clip['threshold'])} (95 %: " in text
    assert "would clip about 5 % of the steps" in text
    assert f"as in steps {clip['first_step']} to 238" in text
    assert "max_norm = 30.0 in use clips" in text
    noise = said(report, "Gradient noise")
    assert "Over steps 0 to 238 the covariance has the participation ratio" in noise
    assert "of the mean squared norm" in noise
    assert "a low-rank preconditioner could take up" in noise  # there are three directions
    for title in ("Clipping", "Gradient noise"):
        assert f"* {title}: " in str(report)


def test_page_and_pictures(report, tmp_path):
    page = report.save(tmp_path).read_text()
    assert "Gradient noise and clipping" in page
    assert "participation ratio (centred)" in page
    assert "second moment: trace" in page
    assert "suggested threshold" in page
    assert "suggested clip threshold" in page  # the line in the figure of the norms
    assert (tmp_path / "spectrum.png").stat().st_size > 5000
    short = Report.from_stream(stream_of(4))
    short.save(tmp_path)
    assert not (tmp_path / "spectrum.png").exists()


def test_threshold_in_use_may_come_with_the_settings(stream):
    assert Report.from_stream(stream).data["clipping"]["in_use"] is None
    assert "in use" not in said(Report.from_stream(stream), "Clipping")
    settings = {"max_norm": 30.0}
    assert Report.from_stream(stream, settings=settings).data["clipping"]["in_use"]["max_norm"] == 30.0
    for odd in ("one", True, -1.0, float("inf"), None):
        assert Report.from_stream(stream, settings={"max_norm": odd}).data["clipping"]["in_use"] is None
    with pytest.raises(ValueError, match="max_norm: expected a positive number, got -1"):
        Report.from_stream(stream, max_norm=-1.0)


def test_clipping_most_steps_is_said(stream):
    report = Report.from_stream(stream, max_norm=1e-3)
    assert "clips 100 %" in said(report, "Clipping")
    assert "Where most steps are clipped" in said(report, "Clipping")


@pytest.mark.parametrize(
    ("settings", "steps", "why"),
    [
        ({}, 4, "4 steps of 8 needed"),
        ({"sketch": 0}, 30, "no sketches were kept"),
        ({"window": 0}, 30, "no sketches were kept"),
    ],
)
def test_no_spectrum_says_why(settings, steps, why, tmp_path):
    report = Report.from_stream(stream_of(steps, **settings))
    assert report.data["spectrum"] == {"why": why}
    assert said(report, "Gradient noise") == f"No spectrum of its covariance: {why}."
    assert why in report.save(tmp_path).read_text()
    assert "spectrum.png" not in dict(figures.pngs(report.data))


def test_no_threshold_says_why():
    report = Report.from_stream(stream_of(12), max_norm=30.0)
    clip = report.data["clipping"]
    assert clip["why"] == "expected at least 20 finite ones, got 12"
    assert 0 <= clip["in_use"]["rate"] <= 1
    assert "in use clips" in said(report, "Clipping")
    broken = Report.from_stream(stream_of(3, nonfinite=(0, 1, 2)), max_norm=1.0)
    assert "clip rate is not known" in said(broken, "Clipping")
    assert broken.data["spectrum"]["why"] == "0 steps of 8 needed, and 3 more had NaN or infinite values"
    Report.from_stream(GradientStream())


def test_gradients_of_zero():
    stream = GradientStream()
    for _ in range(30):
        stream.update({"still": np.zeros(50), "moves": np.arange(1.0, 51.0)})
    report = Report.from_stream(stream)
    assert "exactly zero in all steps in still" in said(report, "No gradient in 1 layer")
    stream = GradientStream()
    for _ in range(30):
        stream.update({"still": np.zeros(50)})
    report = Report.from_stream(stream)
    assert report.data["spectrum"] == {"why": "all gradients are zero"}
    json.dumps(report.data, allow_nan=False)


def test_reports_of_earlier_versions_still_load(report, tmp_path):
    data = report.data
    del data["spectrum"], data["clipping"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    old = Report.load(tmp_path)
    assert "Clipping" not in str(old)
    assert "Gradient noise" not in old.save(tmp_path / "new").read_text().split("How to read this")[0]


def test_no_alpha_of_a_handful_of_values():
    stream, rng = GradientStream(), np.random.default_rng(1)
    for _ in range(5):
        stream.update({"bias": rng.pareto(1.0, 30) + 1, "weight": rng.pareto(3, 20_000) + 1})
    report = Report.from_stream(stream)
    tail = next(row["tails"]["both"] for row in report.data["layers"] if row["name"] == "bias")
    assert tail["k"] < words.LEAST_K
    assert tail["alpha"] is not None  # in the data, but not in words
    line = next(line for line in str(report).splitlines() if line.startswith("bias"))
    assert "too few" in line
    assert f"{tail['alpha']:.2f}" not in line
    assert words.short_verdict(tail).startswith("too few values")


def test_groups_are_rows(tmp_path):
    stream, rng = GradientStream(groups={"weights": r"\.w$", "biases": r"\.b$"}), np.random.default_rng(2)
    for _ in range(10):
        stream.update({f"{layer}.{kind}": rng.standard_t(3, 800) for layer in "pq" for kind in "wb"})
    report = Report.from_stream(stream)
    rows = {row["name"]: row for row in report.data["layers"]}
    assert set(rows) == {"weights", "biases"}
    assert rows["weights"]["arrays"] == 2
    assert rows["weights"]["size"] == 1600
    assert rows["weights"]["count"] == report.data["whole"]["count"] / 2 == 16_000
    report.save(tmp_path)


def test_group_that_is_also_a_prefix():
    stream = GradientStream()
    for _ in range(3):
        stream.update({"a": np.ones(4), "a.b": np.ones(3), "c": np.ones(5)})
    report = Report.from_stream(stream)
    assert {row["name"]: row["count"] for row in report.data["layers"]} == {"a": 12, "a.b": 9, "c": 15}
    assert report.data["whole"]["count"] == 36


def test_a_run_ruled_by_few_steps_is_told(tmp_path):
    stream, rng = GradientStream(), np.random.default_rng(4)
    for step in range(40):
        stream.update({"a": (30.0 if step == 13 else 1.0) * rng.standard_normal(3000)}, step=step)
    report = Report.from_stream(stream)
    found = report.data["spectrum"]
    bound = (found["trace"] / found["eigenvalues"][0]) ** 2
    assert found["participation_ratio_basis"] == "sample"
    assert found["participation_ratio"] <= found["participation_ratio_ci95"][1] <= bound * (1 + 1e-4)
    text = said(report, "Gradient noise")
    assert "of these steps only" in text
    assert "step 13 alone carries 9" in text
    assert "A few steps decide these numbers" in text
    assert "of these steps only" in report.save(tmp_path).read_text()


@pytest.mark.parametrize(
    ("mean", "text"),
    [
        (0.0, "the mean gradient does not show in these steps"),
        (0.5, "noise and mean would be level at about"),
        (4.0, "a larger batch would help little"),
    ],
)
def test_what_to_do_with_the_noise(mean, text):
    stream, rng = GradientStream(), np.random.default_rng(5)
    for _ in range(60):
        stream.update({"a": mean + rng.standard_normal(2000)})
    noise = said(Report.from_stream(stream), "Gradient noise")
    assert text in noise
    assert "the noise is spread wide" in noise
    if mean == 0.5:  # noise of 1 to a mean of 0.25 in each element
        times = float(noise.partition("level at about ")[2].split()[0])
        assert times == pytest.approx(4, rel=0.1)


def test_norms_that_resemble_their_neighbours():
    from gradtail.report import noise_text

    clip = {"norms": 90, "independent": 9.6, "nonfinite": 0}
    assert noise_text._alike(clip) == "; neighbours are alike, so they tell as much as 10 independent ones"
    assert noise_text._alike({**clip, "independent": 90.0}) == ""


def test_layers_of_different_scale_make_a_mixture(tmp_path):
    stream, rng = GradientStream(), np.random.default_rng(6)
    for _ in range(6):
        stream.update({f"l{i}": 4.0**-i * rng.standard_t(3, 5000) for i in range(5)})
    report = Report.from_stream(stream)
    scales = report.data["whole"]["scales"]
    assert (scales["in"], scales["and"]) == ("l0", "l4")
    assert scales["largest"] / scales["smallest"] == pytest.approx(256, rel=0.3)
    if words.is_index(report.data["whole"]["tails"]["both"]):
        assert "layers differ in scale by a factor of" in " ".join(str(report).split())
        assert "may be that of a mixture of scales" in report.save(tmp_path).read_text()
    alike = GradientStream()
    for _ in range(6):
        alike.update({f"l{i}": rng.standard_t(3, 5000) for i in range(5)})
    assert "differ in scale" not in str(Report.from_stream(alike))


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (
            {"share": 0.11, "mean": 2e-4, "mean_step": 1.8e-3, "p50": 4e-6, "step": 1.7e-3},
            "Watching took 11 % of the time: on average 0.200 ms of each step's 1.80 ms.",
        ),
        (
            {"share": 0.11, "p50": 4e-6, "step": 1.7e-3},
            "11 % of the time; the median call took 4.00e-03 ms, the median step 1.70 ms.",
        ),
        ({"share": 0.11}, "Watching took 11 % of the time."),
    ],
)
def test_cost_is_named_for_what_it_is(stream, cost, text):
    report = Report.from_stream(stream, overhead=cost)
    assert text in said(report, "Overhead")
    rows = words.overhead_rows(cost)
    assert rows["share of all the time"] == "11 %"
    assert not set(rows) & {"p50", "step", "share", "mean"}
