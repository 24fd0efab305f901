"""Two processes that each see a part of a run, and the report of what they saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradtail import GradientStream, cli

PART = """
import sys
import numpy as np
from gradtail import GradientStream

part, of, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stream = GradientStream()
stream.declare({"body.weight": 3000, "body.bias": 50})
edges = [0, 23, 60] if of == 2 else [0, 60]
low, high = edges[part], edges[part + 1]
for step in range(40):
    rng = np.random.default_rng(step)
    weight, bias = rng.standard_t(3, (60, 50)).astype(np.float32), rng.standard_normal(50).astype(np.float32)
    arrays = {"body.weight": weight[low:high]}
    if part == 0:
        arrays["body.bias"] = bias
    stream.update(arrays, step, {"body.weight": (weight.shape, (low, 0))})
stream.save(f"{folder}/part{part}.npz")
"""


def run_parts(of: int, folder: Path) -> list[Path]:
    """Run one process a part, all at once; return the files that they saved."""
    folder.mkdir()
    command = [sys.executable, "-c", PART]
    processes = [subprocess.Popen([*command, str(part), str(of), str(folder)]) for part in range(of)]
    assert [process.wait(timeout=120) for process in processes] == [0] * of
    return [folder / f"part{part}.npz" for part in range(of)]


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a JSON value by its path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in numbers(part, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, part in enumerate(value) for k, v in numbers(part, f"{path}/{i}").items()}
    return {path: value}


def test_the_report_of_two_processes_is_that_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra gradtail[report]")
    reports = []
    for of in (1, 2):
        files = run_parts(of, tmp_path / str(of))
        out = tmp_path / f"report{of}"
        assert cli.main(["report", *map(str, reversed(files)), "--out", str(out)]) == 0
        assert "body.weight" in capsys.readouterr().out
        reports.append(json.loads((out / "report.json").read_text()))
    one, two = reports
    for part in ("run", "whole", "layers", "spectrum", "clipping"):
        a, b = numbers(one[part]), numbers(two[part])
        assert a.keys() == b.keys()
        assert len(a) > 3
        for key, expected in a.items():
            if isinstance(expected, float):
                assert b[key] == pytest.approx(expected, rel=1e-4, nan_ok=True), f"{part}{key}"
            elif not key.endswith("nbytes"):
                assert b[key] == expected, f"{part}{key}"


def test_files_that_do_not_merge_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra gradtail[report]")
    stream = GradientStream()
    stream.update({"w": np.ones(3)})
    stream.save(tmp_path / "a.npz")
    stream.save(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_text("nothing")
    (tmp_path / "report.json").write_text("{}")
    for names, message in (
        (["a.npz", "b.npz"], "expected values not counted here, got 'w' in step 0, counted by both"),
        (["a.npz", "c.npz"], "c.npz"),
        (["a.npz", "report.json"], "path: expected .npz files of streams where there are several"),
        (["none.npz"], "path: expected a report.json, or .npz files of streams, that can be read"),
    ):
        assert cli.main(["report", *(str(tmp_path / name) for name in names)]) == 2
        assert message in capsys.readouterr().err
