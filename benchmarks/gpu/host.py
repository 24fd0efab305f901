"""What an update takes on the host, and CoordinateMoments against the traffic of their own."""

from __future__ import annotations

import statistics

import numpy as np
import torch

from gradtail import GradientStream

from .lines import Figures
from .passes import heavy, split
from .sizes import small_sizes
from .timing import Deadline, percentiles, say, seconds_on_device, seconds_on_host, waits

LIMITS = {300: 60e-6, 2000: 300e-6, 10_000: 1.5e-3}
STATE_BYTES = 33  # of one coordinate: four float32 and an eighth of a count, read and written


def observe_host(figures: Figures, deadline: Deadline, tensors: int) -> None:
    """Measure one update of many small tensors: host time, launches and waits."""
    torch.manual_seed(tensors)
    sizes = small_sizes(tensors)
    arrays = {f"p{i}": x for i, x in enumerate(split(torch.randn(sum(sizes), device="cuda"), sizes))}
    stream = GradientStream()
    update = lambda: stream.update(arrays)
    found = seconds_on_host(update, calls=4000, until=deadline.until(0.05))
    device = stream._held.device
    assert device is not None
    before = device._engine.launches
    waited = waits(update)
    launches = (device._engine.launches - before) / 4
    p50, p99, p999 = percentiles(found)
    figures.raw[f"host {tensors}"] = {"seconds": found, "launches": launches, "waited": waited}
    figures[f"host {tensors}"].fill(
        f"p50 {say(p50)}, p99 {say(p99)}, p99.9 {say(p999)} of {len(found)} calls; {launches:g} launches, "
        f"{waited} syncs",
        p50 <= LIMITS[tensors] and launches == 2 and waited == 0,
    )
    summary = stream.summary(steps="newest")
    assert summary.count == sum(sizes)


def observe_dense(figures: Figures, deadline: Deadline, elements: int) -> None:
    """Measure a pass that keeps moments of every coordinate.

    Its limit is the time in which the device reads and writes as many bytes as the moments have
    (``mul_`` of a tensor of that size), and reads the gradient once.
    """
    torch.manual_seed(2)
    x, small = heavy(elements, torch.float32), torch.randn(10_000, device="cuda")
    stream = GradientStream(coordinates="dense", memory=20 * elements + (256 << 20))
    state = torch.ones(elements * STATE_BYTES // 8, device="cuda")
    works = {
        "state": lambda: state.mul_(1.0),
        "gradient": lambda: torch.sum(x),
        "pass": lambda: stream.update({"x": x, "small": small}),
    }
    times = seconds_on_device(works, rounds=30, flush=True, until=deadline.until(0.1))
    figures.raw["dense"] = {**times, "elements": elements}
    limits = [a + b for a, b in zip(times["state"], times["gradient"], strict=True)]
    share = statistics.median(a / b for a, b in zip(limits, times["pass"], strict=True))
    whole = statistics.median(times["pass"])
    traffic = elements * (STATE_BYTES + 4) / whole / 1e12
    figures["dense"].fill(
        f"{elements:.0e} elements: {say(whole)}, {traffic:.2f} TB/s, {100 * share:.1f} % of its limit",
        share >= 0.85,
    )
    moments = stream.coordinates("small")
    np.testing.assert_allclose(moments.mean, small.cpu().numpy(), rtol=1e-5, atol=1e-7)
