"""A search for eigenvalues on disk, to be gone on with later."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from gradtail.torch.lanczos import Lanczos

_FORMAT = 2
_EVERY = 60.0  # seconds
_SHARE = 20.0  # writing takes at most one part in so many of the time


class LanczosFile:
    """Saves a solver, and loads it into one for the same problem.

    Parameters
    ----------
    path : Path
    identity : dict
        What makes a problem the same: numbers and text by name.
    near : dict
        How far numbers may be from those in the file, by name; all else is to be equal.

    Raises
    ------
    ValueError
        Its folder does not exist.
    """

    def __init__(self, path: Path, identity: dict[str, Any], near: dict[str, float]) -> None:
        if not path.parent.is_dir():
            raise ValueError(f"checkpoint: expected a file in a folder that exists, got {path}")
        self._path, self._identity, self._near = path, identity, near
        self._last, self._took = time.perf_counter(), 0.0

    def load(self, solver: Lanczos) -> bool:
        """Go on from the file, if there is one.

        Raises
        ------
        ValueError
            It is no checkpoint, or that of another problem.
        """
        if not self._path.exists():
            return False
        try:
            found = torch.load(self._path, weights_only=True, map_location="cpu")
            kind = found["format"]
        except Exception as error:
            raise ValueError(
                f"checkpoint: expected a file of an earlier search, got {self._path} ({error})"
            ) from None
        if kind != _FORMAT:
            raise ValueError(f"checkpoint: expected format {_FORMAT}, got {kind!r} in {self._path}")
        for name, own in self._identity.items():
            saved = found["identity"].get(name)
            if not _same(saved, own, self._near.get(name)):
                raise ValueError(
                    f"checkpoint: expected one of the same problem, got another {name} in {self._path} "
                    f"({saved!r:.60} and not {own!r:.60})"
                )
        solver.load_state_dict(found["state"])
        return True

    def save(self, solver: Lanczos) -> None:
        """Write the file anew; an earlier one stays until the new one is whole."""
        began = time.perf_counter()
        beside = self._path.with_name(self._path.name + ".new")
        torch.save({"format": _FORMAT, "identity": self._identity, "state": solver.state_dict()}, beside)
        os.replace(beside, self._path)
        self._last = time.perf_counter()
        self._took = self._last - began

    def save_now_and_then(self, solver: Lanczos) -> None:
        """Write it if it is time to."""
        if time.perf_counter() - self._last >= max(_EVERY, _SHARE * self._took):
            self.save(solver)


def _same(saved: Any, own: Any, near: float | None) -> bool:
    if near is not None and isinstance(saved, float):
        return abs(saved - own) <= near or (math.isnan(saved) and math.isnan(own))
    return bool(saved == own)
