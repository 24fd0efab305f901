"""The one place that chooses who does the pass."""

from __future__ import annotations

from types import ModuleType

from gradtail import native as extension
from gradtail.backends import numpy as specification

if extension.core is not None:
    from gradtail.backends import native

    _BACKENDS: dict[str, ModuleType] = {"native": native, "numpy": specification}
else:
    _BACKENDS = {"numpy": specification}


def available() -> list[str]:
    """Names of the backends of this build, the preferred one first."""
    return list(_BACKENDS)


def resolve(name: str | None) -> ModuleType:
    """Return a backend by name; None takes the preferred one.

    Raises
    ------
    TypeError
        Not a name.
    ValueError
        This build has no such backend.
    """
    if name is None:
        return next(iter(_BACKENDS.values()))
    if not isinstance(name, str):
        raise TypeError(f"backend: expected one of {available()}, got {type(name).__name__}")
    if name not in _BACKENDS:
        why = f" ({extension.error})" if name == "native" else ""
        raise ValueError(f"backend: expected one of {available()}, got {name!r}{why}")
    return _BACKENDS[name]
