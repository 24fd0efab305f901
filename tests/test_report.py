"""The numbers of a report against arrays, and its life as JSON, text and files."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from gradtail import GradientStream
from gradtail.estimators import hill, hill_blocks
from gradtail.report import Report, words
from gradtail.report.findings import findings
from gradtail.report.schema import SCHEMA, jsonable
from gradtail.report.tables import subtitle, text


def arrays(step, seed=0):
    rng = np.random.default_rng([seed, step])
    return {
        "h.0.attn.weight": rng.standard_t(2, (50, 100)).astype(np.float32),
        "h.0.attn.bias": rng.standard_normal(50).astype(np.float32),
        "h.0.mlp.weight": (rng.pareto(1.5, 4000) * rng.choice([-1, 1], 4000)).astype(np.float32),
        "h.1.mlp.weight": np.where(rng.random(3000) < 0.7, 0, rng.standard_normal(3000)).astype(np.float32),
        "head": rng.standard_normal(2000).astype(np.float32),
    }


def run(steps, **kwargs):
    stream = GradientStream(**kwargs)
    for step in range(steps):
        stream.update(arrays(step), step=10 * step)
    return stream


@pytest.fixture(scope="module")
def report():
    loss = (range(0, 60, 10), [3.0, 2.5, float("nan"), 2.0, 1.5, 1.2])
    overhead = {"calls": 6, "p50": 0.001, "p99": 0.002, "step": 0.1, "share": 0.01}
    return Report.from_stream(
        run(6), loss=loss, overhead=overhead, settings={"seed": 3, "path": np.float32(1)}, title="<b>run</b>"
    )


def row_of(report, name):
    data = report.data
    return next(row for row in [data["whole"], *data["modules"], *data["layers"]] if row["name"] == name)


def group(name, steps):
    """All values of an array or prefix over the steps."""
    chosen = [
        a.ravel()
        for step in range(steps)
        for key, a in arrays(step).items()
        if name in ("whole model", key) or key.startswith(name + ".")
    ]
    return np.concatenate(chosen).astype(np.float64)


@pytest.mark.parametrize("name", ["whole model", "h", "h.0", "h.0.attn", "h.0.attn.bias", "h.1.mlp.weight"])
def test_numbers_equal_brute_force(backend, name):
    row, x = row_of(Report.from_stream(run(5, backend=backend)), name), group(name, 5)
    assert (row["count"], row["zeros"], row["nonfinite"]) == (x.size, np.count_nonzero(x == 0), 0)
    assert (row["size"], row["observed"], row["unobserved"]) == (x.size // 5, 5, 0)
    centred = x - x.mean()
    expected = {
        "mean": x.mean(), "sd": x.std(), "max_abs": np.abs(x).max(),
        "skewness": np.mean(centred**3) / x.std() ** 3,
        "excess_kurtosis": np.mean(centred**4) / x.std() ** 4 - 3,
    }  # fmt: skip
    for field, value in expected.items():
        assert row[field] == pytest.approx(value, rel=1e-5, abs=1e-5 * x.std()), field
    for q, value in row["quantiles"].items():
        assert value == pytest.approx(np.quantile(np.abs(x), float(q), method="lower"), rel=0.07, abs=1e-9), q
    norms = [np.linalg.norm(part) for part in np.split(x, 5)]
    assert row["norm"]["newest"] == pytest.approx(norms[-1], rel=1e-6)
    assert row["norm"]["median"] == pytest.approx(np.median(norms), rel=1e-6)
    assert row["norm"]["max"] == pytest.approx(max(norms), rel=1e-6)


def test_tails_are_those_of_the_estimators(backend):
    stream = run(5, backend=backend)
    row = row_of(Report.from_stream(stream), "h.0.mlp.weight")
    for tail, got in row["tails"].items():
        found = hill_blocks([block.summary for block in stream.blocks("h.0.mlp.weight")], tail=tail)
        assert (got["alpha"], got["stderr"], got["k"], got["k_ks"]) == (
            found.alpha, found.stderr, found.k, found.k_ks,
        )  # fmt: skip
        assert (got["ci95"], got["spread"], got["plateau"]) == (list(found.ci()), "blocks", found.plateau)
        assert (got["verdict"], tuple(got["warnings"])) == (found.verdict, found.warnings)
    alpha, _ = by_hand("h.0.mlp.weight", 5, row["tails"]["both"]["k"])
    assert row["tails"]["both"]["alpha"] == pytest.approx(alpha, rel=0.02)


def by_hand(name, steps, k):
    """Alpha of a typical step at the share of k of all values, and the ends of its 95 % interval."""
    total, logs = np.count_nonzero(group(name, steps)), []
    for step in range(steps):
        x = np.abs(group(name, steps).reshape(steps, -1)[step])
        top = np.log(np.sort(x[x > 0])[::-1])
        at = max(1, round(k / total * top.size))
        logs.append(special.digamma(at) - np.log(at) - np.log(np.mean(top[:at] - top[at])))
    half = special.stdtrit(steps - 1, 0.975) * np.std(logs, ddof=1) / np.sqrt(steps)
    return np.exp(np.mean(logs)), np.exp(np.mean(logs) + np.array([-half, half]))


def test_hill_curve_is_that_of_a_typical_step(report):
    curve = row_of(report, "h.0.attn.weight")["hill"]
    assert 20 <= len(curve["k"]) <= 60
    for k, alpha, low, high in zip(curve["k"], curve["alpha"], curve["low"], curve["high"], strict=True):
        assert low < alpha < high
        if 300 <= k < 20_000:
            exact, ends = by_hand("h.0.attn.weight", 6, k)
            assert alpha == pytest.approx(exact, rel=0.05)
            assert np.log([low, high]) == pytest.approx(np.log(ends), abs=0.1)


def test_hill_curve_of_few_blocks_is_that_of_the_sorted_array():
    curve = row_of(Report.from_stream(run(2)), "h.0.attn.weight")["hill"]
    logs = np.log(np.sort(np.abs(group("h.0.attn.weight", 2)))[::-1])
    for k, alpha, low, high in zip(curve["k"], curve["alpha"], curve["low"], curve["high"], strict=True):
        if k >= 50:
            assert alpha == pytest.approx(1 / np.mean(logs[:k] - logs[k]), rel=0.05)
        assert low < alpha < high


def test_curve_and_estimate_agree_where_steps_differ_in_scale():
    stream, rng = GradientStream(), np.random.default_rng(3)
    for step in range(12):
        stream.update({"shrinks": 4.0**-step * rng.standard_t(3, 20_000)})
    row = Report.from_stream(stream).data["layers"][0]
    assert 2.5 < row["tails"]["both"]["alpha"] < 3.5
    at = int(np.argmin(np.abs(np.array(row["hill"]["k"]) - row["tails"]["both"]["k"])))
    assert row["hill"]["alpha"][at] == pytest.approx(row["tails"]["both"]["alpha"], rel=0.05)


def row_with(**tail):
    usual = {"alpha": 3.0, "ci95": [2.5, 3.5], "k": 500, "plateau": True, "warnings": []}
    return {"tails": {"both": {**usual, **tail}}}


def test_layers_of_few_values_come_last():
    few = ("90 values are too few to choose k (500 needed): k is a tenth of them",)
    rows = [
        row_with(ci95=[1.0, 1.5]),
        row_with(ci95=[1.0, 3.0]),
        row_with(plateau=False),
        row_with(alpha=1.0, ci95=[0.9, 1.1], k=49, plateau=None),
        row_with(alpha=1.0, ci95=[0.9, 1.2], plateau=None, warnings=few),
        {"tails": {"both": None}},
    ]
    keys = [words.heaviness(row) for row in rows]
    assert keys == sorted(keys)


def test_layer_of_few_values_is_no_headline():
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(6):
        stream.update({"bias": rng.pareto(0.7, 30) + 1, "weight": rng.pareto(3, 20_000) + 1})
    report = Report.from_stream(stream)
    assert [row["name"] for row in sorted(report.data["layers"], key=words.heaviness)] == ["weight", "bias"]
    said = " ".join(one.text for one in findings(report.data))
    assert "weight: α = " in said
    assert "bias" not in said


def test_lines_of_the_text_break_at_spaces(report):
    data = report.data
    data["build"] = {**data["build"], "backend": "native", "simd": "avx512", "threads": 2}
    for elements in (10**4 + 7**i for i in range(12)):
        data["run"]["elements"] = elements
        lines = text(data).splitlines()
        header = lines[1 : lines.index("")]
        assert max(map(len, header)) <= 100
        assert " ".join(header) == subtitle(data)


def test_histogram_counts_are_exact(report):
    for name in ("whole model", "h.1.mlp.weight"):
        bins, x = row_of(report, name)["histogram"], group(name, 6)
        edges = np.array(bins["edges"])
        assert bins["zeros"] == np.count_nonzero(x == 0)
        assert np.array_equal(bins["positive"], np.histogram(x[x > 0], edges)[0])
        assert np.array_equal(bins["negative"], np.histogram(-x[x < 0], edges)[0])
        assert sum(bins["positive"]) + sum(bins["negative"]) + bins["zeros"] == x.size
        assert edges[-1] > np.abs(x).max()
        assert len(edges) - 1 <= 4 * (math.log2(edges[-1] / edges[0]) + 1)


def test_time_line(report):
    data = report.data
    steps = [0, 10, 20, 30, 40, 50]
    assert data["blocks"] == {"first_step": steps, "last_step": steps, "steps": [1] * 6}
    row = row_of(report, "h.0.attn.weight")
    both, line = row["tails"]["both"], row["time_line"]
    for step in range(6):
        x = arrays(step)["h.0.attn.weight"]
        k = round(both["k"] / both["n"] * np.count_nonzero(x))
        if k >= 10:
            assert line["alpha"][step] == pytest.approx(hill(x, k=k).alpha, rel=0.1)
        else:
            assert line["alpha"][step] is None
        assert line["norm"][step] == pytest.approx(np.linalg.norm(x.astype(float)), rel=1e-5)
    assert data["history"]["steps"] == steps
    last = np.concatenate([a.ravel() for a in arrays(5).values()]).astype(float)
    assert data["history"]["norm"][-1] == pytest.approx(np.linalg.norm(last), rel=1e-6)


def test_many_steps_join_blocks():
    stream = GradientStream()
    for step in range(70):
        stream.update({"a": arrays(step)["head"]})
    data = Report.from_stream(stream).data
    row, steps = data["layers"][0], data["blocks"]["steps"]
    assert sum(steps) == 70
    assert len(row["time_line"]["alpha"]) == len(steps) == len(stream.blocks("a"))
    assert row["tails"]["both"]["spread"] == "blocks"


def test_module_rows_are_not_repeated(report):
    # h.1 and h.1.mlp hold one array each, h.0.mlp too: they are that array
    assert [row["name"] for row in report.data["modules"]] == ["h.0.attn", "h.0", "h"]
    assert row_of(report, "h")["arrays"] == 4


def test_json_is_strict_and_lossless(report, tmp_path):
    path = report.write_json(tmp_path / "report.json")

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data == report.data == Report.load(path).data == Report.load(tmp_path).data
    assert data["schema"] == SCHEMA
    assert data["history"]["loss"]["values"][2] is None
    assert data["settings"] == {"seed": 3, "path": 1.0}
    assert {"gradtail", "python", "numpy"} <= set(data["versions"])
    assert list(tmp_path.iterdir()) == [path]


def test_loaded_report_shows_the_same(report, tmp_path):
    loaded = Report.load(report.write_json(tmp_path / "r.json"))
    assert str(loaded) == str(report)
    assert loaded._repr_html_() == report._repr_html_()


def test_data_is_a_copy(report):
    report.data["layers"].clear()
    assert len(report.data["layers"]) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"schema": "gradtail.Report/99"}',
            r"path: expected schema gradtail\.Report/1, got gradtail\.Report/99",
        ),
        ("{}", 'path: expected a report with a "schema", got JSON without one'),
        ("[1]", 'path: expected a report with a "schema", got a JSON list'),
        ("hello", "path: expected a report.json, got .*not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Report.load(tmp_path)


def test_bad_arguments():
    with pytest.raises(TypeError, match="stream: expected a GradientStream, got list"):
        Report.from_stream([])
    with pytest.raises(TypeError, match="loss: expected a pair"):
        Report.from_stream(run(1), loss=3)
    with pytest.raises(ValueError, match=r"loss: expected as many values as steps \(2\), got 1"):
        Report.from_stream(run(1), loss=([1, 2], [0.5]))
    with pytest.raises(ValueError, match="data: expected schema"):
        Report({"schema": "other"})


def test_one_step_is_labelled_iid(backend):
    report = Report.from_stream(run(1, backend=backend))
    assert {row["tails"]["both"]["spread"] for row in report.data["layers"]} == {"iid"}
    assert "iid formula" in str(report)


def test_nonfinite_values_are_told(backend):
    stream = GradientStream(backend=backend)
    for step in range(4):
        x = np.ones(100, np.float32)
        if step == 2:
            x[[7, 9, 11]] = np.nan, np.inf, -np.inf
        stream.update({"fine": np.ones(10), "broken": x})
    report = Report.from_stream(stream)
    row = row_of(report, "broken")
    assert (row["nan"], row["posinf"], row["neginf"], row["nonfinite"], row["count"]) == (1, 1, 1, 3, 397)
    assert report.data["nonfinite"] == {
        "values": 3, "layers": 1, "first": {"step": 2, "name": "broken", "index": 7},
    }  # fmt: skip
    assert report.data["history"]["nonfinite"] == [0, 0, 3, 0]
    said = " ".join(str(report).split())
    assert "3 NaN or infinite values in 1 layer, most in broken (3)." in said
    assert "The first came at step 2, in broken, element 7." in said


def test_layers_without_a_tail():
    stream = GradientStream()
    for _ in range(3):
        stream.update({"zeros": np.zeros(5), "empty": np.zeros(0), "nan": np.full(3, np.nan)})
    report = Report.from_stream(stream)
    assert row_of(report, "zeros")["tails"]["both"] is None
    assert row_of(report, "empty")["mean"] is None
    assert row_of(report, "nan")["max_abs"] is None
    assert "No tail index can be quoted" in " ".join(str(report).split())
    json.dumps(report.data, allow_nan=False)


def test_nothing_observed():
    report = Report.from_stream(GradientStream())
    assert "Nothing observed" in str(report)
    assert report.data["whole"]["count"] == 0


def test_no_index_where_alpha_slides():
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(8):
        stream.update({"normal": rng.standard_normal(50_000), "heavy": rng.pareto(1.5, 50_000) + 1})
    report = Report.from_stream(stream)
    tail = row_of(report, "normal")["tails"]["both"]
    assert tail["plateau"] is False
    a, b = tail["slide"]
    assert a < b
    line = next(line for line in str(report).splitlines() if line.startswith("normal"))
    assert "no plateau (" in line
    assert f"{tail['alpha']:.2f}" not in line
    assert str(report).index("\nheavy") < str(report).index("\nnormal")
    assert "1 of 2 layers have no plateau" in " ".join(str(report).split())


def test_unobserved_layers_and_late_ones():
    stream = GradientStream()
    for step in range(4):
        stream.update({"a.x": np.arange(1.0, 50), **({"a.y": np.arange(1.0, 9)} if step >= 2 else {})})
    report = Report.from_stream(stream)
    late = row_of(report, "a.y")
    assert (late["observed"], late["unobserved"], late["count"]) == (2, 2, 16)
    assert late["time_line"]["norm"][:2] == [None, None]


def test_three_hundred_layers_fit_a_terminal_and_five_megabytes(tmp_path):
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(4):
        names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(300)]
        stream.update({name: rng.standard_t(3, 500) for name in names})
    report = Report.from_stream(stream)
    text = str(report)
    assert "... 280 more" in text
    assert len(text.splitlines()) < 62
    assert max(map(len, text.splitlines())) <= 104
    assert report.write_json(tmp_path / "r.json").stat().st_size < 5e6


def test_names_cannot_move_the_cursor():
    stream = GradientStream()
    stream.update({"evil\x1b[2J\n": np.arange(1.0, 9)})
    assert "evil\\x1b[2J\\n" in str(Report.from_stream(stream, title="\x07"))
    assert "\x1b" not in str(Report.from_stream(stream, title="\x07"))


def test_import_needs_neither_torch_nor_matplotlib():
    code = "import sys, gradtail.report; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jsonable_leaves_nothing_strange():
    assert jsonable({"a": np.int64(1), "b": np.array([np.inf, 1.0]), "c": {1}, "d": object}) == {
        "a": 1, "b": [None, 1.0], "c": [1], "d": "<class 'object'>",
    }  # fmt: skip
