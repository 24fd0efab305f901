"""The whole pass over 1e9 elements, beside a plain sum, ``torch._foreach_norm`` and eager torch."""

from __future__ import annotations

import importlib
import math
import statistics
from typing import Any

import torch
from torch import Tensor

from gradtail import GradientStream

from .lines import Figures, cell
from .sizes import PASS_ELEMENTS, PASS_TENSORS, transformer_sizes
from .timing import Deadline, ratio, say, seconds_on_device

BITS = 4
GOALS = {"float32": 0.9, "bfloat16": 0.8}


def heavy(elements: int, dtype: torch.dtype) -> Tensor:
    """Student-t(3) values times 1e-3, a million of them repeated, on the device."""
    pool = torch.distributions.StudentT(torch.tensor(3.0)).sample((1 << 20,)) * 1e-3
    there = pool.to(device="cuda", dtype=dtype)
    out = torch.empty(elements, dtype=dtype, device="cuda")
    for at in range(0, elements, there.numel()):
        part = out[at : at + there.numel()]
        part.copy_(there[: part.numel()])
    return out


def split(flat: Tensor, sizes: list[int]) -> list[Tensor]:
    """Return consecutive parts of a flat tensor."""
    return list(torch.split(flat, sizes))


def observe_passes(figures: Figures, deadline: Deadline, dtype: torch.dtype, elements: int) -> None:
    """Measure the plain sum, the whole pass and ``torch._foreach_norm`` of one dtype in one run."""
    name = str(dtype).removeprefix("torch.")
    torch.manual_seed(0)
    flat = heavy(elements, dtype)
    tensors = split(flat, transformer_sizes(elements, PASS_TENSORS))
    arrays = {f"p{i}": x for i, x in enumerate(tensors)}
    stream = GradientStream()
    whole = lambda: stream.update(arrays)
    works = {
        "sum": lambda: torch.sum(flat),
        # the same bytes again: a sum of 16-bit values may be bound by arithmetic, that of 32-bit words is not
        "sum of words": lambda: torch.sum(flat.view(torch.float32) if elements % 2 == 0 else flat),
        "whole": whole,
        "foreach": lambda: torch._foreach_norm(tensors),
    }
    times = seconds_on_device(works, rounds=40, until=deadline.until(0.15))
    reference = min(("sum", "sum of words"), key=lambda own: statistics.median(times[own]))
    median = {own: statistics.median(found) for own, found in times.items()}
    rate = {own: flat.nbytes / seconds / 1e12 for own, seconds in median.items()}
    figures.raw[f"pass {name}"] = {**times, "bytes": flat.nbytes, "elements": elements}
    note = "" if elements == PASS_ELEMENTS else f", {elements:.0e} elements"
    figures[f"sum {name}"].fill(f"{say(median[reference])}, {rate[reference]:.2f} TB/s{note}")
    share = 1 / ratio(times, "whole", reference)
    figures[f"pass {name}"].fill(
        f"{say(median['whole'])}, {rate['whole']:.2f} TB/s, {100 * share:.1f} %{note}", share >= GOALS[name]
    )
    against = ratio(times, "whole", "foreach")
    figures[f"foreach {name}"].fill(
        f"{say(median['whole'])} against {say(median['foreach'])}: ratio {against:.3f}", against <= 1
    )
    summary = stream.summary(steps="newest")
    assert summary.count == elements
    norms = torch.stack([norm.double() for norm in torch._foreach_norm(tensors, dtype=torch.float64)])
    assert math.isclose(summary.norm, float(norms.norm()), rel_tol=1e-6)


def eager(x: Tensor) -> dict[str, Any]:
    """Counts, power sums and the histogram of a tensor by torch alone; ``bincount`` waits for the device."""
    finite = torch.isfinite(x)
    y = torch.where(finite, x, 0).double()
    magnitude = y.abs()
    words = x.view(torch.int32)
    bins = (words >> (23 - BITS)) & ((1 << (9 + BITS)) - 1)
    square = y * y
    return {
        "finite": finite.sum(), "nan": torch.isnan(x).sum(), "zeros": (x == 0).sum(), "max": magnitude.max(),
        "sums": torch.stack([y.sum(), square.sum(), (square * y).sum(), (square * square).sum()]),
        "counts": torch.bincount(bins, minlength=1 << (9 + BITS)),
    }  # fmt: skip


def observe_others(figures: Figures, deadline: Deadline, elements: int) -> None:
    """Measure what else gives a part of the same numbers, over one tensor."""
    torch.manual_seed(1)
    x = heavy(elements, torch.float32)
    stream = GradientStream()
    k = elements // 100
    works = {
        "whole": lambda: stream.update([x]),
        "eager": lambda: eager(x),
        "topk": lambda: torch.topk(x.abs(), k).values.log().mean(),
    }
    times = seconds_on_device(works, rounds=15, flush=True, until=deadline.until(0.15))
    figures.raw["others"] = {**times, "elements": elements}
    for name in ("eager", "topk"):
        own, whole = (statistics.median(times[key]) for key in (name, "whole"))
        figures[name].fill(
            f"{say(own)} against {say(whole)}: {1 / ratio(times, 'whole', name):.1f} times as long"
        )
    found, summary = eager(x), stream.summary(steps="newest")
    assert (int(found["finite"]), int(found["zeros"])) == (summary.count, summary.zeros)
    assert float(found["max"]) == summary.max_abs
    assert math.isclose(float(found["sums"][1]) ** 0.5, summary.norm, rel_tol=1e-6)
    own = found["counts"].cpu().numpy()
    state = summary.state_dict()
    assert int(own.sum()) == elements
    assert (own[own > 0] == state["counts"]).all()
    _observe_wandb(figures, x, works["whole"])


def _observe_wandb(figures: Figures, x: Tensor, whole: Any) -> None:
    line = figures["wandb"]
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        line.fill("wandb is not installed")
        return
    try:
        module = importlib.import_module("wandb.integration.torch.wandb_torch")
        run = wandb.init(mode="disabled")
        history = module.TorchHistory()
        history._run = run
        times = seconds_on_device(
            {"wandb": lambda: history.log_tensor_stats(x, "x"), "whole": whole}, rounds=5, flush=True
        )
    except Exception as error:
        line.fill(cell(f"wandb did not run: {type(error).__name__}: {error}"))
        return
    figures.raw["wandb"] = times
    own, ours = (statistics.median(times[name]) for name in ("wandb", "whole"))
    line.fill(f"{say(own)} against {say(ours)}: {1 / ratio(times, 'whole', 'wandb'):.1f} times as long")
