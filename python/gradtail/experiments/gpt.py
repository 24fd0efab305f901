"""A small GPT over bytes, in plain PyTorch: what `gradtail demo` trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model; the defaults have 3.2 million parameters."""

    layers: int = 4
    heads: int = 4
    width: int = 256
    context: int = 128
    vocabulary: int = 256


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (batch, time, width) over the time so far."""
        batch, time, width = x.shape
        heads = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, width of a head)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return projected


class MLP(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map each position on its own."""
        mapped: Tensor = self.down(functional.gelu(self.up(x), approximate="tanh"))
        return mapped


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to what came in."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, bias=False)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class GPT(nn.Module):
    """A GPT-2 in small: pre-norm, learned positions, one matrix for the bytes going in and coming out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # Each block adds twice to the residual stream; GPT-2 keeps its variance from growing.
                onto_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                scale = (2 * self.config.layers) ** -0.5 if onto_residual else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map bytes (batch, time) to logits of the next byte (batch, time, vocabulary)."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy in nats of every byte after the first, tokens (batch, time + 1)."""
        logits = self(tokens[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    @torch.no_grad()
    def sample(self, prompt: bytes, length: int, *, temperature: float = 0.8, seed: int = 0) -> bytes:
        """Continue a prompt, which is not empty, by ``length`` bytes."""
        device = self.tokens.weight.device
        generator = torch.Generator().manual_seed(seed)
        text = list(prompt)
        for _ in range(length):
            window = torch.tensor([text[-self.config.context :]], device=device)
            logits = self(window)[0, -1].float().cpu()
            weights = functional.softmax(logits / temperature, dim=0)
            text.append(int(torch.multinomial(weights, 1, generator=generator)))
        return bytes(text)

    def parameter_count(self) -> int:
        """Count the parameters, the shared matrix once."""
        return sum(parameter.numel() for parameter in self.parameters())
