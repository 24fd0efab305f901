"""What this build of gradtail has, what it finds on this machine, and how many threads it uses."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import Any

import numpy as np

from gradtail import native

try:
    __version__ = importlib.metadata.version("gradtail")
except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

MAX_THREADS = 1024

_threads_without_core = 1

_NO_DEVICE = 100  # cudaErrorNoDevice
_MINIMUM_DRIVER = {12: "525", 13: "580"}  # release of the Linux driver that first runs CUDA x.0


def build_info() -> dict[str, Any]:
    """Say what this build has and why there is no GPU.

    Returns
    -------
    dict
        ``native`` : bool
            The compiled extension is in use; else everything runs on NumPy.
        ``cuda`` : bool
            It was compiled with CUDA.
        ``cuda_archs`` : list of str
            What the CUDA code was compiled for: ``sm_80`` is machine code, ``compute_120``
            also runs on anything newer.
        ``cuda_runtime`` : str or None
            Version of the CUDA runtime inside, e.g. "13.0".
        ``driver`` : str or None
            Newest CUDA version that the driver of this machine supports; None without a driver.
        ``devices`` : list of dict
            ``name``, ``compute_capability`` and ``memory`` (bytes) of each visible GPU.
        ``reason`` : str or None
            Why there is no GPU; None if there is one.
        ``simd`` : str or None
            Instruction set in use: "base", "avx2" or "avx512"; None without the extension.
        ``threads`` : int
            Most threads that one call uses.
        ``version`` : str
            Of the installed package.

    Notes
    -----
    The first call may take a moment on a machine with a GPU, because the driver wakes up.

    Examples
    --------
    >>> info = build_info()
    >>> info["reason"] is None or info["devices"] == []
    True
    """
    core = native.core
    probe: dict[str, Any] = {"built": False, "devices": []} if core is None else core.probe()
    return {
        "native": core is not None,
        "cuda": probe["built"],
        "cuda_archs": probe["architectures"].split() if probe["built"] else [],
        "cuda_runtime": _cuda_version(probe["runtime"]) if probe["built"] else None,
        "driver": _cuda_version(probe["driver"]) if probe["built"] else None,
        "devices": probe["devices"],
        "reason": _why_not_native() if core is None else _why_no_device(probe),
        "simd": None if core is None else core.simd(),
        "threads": num_threads(),
        "version": __version__,
    }


def format_build_info(info: dict[str, Any] | None = None) -> str:
    """Lay out :func:`build_info` for people.

    Parameters
    ----------
    info : dict, optional
        What :func:`build_info` returned; None asks it now.

    Returns
    -------
    str
        Lines of "name  value", without a newline at the end.
    """
    info = build_info() if info is None else info
    plural = "s" if info["threads"] != 1 else ""
    rows = [("gradtail", info["version"])]
    if info["native"]:
        rows.append(("native", f"yes ({info['simd']}, {info['threads']} thread{plural})"))
    else:
        rows.append(("native", "no, NumPy does the work"))
    if info["cuda"]:
        rows.append(("cuda", f"compiled with {info['cuda_runtime']} for {' '.join(info['cuda_archs'])}"))
        rows.append(("driver", f"supports CUDA {info['driver']}" if info["driver"] else "none"))
    else:
        rows.append(("cuda", "not compiled in"))
    for i, device in enumerate(info["devices"]):
        major, minor = device["compute_capability"]
        rows.append((f"gpu {i}", f"{device['name']}, sm_{major}{minor}, {device['memory'] / 2**30:.1f} GiB"))
    if info["reason"] is not None:
        rows.append(("gpu", f"none: {info['reason']}"))
    return "\n".join(f"{name:<10}{value}" for name, value in rows)


def num_threads() -> int:
    """Return the most threads that one call uses."""
    return _threads_without_core if native.core is None else int(native.core.num_threads())


def set_num_threads(n: int) -> None:
    """Set the most threads that one call uses, from the next call on.

    Results do not depend on it, to the bit. The environment variable ``GRADTAIL_NUM_THREADS``
    sets it at the start; without it every usable core works. The pure NumPy package remembers
    the number and runs on one thread.

    Parameters
    ----------
    n : int
        1 to 1024.

    Raises
    ------
    TypeError
        ``n`` is not an int.
    ValueError
        ``n`` is out of range.
    """
    global _threads_without_core
    if isinstance(n, (bool, np.bool_)) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n: expected a positive int, got {n!r}")
    if n < 1:
        raise ValueError(f"n: expected a positive int, got {n}")
    if n > MAX_THREADS:
        raise ValueError(f"n: expected at most {MAX_THREADS} threads, got {n}")
    if native.core is None:
        _threads_without_core = int(n)
    else:
        native.core.set_num_threads(int(n))


def _threads_asked_for() -> int:
    """Read ``GRADTAIL_NUM_THREADS`` as the extension does: what is no positive int counts as not set."""
    text = os.environ.get("GRADTAIL_NUM_THREADS", "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def _cuda_version(number: int) -> str | None:
    """Write 13000 as "13.0", and 0, which stands for none, as None."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _why_not_native() -> str:
    if importlib.util.find_spec("gradtail._core") is None:
        return "built without the native extension (pure NumPy package)"
    return f"no native extension: {native.error}"


def _why_no_device(probe: dict[str, Any]) -> str | None:
    """Put what the CUDA runtime reported into words; None if there is a GPU."""
    if not probe["built"]:
        return "built without CUDA"
    if probe["devices"]:
        return None
    runtime, driver, status = probe["runtime"], probe["driver"], probe["status"]
    if driver == 0:
        return "no NVIDIA driver on this machine"
    if driver // 1000 < runtime // 1000:
        major = runtime // 1000
        release = f" (driver release {_MINIMUM_DRIVER[major]} or newer)" if major in _MINIMUM_DRIVER else ""
        return (
            f"the NVIDIA driver is too old: it supports CUDA {_cuda_version(driver)}, "
            f"this build needs {major}.0{release}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return "no GPU visible: CUDA_VISIBLE_DEVICES is set and empty, which hides every one"
    if status in (0, _NO_DEVICE):
        return "no GPU visible" + (f": CUDA_VISIBLE_DEVICES={visible}" if visible is not None else "")
    return f"the CUDA runtime reports error {status}, {probe['message']}"


if native.core is None:
    _threads_without_core = _threads_asked_for()
