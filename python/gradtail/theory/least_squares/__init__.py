"""SGD on least squares: when the law of its iterates has a heavy tail, in theory and by simulation."""

from gradtail.theory.least_squares.ensemble import averaged_index, simulate
from gradtail.theory.least_squares.ensemble_result import AveragedIndex, Ensemble
from gradtail.theory.least_squares.gaussian import (
    NoStationaryLawError,
    eta_crit,
    eta_max,
    lyapunov,
    moment,
    tail_index,
)
from gradtail.theory.least_squares.given import Estimate, data_lyapunov, data_moment, data_tail_index
from gradtail.theory.least_squares.sweep import Sweep, sweep

__all__ = [
    "AveragedIndex",
    "Ensemble",
    "Estimate",
    "NoStationaryLawError",
    "Sweep",
    "averaged_index",
    "data_lyapunov",
    "data_moment",
    "data_tail_index",
    "eta_crit",
    "eta_max",
    "lyapunov",
    "moment",
    "simulate",
    "sweep",
    "tail_index",
]
