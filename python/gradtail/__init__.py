"""What stochastic gradients look like, in one streaming pass over a training run."""

from gradtail import theory
from gradtail.build import __version__, build_info, set_num_threads
from gradtail.estimators import (
    autocorrelation,
    clip_rate,
    coordinate_autocorrelation,
    hill,
    hill_blocks,
    hill_curve,
    hill_curve_blocks,
    noise_scale,
    noise_scale_from_batches,
    noise_scale_from_micro,
    normality,
    powerlaw,
    quantile_blocks,
    sampling_policy,
    spectrum,
    stable_index,
    stable_index_iterates,
    stable_index_noise,
    suggest_clip,
    weight_variances,
)
from gradtail.states.summary import Summary, summarize
from gradtail.stream import GradientStream

__all__ = [
    "GradientStream",
    "Summary",
    "__version__",
    "autocorrelation",
    "build_info",
    "clip_rate",
    "coordinate_autocorrelation",
    "hill",
    "hill_blocks",
    "hill_curve",
    "hill_curve_blocks",
    "noise_scale",
    "noise_scale_from_batches",
    "noise_scale_from_micro",
    "normality",
    "powerlaw",
    "quantile_blocks",
    "sampling_policy",
    "set_num_threads",
    "spectrum",
    "stable_index",
    "stable_index_iterates",
    "stable_index_noise",
    "suggest_clip",
    "summarize",
    "theory",
    "weight_variances",
]
