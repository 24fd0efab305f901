"""Power laws in samples: fits, goodness of fit, and rivals."""

from gradtail.estimators.powerlaw.compare import RIVALS, Comparison
from gradtail.estimators.powerlaw.critical import critical_value
from gradtail.estimators.powerlaw.fit import fit
from gradtail.estimators.powerlaw.result import FitSpread, PowerLawFit, PValue

__all__ = ["RIVALS", "Comparison", "FitSpread", "PValue", "PowerLawFit", "critical_value", "fit"]
