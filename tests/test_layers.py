"""Who may know what: the rules of the design, held by the code."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gradtail import native
from gradtail.buffers import VIEW
from gradtail.states.table import RECORD

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "gradtail"
CSRC = ROOT / "csrc"

LAYERS = [
    {"native", "dlpack", "buffers", "build"},
    {"backends", "states"},
    {"estimators", "theory"},
    {"stream"},
    {"report"},
    {"torch"},
    {"experiments"},
    {"cli", "cli_options", "cli_studies", "__main__"},
]
"""A module imports from its own layer and from those above it in this list."""

WITH_TORCH = {"torch", "experiments"}
"""Parts that may import torch when they are imported; all others must work without it."""

STANDARD_HEADER = re.compile(r"<[a-z0-9_]+>")  # no dot and no slash: neither C nor a library


def parts():
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts
        if part != ("__init__",):
            yield path, part


def layer_of(part):
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


def imported_names(tree, module):
    """Every name that a module imports, absolute, wherever in the file it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module[: len(module) - node.level], *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_at_the_top(tree):
    """Nodes outside functions and outside `if TYPE_CHECKING`: what runs at import."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        pending += [
            child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.excepthandler))
        ]


@pytest.mark.parametrize("path", [pytest.param(path, id="/".join(part)) for path, part in parts()])
def test_imports_point_left_only(path):
    relative = path.relative_to(PACKAGE).with_suffix("").parts
    part, own = relative[0], layer_of(relative[0])
    assert own is not None, f"{part}: expected a place in LAYERS, got none"
    module = ("gradtail", *relative)
    for name in imported_names(ast.parse(path.read_text("utf-8")), module):
        if not name.startswith("gradtail."):
            continue
        target = name.split(".")[1]
        if (other := layer_of(target)) is None:
            # `from gradtail import _core` in native.py, or a public name from the package itself
            assert (relative, name) == (("native",), "gradtail._core") or own >= layer_of("torch"), (
                f"{part} imports {name}"
            )
            continue
        assert other <= own, f"{part}: expected imports from its own layer or further left, got {name}"
        if part in ("estimators", "theory"):
            assert target not in ("buffers", "backends"), f"{part} touches gradient buffers through {name}"


@pytest.mark.parametrize("path", [pytest.param(path, id="/".join(part)) for path, part in parts()])
def test_torch_is_imported_by_few(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part in WITH_TORCH:
        return
    for node in imports_at_the_top(ast.parse(path.read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        inside = [
            name for name in names if name.split(".")[0] == "torch" or name.startswith("gradtail.torch")
        ]
        assert not inside, f"{part} imports {inside[0]} when it is imported"


def test_only_native_imports_the_extension():
    for path, part in parts():
        names = imported_names(ast.parse(path.read_text("utf-8")), ("gradtail", *part))
        if part != ("native",):
            assert not [name for name in names if name.endswith("._core")], f"{part} imports _core"


def sources(*folders):
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".hpp", ".cpp", ".inl", ".cu", ".cuh", ".h"):
                yield path


def includes(path):
    return re.findall(r"^\s*#\s*include\s*([<\"][^>\"]+[>\"])", path.read_text("utf-8"), re.MULTILINE)


def test_core_knows_the_standard_library_and_itself():
    for path in sources(CSRC / "core"):
        for name in includes(path):
            inside = (
                name.startswith('"') and (path.parent / name.strip('"')).resolve().parent == CSRC / "core"
            )
            assert inside or STANDARD_HEADER.fullmatch(name), f"{path.name} includes {name}"


def test_cpu_knows_no_python_and_no_cuda():
    for path in sources(CSRC / "cpu"):
        for name in includes(path):
            if name.startswith('"'):
                target = (path.parent / name.strip('"')).resolve()
                allowed = target.parent in (CSRC / "cpu", CSRC / "core") or target == CSRC / "ops.hpp"
                assert allowed, f"{path.name} includes {name}"
            else:
                assert not re.match(r"<(Python|pybind11|cuda)", name), f"{path.name} includes {name}"


def test_pybind11_is_known_to_the_binding_only():
    for path in sources(CSRC):
        if path.name not in ("binding.cpp", "engine_binding.hpp"):
            assert "pybind11" not in path.read_text("utf-8"), f"{path.name} mentions pybind11"


def test_python_is_known_to_two_files_only():
    for path in sources(CSRC):
        if path.stem != "torch_list":  # binding.cpp knows it through pybind11
            assert "<Python.h>" not in includes(path), f"{path.name} includes Python.h"


def test_no_libtorch():
    for path in sources(CSRC):
        for name in includes(path):
            assert not re.match(r"[<\"](torch|ATen|c10|caffe2)/", name), f"{path.name} includes {name}"


@pytest.mark.skipif(native.core is None, reason="no native extension")
def test_memory_layouts_agree_with_the_extension():
    assert native.core.record_size == RECORD.itemsize
    assert native.core.view_size == VIEW.itemsize


def test_layout_of_a_record_is_that_of_the_header():
    text = (CSRC / "core" / "record.hpp").read_text("utf-8")
    body = re.search(r"struct Record \{(.*?)\};", text, re.DOTALL).group(1)
    body = re.sub(r"//.*", "", body)
    fields = []
    for kind, name, length in re.findall(r"(int64_t|double)\s+(\w+)(?:\[(\d+)\])?;", body):
        dtype = {"int64_t": "int64", "double": "float64"}[kind]
        names = [f"{name}{i + 1}" for i in range(int(length))] if length else [name]
        fields += [(n, dtype) for n in names]
    assert fields == [(name, RECORD[name].name) for name in RECORD.names]


def test_top_level_stays_small():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    listing = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("git does not read this clone")
    top = {line.split("/")[0] for line in listing.stdout.splitlines()}
    allowed = {
        "CMakeLists.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "csrc",
        "python",
        "benchmarks",
        "tests",
    }
    assert {name for name in top if not name.startswith(".")} <= allowed
