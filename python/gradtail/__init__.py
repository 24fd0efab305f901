"""What stochastic gradients look like, in one streaming pass over a training run."""

from gradtail.states.summary import Summary, summarize

__all__ = ["Summary", "summarize"]
