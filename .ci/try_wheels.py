"""Build a wheel for each Python and try it in a fresh environment that has NumPy and SciPy only.

The wheel must import, summarise an array and answer the probe, with the extension and CUDA inside.
One line a Python; ends with status 1 if any fails or is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that runs: pyenv's newest, else one on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"

    def patch(path: Path) -> int:
        digits = path.parent.parent.name.rpartition(".")[2]
        return int(digits) if digits.isdecimal() else -1

    found = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), key=patch, reverse=True)
    candidates = [str(path) for path in found] + [shutil.which(f"python{version}") or ""]
    for candidate in filter(None, candidates):
        # a pyenv shim is there for every version and runs for some
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def run(*command: str | Path, cwd: Path, **settings: str) -> None:
    """Run a command with some environment variables; what it printed goes into the error if it fails."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}")


def try_wheel(python: str, folder: Path, archs: str) -> str:
    """Build the wheel, install it in a fresh environment, try it; return the wheel's name and size."""
    run(python, "-m", "venv", folder / "venv", cwd=folder)
    inside = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # CI: a failed native build must not become a pure wheel
    settings = {"CI": "true", "GRADTAIL_CUDA": "ON", "GRADTAIL_CUDA_ARCHS": archs}
    run(inside, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder, **settings)
    (wheel,) = folder.glob("gradtail-*.whl")
    run(inside, "-m", "pip", "install", wheel, cwd=folder)
    run(inside, ROOT / ".ci" / "check_install.py", "--cuda", cwd=folder)
    return f"{wheel.name}, {wheel.stat().st_size / 1024:.0f} KiB"


def main() -> int:
    """Try every Python, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=PYTHONS, help=f"default: {' '.join(PYTHONS)}")
    parser.add_argument(
        "--archs",
        default="75-real;90",
        help="CUDA architectures; few make it fast, '' takes those of a release (default: %(default)s)",
    )
    options = parser.parse_args()
    failed = 0
    for version in options.pythons:
        python = find_python(version)
        began = time.monotonic()
        try:
            if python is None:
                raise RuntimeError(f"no Python {version} under pyenv or on PATH")
            with tempfile.TemporaryDirectory() as folder:
                outcome = f"ok    {try_wheel(python, Path(folder), options.archs)}"
        except RuntimeError as error:
            failed += 1
            outcome = f"FAIL  {error}"
        print(f"Python {version}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
