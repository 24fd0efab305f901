"""What theory says of stochastic gradients: closed forms and simulators, apart from any gradient."""

from gradtail.theory import epochs

__all__ = ["epochs"]
