"""The compiled extension, or None: the only import of ``_core``."""

from __future__ import annotations

import importlib
import os
import warnings
from functools import lru_cache
from types import ModuleType

core: ModuleType | None
error: str | None = None
"""Why there is no extension, in words."""

if os.environ.get("GRADTAIL_BACKEND") == "numpy":
    core, error = None, "switched off by GRADTAIL_BACKEND=numpy"
else:
    try:
        core = importlib.import_module("gradtail._core")
    except ImportError as failure:
        if isinstance(failure, ModuleNotFoundError) and failure.name == "gradtail._core":
            core, error = None, "built without it (pure NumPy package)"
        else:
            core, error = None, f"it does not load: {failure}"
            warnings.warn(  # not an ImportWarning: those are hidden
                f"gradtail: the native extension does not load, NumPy is used instead: {failure}",
                RuntimeWarning,
                stacklevel=2,
            )

engine: ModuleType | None = core if core is not None and hasattr(core, "Engine") else None
"""The extension if it has the engine for CUDA devices, else None."""


@lru_cache(maxsize=1)
def has_devices() -> bool:
    """Whether there is a CUDA device; asked once, and only when an array on one comes along."""
    return core is not None and bool(core.probe()["devices"])
