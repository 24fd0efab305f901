"""What the study of Hessian spectra can vary, and the values, those in print; the command line reads this."""

from __future__ import annotations

NETWORKS = "networks"
"""No sweep: the networks of the study, random and trained."""

LANGUAGE = "language"
SWEEPS = (
    "optimizer", "batch-size", "train-size", "label-noise", "width", "depth", "epochs", LANGUAGE,
)  # fmt: skip

BATCHES = (128, 512, 640, 768, 1024, 8192, 16384, 32768, 50000, 60000)
TRAIN_SIZES = (600, 800, 1000, 3000, 6000)
RANDOM_LABELS = "random labels"
NOISES = ("0.4", "0.8", RANDOM_LABELS)
WIDTHS = (10, 20, 30, 50, 70, 100)
DEPTHS = (1, 2, 4)
EPOCHS = (1, 2, 3, 10, 20, 30, 50)
