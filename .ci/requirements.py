"""Print what the checks need besides gradtail: its build, its dependencies, the extras dev and test.

But not torch: the pure package has to pass on NumPy alone, and sanitizers do not get along with torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8"))
extras = project["project"]["optional-dependencies"]
wanted = [
    *project["build-system"]["requires"],
    *project["project"]["dependencies"],
    *extras["dev"],
    *extras["test"],
    f"cmake{project['tool']['scikit-build']['cmake']['version']}",
    f"ninja{project['tool']['scikit-build']['ninja']['version']}",
]
print("\n".join(line for line in wanted if not line.startswith("torch")))
