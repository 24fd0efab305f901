"""The benchmarks of a GPU as far as they need none: sizes, table, arguments, and the way without a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradtail

torch = pytest.importorskip("torch", reason="the benchmarks of a GPU use PyTorch")

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # at the end, for it must not hide the package that is installed

from benchmarks.gpu import figures, lines, passes, sanitize, sizes, timing  # noqa: E402

from gradtail.experiments.gpt import GPT, GPTConfig  # noqa: E402


class TestSizes:
    @pytest.mark.parametrize(
        ("total", "tensors"), [(10**9, 300), (10**8, 300), (10**7 + 1, 75), (10**9, 2000), (10**7, 15)]
    )
    def test_sum_to_what_they_say(self, total, tensors):
        found = sizes.transformer_sizes(total, tensors)
        assert len(found) == tensors
        assert sum(found) == total
        assert min(found) > 0

    def test_a_few_are_large_and_many_are_small(self):
        found = np.sort(sizes.transformer_sizes())
        assert found[-100:].sum() > 0.95 * found.sum()
        assert np.median(found) < 1e-3 * found.max()
        assert (np.array(sizes.transformer_sizes()[:-1]) % 64 == 0).all()  # so that all lie aligned

    @pytest.mark.parametrize(("total", "tensors"), [(10**9, 14), (10, 300)])
    def test_refused(self, total, tensors):
        with pytest.raises(ValueError, match="expected at least"):
            sizes.transformer_sizes(total, tensors)

    def test_small_ones(self):
        assert len(sizes.small_sizes(10_000)) == 10_000

    def test_gpt2_has_124_million_parameters(self):
        assert round(sizes.parameter_count(sizes.GPT2) / 1e6) == 124
        tiny = GPTConfig(layers=3, heads=2, width=16, context=12, vocabulary=99)
        assert sizes.parameter_count(tiny) == GPT(tiny).parameter_count()


class TestTable:
    def test_every_line_is_there_and_not_measured(self):
        table = lines.Figures().markdown().splitlines()
        assert len(table) == 2 + len(lines.all_lines())
        assert all(row.count("|") == 5 for row in table)
        assert all("| not measured |" in row for row in table[2:])
        keys = [line.key for line in lines.all_lines()]
        assert len(set(keys)) == len(keys)

    def test_what_was_measured_is_in_its_line(self):
        found = lines.Figures()
        found["host 300"].fill("p50 1 us", True)
        found["dense"].fill("80 %", False)
        assert (
            "host time of one update, 300 tensors | p50 at most 60 us; 2 launches, 0 syncs | p50 1 us | met |"
            in (found.markdown())
        )
        assert "| 80 % | **missed** |" in found.markdown()

    def test_a_cell_holds_any_text(self):
        assert lines.cell("a | b\n  c") == "a / b c"
        assert len(lines.cell("x" * 1000)) == 160

    def test_between_marks(self):
        text = f"before {lines.BEGIN} old {lines.END} after"
        found = lines.put_table(text, "heading", "table\n")
        assert found == f"before {lines.BEGIN}\n\nheading\n\ntable\n\n{lines.END} after"
        assert lines.put_table(found, "heading", "table\n") == found
        with pytest.raises(ValueError, match="expected the marks"):
            lines.put_table("nothing", "", "")

    def test_tables_that_are_committed_agree(self):
        readme = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
        written = (ROOT / "benchmarks" / "gpu" / "FIGURES.md").read_text("utf-8")
        table = readme.partition(lines.BEGIN)[2].partition(lines.END)[0].strip()
        assert table.partition("\n\n")[2].strip() in written
        assert [line.what in table for line in lines.all_lines()] == [True] * len(lines.all_lines())


class TestRun:
    def test_arguments(self, capsys):
        assert figures.arguments([]).minutes == 8
        assert figures.arguments(["--only", "pass", "host 300"]).only == ["pass", "host 300"]
        for wrong in (["--minutes", "0"], ["--minutes", "nan"], ["--only", "nothing"]):
            with pytest.raises(SystemExit):
                figures.arguments(wrong)
        assert "expected" in capsys.readouterr().err

    def test_without_a_device_the_table_is_written(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(figures, "no_device", lambda: "no such thing")
        output, readme = tmp_path / "FIGURES.md", tmp_path / "README.md"
        readme.write_text(f"{lines.BEGIN}{lines.END}", "utf-8")
        given = ["--output", str(output), "--readme", str(readme)]
        assert figures.main(given) == 0
        assert "no such thing" in capsys.readouterr().out
        written = output.read_text("utf-8")
        assert written.count("| not measured |") == len(lines.all_lines())
        assert figures.COMMAND in written
        assert lines.Figures().markdown() in readme.read_text("utf-8")
        measured = written.replace("Not measured.", f"{lines.MEASURED_ON}a device").replace(
            "not measured", "1 s"
        )
        output.write_text(measured, "utf-8")
        assert figures.main(given) == 0
        assert output.read_text("utf-8") == measured, "figures of a run are kept"

    def test_no_device_says_why(self, monkeypatch):
        monkeypatch.setattr(figures, "build_info", lambda: {"reason": "built without CUDA"})
        assert figures.no_device() == "built without CUDA"
        monkeypatch.setattr(figures, "build_info", lambda: {"reason": None})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert figures.no_device() == "torch finds no CUDA device"

    def test_one_line_that_fails_stops_no_other(self, capsys):
        found = lines.Figures()

        def failing():
            found["sum float32"].fill("1 ms")
            raise RuntimeError("CUDA error: out | of memory")

        measurements = [
            (["sum float32", "pass float32"], failing),
            (["dense"], lambda: found["dense"].fill("90 %", True)),
            (["memory"], lambda: found["memory"].fill("1 MiB", True)),
        ]
        assert figures.measure(found, measurements, ["sum", "dense"]) == 1
        assert found["sum float32"].measured == "1 ms; failed: RuntimeError: CUDA error: out / of memory"
        assert found["pass float32"].measured.startswith("failed: ")
        assert found["pass float32"].met is False
        assert found["dense"].met is True
        assert found["memory"].measured == lines.NOT_MEASURED
        assert "Traceback" in capsys.readouterr().err

    def test_eager_torch_gives_the_same_numbers(self):
        """The answers that a run on a GPU asserts."""
        x = torch.from_numpy((np.random.default_rng(0).standard_t(3, 10_000) * 1e-3).astype(np.float32))
        x[:5] = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-42])
        found, summary = passes.eager(x), gradtail.summarize(x)
        assert (int(found["finite"]), int(found["zeros"])) == (summary.count, summary.zeros)
        assert int(found["nan"]) == summary.nan
        assert float(found["max"]) == summary.max_abs
        assert float(found["sums"][1]) ** 0.5 == pytest.approx(summary.norm, rel=1e-6)
        own = passes.eager(x[torch.isfinite(x)])["counts"].numpy()
        np.testing.assert_array_equal(own[own > 0], summary.state_dict()["counts"])

    def test_ratios_are_of_one_round(self):
        times = {"a": [1.0, 20.0, 3.0], "b": [2.0, 40.0, 3.0]}
        assert timing.ratio(times, "a", "b") == 0.5
        assert timing.ratio_error({"a": [1.0] * 4, "b": [2.0] * 4}, "a", "b") == 0
        assert timing.percentiles([1.0] * 99 + [2.0])[0] == 1
        assert [timing.say(x) for x in (2.0, 0.0125, 3e-5, 4e-9)] == ["2 s", "12.5 ms", "30 us", "4 ns"]


class TestSanitizer:
    def test_command(self):
        found = sanitize.command("/bin/compute-sanitizer", "racecheck")
        assert found[:3] == ["/bin/compute-sanitizer", "--tool", "racecheck"]
        assert found[-1] == sanitize.TESTS
        assert (ROOT / sanitize.TESTS).exists()

    @pytest.mark.parametrize("reason", ["no GPU visible", None])
    def test_says_when_it_is_absent(self, monkeypatch, capsys, reason):
        monkeypatch.setattr(sanitize, "build_info", lambda: {"reason": reason})
        monkeypatch.setattr(sanitize, "find_sanitizer", lambda: None)
        assert sanitize.main([]) == sanitize.NOTHING_RUN
        assert f"not run: {reason or 'it is not on PATH'}" in capsys.readouterr().out

    @pytest.mark.parametrize(("status", "words"), [(0, "clean"), (86, "reported errors"), (1, "status 1")])
    def test_what_came_of_it(self, monkeypatch, capsys, status, words):
        code = f"import sys; sys.exit({status})"
        monkeypatch.setattr(sanitize, "build_info", lambda: {"reason": None})
        monkeypatch.setattr(sanitize, "find_sanitizer", lambda: "sanitizer")
        monkeypatch.setattr(sanitize, "command", lambda sanitizer, tool: [sys.executable, "-c", code])
        assert sanitize.main(["--tools", "memcheck"]) == (status != 0)
        assert words in capsys.readouterr().out

    def test_its_tests_are_there(self):
        found = subprocess.run(
            [*sanitize.command("", "memcheck")[5:], "--collect-only"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        chosen = [line for line in found.stdout.splitlines() if "::" in line]
        assert len(chosen) > 10, found.stdout
        assert all("[gpu" in line for line in chosen)


@pytest.mark.skipif(sys.platform != "linux", reason="a script for Linux")
def test_script_refuses_stages_that_it_does_not_have(tmp_path):
    script = ROOT / "benchmarks" / "gpu" / "run.sh"
    subprocess.run(["bash", "-n", script], check=True)
    found = subprocess.run(["bash", script, "build", "dance"], capture_output=True, text=True)
    assert found.returncode == 2
    assert "expected stages out of: build tests sanitize figures sass, got dance" in found.stderr
