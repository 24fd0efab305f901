"""A training step of GPT-2 with 124 million parameters: plain, clipped, watched."""

from __future__ import annotations

import math
import random
import statistics
import time
from typing import Any

import torch
from torch import nn

from gradtail import GradientStream
from gradtail.experiments.gpt import GPT
from gradtail.torch import Monitor

from .lines import Figures
from .sizes import GPT2, parameter_count
from .timing import Deadline, new_event, ratio, ratio_error, say, seconds_on_device

BATCH, CONTEXT = 8, 1024
STEPS = 4  # of one variant in a round: the host may run ahead of the device by as many
MAX_NORM = 1.0
VARIANTS = ("plain", "clipped", "step", "clip_")
MEMORY_LIMIT = 64 << 20


class Run:
    """A model, its optimizer and, for watched variants, its monitor."""

    def __init__(self, variant: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.variant = variant
        self.model = GPT(GPT2).to(device="cuda", dtype=dtype)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        watched = variant in ("step", "clip_")
        self.monitor = Monitor(self.model, self.optimizer, on_error="raise") if watched else None
        self.norm: Any = None

    def finish(self) -> None:
        """Do what follows on ``backward``."""
        if self.variant == "clipped":
            self.norm = nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        elif self.variant == "step":
            assert self.monitor is not None
            self.monitor.step()
        elif self.variant == "clip_":
            assert self.monitor is not None
            self.norm = self.monitor.clip_(MAX_NORM, into=self.optimizer)
        self.optimizer.step()

    def train(self, tokens: torch.Tensor) -> None:
        """Make one training step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model.loss(tokens).backward()  # type: ignore[no-untyped-call]
        self.finish()


def observe_training(figures: Figures, deadline: Deadline) -> None:
    """Measure whole training steps, in turns; the order within a round is drawn by lot."""
    runs = {variant: Run(variant, torch.bfloat16) for variant in VARIANTS}
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(GPT2.vocabulary, (BATCH, CONTEXT + 1), generator=generator).to("cuda")
    until, order, steps = deadline.until(0.3), random.Random(0), STEPS
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}

    def steps_of(run: Run) -> None:
        for _ in range(steps):
            run.train(tokens)

    for run in runs.values():
        steps_of(run)
    for done in range(200):
        if done >= 5 and deadline.left() < 10:
            break
        one = timed_once({v: runs[v] for v in order.sample(VARIANTS, len(VARIANTS))}, steps_of)
        for variant, seconds in one.items():
            times[variant].append(seconds / steps)
        if done >= 5 and time.monotonic() > until:
            break
    median = {variant: statistics.median(own) for variant, own in times.items()}
    figures.raw["gpt"] = {**times, "parameters": parameter_count(GPT2)}
    rounds = f"median of {len(times['plain'])} rounds of {steps} steps"
    figures["gpt plain"].fill(f"{say(median['plain'])}, {rounds}")
    for variant in VARIANTS[1:]:
        over = ratio(times, variant, "plain") - 1
        error = ratio_error(times, variant, "plain")
        text = f"{say(median[variant])}, {100 * over:+.2f} % (+- {100 * error:.2f}) over the plain step"
        met = None
        if variant == "step":
            met = over <= 0.01
        if variant == "clip_":
            against = ratio(times, variant, "clipped")
            text, met = f"{text}, {against:.4f} of the clipped one", against < 1
        figures[f"gpt {variant}"].fill(text, met)
    for run in runs.values():
        if run.monitor is not None:
            assert run.monitor.enabled
            assert run.monitor.stream.steps >= steps
            assert run.monitor.summary(steps="newest").count == sum(p.numel() for p in run.parameters)


def timed_once(runs: dict[str, Run], work: Any) -> dict[str, float]:
    """Time a few steps of each run once; the device has no other work meanwhile."""
    found = {}
    for variant, run in runs.items():
        begin, end = new_event(), new_event()
        torch.cuda.synchronize()
        begin.record()
        work(run)
        end.record()
        torch.cuda.synchronize()
        found[variant] = 1e-3 * begin.elapsed_time(end)
    return found


def observe_clipping(figures: Figures, deadline: Deadline, dtype: torch.dtype) -> None:
    """Measure clipping and the optimizer's step, without the training step before it."""
    name = str(dtype).removeprefix("torch.")
    runs = {variant: Run(variant, dtype) for variant in ("clipped", "clip_")}
    torch.manual_seed(3)
    for p, q in zip(*(run.parameters for run in runs.values()), strict=True):
        p.grad = torch.randn_like(p) * 1e-3
        q.grad = p.grad.clone()
    gradients = [p.grad for p in runs["clipped"].parameters if p.grad is not None]
    size = sum(g.nbytes for g in gradients)
    flat = torch.empty(size // 4, dtype=torch.float32, device="cuda").normal_()
    norms: dict[str, list[Any]] = {variant: [] for variant in runs}

    def work(variant: str) -> None:
        runs[variant].finish()
        norms[variant].append(runs[variant].norm)

    # The clipped gradients are rescaled in place: neither is looked at after the first call.
    works = {
        "clipped": lambda: work("clipped"),
        "clip_": lambda: work("clip_"),
        "read": lambda: torch.sum(flat),
    }
    for own in runs.values():
        if own.monitor is not None:  # the same gradients step after step: numbers tell the steps apart
            own.finish = _numbered(own)  # type: ignore[method-assign]
    times = seconds_on_device(works, rounds=50, flush=True, ahead=0.02, until=deadline.until(0.08))
    figures.raw[f"clip {name}"] = {**times, "bytes": size}
    saved = statistics.median(a - b for a, b in zip(times["clipped"], times["clip_"], strict=True))
    twice = 2 * statistics.median(times["read"])
    theirs, ours = (statistics.median(times[variant]) for variant in ("clipped", "clip_"))
    figures[f"clip {name}"].fill(
        f"{say(ours)} against {say(theirs)}: {1e6 * saved:.0f} us saved; reading {size / 1e6:.0f} MB "
        f"twice takes {1e6 * twice:.0f} us",
        saved >= twice,
    )
    first = [float(norms[variant][0]) for variant in ("clipped", "clip_")]
    assert math.isclose(*first, rel_tol=1e-5 if dtype == torch.float32 else 1e-2)


def _numbered(run: Run) -> Any:
    numbers = iter(range(1 << 40))

    def finish() -> None:
        assert run.monitor is not None
        run.norm = run.monitor.clip_(MAX_NORM, into=run.optimizer, step=next(numbers))
        run.optimizer.step()

    return finish


def observe_memory(figures: Figures, deadline: Deadline) -> None:
    """Measure what a monitor with default settings holds on the device once it has seen a step."""
    warm = GradientStream()  # kernels are loaded once a process, and are no memory of a monitor's
    warm.update([torch.ones(1000, device="cuda")])
    warm.norm()
    model = GPT(GPT2).to(device="cuda", dtype=torch.bfloat16)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    monitor = Monitor(model, on_error="raise")
    for step in range(8):
        monitor.step(step=step)
    torch.cuda.synchronize()
    held = before - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()
    device = monitor.stream._held.device
    assert device is not None
    engine, host = device.nbytes, monitor.stream.nbytes
    figures.raw["memory"] = {"device": held, "engine": engine, "stream": host}
    figures["memory"].fill(
        f"{held / 2**20:.1f} MiB taken from the device, of which the engine {engine / 2**20:.1f}; states as "
        f"counted on the host {host / 2**20:.1f} MiB",
        held <= MEMORY_LIMIT,
    )
    assert monitor.stream.steps == 8
