"""Images to classify: MNIST or CIFAR-10 from a folder of its files, or the digits that scikit-learn ships."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradtail.experiments.cifar import find_cifar, read_cifar

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IMAGES, _LABELS = 2051, 2049  # the magic numbers of idx files
_CLASSES = 10

DIGITS, MNIST, CIFAR = "digits", "MNIST", "CIFAR-10"
MNIST_SHA256 = "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"
"""Of the 60,000 training images of MNIST and their labels, byte by byte."""


@dataclass(frozen=True)
class Images:
    """Images and their labels, each channel with zero mean and unit variance over the training set.

    Attributes
    ----------
    name : str
    train, test : pair of Tensor
        float32 of shape (n, channels, side, side), int64 of shape (n,).
    sha256 : str
        Of the training images as they were read, and their labels.
    """

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    sha256: str

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return int(self.train[0].shape[-1])

    @property
    def channels(self) -> int:
        """Colours of a pixel: 1 or 3."""
        return int(self.train[0].shape[1])


def load_images(folder: Path | None, limit: int | None = None) -> Images:
    """Load MNIST or CIFAR-10 from a folder, or scikit-learn's digits without one.

    Parameters
    ----------
    folder : Path, optional
        With the four idx files of MNIST, gzipped or not, or with the batches of CIFAR-10 (its binary or
        Python version, or npz files of differences); fewer than five training batches will do.
    limit : int, optional
        Training images at most.

    Raises
    ------
    ValueError
        Files that are missing or of another form; in the voice of the option ``--data``.
    ImportError
        scikit-learn is not installed.
    """
    parts: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    if folder is None:
        name, parts = DIGITS, _digits()
    elif (batches := find_cifar(folder)) is not None:
        name, parts = CIFAR, {"train": read_cifar(batches[0]), "test": read_cifar([batches[1]])}
    else:
        name = f"images of {folder.name or folder}"  # other sets come in files of these names too
        parts = {
            part: (_idx(folder, images, _IMAGES), _idx(folder, labels, _LABELS))
            for part, (images, labels) in _FILES.items()
        }
    for part, (images, labels) in parts.items():
        _check(part, images, labels)
    images, labels = parts["train"]
    if name not in (DIGITS, CIFAR) and _sha256(images, labels) == MNIST_SHA256:
        name = MNIST
    if limit is not None:
        parts["train"] = images[:limit], labels[:limit]
    pixels = {part: x if x.ndim == 4 else x[:, None] for part, (x, _) in parts.items()}
    mean, spread = (
        take(pixels["train"], axis=(0, 2, 3), dtype=np.float64, keepdims=True) for take in (np.mean, np.std)
    )
    found = {
        part: (
            torch.from_numpy(((pixels[part] - mean) / spread).astype(np.float32)),
            torch.from_numpy(y.astype(np.int64)),
        )
        for part, (_, y) in parts.items()
    }
    return Images(name, found["train"], found["test"], _sha256(*parts["train"]))


def _sha256(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check(part: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    """Refuse files that are well-formed and still no images of ten classes."""
    if images.ndim not in (3, 4) or images.shape[-2] != images.shape[-1] or not len(images):
        raise ValueError(f"data: expected square images in the {part} files, got shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"data: expected as many labels as images in the {part} files, got {len(labels)} "
            f"and {len(images)}"
        )
    if labels.max() >= _CLASSES:
        raise ValueError(f"data: expected labels below {_CLASSES} in the {part} files, got {labels.max()}")
    if images.min() == images.max():
        raise ValueError(f"data: expected images that differ in the {part} files, got one value everywhere")


def _digits() -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].reshape(-1, 8, 8), y[order]
    cut = len(x) - 360
    return {"train": (x[:cut], y[:cut]), "test": (x[cut:], y[cut:])}


def _idx(folder: Path, name: str, magic: int) -> npt.NDArray[np.uint8]:
    """Read an idx file: a magic number and sizes, big-endian, and then the bytes."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    file = next((folder / one for one in names if (folder / one).is_file()), None)
    if file is None:
        raise ValueError(f"data: expected a folder with {name} or {name}.gz, got {folder}")
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise ValueError(f"data: expected an idx file of kind {magic}, got {file} of kind {found}")
    head = 4 * (magic % 256 + 1)
    if len(content) < head:
        raise ValueError(f"data: expected a head of {head} bytes, got {len(content)} bytes in {file}")
    sizes = [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1, magic % 256 + 1)]
    values = np.frombuffer(content, np.uint8, offset=4 * (len(sizes) + 1))
    if values.size != int(np.prod(sizes)):
        raise ValueError(f"data: expected {int(np.prod(sizes))} bytes of values, got {values.size} in {file}")
    return values.reshape(sizes)
