"""The index of a symmetric stable law, and of gradient noise, by how sums of values grow."""

from gradtail.estimators.stable.blocks import BlockCurve
from gradtail.estimators.stable.index import stable_index
from gradtail.estimators.stable.iterates import IterateIndex, stable_index_iterates
from gradtail.estimators.stable.noise import stable_index_noise
from gradtail.estimators.stable.result import Control, StableEstimate

__all__ = [
    "BlockCurve",
    "Control",
    "IterateIndex",
    "StableEstimate",
    "stable_index",
    "stable_index_iterates",
    "stable_index_noise",
]
