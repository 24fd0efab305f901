"""What watching costs a training step of a transformer with ten million parameters."""

from __future__ import annotations

import random
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradtail
from gradtail.torch import Monitor

from .harness import Row, Table, Work, compare

PASSES = (0, 2, 4, 8, 16)
ROUNDS = 10
CLIPS, FOLDED = "clip_grad_norm_, then step", "Monitor.clip_(into=optimizer), then step"
CLIPS, FOLDED = "clip_grad_norm_, then step", "Monitor.clip_(into=optimizer), then step"
VOCABULARY, WIDTH, LAYERS, CONTEXT, BATCH = 8192, 320, 6, 128, 8


class Transformer(nn.Module):
    """A language model with one matrix for the tokens going in and coming out; 10.06 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 5, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return functional.linear(self.layers(x, mask=mask, is_causal=True), self.tokens.weight)


def timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def slope(passes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Theil-Sen slope of seconds over passes, and half the width of its middle two thirds over rounds."""
    slopes = [
        (b - a) / (m - k)
        for i, (k, a) in enumerate(zip(passes, seconds, strict=True))
        for m, b in zip(passes[:i], seconds[:i], strict=True)
        if m != k
    ]
    low, high = np.quantile(slopes, [1 / 6, 5 / 6])
    return statistics.median(slopes), float(high - low) / 2 / ROUNDS**0.5


@pytest.mark.parametrize("threads", [2, 1])
def test_monitor_of_a_transformer(table: Table, threads: int) -> None:
    torch.set_num_threads(threads)
    gradtail.set_num_threads(threads)
    torch.manual_seed(0)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = torch.randint(VOCABULARY, (64, BATCH, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    monitor, watch = Monitor(model, optimizer), gradtail.GradientStream()
    inside: dict[str, list[float]] = {"Monitor.step": [], "clip_grad_norm_": [], "Monitor.clip_": []}
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step(number: int, extra: int, call: str) -> float:
        """One training step with ``extra`` passes, and beside them one call of a monitor or of torch."""
        begin = time.perf_counter()
        optimizer.zero_grad()
        batch = data[number % len(data)]
        logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        own = 0.0
        if call == "Monitor.step":
            own = timed(monitor.step)
        elif call == "Monitor.clip_":
            own = timed(lambda: monitor.clip_(1e6))
        elif call == "clip_grad_norm_":
            own = timed(lambda: nn.utils.clip_grad_norm_(parameters, 1e6))
        if call:
            inside[call].append(own)
        for _ in range(extra):
            watch.update({name: p.grad for name, p in model.named_parameters()})
        optimizer.step()
        return time.perf_counter() - begin - own

    number = 0
    for call in [*inside, "", ""]:  # warm up
        step(number, 1, call)
        number += 1
    for own in inside.values():
        own.clear()
    passes: list[int] = []
    seconds: list[float] = []
    order = random.Random(0)
    for _ in range(ROUNDS):
        for extra in order.sample(PASSES, len(PASSES)):
            passes.append(extra)
            seconds.append(step(number, extra, ""))
            number += 1
        for call in order.sample(list(inside), len(inside)) * 2:
            step(number, 0, call)
            number += 1
    alone = statistics.median(s for k, s in zip(passes, seconds, strict=True) if k == 0)
    group = f"transformer, {sum(p.numel() for p in parameters) / 1e6:.2f} M parameters, {threads} thread(s)"
    per_pass, error = slope(passes, seconds)
    table.add(Row(group, "a training step", alone, min(seconds), 0, 0, None))
    share, goal = per_pass / alone, 0.01
    case = f"everything on: {100 * share:.2f} % (+- {100 * error / alone:.2f}) of a step, by regression"
    table.add(Row(group, case, per_pass, per_pass, 0, 0, share, f"ratio <= {goal}", share <= goal))
    torch_share = statistics.median(inside["clip_grad_norm_"]) / alone
    for name, own in inside.items():
        p50, p99 = np.percentile(own, [50, 99])
        case = f"{name}: p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms, {100 * p50 / alone:.2f} % of a step"
        held = name == "Monitor.step"
        limit = f"ratio <= {torch_share:.4f}" if held else ""
        met = bool(p50 / alone <= torch_share) if held else None
        table.add(Row(group, case, float(p50), min(own), 0, 0, p50 / alone, limit, met))
    assert monitor.enabled
    assert watch.summary().nonfinite == 0
    assert float(monitor.grad_norm()) == pytest.approx(
        float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])), rel=0.5
    )


@pytest.mark.filterwarnings("ignore:gradtail. clip_. expected gradients that no optimizer has used")
@pytest.mark.parametrize("threads", [2, 1])
def test_clip_and_step(table: Table, threads: int) -> None:
    """Monitored training can be faster than training that clips by itself: the optimizer takes the factor."""
    torch.set_num_threads(threads)
    gradtail.set_num_threads(threads)
    works: dict[str, Work] = {}
    models: dict[str, nn.Module] = {}
    for name in (CLIPS, FOLDED):
        torch.manual_seed(0)
        model = models[name] = Transformer()
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        monitor = Monitor(model, optimizer) if name == FOLDED else None
        works[name] = partial(_clip_and_step, list(model.parameters()), optimizer, monitor)
    group = f"clip and fused AdamW step, 10.06 M parameters, {threads} thread(s)"
    compare(
        table, group, works, elements=0, bytes=0, reference=CLIPS, rounds=25, goals={FOLDED: 1.0}
    )  # fmt: skip
    for a, b in zip(models[CLIPS].parameters(), models[FOLDED].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def _clip_and_step(parameters: list[Any], optimizer: torch.optim.Optimizer, monitor: Monitor | None) -> None:
    if monitor is None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
    else:
        monitor.clip_(1.0, into=optimizer)
    optimizer.step()
