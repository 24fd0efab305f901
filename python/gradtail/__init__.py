"""What stochastic gradients look like, in one streaming pass over a training run."""

from gradtail import theory
from gradtail.build import __version__, build_info, set_num_threads
from gradtail.estimators import (
    clip_rate,
    hill,
    hill_blocks,
    hill_curve,
    hill_curve_blocks,
    normality,
    powerlaw,
    quantile_blocks,
    spectrum,
    stable_index,
    stable_index_iterates,
    stable_index_noise,
    suggest_clip,
)
from gradtail.states.summary import Summary, summarize
from gradtail.stream import GradientStream

__all__ = [
    "GradientStream",
    "Summary",
    "__version__",
    "build_info",
    "clip_rate",
    "hill",
    "hill_blocks",
    "hill_curve",
    "hill_curve_blocks",
    "normality",
    "powerlaw",
    "quantile_blocks",
    "set_num_threads",
    "spectrum",
    "stable_index",
    "stable_index_iterates",
    "stable_index_noise",
    "suggest_clip",
    "summarize",
    "theory",
]
