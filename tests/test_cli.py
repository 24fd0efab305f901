"""The `gradtail` command: what it prints, what it refuses and how."""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

import gradtail
from gradtail import GradientStream, cli


def run(*arguments, **options):
    command = [sys.executable, "-m", "gradtail", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def refusal(capsys, *arguments):
    """Run a command that refuses, and return what it says."""
    code = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err.strip()


@pytest.fixture
def saved(tmp_path):
    """Return a folder with the report.json of a short stream, and nothing else."""
    report = pytest.importorskip("gradtail.report")
    stream, rng = GradientStream(), np.random.default_rng(0)
    for _ in range(4):
        stream.update({"a.weight": rng.standard_t(3, 2000).astype(np.float32)})
    folder = tmp_path / "saved"
    folder.mkdir()
    report.Report.from_stream(stream, title="a short stream").write_json(folder / "report.json")
    return folder


def test_info_prints_the_build(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert gradtail.__version__ in out
    assert "native" in out
    assert "\x1b" not in out


def test_module_and_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"gradtail {gradtail.__version__}\n")


@pytest.mark.parametrize("arguments", [["info"], ["--version"], ["--help"], ["demo", "--help"]])
def test_works_without_any_extra(arguments):
    script = (
        "import sys\n"
        "for name in ('torch', 'rich', 'matplotlib'): sys.modules[name] = None\n"  # import raises
        "from gradtail.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [("demo", ["rich"], "demo"), ("demo", ["torch", "rich"], "demo"), ("report", ["matplotlib"], "report")],
)
def test_missing_extra_is_named(capsys, monkeypatch, command, missing, extra):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    for name in {"torch", "rich", "matplotlib"} - set(missing):  # there, whatever this environment has
        stub = ModuleType(name)
        stub.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, stub)
    arguments = [command, "somewhere"] if command == "report" else [command]
    said = refusal(capsys, *arguments)
    assert said == (
        f"gradtail {command}: expected {' and '.join(missing)} to be installed, got nothing of that name; "
        f"pip install 'gradtail[{extra}]'"
    )


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many"])
def test_refuses_steps_that_are_no_count(capsys, value):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--steps", value])
    assert stop.value.code == 2
    assert f"--steps: expected a whole number of at least 1, got '{value}'" in capsys.readouterr().err


def test_needs_a_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


class TestDemoArguments:
    @pytest.fixture(autouse=True)
    def _extras(self, tmp_path, monkeypatch):
        for name in ("torch", "rich", "matplotlib"):
            pytest.importorskip(name, reason="needs the extra gradtail[demo]")
        monkeypatch.chdir(tmp_path)

    def test_text_that_is_not_there(self, capsys):
        said = refusal(capsys, "demo", "--text", "nothing.txt")
        assert said.startswith("gradtail demo: --text: expected a file that can be read, got 'nothing.txt' (")

    def test_text_that_is_too_short(self, capsys, tmp_path):
        (tmp_path / "short.txt").write_text("too short")
        said = refusal(capsys, "demo", "--text", "short.txt")
        assert said == "gradtail demo: --text: expected at least 1290 bytes, got 9 from short.txt"

    @pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
    def test_device_that_cannot_be_used(self, capsys, device):
        said = refusal(capsys, "demo", "--device", device)
        assert said.startswith("gradtail demo: --device: expected ")
        assert f"got '{device}' (" in said
        assert "\n" not in said

    def test_folder_with_other_files(self, capsys, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        said = refusal(capsys, "demo", "--out", "mine")
        assert said.startswith(
            "gradtail demo: --out: expected a folder that is new, empty or holds an earlier"
        )
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]

    def test_folder_that_is_a_file(self, capsys, tmp_path):
        (tmp_path / "taken").write_text("")
        said = refusal(capsys, "demo", "--out", "taken")
        assert said.startswith("gradtail demo: --out: expected a folder that can be made, got 'taken' (")

    def test_monitor_switched_off_by_the_environment(self, capsys, monkeypatch):
        monkeypatch.setenv("GRADTAIL", "0")
        assert refusal(capsys, "demo").startswith("gradtail demo: GRADTAIL: expected it unset")


class TestReport:
    @pytest.fixture(autouse=True)
    def _extras(self):
        pytest.importorskip("matplotlib", reason="needs the extra gradtail[report]")

    def test_draws_beside_the_json(self, capsys, saved):
        assert cli.main(["report", str(saved / "report.json")]) == 0
        out = capsys.readouterr().out
        assert "a short stream" in out
        assert str(saved / "report.html") in out
        assert "\x1b" not in out
        assert (saved / "report.html").exists()
        assert list(saved.glob("*.png"))

    def test_draws_into_another_folder(self, saved, tmp_path, monkeypatch):
        monkeypatch.setattr("gradtail.report.figures.pngs", lambda data: [])  # drawn above, and slow
        before = (saved / "report.json").read_bytes()
        assert cli.main(["report", str(saved), "--out", str(tmp_path / "drawn" / "here")]) == 0
        assert (tmp_path / "drawn" / "here" / "report.html").exists()
        assert json.loads((tmp_path / "drawn" / "here" / "report.json").read_bytes()) == json.loads(before)
        assert [path.name for path in saved.iterdir()] == ["report.json"]

    def test_path_that_is_not_there(self, capsys, tmp_path):
        said = refusal(capsys, "report", tmp_path / "no.json")
        assert said.startswith(
            "gradtail report: path: expected a report.json, or .npz files of streams, that can be"
        )

    @pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"schema": "other/1"}'])
    def test_path_that_is_no_report(self, capsys, tmp_path, content):
        (tmp_path / "report.json").write_text(content)
        said = refusal(capsys, "report", tmp_path / "report.json")
        assert said.startswith("gradtail report: path: expected ")
        assert ", got " in said

    def test_files_of_others_in_the_way(self, capsys, saved, tmp_path):
        (tmp_path / "report.html").write_text("mine")
        said = refusal(capsys, "report", saved, "--out", tmp_path)
        assert said.startswith("gradtail report: --out: expected ")
        assert (tmp_path / "report.html").read_text() == "mine"


def test_interrupted_command_says_so(capsys, monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_info", interrupt)
    assert cli.main(["info"]) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_closed_pipe_is_no_error():
    """As in `gradtail --help | head -1`, with a reader that has left before the first line."""
    script = (
        "import os, sys\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "from gradtail.cli import main\n"
        "sys.exit(main(['info']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
