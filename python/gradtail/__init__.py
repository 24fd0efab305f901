"""What stochastic gradients look like, in one streaming pass over a training run."""

from gradtail.build import build_info, set_num_threads, version
from gradtail.states.summary import Summary, summarize
from gradtail.stream import GradientStream

__version__ = version()
__all__ = ["GradientStream", "Summary", "build_info", "set_num_threads", "summarize"]
