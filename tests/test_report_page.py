"""report.html and the pictures: complete, harmless, self-contained, and never in somebody's way."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from gradtail import GradientStream
from gradtail.report import Report, figures

VOID = {"meta", "input", "br", "wbr", "img", "link", "hr"}
EVIL = '<script>alert("x")</script>.weight & $\\frac'


class Page(HTMLParser):
    """Collects texts and tags, and checks that every tag is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def make(layers=3, steps=4, name="h.{}.weight", **kwargs):
    stream, rng = GradientStream(), np.random.default_rng(0)
    for step in range(steps):
        arrays = {name.format(i): rng.standard_t(2 + i % 4, 2000) for i in range(layers)}
        arrays["normal"] = rng.standard_normal(20_000)
        arrays["zero"] = np.zeros(4)
        arrays[EVIL] = rng.standard_t(2, 3000)
        if step == 1:
            arrays["normal"][3] = np.nan
        stream.update(arrays)
    return Report.from_stream(stream, loss=(range(steps), [float("inf"), *range(1, steps)]), **kwargs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    report = make(
        steps=10,
        max_norm=50.0,
        title="run <1>",
        settings={"k": "<i>"},
        notes=["note <2>"],
        overhead={"share": 0.01},
    )
    folder = tmp_path_factory.mktemp("report")
    return report, report.save(folder / "new" / "folder")


def test_files(saved):
    _, page = saved
    names = {file.name for file in page.parent.iterdir()}
    assert names == {"report.html", "report.json", *figures.FILES}
    for name in figures.FILES:
        content = (page.parent / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 8000, name


def test_page_parses_and_names_every_layer(saved):
    report, page = saved
    parsed = Page(page.read_text())
    text = "".join(parsed.texts)
    for row in [report.data["whole"], *report.data["layers"], *report.data["modules"]]:
        assert row["name"] in text
    assert "no plateau (" in text
    assert "no tail: fewer than two nonzero values" in text
    assert "1 NaN or infinite values in 1 layer" in text
    assert "Loss not finite" in text
    assert "note <2>" in text
    tails = [row["tails"]["both"] for row in report.data["layers"]]
    warned = {warning for tail in tails if tail for warning in tail["warnings"]}
    assert warned
    assert all(w in text for w in warned)


def test_page_is_harmless_and_self_contained(saved):
    _, page = saved
    text, parsed = page.read_text(), Page(page.read_text())
    assert parsed.tags.count("script") == 1
    assert "<script>alert" not in text
    allowed = ("http://www.w3.org/",)  # names of the SVG vocabulary, which nobody fetches
    assert all(url.startswith(allowed) for url in re.findall(r"https?://[^\s\"'<>)]+", text))
    assert not {"link", "img", "iframe"} & set(parsed.tags)
    assert not [a for a in parsed.attributes if a[0] == "src" or a[0].startswith("on")]
    assert "@import" not in text
    assert "DejaVu" not in text  # type and colours are the page's
    drawn = text.split("</style>", 1)[1]
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawn)) <= {"#ffffff", "#000000"}


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    _, page = saved
    again = Report.load(page.parent).save(tmp_path)
    assert again.read_text() == page.read_text()


def test_earlier_report_is_replaced_and_other_files_stay(saved, tmp_path):
    report, _ = saved
    (tmp_path / "checkpoint.pt").write_text("mine")
    report.save(tmp_path)
    assert (tmp_path / "loss.png").exists()
    stream = GradientStream()
    stream.update([np.arange(1.0, 9.0)])
    Report.from_stream(stream).save(tmp_path)
    assert not (tmp_path / "loss.png").exists()
    assert (tmp_path / "checkpoint.pt").read_text() == "mine"


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "loss.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"folder: expected .* with loss\.png and no report\.json"):
        make(1, 1).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["loss.png"]
    with pytest.raises(FileExistsError, match="folder: expected a folder or a new name, got the file"):
        make(1, 1).save(tmp_path / "loss.png")


def test_without_matplotlib(monkeypatch, tmp_path):
    report = make(1, 1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtail\[report\]'"):
        report.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]  # not lost
    assert "alpha" in str(report)
    assert "<table" in report._repr_html_()


def test_notebook_part(saved):
    report, _ = saved
    parsed = Page(report._repr_html_())
    assert EVIL in "".join(parsed.texts)
    assert "script" not in parsed.tags


def test_three_hundred_layers(tmp_path):
    report = make(300, 3, name="model.layers.{}.self_attn.q_proj.weight")
    parsed = Page(report.save(tmp_path).read_text())
    text = "".join(parsed.texts)
    assert all(row["name"] in text for row in report.data["layers"])
    assert "the 5 heaviest of 303 layers" in text
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_one_step_and_nothing_at_all(tmp_path):
    make(1, 1).save(tmp_path / "one")
    Page(Report.from_stream(GradientStream()).save(tmp_path / "none").read_text())
    stream = GradientStream()
    for scale in (1e-30, 1e30):
        stream.update({"层": scale * np.arange(1.0, 500.0)})
    Page(Report.from_stream(stream).save(tmp_path / "scales").read_text())


def test_drawing_leaves_settings_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    make(1, 1).save(tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
