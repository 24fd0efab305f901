"""gradtail for people who train with PyTorch: the only part that imports torch."""

from gradtail.torch.collect import collect_gradients
from gradtail.torch.collection import GradientCollection
from gradtail.torch.hessian import hessian_spectrum
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.merging import merge_states
from gradtail.torch.monitor import Monitor

__all__ = [
    "GradientCollection",
    "HessianSpectrum",
    "Monitor",
    "collect_gradients",
    "hessian_spectrum",
    "merge_states",
]
