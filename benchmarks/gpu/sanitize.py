"""Run tests of the engine under compute-sanitizer, with each of its four tools.

    python -m benchmarks.gpu.sanitize
    python -m benchmarks.gpu.sanitize --tools memcheck racecheck --minutes 5

The tests are those of ``tests/test_gpu_engine.py`` that need a device: they use no torch, so that whatever is
reported is gradtail's. Exit status: 0 if every tool found nothing, 1 if one reported something or did not
end, 2 if nothing could be run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gradtail.build import build_info

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TESTS = "tests/test_gpu_engine.py"
CHOSEN = "(misaligned or sketches or shards or bits or steps or tracks or coordinate or launches)"
REPORTED = 86  # exit status by which compute-sanitizer says that it has reported something
NOTHING_RUN = 2


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.sanitize", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--minutes", type=float, default=5.0, help="time that one tool may take (default 5)")
    return parser.parse_args(given)


def command(sanitizer: str, tool: str) -> list[str]:
    """Return the command of one tool."""
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        "-k",
        CHOSEN,
        TESTS,
    ]
    return [sanitizer, "--tool", tool, "--error-exitcode", str(REPORTED), *tests]


def find_sanitizer() -> str | None:
    """Return the path of compute-sanitizer: on PATH, or in the toolkit; None if it is not there."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=f"{home}/bin")


def run(sanitizer: str, tool: str, minutes: float) -> str:
    """Run one tool; returns what came of it in a few words."""
    try:
        status = subprocess.run(
            command(sanitizer, tool), cwd=ROOT, timeout=60 * minutes, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return f"did not end within {minutes:g} minutes"
    if status == 0:
        return "clean"
    return "reported errors, see above" if status == REPORTED else f"the tests ended with status {status}"


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    asked = arguments(given)
    reason = build_info()["reason"]
    if reason is not None:
        print(f"compute-sanitizer: not run: {reason}")
        return NOTHING_RUN
    sanitizer = find_sanitizer()
    if sanitizer is None:
        print("compute-sanitizer: not run: it is not on PATH (it is part of the CUDA toolkit)")
        return NOTHING_RUN
    found = {}
    for tool in asked.tools:
        print(f"\n=== {tool}", flush=True)
        found[tool] = run(sanitizer, tool, asked.minutes)
    print("\n" + "\n".join(f"{tool}: {result}" for tool, result in found.items()))
    return 0 if all(result == "clean" for result in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
