"""gradtail for people who train with PyTorch: the only part that imports torch."""

from gradtail.torch.merging import merge_states
from gradtail.torch.monitor import Monitor

__all__ = ["Monitor", "merge_states"]
