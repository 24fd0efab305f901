"""The compiled extension, or None: the only import of ``_core``."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

core: ModuleType | None
error: str | None = None
"""Why there is no extension, in words."""

if os.environ.get("GRADTAIL_BACKEND") == "numpy":
    core, error = None, "switched off by GRADTAIL_BACKEND=numpy"
else:
    try:
        core = importlib.import_module("gradtail._core")
    except ModuleNotFoundError:
        core, error = None, "built without it (pure NumPy package)"
    except ImportError as failure:
        core, error = None, f"it does not load: {failure}"
