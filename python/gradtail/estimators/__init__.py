"""Pure functions from states or arrays to small frozen results."""

from gradtail.estimators.blocks import hill_blocks, hill_curve_blocks
from gradtail.estimators.clip import ClipRate, ClipSuggestion, clip_rate, suggest_clip
from gradtail.estimators.estimate import HillCurve, Slide, TailEstimate
from gradtail.estimators.quantile import QuantileEstimate, quantile_blocks
from gradtail.estimators.spectrum import CovarianceSpectrum, covariance_spectrum
from gradtail.estimators.stable import (
    IterateIndex,
    StableEstimate,
    stable_index,
    stable_index_iterates,
    stable_index_noise,
)
from gradtail.estimators.tail import hill, hill_curve

__all__ = [
    "ClipRate",
    "ClipSuggestion",
    "CovarianceSpectrum",
    "HillCurve",
    "IterateIndex",
    "QuantileEstimate",
    "Slide",
    "StableEstimate",
    "TailEstimate",
    "clip_rate",
    "covariance_spectrum",
    "hill",
    "hill_blocks",
    "hill_curve",
    "hill_curve_blocks",
    "quantile_blocks",
    "stable_index",
    "stable_index_iterates",
    "stable_index_noise",
    "suggest_clip",
]
