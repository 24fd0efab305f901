"""What theory says of stochastic gradients: closed forms and simulators, apart from any gradient."""

from gradtail.theory import least_squares, levy

__all__ = ["least_squares", "levy"]
