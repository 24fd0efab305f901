from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradtail
from gradtail.build import build_info

from . import harness

harness.keep_freed_memory()
_TABLE = harness.Table()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--markdown", type=Path, help="write the table to this file")
    parser.addoption("--hold-goals", action="store_true", help="fail if a goal is missed")
    parser.addoption("--largest", type=float, default=1e8, help="most elements of an array (default 1e8)")


@pytest.fixture(scope="session")
def table() -> harness.Table:
    return _TABLE


@pytest.fixture(scope="session")
def largest(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--largest"))


@pytest.fixture(scope="session")
def pool() -> np.ndarray[Any, np.dtype[np.float32]]:
    """A million Student-t(3) values of the size of gradients, repeated where more are needed."""
    return (np.random.default_rng(0).standard_t(3, 1 << 20) * 1e-3).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), build_info()["threads"]
    torch.set_num_threads(1)
    gradtail.set_num_threads(1)
    yield
    torch.set_num_threads(threads[0])
    gradtail.set_num_threads(threads[1])


def hardware() -> str:
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    info = build_info()
    return (
        f"{name}, {os.cpu_count()} cores, {info['simd']}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, NumPy {np.__version__}, gradtail {info['version']}; "
        f"{datetime.date.today().isoformat()}"
    )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    missed = [row for row in _TABLE.rows if row.met is False]
    if session.config.getoption("--hold-goals") and missed and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not _TABLE.rows:
        return
    text = f"{hardware()}\n\n{_TABLE.markdown()}"
    terminalreporter.write_sep("=", "ratios, measured side by side")
    terminalreporter.write_line(text)
    path = config.getoption("--markdown")
    if path:
        path.write_text(text)
