"""Many small tensors: what a call costs besides its elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gradtail
from gradtail.backends import native
from gradtail.buffers import views_of
from gradtail.states.table import SummaryTable

from .harness import Row, Table, compare
from .whole import whole_pass


def tensors(pool: Any, count: int, size: int) -> list[torch.Tensor]:
    return [torch.from_numpy(np.roll(pool, i * size)[:size].copy()) for i in range(count)]


@pytest.mark.parametrize("threads", [1, 2])
def test_200_tensors_of_5000(pool: Any, table: Table, threads: int, benchmark: Any) -> None:
    xs = tensors(pool, 200, 5000)
    gradtail.set_num_threads(threads)
    torch.set_num_threads(threads)
    together, apart = SummaryTable.empty(1, 4), SummaryTable.empty(200, 4)
    one, many = views_of(xs), views_of(xs)
    many.table["row"] = np.arange(200)
    works = {
        "torch._foreach_norm, norms alone": lambda: torch._foreach_norm(xs),
        "gradtail, one summary": lambda: native.summarize(one, together),
        "gradtail, 200 summaries": lambda: native.summarize(many, apart),
        "gradtail.summarize(list), whole call": lambda: gradtail.summarize(xs),
    }
    compare(
        table, f"200 tensors of 5,000, {threads} thread(s)", works, elements=10**6, bytes=4 * 10**6,
        reference="torch._foreach_norm, norms alone", rounds=31, inner=3,
        limits={"gradtail, one summary": 0.5e-3, "gradtail, 200 summaries": 0.5e-3},
    )  # fmt: skip
    benchmark.pedantic(lambda: native.summarize(many, apart), rounds=5)
    norms = torch.stack(torch._foreach_norm(xs)).double()
    assert gradtail.summarize(xs).norm == pytest.approx(float(norms.square().sum().sqrt()), rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_whole_pass_over_200_tensors(pool: Any, table: Table, threads: int) -> None:
    xs = tensors(pool, 200, 5000)
    gradtail.set_num_threads(threads)
    torch.set_num_threads(threads)
    arrays = {f"layers.{i // 8}.{i % 8}": x for i, x in enumerate(xs)}
    one_pass, stream = whole_pass(arrays)
    works = {
        "torch._foreach_norm, norms alone": lambda: torch._foreach_norm(xs),
        "the whole pass": one_pass,
        "stream.update, whole call": lambda: stream.update(arrays),
    }
    compare(
        table, f"200 tensors of 5,000, {threads} thread(s), whole pass", works,
        elements=10**6, bytes=4 * 10**6, reference="torch._foreach_norm, norms alone", rounds=31, inner=3,
        limits={"the whole pass": 0.6e-3},
    )  # fmt: skip
    norm = float(torch.stack(torch._foreach_norm(xs)).double().square().sum().sqrt())
    assert stream.norm() == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_whole_pass_over_10000_tensors(pool: Any, table: Table, threads: int) -> None:
    xs = tensors(pool, 10_000, 700)
    gradtail.set_num_threads(threads)
    torch.set_num_threads(threads)
    arrays = {f"layers.{i // 128}.experts.{i % 128}": x for i, x in enumerate(xs)}
    one_pass, stream = whole_pass(arrays, memory="64MiB")
    works = {
        "torch._foreach_norm, norms alone": lambda: torch._foreach_norm(xs),
        "the whole pass": one_pass,
        "stream.update, whole call": lambda: stream.update(arrays),
    }
    compare(
        table, f"10,000 tensors of 700, {threads} thread(s), whole pass", works,
        elements=7 * 10**6, bytes=28 * 10**6, reference="torch._foreach_norm, norms alone", rounds=21,
        limits={"the whole pass": 4e-3},
    )  # fmt: skip
    used = stream.nbytes
    case = f"10,000 tensors in {len(stream.groups)} groups: {used / 2**20:.1f} MiB"
    table.add(Row("memory of a stream", case, 0.0, 0.0, 0, 0, None, "<= 64 MiB", used <= 64 * 2**20))


def test_python_cost_of_300_tensors(pool: Any, table: Table, benchmark: Any) -> None:
    xs = tensors(pool, 300, 8)
    named = {f"layer{i}.weight": x for i, x in enumerate(xs)}
    parameters = [torch.nn.Parameter(x) for x in xs]
    for parameter, x in zip(parameters, xs, strict=True):
        parameter.grad = x
    works = {
        "[t.data_ptr() for t in ts]": lambda: [x.data_ptr() for x in xs],
        "gradtail, views of the list": lambda: views_of(xs),
        "gradtail, views of {name: grad}": lambda: views_of(named),
        "the same with p.grad of each": lambda: views_of([p.grad for p in parameters]),
    }
    compare(
        table, "300 tensors, Python side", works, elements=0, bytes=0, reference="[t.data_ptr() for t in ts]",
        rounds=101, limits=dict.fromkeys(list(works)[1:], 60e-6),
    )  # fmt: skip
    benchmark(lambda: views_of(xs))
    assert [int(a) for a in views_of(xs).table["data"]] == [x.data_ptr() for x in xs]
