"""CIFAR-10 from a folder of its files, in any of the forms in which it is passed on."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Part: TypeAlias = tuple[Bytes, Bytes]

_SIDE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIDE * _SIDE
_FORMS = (
    ("data_batch_*.bin", "test_batch.bin"),  # "binary version"
    ("data_batch_[1-5]", "test_batch"),  # "python version"
    ("cifar10_train_batch*.npz", "cifar10_test_batch.npz"),  # differences of pixels, which pack better
)
_SAFE = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
}  # fmt: skip


def find_cifar(folder: Path) -> tuple[list[Path], Path] | None:
    """Return the training files and the test file of a folder; None if it holds none."""
    for train, test in _FORMS:
        files = sorted(file for file in folder.glob(train) if file.is_file())
        if files and (folder / test).is_file():
            return files, folder / test
    return None


def read_cifar(files: list[Path]) -> Part:
    """Read images, uint8 of shape (n, 3, 32, 32), and labels, uint8 of shape (n,).

    Raises
    ------
    ValueError
        A file of another form.
    """
    parts = [_read(file) for file in files]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read(file: Path) -> Part:
    if file.suffix == ".bin":
        content = np.frombuffer(file.read_bytes(), np.uint8)
        if not content.size or content.size % (_PIXELS + 1):
            raise ValueError(f"data: expected records of {_PIXELS + 1} bytes, got {content.size} in {file}")
        rows = content.reshape(-1, _PIXELS + 1)
        return _images(rows[:, 1:], file), rows[:, 0].copy()
    if file.suffix == ".npz":
        return _differences(file)
    found = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").read(file)
    return _images(found["data"], file), np.array(found["labels"], np.uint8)


def _images(rows: Any, file: Path) -> Bytes:
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (_PIXELS,):
        raise ValueError(f"data: expected uint8 rows of {_PIXELS} pixels, got something else in {file}")
    return rows.reshape(-1, _CHANNELS, _SIDE, _SIDE)


def _differences(file: Path) -> Part:
    """Read planes G, R - G and B - G, each differenced along rows and columns, all modulo 256."""
    with np.load(file, allow_pickle=False) as found:
        if not {"delta_u8", "labels"} <= set(found.files):
            raise ValueError(f"data: expected arrays delta_u8 and labels, got {found.files} in {file}")
        delta, labels = found["delta_u8"], found["labels"]
    if delta.dtype != np.uint8 or delta.ndim != 4 or delta.shape[::2] != (_CHANNELS, _SIDE):
        raise ValueError(f"data: expected uint8 of shape (3, n, 32, 32), got {delta.shape} in {file}")
    green, red, blue = delta.cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8)
    return np.stack([red + green, green, blue + green], axis=1), labels.astype(np.uint8)


class _Unpickler(pickle.Unpickler):
    """Makes NumPy arrays and plain containers alone: a pickle may name any function to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} is none")
        return super().find_class(module, name)

    def read(self, file: Path) -> dict[str, Any]:
        try:
            found = self.load()
            named = {key.decode() if isinstance(key, bytes) else str(key): found[key] for key in found}
        except Exception as error:
            raise ValueError(
                f"data: expected a pickle of arrays and labels, got another in {file} ({error})"
            ) from None
        if not {"data", "labels"} <= set(named):
            raise ValueError(f"data: expected data and labels, got {sorted(named)} in {file}")
        return named
