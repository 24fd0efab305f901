"""The one place that chooses who does the pass.

A backend is chosen by name when a summary or stream is made, and where the arrays lie is known when
they come. So the name says who reads host memory, and a :class:`Front` before each backend hands
arrays in device memory to whoever reads them there (:func:`gradtail.buffers.device_route`):
:mod:`gradtail.backends.cuda` where the extension was built for CUDA (streams have
:mod:`gradtail.stream.on_device` for that), else :mod:`gradtail.backends.namespace`, for CuPy arrays.
``backend="cupy"`` is that module by name; it reads arrays in host memory too, through NumPy.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import numpy.typing as npt

from gradtail import native as extension
from gradtail.backends import cuda, namespace
from gradtail.backends import numpy as specification
from gradtail.buffers import Views, device_route
from gradtail.states.outputs import Outputs
from gradtail.states.table import SummaryTable


class Front(ModuleType):
    """A backend for arrays in host memory; others are handed on to those who read them where they lie.

    Parameters
    ----------
    host : module
        The backend; its functions are looked up at each call.
    """

    def __init__(self, host: ModuleType) -> None:
        super().__init__(host.__name__, host.__doc__)
        self._host = host
        self.name = str(host.name)

    def _reader(self, views: Views) -> ModuleType:
        # Views that come together lie on one device: the first speaks for all.
        if len(views) and device_route(int(views.table["device"][0]), views.owners) == "namespace":
            return namespace
        return self._host

    def summarize(self, views: Views, table: SummaryTable) -> None:
        """Add every view to its row of ``table``, reading each value once."""
        (cuda if cuda.takes(views) else self._reader(views)).summarize(views, table)

    def observe(self, views: Views, table: SummaryTable, out: Outputs) -> None:
        """Do all that one pass can do; see :func:`gradtail.backends.numpy.observe`."""
        self._reader(views).observe(views, table, out)

    def sketch(self, views: Views, out: npt.NDArray[np.float64]) -> None:
        """Add the sketch of every view to ``out``, of shape (r,)."""
        self._reader(views).sketch(views, out)

    def update_coordinates(self, views: Views, pieces: npt.NDArray[np.void]) -> None:
        """Update the CoordinateMoments of every view: PIECE, shape (n_views,)."""
        self._reader(views).update_coordinates(views, pieces)

    def fold(self, into: SummaryTable, table: SummaryTable) -> None:
        """Add each row of ``table`` to the same row of ``into``."""
        self._host.fold(into, table)

    def clear(self, table: SummaryTable) -> None:
        """Empty every row of ``table``."""
        self._host.clear(table)


_BACKENDS: dict[str, ModuleType] = {}
if extension.core is not None:
    from gradtail.backends import native

    _BACKENDS["native"] = Front(native)
_BACKENDS["numpy"] = Front(specification)


def available() -> list[str]:
    """Names of the backends of this build, the preferred one first; "cupy" where CuPy is installed."""
    return [*_BACKENDS, *(["cupy"] if _has_cupy() else [])]


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
    if name == "cupy" and _has_cupy():
        return namespace
    if name not in _BACKENDS:
        why = {"native": f" ({extension.error})", "cupy": " (CuPy is not installed)"}.get(name, "")
        raise ValueError(f"backend: expected one of {available()}, got {name!r}{why}")
    return _BACKENDS[name]


def _has_cupy() -> bool:
    """Whether CuPy could be imported; it is not."""
    return sys.modules.get("cupy") is not None or importlib.util.find_spec("cupy") is not None
