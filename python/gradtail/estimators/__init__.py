"""Pure functions from states or arrays to small frozen results."""

from gradtail.estimators.blocks import hill_blocks, hill_curve_blocks
from gradtail.estimators.estimate import HillCurve, Slide, TailEstimate
from gradtail.estimators.tail import hill, hill_curve

__all__ = ["HillCurve", "Slide", "TailEstimate", "hill", "hill_blocks", "hill_curve", "hill_curve_blocks"]
