"""What stochastic gradients look like, in one streaming pass over a training run."""

from gradtail.states.summary import Summary, summarize
from gradtail.stream import GradientStream

__all__ = ["GradientStream", "Summary", "summarize"]
