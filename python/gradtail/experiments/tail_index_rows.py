"""What `gradtail reproduce tail-index` varies; the command line reads this."""

from __future__ import annotations

SWEEPS = ("width", "depth", "batch-size", "channels")
FULLY_CONNECTED, CONVOLUTIONAL = "fully connected", "convolutional"
CROSS_ENTROPY, HINGE = "cross-entropy", "linear hinge"
LOSSES = (CROSS_ENTROPY, HINGE)
WIDTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
DEPTHS = tuple(range(2, 11))
BATCHES = (10, 20, 50, 100, 200, 500)
CHANNELS = (4, 8, 16, 32)
WIDTH, DEPTH = 128, 3
"""Where they are not varied."""
