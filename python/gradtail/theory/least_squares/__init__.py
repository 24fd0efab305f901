"""SGD on least squares: when the law of its iterates has a heavy tail, in theory and by simulation."""

from gradtail.theory.least_squares.gaussian import (
    NoStationaryLawError,
    eta_crit,
    eta_max,
    lyapunov,
    moment,
    tail_index,
)
