"""Pure functions from states or arrays to small frozen results."""

from gradtail.estimators.autocorrelation import autocorrelation
from gradtail.estimators.autocorrelation_result import Autocorrelation
from gradtail.estimators.batch_order import batch_order
from gradtail.estimators.batch_order_result import BatchOrder
from gradtail.estimators.blocks import hill_blocks, hill_curve_blocks
from gradtail.estimators.clip import ClipRate, ClipSuggestion, clip_rate, suggest_clip
from gradtail.estimators.coordinate_autocorrelation import (
    CoordinateAutocorrelation,
    coordinate_autocorrelation,
)
from gradtail.estimators.cosines import StepCosines, step_cosines
from gradtail.estimators.estimate import HillCurve, Slide, TailEstimate
from gradtail.estimators.noise_scale import (
    NoiseScale,
    noise_scale,
    noise_scale_from_batches,
    noise_scale_from_micro,
)
from gradtail.estimators.policy_result import SamplingPolicy
from gradtail.estimators.quantile import QuantileEstimate, quantile_blocks
from gradtail.estimators.sampling_policy import sampling_policy
from gradtail.estimators.spectrum import CovarianceSpectrum, covariance_spectrum
from gradtail.estimators.stable import (
    IterateIndex,
    StableEstimate,
    stable_index,
    stable_index_iterates,
    stable_index_noise,
)
from gradtail.estimators.tail import hill, hill_curve
from gradtail.estimators.weight_variance import weight_variances
from gradtail.estimators.weight_variance_result import WeightVariances

__all__ = [
    "Autocorrelation",
    "BatchOrder",
    "ClipRate",
    "ClipSuggestion",
    "CoordinateAutocorrelation",
    "CovarianceSpectrum",
    "HillCurve",
    "IterateIndex",
    "NoiseScale",
    "QuantileEstimate",
    "SamplingPolicy",
    "Slide",
    "StableEstimate",
    "StepCosines",
    "TailEstimate",
    "WeightVariances",
    "autocorrelation",
    "batch_order",
    "clip_rate",
    "coordinate_autocorrelation",
    "covariance_spectrum",
    "hill",
    "hill_blocks",
    "hill_curve",
    "hill_curve_blocks",
    "noise_scale",
    "noise_scale_from_batches",
    "noise_scale_from_micro",
    "quantile_blocks",
    "sampling_policy",
    "stable_index",
    "stable_index_iterates",
    "stable_index_noise",
    "step_cosines",
    "suggest_clip",
    "weight_variances",
]
