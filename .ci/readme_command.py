"""Print the command of README.md that installs gradtail and runs its tests, as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

blocks = re.findall(
    r"^```(?:sh|bash|shell|console)?\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
)
lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
commands = [line for line in lines if line.startswith("pip install") and line.endswith("pytest")]
if len(commands) != 1:
    sys.exit(f"README.md: expected one command that installs and tests, got {commands}")
print(commands[0])
