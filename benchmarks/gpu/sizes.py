"""Sizes of the tensors that are measured."""

from __future__ import annotations

from gradtail.experiments.gpt import GPTConfig

GPT2 = GPTConfig(layers=12, heads=12, width=768, context=1024, vocabulary=50304)
"""GPT-2 with its 124 million parameters; the vocabulary is rounded up to a multiple of 64, as is usual."""

PASS_ELEMENTS, PASS_TENSORS = 10**9, 300
HOST_TENSORS = (300, 2000, 10_000)


def transformer_sizes(total: int = PASS_ELEMENTS, tensors: int = PASS_TENSORS) -> list[int]:
    """Divide ``total`` elements among tensors as a transformer does: a few large ones, many small ones.

    Twelve tensors a block (two norms, four matrices, each with a bias), an embedding of tokens and one of
    positions, and an output matrix, which takes up what is left. All but that are multiples of 64.
    """
    if tensors < 15:
        raise ValueError(f"tensors: expected at least 15, got {tensors}")
    blocks, rest = divmod(tensors - 3, 12)
    width = _width(total, blocks)
    matrix = width * width
    block = [
        width, width, 3 * matrix, 3 * width, matrix, width,
        width, width, 4 * matrix, 4 * width, 4 * matrix, width,
    ]  # fmt: skip
    sizes = [50_304 * width // 8 * 8, 1024 * width, *(block * blocks), *([width] * rest)]
    left = total - sum(sizes)
    if left < 1:
        raise ValueError(
            f"total: expected at least {sum(sizes) + 1} elements for {tensors} tensors, got {total}"
        )
    return [*sizes, left]


def _width(total: int, blocks: int) -> int:
    """Return the largest width, a multiple of 64, whose blocks and embeddings take 95 % of all at most."""
    width = 64
    while blocks * (12 * (width + 64) ** 2) + 52_000 * (width + 64) <= 0.95 * total:
        width += 64
    return width


def small_sizes(tensors: int) -> list[int]:
    """Sizes of many small tensors: what an update costs the host does not depend on them."""
    return [(64, 256, 1024, 4096)[i % 4] for i in range(tensors)]


def parameter_count(config: GPTConfig) -> int:
    """Parameters of :class:`gradtail.experiments.gpt.GPT`."""
    width = config.width
    block = 2 * width + 12 * width * width
    return (config.vocabulary + config.context) * width + config.layers * block + width
