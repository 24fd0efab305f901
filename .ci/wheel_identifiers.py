"""Have cibuildwheel itself read [tool.cibuildwheel]: it must plan exactly the wheels we mean to release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("cp310", "cp311", "cp312", "cp313", "cp314")
PLATFORMS = {
    "linux": ("manylinux_x86_64", "manylinux_aarch64"),
    "macos": ("macosx_arm64",),
    "windows": ("win_amd64",),
}


def main() -> None:
    """Compare the list for each platform; exit with the difference."""
    for platform, tags in PLATFORMS.items():
        command = [sys.executable, "-m", "cibuildwheel", "--platform", platform, "--print-build-identifiers"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"cibuildwheel refuses it for {platform}:\n{result.stdout}{result.stderr}")
        planned = set(result.stdout.split())
        expected = {f"{python}-{tag}" for python in PYTHONS for tag in tags}
        if planned != expected:
            sys.exit(f"{platform}: expected {sorted(expected)}, got {sorted(planned)}")
        print(f"{platform}: {len(planned)} wheels, as expected")


if __name__ == "__main__":
    main()
