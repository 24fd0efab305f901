"""Tests of whether values have a normal law, on arrays, on states, and on many coordinates at once."""

from gradtail.estimators.normality.cells import pearson_chi2
from gradtail.estimators.normality.distance import ks_normal
from gradtail.estimators.normality.moments import dagostino, jarque_bera
from gradtail.estimators.normality.result import (
    NormalityTest,
    NormalityTests,
    RejectionRate,
    benjamini_hochberg,
)

__all__ = [
    "NormalityTest",
    "NormalityTests",
    "RejectionRate",
    "benjamini_hochberg",
    "dagostino",
    "jarque_bera",
    "ks_normal",
    "pearson_chi2",
]
