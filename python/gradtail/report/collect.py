"""From a stream to the plain data of a report: every number is taken here, once."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradtail.build import build_info
from gradtail.report import noise, stable, tails
from gradtail.report.laws import Laws
from gradtail.report.schema import SCHEMA, jsonable, rounded
from gradtail.states.magnitudes import edges_for
from gradtail.states.summary import Summary
from gradtail.stream import Block, GradientStream

QUANTILES = (0.5, 0.9, 0.99, 0.999)

_MATTERS = 0.01  # share of all values
_SHOWN_BITS = 2  # bins of the histograms shown: four a binade

Loss = tuple[Sequence[int], Sequence[float]]
FloatArray = npt.NDArray[np.float64]


def collect(
    stream: GradientStream,
    *,
    loss: Loss | None = None,
    accuracy: Loss | None = None,
    overhead: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "gradtail report",
    notes: Sequence[str] = (),
    max_norm: float | None = None,
) -> dict[str, Any]:
    """Take everything that a report holds out of a stream; see :class:`gradtail.report.Report`."""
    if not isinstance(stream, GradientStream):
        raise TypeError(f"stream: expected a GradientStream, got {type(stream).__name__}")
    rows = _Rows(stream)
    blocks = rows.walk()
    first, shown = stream.first_nonfinite, _loss(accuracy, "accuracy")
    data = {
        "schema": SCHEMA,
        "title": str(title),
        "versions": _versions(),
        "build": {"backend": stream.backend, "bits": stream.bits, **_build()},
        "platform": _platform(),
        "settings": dict(settings or {}),
        "notes": [str(note) for note in notes],
        "run": {
            "steps": stream.steps,
            "first_step": blocks[0].first_step if blocks else None,
            "last_step": stream.last_step,
            "arrays": len(stream.names),
            "groups": len(stream.groups),
            "elements": sum(stream.sizes.values()),
            "blocks": len(blocks),
            "values": rows.whole["count"] + rows.whole["nonfinite"],
        },
        "nonfinite": {
            "values": rows.whole["nonfinite"],
            "layers": sum(row["nonfinite"] > 0 for row in rows.layers),
            "first": None if first is None else first.__dict__,
        },
        "overhead": None if overhead is None else dict(overhead),
        "blocks": {
            "first_step": [block.first_step for block in blocks],
            "last_step": [block.last_step for block in blocks],
            "steps": [block.steps for block in blocks],
        },
        "history": {**_history(stream), "loss": _loss(loss), "accuracy": shown},
        "spectrum": noise.spectrum(stream),
        "stable": {**stable.collect(stream), "accuracy_jump": stable.accuracy_jump(shown)},
        "clipping": noise.clipping(stream, max_norm, settings or {}),
        "tests": rows.laws.settings(),
        "whole": rows.whole,
        "modules": rows.modules,
        "layers": rows.layers,
    }
    return jsonable(data)  # type: ignore[no-any-return]


@dataclass
class _Node:
    """A dotted prefix: the groups below it, and whether one of them bears the very name."""

    name: str
    is_group: bool = False
    children: dict[str, _Node] = field(default_factory=dict)

    def add(self, parts: Sequence[str]) -> None:
        node = self
        for depth, part in enumerate(parts):
            name = ".".join(parts[: depth + 1])
            node = node.children.setdefault(part, _Node(name))
        node.is_group = True

    def groups(self) -> Iterator[str]:
        if self.is_group:
            yield self.name
        for child in self.children.values():
            yield from child.groups()


class _Rows:
    """Rows of a report, from one walk over the tree of the names of groups.

    The summaries of a module are those of its children merged, so that each group's blocks are
    read from the stream once, and never more of them are held than the tree is deep.
    """

    def __init__(self, stream: GradientStream) -> None:
        self._stream = stream
        self._sizes, self._observed = stream.sizes, stream.observed
        self._arrays: dict[str, list[str]] = {name: [] for name in stream.groups}
        for name in stream.names:
            self._arrays[stream.group_of(name)].append(name)
        self._columns = {name: i for i, name in enumerate(stream.groups)}
        self._norms = stream.history.norms(len(self._columns)).astype(np.float64)
        self._meta: list[Block] = stream.blocks() if not self._columns else []
        self._newest: dict[str, float] = {}
        self.laws = Laws(stream)
        self.whole: dict[str, Any] = {}
        self.modules: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []

    def walk(self) -> list[Block]:
        """Fill the rows; return the blocks of one group, for the steps that they cover."""
        root = _Node("")
        for name in self._columns:
            root.add(name.split("."))
        blocks = self._visit(root)
        self.whole = self._row("whole model", list(root.groups()), blocks, curves=True)
        self.whole["norm"]["newest"] = None if self._stream.nonfinite() else self._stream.norm()
        self.layers.sort(key=lambda row: self._columns[row["name"]])
        self.whole["scales"] = _scales(self.layers)
        self.whole["tests"] = self.laws.row(None)
        return self._meta

    def _visit(self, node: _Node) -> list[Summary]:
        below = [self._visit(child) for child in node.children.values()]
        if node.is_group:
            found = self._stream.blocks(node.name)
            self._meta = found
            self._newest[node.name] = self._stream.summary(node.name, "newest").norm
            below.append([block.summary for block in found])
            self.layers.append(self._row(node.name, [node.name], below[-1], curves=True))
            self.layers[-1]["tests"] = self.laws.row(node.name)
        blocks = below[0] if len(below) == 1 else [tails.merged(p) for p in zip(*below, strict=True)]
        # A module of one child is that child, and one that holds everything is the whole model.
        groups = list(node.groups())
        if len(below) > 1 and len(groups) < len(self._columns):
            self.modules.append(self._row(node.name, groups, blocks, curves=False))
        return blocks

    def _row(self, name: str, groups: list[str], blocks: list[Summary], *, curves: bool) -> dict[str, Any]:
        arrays = [name for group in groups for name in self._arrays[group]]
        whole = tails.merged(blocks) if blocks else Summary(self._stream.bits, backend=self._stream.backend)
        spread = tails.for_spread(blocks)
        both = tails.estimate(spread, whole, "both")
        row = {
            "name": name,
            "arrays": len(arrays),
            **self._observations(arrays),
            **_numbers(whole),
            "norm": self._norm(groups),
            "tails": {"both": tails.as_dict(both)},
        }
        if not curves:
            return row
        for tail in tails.TAILS[1:]:
            row["tails"][tail] = tails.as_dict(tails.estimate(spread, whole, tail))
        row["hill"] = tails.curve_of(spread, whole)
        row["histogram"] = histogram(whole)
        row["time_line"] = {
            **tails.time_line(blocks, both),
            "norm": rounded([_root_mean_square_norm(b, m.steps) for b, m in self._with_steps(blocks)]),
        }
        return row

    def _with_steps(self, blocks: list[Summary]) -> Iterator[tuple[Summary, Block]]:
        return zip(blocks, self._meta, strict=True)

    def _observations(self, arrays: list[str]) -> dict[str, int]:
        observed = max((self._observed[name] for name in arrays), default=0)
        return {
            "size": sum(self._sizes[name] for name in arrays),
            "observed": observed,
            "unobserved": self._stream.steps - observed,
        }

    def _norm(self, groups: list[str]) -> dict[str, Any]:
        history = self._norms[:, [self._columns[name] for name in groups]]
        known = ~np.all(np.isnan(history), axis=1) & (self._stream.history.nonfinite == 0)
        with np.errstate(over="ignore"):
            joint = np.sqrt(np.nansum(history**2, axis=1))[known]
        return {
            "newest": math.hypot(*(self._newest[name] for name in groups)),
            "median": float(np.median(joint)) if joint.size else None,
            "max": float(joint.max()) if joint.size else None,
        }


def _numbers(whole: Summary) -> dict[str, Any]:
    m = whole.moments
    return {
        "count": m.count,
        "zeros": m.zeros,
        "nan": m.nan,
        "posinf": m.posinf,
        "neginf": m.neginf,
        "nonfinite": m.nan + m.posinf + m.neginf,
        "mean": m.mean,
        "sd": math.sqrt(m.variance) if m.count else None,
        "skewness": m.skewness,
        "excess_kurtosis": m.excess_kurtosis,
        "max_abs": m.max_abs if m.count else None,
        "quantiles": dict(zip(map(str, QUANTILES), whole.quantile(QUANTILES), strict=True)),
    }


def _scales(layers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Largest and smallest root mean square of a value, of layers large enough to matter for the whole."""
    least = _MATTERS * sum(row["count"] for row in layers)
    large = [row for row in layers if row["count"] and row["count"] >= least]
    found = [(math.hypot(row["sd"], row["mean"]), row["name"]) for row in large]
    found = [(size, name) for size, name in found if 0 < size < math.inf]
    if len(found) < 2:
        return None
    (smallest, low), (largest, high) = min(found), max(found)
    return {"largest": largest, "in": high, "smallest": smallest, "and": low}


def _root_mean_square_norm(block: Summary, steps: int) -> float:
    """Norm of a typical step of a block."""
    moments = block.moments
    return moments.norm / math.sqrt(steps) if moments.count else math.nan


def histogram(whole: Summary) -> dict[str, Any]:
    """Join the bins in use to four a binade; counts add up to the nonzero values in the bins."""
    fine = whole.histogram()
    all_edges = edges_for(whole.bits)
    joined = 1 << max(0, whole.bits - _SHOWN_BITS)
    if fine.edges.size < 2:
        return {"edges": [], "positive": [], "negative": [], "zeros": fine.zeros}
    first = int(np.searchsorted(all_edges, fine.edges[0]))
    last = first + fine.positive.size
    low, high = first // joined, -(-last // joined)
    columns: dict[str, list[int]] = {}
    for sign, counts in (("positive", fine.positive), ("negative", fine.negative)):
        padded = np.zeros((high - low) * joined, np.int64)
        padded[first - low * joined : last - low * joined] = counts
        columns[sign] = padded.reshape(-1, joined).sum(axis=1).tolist()
    edges = all_edges[low * joined : high * joined + 1 : joined]
    return {"edges": rounded(np.minimum(edges, 2.0**128), 9), **columns, "zeros": fine.zeros}


def _history(stream: GradientStream) -> dict[str, Any]:
    log = stream.history
    return {
        "stride": log.stride,
        "steps": log.steps,
        "norm": rounded(log.norm, 9),
        "nonfinite": log.nonfinite,
    }


def _loss(loss: Loss | None, name: str = "loss") -> dict[str, Any] | None:
    """Check steps and losses; a loss that is not finite becomes null."""
    if loss is None:
        return None
    if not isinstance(loss, (tuple, list)) or len(loss) != 2:
        raise TypeError(f"{name}: expected a pair (steps, values), got {type(loss).__name__}")
    steps, values = np.asarray(loss[0]).reshape(-1), np.asarray(loss[1], np.float64).reshape(-1)
    if steps.size != values.size:
        raise ValueError(f"{name}: expected as many values as steps ({steps.size}), got {values.size}")
    return {"steps": [int(step) for step in steps], "values": rounded(values, 9)}


def _versions() -> dict[str, str]:
    own = build_info()["version"]
    found = {"gradtail": own, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("scipy", "torch"):  # as they were when the numbers came about
        if name in sys.modules:
            found[name] = str(sys.modules[name].__version__)
    return found


def _build() -> dict[str, Any]:
    info = build_info()
    return {name: info[name] for name in ("native", "simd", "threads", "cuda")}


def _platform() -> dict[str, Any]:
    return {"system": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count()}
