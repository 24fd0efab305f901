"""What a monitor adds to the report of its stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradtail.estimators.noise_scale import noise_scale_from_micro
from gradtail.report import Report
from gradtail.torch.clip import Clipped
from gradtail.torch.observer import Observer
from gradtail.torch.overhead import Overhead

MOST_NOTES = 8
"""Parameters named in notes; the others are counted."""

NEWEST = 100
"""Steps over which the squared norms of micro-steps are averaged."""


def report_of(
    observer: Observer,
    *,
    clip: Clipped,
    overhead: Overhead,
    off: str | None,
    title: str,
    settings: Mapping[str, Any],
) -> Report:
    """Draw up the report of what was observed."""
    stream = observer.stream
    own: dict[str, Any] = {
        "every": observer.every,
        "bits": stream.bits,
        "parameters": len(observer.parameters),
        "clip_calls": clip.calls,
        "clipped": clip.clipped,
        "left_unclipped_nonfinite": clip.nonfinite,
    }
    if observer.cadence.bound is not None:
        own["max_overhead"] = observer.cadence.bound
    if len(observer.when):
        own["when"] = ", ".join(dict.fromkeys(observer.when.values))
    return Report.from_stream(
        stream,
        loss=observer.losses.read() if len(observer.losses.log) else None,
        accuracy=observer.accuracies.read() if len(observer.accuracies.log) else None,
        overhead=overhead.as_dict(),
        settings={**own, **settings},
        title=title,
        notes=_notes(observer, off),
        max_norm=clip.max_norm if 0 < clip.max_norm < math.inf else None,
    )


def _notes(observer: Observer, off: str | None) -> list[str]:
    steps = observer.stream.steps
    notes = [] if off is None else [off]
    skipped = observer.skips.total
    if off is None and not steps and not skipped:
        if not any(p.requires_grad for _, p in observer.parameters):
            notes.append("no watched parameter requires a gradient, so there was nothing to observe")
        elif observer.last is not None:
            notes.append("no call found a gradient: call between backward() and zero_grad()")
    missing = [f"{name}: no gradient in {n} of {steps} steps" for name, n in observer.unobserved.items()]
    if steps:
        missing += [f"{name}: no gradient yet in {steps} steps" for name in observer.pending]
    notes += missing[:MOST_NOTES]
    if len(missing) > MOST_NOTES:
        notes.append(f"{len(missing) - MOST_NOTES} more parameters had no gradient in some steps")
    if skipped:
        newest = observer.skipped.newest()
        where = "" if newest is None or newest.name is None else f", in {newest.name}[{newest.index}]"
        which = "" if newest is None else f", the newest {newest.step}{where}"
        notes.append(f"{skipped} steps skipped for a NaN or infinity{which}")
    if records := observer.micro.records[-NEWEST:]:
        batches = sorted({record.batches for record in records})
        many = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"
        means = [
            sum(values) / len(records)
            for values in ([r.mean_square for r in records], [r.sum_square for r in records])
        ]
        notes.append(
            f"micro-steps: {many} micro-batches a step; over the newest {len(records)} steps with a record "
            f"the mean squared norm is {means[0]:.3g} of an increment, {means[1]:.3g} of their sum (sketched)"
            + _noise_scale(observer)
        )
    if (told := observer.cadence.told) is not None:
        notes.append(told)
    if observer.gradients.sharded:
        notes.append("gradients are sharded, and these are the numbers of one rank: merge the streams of all")
    return notes


def _noise_scale(observer: Observer) -> str:
    """Say how many micro-batches a step needs for its gradient to be more signal than noise."""
    try:
        buckets = int(observer.stream.settings["sketch"])
        found = noise_scale_from_micro(observer.micro.records, batch_size=1, buckets=buckets)
    except ValueError:  # too few steps
        return ""
    low, high = found.ci()
    if math.isfinite(high):
        return f"; noise scale {found.value:.3g} micro-batches (95 % {low:.3g} to {high:.3g})"
    return f"; noise scale at least {low:.3g} micro-batches (95 %)" if low > 0 else ""
