"""A few numbers a step for a logger."""

from __future__ import annotations

import math

from gradtail.torch.clip import Clipped
from gradtail.torch.observer import Observer
from gradtail.torch.overhead import Overhead


def scalars_of(
    observer: Observer, *, norm: float | None, clip: Clipped, overhead: Overhead, limit: int
) -> dict[str, float]:
    """Return at most ``limit`` numbers of the newest step, the telling ones first.

    Parameters
    ----------
    norm : float or None
        Joint norm of the newest step, if it is known without communication or another pass.
    """
    stream = observer.stream
    found: dict[str, float] = {}
    if norm is not None:
        found["grad/norm"] = norm
    if observer.losses.log:
        found["loss"] = float(observer.losses.log.values[-1])
    if clip.calls:
        found["clip/factor"] = clip.factor
        found["clip/rate"] = clip.clipped / clip.calls
    if stream.steps:
        where = "local/" if observer.gradients.sharded else ""  # a rank's own are not the model's
        newest = stream.summary(steps="newest")
        found[f"grad/{where}max_abs"] = newest.max_abs
        found[f"grad/{where}zeros"] = newest.zeros / newest.count if newest.count else math.nan
        found[f"grad/{where}nonfinite"] = float(stream.nonfinite())
        found["monitor/unobserved"] = float(len(observer.unobserved))
    found["monitor/skipped"] = float(observer.skips.total)
    if not math.isnan(overhead.share):
        found["monitor/overhead"] = overhead.share
    room = limit - len(found)
    if stream.steps and room > 0:
        norms = {group: stream.summary(group, "newest").norm for group in stream.groups}
        largest = sorted(norms, key=lambda group: -norms[group])[:room]
        found.update({f"grad/{where}{group}/norm": norms[group] for group in largest})
    return dict(list(found.items())[:limit])
