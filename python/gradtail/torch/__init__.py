"""gradtail for people who train with PyTorch: the only part that imports torch."""

from gradtail.torch.collect import collect_gradients
from gradtail.torch.collection import GradientCollection
from gradtail.torch.merging import merge_states
from gradtail.torch.monitor import Monitor

__all__ = ["GradientCollection", "Monitor", "collect_gradients", "merge_states"]
