"""gradtail for people who train with PyTorch: the only part that imports torch."""

from gradtail.torch.against import CovarianceAgainstHessian, covariance_against_hessian
from gradtail.torch.collect import collect_gradients
from gradtail.torch.collection import GradientCollection
from gradtail.torch.density import hessian_density, hessian_trace
from gradtail.torch.density_result import SpectralDensity, TraceEstimate
from gradtail.torch.directions import Directions, Trajectory
from gradtail.torch.examples import project_examples
from gradtail.torch.hessian import hessian_spectrum
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.merging import merge_states
from gradtail.torch.monitor import Monitor

__all__ = [
    "CovarianceAgainstHessian",
    "Directions",
    "GradientCollection",
    "HessianSpectrum",
    "Monitor",
    "SpectralDensity",
    "TraceEstimate",
    "Trajectory",
    "collect_gradients",
    "covariance_against_hessian",
    "hessian_density",
    "hessian_spectrum",
    "hessian_trace",
    "merge_states",
    "project_examples",
]
