"""Gradient alpha in reports: what is taken, said and drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_stable_stream import stable

from gradtail import GradientStream
from gradtail.report import Report, figures
from gradtail.report import stable as section


def run(steps: int = 60, jump: int | None = 40, **settings: object) -> GradientStream:
    stream = GradientStream(sketch=0, tracks=0, coordinates=None, **settings)  # type: ignore[arg-type]
    for step in range(steps):
        rng = np.random.default_rng(step)
        alpha = 1.8 if jump is None or step >= jump else 1.7 - 0.4 * step / jump
        arrays = {"a.weight": stable(rng, alpha, (100, 300)), "a.bias": stable(rng, alpha, 20)}
        stream.update({name: x.astype(np.float32) for name, x in arrays.items()})
    return stream


@pytest.fixture(scope="module")
def report() -> Report:
    steps = np.arange(60)
    accuracy = np.where(steps < 40, 0.3, 0.8) + 0.01 * np.random.default_rng(0).standard_normal(60)
    return Report.from_stream(run(), loss=(range(60), np.exp(-steps / 30)), accuracy=(range(60), accuracy))


def test_what_is_taken(report: Report) -> None:
    stream, found = run(), report.data["stable"]
    whole = stream.stable_index()
    assert found["whole"]["alpha"] == whole.alpha
    assert found["whole"]["ci95"] == list(whole.ci())
    assert [row["name"] for row in found["layers"]] == ["a.weight"]  # 20 values make no block
    line, curve = found["layers"][0]["time_line"], stream.stable_curve("a.weight")
    assert line["first_step"] == [first for first, _, _ in curve]
    np.testing.assert_allclose(line["alpha"], [alpha for _, _, alpha in curve], rtol=1e-5)
    jump = found["whole"]["jump"]
    assert (jump["before"], jump["after"], jump["from_minimum"]) == (39, 40, True)
    assert jump["pvalue"] < 0.01
    assert json.loads(json.dumps(report.data)) == report.data


def test_two_phases_in_words(report: Report) -> None:
    said = section.two_phases(report.data)
    assert said.startswith("alpha jumps up between steps 39 and 40 (p = ")
    assert said.endswith("from its minimum; the accuracy rises most between steps 39 and 40")
    assert section.listed(report.data)["two phases"] == said
    plain = Report.from_stream(run(20, None)).data
    assert section.two_phases(plain).startswith("no jump of alpha (p = ")
    assert "too few blocks of steps" in section.two_phases(Report.from_stream(run(3)).data)


def test_streams_without(report: Report) -> None:
    for stream, why in (
        (run(3, stable=False), "expected a stream that takes block sums, got stable=False"),
        (GradientStream(), "expected a stream with a step, got one without"),
    ):
        data = Report.from_stream(stream).data
        assert data["stable"]["why"] == why
        assert section.listed(data) == {"none": why}
        assert not section.has_curve(data)
        assert figures.stable_svg(data) is None


def test_the_page_and_the_picture(report: Report) -> None:
    from gradtail.report import html

    text = html.page(report.data)
    assert "Gradient alpha over the steps" in text
    assert "the accuracy rises most between steps 39 and 40" in text
    drawn = section.figure(report.data, 6.4)
    assert [ax.get_ylabel() for ax in drawn.axes] == ["alpha of sums of neighbours", "loss", "accuracy"]
    older = {key: value for key, value in report.data.items() if key != "stable"}  # of a version before
    assert "Stable index" not in html.page(older)
