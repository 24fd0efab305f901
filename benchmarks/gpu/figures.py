"""Measure every figure of the GPU pass in one run and write the table.

    python -m benchmarks.gpu.figures                  # about eight minutes on a large GPU
    python -m benchmarks.gpu.figures --minutes 4 --only pass host

A line that fails says so in its cell, and the rest goes on. Answers are asserted, timings are not. Without a
device the table says "not measured", and a table of an earlier run on a GPU stays as it is.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gradtail.build import build_info

from .lines import MEASURED_ON, NOT_MEASURED, Figures, cell, is_measured, page, put_table

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
COMMAND = "bash benchmarks/gpu/run.sh"
MEMORY_OF_A_PASS = 8  # bytes of free memory for each element of the largest list

Part = tuple[list[str], Callable[[], None]]  # keys of the lines that it fills, and the measurement


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.figures", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time that it may take (default 8)")
    parser.add_argument(
        "--output", type=Path, default=HERE / "FIGURES.md", help="the table (default %(default)s)"
    )
    parser.add_argument("--readme", type=Path, default=README, help="a text with the table between marks")
    parser.add_argument("--json", type=Path, help="write the single measurements too")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="lines whose key begins like this")
    found = parser.parse_args(given)
    known = [line.key for line in Figures().lines]
    if not found.minutes > 0:
        parser.error(f"--minutes: expected a positive number, got {found.minutes}")
    if found.only and not any(_wanted(key, found.only) for key in known):
        parser.error(f"--only: expected beginnings of {known}, got {found.only}")
    for path in (found.output, found.json):  # before anything is measured
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--output, --json: expected a file in a folder that exists, got {path}")
    return found


def no_device() -> str | None:
    """Say why nothing can be measured here; None if it can."""
    if (reason := build_info()["reason"]) is not None:
        return str(reason)
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def heading_of_a_run() -> str:
    """Say where and when it was measured."""
    import torch

    info = build_info()
    clocks = _ask_driver("clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,driver_version")
    return (
        f"{MEASURED_ON}{torch.cuda.get_device_name()} ({info['devices'][0]['memory'] / 2**30:.0f} GiB), "
        f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, "
        f"gradtail {info['version']} (CUDA {info['cuda_runtime']}, {' '.join(info['cuda_archs'])}), "
        f"{datetime.date.today().isoformat()}. Clocks (SM, memory, their maxima) and driver "
        f"after the run: {clocks}. "
        "Nothing was set on the device."
    )


def _ask_driver(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader", "--id=0"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not known ({type(error).__name__})"
    return found.stdout.strip()


def parts(figures: Figures, minutes: float) -> list[Part]:
    """Return the measurements, the most important ones first."""
    import torch

    from . import host, passes, training
    from .sizes import HOST_TENSORS, PASS_ELEMENTS
    from .timing import Deadline

    deadline = Deadline(minutes)
    free = torch.cuda.mem_get_info()[0]
    large = min(PASS_ELEMENTS, free // MEMORY_OF_A_PASS)
    some = min(10**8, free // 64)
    found: list[Part] = []
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        keys = [f"{what} {name}" for what in ("sum", "pass", "foreach")]
        found.append((keys, partial(passes.observe_passes, figures, deadline, dtype, large)))
    found += [([f"host {n}"], partial(host.observe_host, figures, deadline, n)) for n in HOST_TENSORS]
    found.append((["memory"], partial(training.observe_memory, figures, deadline)))
    for dtype in (torch.bfloat16, torch.float32):
        key = f"clip {str(dtype).removeprefix('torch.')}"
        found.append(([key], partial(training.observe_clipping, figures, deadline, dtype)))
    gpt = [f"gpt {variant}" for variant in training.VARIANTS]
    found.append((gpt, partial(training.observe_training, figures, deadline)))
    found.append((["dense"], partial(host.observe_dense, figures, deadline, some)))
    found.append((["eager", "topk", "wandb"], partial(passes.observe_others, figures, deadline, some)))
    return found


def measure(figures: Figures, measurements: Sequence[Part], only: Sequence[str] | None = None) -> int:
    """Make the measurements; one that fails says so in its cells. Returns how many did."""
    failed = 0
    for keys, work in measurements:
        if only and not any(_wanted(key, only) for key in keys):
            continue
        print(f"{', '.join(keys)} ...", flush=True)
        try:
            work()
        except Exception as error:
            failed += 1
            traceback.print_exc()
            for key in keys:
                line = figures[key]
                before = "" if line.measured == NOT_MEASURED else f"{line.measured}; "
                line.fill(f"{before}failed: {cell(f'{type(error).__name__}: {error}')}", False)
        for key in keys:
            print(f"  {key}: {figures[key].measured}", flush=True)
        _release()
    return failed


def _release() -> None:
    """Give the memory of a measurement back before the next."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wanted(key: str, only: Sequence[str]) -> bool:
    return any(key.startswith(beginning) for beginning in only)


def write(figures: Figures, heading: str, output: Path, readme: Path | None) -> None:
    """Write the table to its file, and between the marks of a text."""
    output.write_text(page(figures, heading, COMMAND), "utf-8")
    if readme is not None and readme.exists():
        text = put_table(readme.read_text("utf-8"), heading, figures.markdown())
        readme.write_text(text, "utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    asked, figures = arguments(given), Figures()
    if (reason := no_device()) is not None:
        if is_measured(asked.output):
            print(f"{asked.output}: kept as it is, for nothing can be measured here: {reason}")
        else:
            write(figures, "Not measured.", asked.output, asked.readme)
            print(f"{asked.output}: not measured: {reason}")
        return 0
    failed = measure(figures, parts(figures, asked.minutes), asked.only)
    heading = heading_of_a_run()
    write(figures, heading, asked.output, asked.readme)
    if asked.json:
        asked.json.write_text(json.dumps({"heading": heading, "raw": figures.raw}), "utf-8")
    print(f"\n{heading}\n\n{figures.markdown()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
