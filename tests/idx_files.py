"""Files of MNIST's form, of images that a small network learns at once."""

import gzip
import struct

import numpy as np


def write_idx(folder, n=40, side=28, zipped=False, seed=0):
    """Files of MNIST's form: a bright square whose place is the label."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for images, labels in (
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ):
        y = rng.integers(0, 10, n).astype(np.uint8)
        x = rng.integers(0, 60, (n, side, side)).astype(np.uint8)
        for image, label in zip(x, y, strict=True):
            image[2 + 2 * label : 5 + 2 * label, 2 + 2 * label : 5 + 2 * label] = 255
        for name, head, values in (
            (images, struct.pack(">4i", 2051, n, side, side), x), (labels, struct.pack(">2i", 2049, n), y),
        ):  # fmt: skip
            content = head + values.tobytes()
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder
