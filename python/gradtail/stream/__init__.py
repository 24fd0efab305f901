"""GradientStream: the gradients of a training run, step after step, in bounded memory."""

from gradtail.states.timeline import Block
from gradtail.stream.latest import Latest
from gradtail.stream.state import NonFinite
from gradtail.stream.stream import GradientStream

__all__ = ["Block", "GradientStream", "Latest", "NonFinite"]
