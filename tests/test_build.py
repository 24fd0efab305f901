"""build_info, threads, and what the compiled extension lets out."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import gradtail
from gradtail import build, native
from gradtail.build import build_info, format_build_info, set_num_threads

needs_native = pytest.mark.skipif(native.core is None, reason="no native extension")

PROBE = {
    "built": True,
    "architectures": "sm_80 sm_90 compute_90",
    "runtime": 13000,
    "driver": 13010,
    "status": 0,
    "message": "",
    "devices": [],
}
H200 = {"name": "NVIDIA H200", "compute_capability": (9, 0), "memory": 139 * 2**30}


class Core:
    """An extension whose machine is made up."""

    def __init__(self, **probe):
        self._probe = PROBE | probe

    def probe(self):
        return self._probe

    def simd(self):
        return "avx2"

    def num_threads(self):
        return 4


@pytest.fixture
def restore_threads():
    before = build.num_threads()
    yield
    set_num_threads(before)


def run_python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_keys_and_types():
    info = build_info()
    keys = "native cuda cuda_archs cuda_runtime driver devices reason simd threads version"
    assert list(info) == keys.split()
    assert info["native"] is (native.core is not None)
    assert isinstance(info["cuda"], bool)
    assert all(arch.startswith(("sm_", "compute_")) for arch in info["cuda_archs"])
    assert bool(info["cuda_archs"]) is info["cuda"]
    assert info["threads"] >= 1
    assert info["version"] == version("gradtail") == gradtail.__version__


def test_either_a_device_or_a_reason():
    info = build_info()
    assert (info["reason"] is None) is bool(info["devices"])


@needs_native
def test_simd_is_one_that_this_machine_runs():
    assert build_info()["simd"] in native.core.simd_levels()


@pytest.mark.parametrize(
    ("probe", "visible", "reason"),
    [
        ({"built": False}, None, "built without CUDA"),
        ({"driver": 0, "status": 35}, None, "no NVIDIA driver on this machine"),
        (
            {"driver": 12080, "status": 35},
            None,
            "the NVIDIA driver is too old: it supports CUDA 12.8, this build needs 13.0 "
            "(driver release 580 or newer)",
        ),
        (
            {"runtime": 12090, "driver": 11080, "status": 35},
            None,
            "the NVIDIA driver is too old: it supports CUDA 11.8, this build needs 12.0 "
            "(driver release 525 or newer)",
        ),
        ({"status": 100}, None, "no GPU visible"),
        ({"status": 0}, None, "no GPU visible"),
        ({"status": 100}, "7", "no GPU visible: CUDA_VISIBLE_DEVICES=7"),
        (
            {"status": 100},
            "",
            "no GPU visible: CUDA_VISIBLE_DEVICES is set and empty, which hides every one",
        ),
        (
            {"status": 999, "message": "unknown error"},
            None,
            "the CUDA runtime reports error 999, unknown error",
        ),
        ({"devices": [H200]}, None, None),
        # minor versions of one major version work together, in both directions
        ({"runtime": 12090, "driver": 12000, "devices": [H200]}, None, None),
    ],
)
def test_reason(monkeypatch, probe, visible, reason):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(native, "core", Core(**probe))
    info = build_info()
    assert info["reason"] == reason
    assert info["native"]


def test_reason_without_extension(monkeypatch):
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    info = build_info()
    assert info["reason"] == "built without the native extension (pure NumPy package)"
    assert (info["native"], info["cuda"], info["simd"], info["driver"]) == (False, False, None, None)
    assert "NumPy does the work" in format_build_info()


def test_reason_with_an_extension_that_is_not_in_use(monkeypatch):
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(native, "error", "switched off by GRADTAIL_BACKEND=numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert build_info()["reason"] == "no native extension: switched off by GRADTAIL_BACKEND=numpy"


def test_text_for_a_gpu(monkeypatch):
    monkeypatch.setattr(native, "core", Core(devices=[H200]))
    assert format_build_info().splitlines()[1:] == [
        "native    yes (avx2, 4 threads)",
        "cuda      compiled with 13.0 for sm_80 sm_90 compute_90",
        "driver    supports CUDA 13.1",
        "gpu 0     NVIDIA H200, sm_90, 139.0 GiB",
    ]


def test_text_says_why_there_is_no_gpu():
    info = build_info()
    if info["reason"] is not None:
        assert format_build_info(info).endswith(f"none: {info['reason']}")


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("core", [pytest.param(True, marks=needs_native), False])
def test_set_num_threads(monkeypatch, core):
    if not core:
        monkeypatch.setattr(native, "core", None)
    set_num_threads(3)
    assert build_info()["threads"] == 3
    set_num_threads(np.int64(1))
    assert build_info()["threads"] == 1


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n: expected a positive int, got 0"),
        (-2, ValueError, "n: expected a positive int, got -2"),
        (10**12, ValueError, "n: expected at most 1024 threads, got 1000000000000"),
        (2.0, TypeError, "n: expected a positive int, got 2.0"),
        (True, TypeError, "n: expected a positive int, got True"),
        (None, TypeError, "n: expected a positive int, got None"),
        ("2", TypeError, "n: expected a positive int, got '2'"),
    ],
)
def test_refused_number_of_threads(n, error, message):
    before = build_info()["threads"]
    with pytest.raises(error) as caught:
        set_num_threads(n)
    assert str(caught.value) == message
    assert build_info()["threads"] == before


@pytest.mark.parametrize("backend", ["", "numpy"])
def test_number_of_threads_from_the_environment(backend):
    code = "from gradtail import build_info; print(build_info()['threads'])"
    assert run_python(code, GRADTAIL_NUM_THREADS="3", GRADTAIL_BACKEND=backend) == "3"


@pytest.mark.parametrize("text", ["0", "-1", "many", ""])
def test_pure_build_ignores_what_is_no_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("GRADTAIL_NUM_THREADS", text)
    assert build._threads_asked_for() == 1


@needs_native
def test_extension_exports_its_entry_point_only():
    nm = shutil.which("nm")
    if nm is None or not sys.platform.startswith("linux"):
        pytest.skip("needs nm, on Linux")
    listing = subprocess.run(
        [nm, "-D", "--defined-only", native.core.__file__], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == ["PyInit__core"]


@needs_native
def test_extension_needs_no_cuda_torch_or_python_library():
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("needs readelf")
    listing = subprocess.run(
        [readelf, "-d", native.core.__file__], capture_output=True, text=True, check=True
    )
    needed = [line.split("[")[1].rstrip("]") for line in listing.stdout.splitlines() if "(NEEDED)" in line]
    assert needed
    assert not [name for name in needed if name.startswith(("libcu", "libtorch", "libc10", "libpython"))]


def test_tests_run_on_the_installed_package():
    """A plain `pytest` must not import the source tree, which would hide a broken install."""
    source = Path(__file__).resolve().parent.parent / "python" / "gradtail"
    if (Path(gradtail.__file__).parent == source) and native.core is None:
        pytest.fail(f"gradtail: expected the installed package, got the source tree {source}")
