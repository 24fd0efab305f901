"""Fixtures shared by all tests: every test of a number runs on every backend of this build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gradtail import backends
from gradtail import native as extension

settings.register_profile(
    "gradtail",
    deadline=None,  # two shared cores
    derandomize=True,  # the same examples on every machine and run
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
)
settings.load_profile("gradtail")

_NO_NATIVE = f"needs the native extension: {extension.error}"


@pytest.fixture(scope="session", params=backends.available())
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend. Session-scoped, so that hypothesis tests may use it."""
    return str(request.param)


@pytest.fixture(scope="session")
def core() -> Any:
    """Return the compiled extension."""
    if extension.core is None:
        pytest.skip(_NO_NATIVE)
    return extension.core


@pytest.fixture(scope="session")
def torch() -> Any:
    """torch, imported late: tests that use it have it in their name (``-k "not torch"``)."""
    return pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")


_LEVELS = extension.core.simd_levels() if extension.core is not None else ["none"]


@pytest.fixture(scope="class", params=_LEVELS)
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the native pass with one instruction set; the former one is put back."""
    if extension.core is None:
        pytest.skip(_NO_NATIVE)
    before = extension.core.simd()
    extension.core.set_simd(request.param)
    yield str(request.param)
    extension.core.set_simd(before)


@pytest.fixture(scope="class")
def threads(core: Any) -> Iterator[Any]:
    """Return ``set_num_threads``; the former number is put back."""
    before = core.num_threads()
    yield core.set_num_threads
    core.set_num_threads(before)


@pytest.fixture(scope="session")
def simulated() -> Any:
    """Return the engine of the CUDA backend with its kernels, on a device that is simulated."""
    if extension.core is None:
        pytest.skip("the simulated device belongs to builds with native code")
    from simulated import build

    sources = [*build.engine_sources(), build.CSRC / "cuda" / "kernels.cu", *build.HERE.glob("engine/*.cpp")]
    return build.load(sources)
