"""gradtail for people who train with PyTorch: the only part that imports torch."""

from gradtail.torch.collect import collect_gradients
from gradtail.torch.collection import GradientCollection
from gradtail.torch.density import hessian_density, hessian_trace
from gradtail.torch.density_result import SpectralDensity, TraceEstimate
from gradtail.torch.hessian import hessian_spectrum
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.merging import merge_states
from gradtail.torch.monitor import Monitor

__all__ = [
    "GradientCollection",
    "HessianSpectrum",
    "Monitor",
    "SpectralDensity",
    "TraceEstimate",
    "collect_gradients",
    "hessian_density",
    "hessian_spectrum",
    "hessian_trace",
    "merge_states",
]
