"""What theory says of stochastic gradients: closed forms and simulators, apart from any gradient."""

from gradtail.theory import epochs, least_squares, levy

__all__ = ["epochs", "least_squares", "levy"]
