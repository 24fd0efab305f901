"""Compile the simulated device, and what is given besides, into a Python module; keep what was compiled."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
NAME = "_simulated"
WARNINGS = ["-Wall", "-Wextra"]
# -U: with it longjmp refuses to go from one fiber to another, and some compilers define it by themselves
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", *WARNINGS, "-U_FORTIFY_SOURCE"]
FLAGS += ["-DGRADTAIL_SIMULATED"]

loaded: dict[Path, ModuleType] = {}


def engine_sources() -> list[Path]:
    """Return the host code of the CUDA backend."""
    return sorted(path for path in (CSRC / "cuda").glob("*.cpp") if path.name != "absent.cpp")


def compiler() -> list[str]:
    """Return the command of the C++ compiler; skip the test if anything is missing."""
    if sys.platform != "linux":
        pytest.skip("the simulated device needs Linux")
    command = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(command[0]) is None:
        pytest.skip(f"the simulated device needs a C++ compiler, and there is no {command[0]}")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("the simulated device needs the headers of Python")
    pytest.importorskip("pybind11", reason="the simulated device needs pybind11")
    return command


def run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


def digest(parts: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


def folder() -> Path:
    path = Path(tempfile.gettempdir()) / f"gradtail-simulated-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():  # its modules are about to be run
        raise RuntimeError(f"{path}: expected a folder of this user, got another's")
    return path


def make(target: Path, command: list[str]) -> Path:
    """Run a command that writes the target; of several processes one does, and the others wait for it."""
    import fcntl  # of Linux, as all of this

    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which a process that dies lets go
        if not target.exists():
            unfinished = target.with_name(f"{target.stem}.{os.getpid()}{target.suffix}")
            run([*command, "-o", str(unfinished)])
            os.replace(unfinished, target)
    return target


def build(sources: Iterable[Path] = ()) -> Path:
    """Return the compiled module of the simulated device and further sources, .cu files among them."""
    import pybind11

    cxx = compiler()
    include = [HERE.parent, CSRC, Path(pybind11.get_include()), Path(sysconfig.get_path("include"))]
    flags = [*FLAGS, *(f"-I{path}" for path in include)]
    headers = sorted(
        path for root in (HERE, CSRC) for path in root.rglob("*") if path.suffix in {".hpp", ".cuh", ".inl"}
    )
    common = [run([*cxx, "--version"]), pybind11.__version__, sys.version, *flags, *map(str, headers)]
    shared = digest([*(text.encode() for text in common), *(path.read_bytes() for path in headers)])
    into = folder()

    def compiled(source: Path) -> Path:
        key = digest([shared.encode(), str(source).encode(), source.read_bytes()])
        return make(into / f"{source.stem}-{key}.o", [*cxx, *flags, "-x", "c++", "-c", str(source)])

    every = [*sorted(HERE.glob("*.cpp"), key=lambda path: path.name != "module.cpp"), *sources]
    with ThreadPoolExecutor(2) as pool:  # the longest first
        objects = list(pool.map(compiled, every))
    key = digest(path.name.encode() for path in objects)
    return make(into / f"{NAME}-{key}.so", [*cxx, "-shared", *map(str, objects), "-pthread"])


def load(sources: Iterable[Path] = ()) -> ModuleType:
    """Return the module, compiled if need be; skip the test where that cannot be done."""
    compiler()
    path = build(sources)
    if path in loaded:  # what a module registers, it registers once
        return loaded[path]
    # pybind11 makes one module of a name, so that modules of other sources need another before the dot.
    spec = importlib.util.spec_from_file_location(f"{path.stem}.{NAME}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded[path] = module
    return module
