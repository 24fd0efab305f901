"""How views are cut into items and chains: by their sizes alone, so that sums depend on nothing else."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.buffers import VIEW

ITEM = np.dtype(
    [
        ("first_run", np.int64),
        ("last_run", np.int64),
        ("begin", np.int64),
        ("end", np.int64),
        ("view", np.int32),
        ("stripe", np.int32),
    ]
)
ROW = np.dtype(
    [
        ("elements", np.int64),
        ("first_item", np.int32),
        ("last_item", np.int32),
        ("mantissa", np.int32),
        ("present", np.int32),
    ]
)
FLOAT64, FLOAT32, FLOAT16, BFLOAT16 = range(4)
MOST_CHAINS = 1024


def whole(size, start=0, row=0, dtype=FLOAT32):
    return (size, start, max(size, 1), 0, row, dtype)


def table(views):
    found = np.zeros(len(views), VIEW)
    for view, (size, start, run, stride, row, dtype) in zip(found, views, strict=True):
        view["size"], view["start"], view["run"], view["stride"] = size, start, run, stride
        view["row"], view["dtype"] = row, dtype
    return found


def plan_of(module, views, buckets=1024, lanes=128, rows=None):
    described = table(views)
    rows = rows or 1 + max((view[4] for view in views), default=0)
    raw = module.plan_of(described, rows, buckets, lanes)
    plan = SimpleNamespace(raw=raw, views=views, n_rows=rows)
    plan.items, plan.rows = raw["items"].view(ITEM), raw["rows"].view(ROW)
    plan.chain_first, plan.wide = raw["chain_first"].view(np.int32), raw["wide"]
    plan.stripe, plan.stripes = raw["stripe"], raw["stripes"]
    plan.unit = 8 * max(buckets, plan.stripe)
    return plan


def check(plan):
    """Everything is there once and in order, and nothing is cut inside a unit."""
    n = plan.stripes
    assert len(plan.items) % n == 0
    parts = plan.items.reshape(-1, n)
    assert (parts["stripe"] == np.arange(n)).all()
    for field in ("first_run", "last_run", "begin", "end", "view"):
        assert (parts[field] == parts[field][:, :1]).all()
    items = parts[:, 0]
    assert (np.diff(items["view"]) >= 0).all(), "items follow the views"
    expected_chains = plan.chain_first
    assert expected_chains[0] == 0
    assert expected_chains[-1] == len(plan.items)
    if len(plan.items):
        assert (np.diff(expected_chains) > 0).all(), "no chain is empty"
    assert (expected_chains % n == 0).all(), "the stripes of an item are of one chain"
    assert len(expected_chains) - 1 <= MOST_CHAINS
    pieces = 0  # that even one chain would need
    for v, (size, start, run, stride, _, _) in enumerate(plan.views):
        runs = -(-size // run)
        own = items[items["view"] == v]
        at = (0, 0)  # run, element of it
        for item in own.tolist():
            first_run, last_run, begin, end, _, _ = item
            assert (first_run, begin) == at
            assert last_run > first_run
            length = min(run, size - first_run * run)
            if begin:
                assert (start + first_run * stride + begin) % plan.unit == 0, "a unit is not cut"
            if last_run - first_run == 1:
                assert begin < end <= length
                at = (first_run, end) if end < length else (last_run, 0)
            else:
                assert (begin, end) == (0, length)
                at = (last_run, 0)
        assert at == (runs, 0)
        pieces += runs if run >= 2 * plan.unit else min(runs, 1)
    assert len(items) <= pieces + len(plan.chain_first) - 1, (
        "an item begins with a view, a long run or a chain"
    )
    for row in range(plan.n_rows):
        mine = [v for v, view in enumerate(plan.views) if view[4] == row]
        found = plan.rows[row]
        assert found["present"] == bool(mine)
        assert found["elements"] == sum(plan.views[v][0] for v in mine)
        indices = np.flatnonzero(np.isin(plan.items["view"], mine))
        assert np.array_equal(indices, np.arange(found["first_item"], found["last_item"]))
        bits = {FLOAT64: 23, FLOAT32: 23, FLOAT16: 10, BFLOAT16: 7}
        assert found["mantissa"] == max((bits[plan.views[v][5]] for v in mine), default=0)
    assert plan.wide == any(view[5] == FLOAT64 for view in plan.views)


def work_of(plan, items):
    """Elements, short runs counted as a turn of the team, and what an item costs besides."""
    total = 4096 * len(items)
    for first_run, last_run, begin, end, view, _ in items.tolist():
        runs = last_run - first_run
        total += end - begin if runs == 1 else runs * max(plan.views[view][2], plan.unit // 32)
    return total


@pytest.mark.parametrize(
    ("buckets", "lanes"), [(128, 128), (1024, 128), (4096, 512), (8192, 128), (65536, 512)]
)
def test_sizes_around_units(simulated, buckets, lanes):
    unit = 8 * max(buckets, 8 * lanes)
    sizes = {0, 1, 2, 7, 8, 997, 10_007, 1_000_003}
    sizes |= {k * unit + d for k in (1, 2, 3, 17, 64) for d in (-1, 0, 1)}
    for size in sorted(sizes):
        for start in (0, 1, unit - 1, 12_345):
            check(plan_of(simulated, [whole(size, start)], buckets, lanes))
    check(plan_of(simulated, [whole(n, row=i // 3) for i, n in enumerate(sorted(sizes))], buckets, lanes))


@pytest.mark.parametrize("run", [1, 3, 8, 100, 8191, 8192, 16_383, 16_384, 16_385, 100_003])
@pytest.mark.parametrize("stride", [0, 5, 1_000_000])
def test_runs(simulated, run, stride):
    for size in (1, run - 1, run, run + 1, 7 * run, 100 * run + run // 2, 3_000_017):
        if size > 0:
            check(plan_of(simulated, [(size, 17, run, run + stride, 0, FLOAT32)]))
    views = [(5 * run + i, i, run, run + stride, i // 4, i % 4) for i in range(40)]
    check(plan_of(simulated, views))


def test_no_views_and_empty_ones(simulated):
    for views in ([], [whole(0)], [whole(0, row=1), whole(0, row=2)]):
        plan = plan_of(simulated, views, rows=3)
        check(plan)
        assert len(plan.chain_first) == 1
    check(plan_of(simulated, [whole(0), whole(5, row=1), whole(0, row=1), whole(0, row=2)], rows=5))


def test_many_tiny_tensors(simulated):
    plan = plan_of(simulated, [whole(i % 9, row=i // 100) for i in range(10_000)])
    check(plan)
    assert len(plan.items) < 10_000
    assert 64 <= len(plan.chain_first) - 1 <= 1024


@pytest.mark.parametrize("size", [2**31 - 1, 2**31 + 5, 2**32 + 1, 2**40])
@pytest.mark.parametrize("start", [0, 2**41 + 3])
def test_large_tensors(simulated, size, start):
    plan = plan_of(simulated, [whole(7), whole(size, start), whole(3, row=1)], 4096, 512)
    check(plan)
    assert len(plan.chain_first) - 1 == MOST_CHAINS
    lengths = plan.items["end"] - plan.items["begin"]
    assert lengths.max() < 1.4 * size / MOST_CHAINS + plan.unit, "no chain is much longer than the others"
    assert lengths[-2] < size / MOST_CHAINS, "the last ones are short"


def test_large_tensors_of_short_runs(simulated):
    size = 2**33 + 3
    for run in (1, 8, 1000):
        plan = plan_of(simulated, [(size, 5, run, 4 * run, 0, FLOAT32)], 4096, 512)
        check(plan)
        assert np.max(plan.items["last_run"] - plan.items["first_run"]) < 1.5 * -(-size // run) / MOST_CHAINS


def test_work_is_spread(simulated):
    """As many chains as there are multiprocessors or more, once there is enough to do."""
    for views in (
        [whole(50_000_000)],
        [whole(100_000, row=i) for i in range(500)],
        [(1_000_000, 3, 4, 1000, 0, FLOAT32)],
        [(2_000_000, 3, 20_000, 50_000, 0, FLOAT32)] * 20,
    ):
        plan = plan_of(simulated, views)
        check(plan)
        chains = len(plan.chain_first) - 1
        assert chains >= 128
        work = [work_of(plan, plan.items[a:b]) for a, b in pairwise(plan.chain_first)]
        assert max(work) <= 1.5 * np.mean(work) + plan.unit + 4096, "none has much more to do than the others"


views_of_any_kind = st.lists(
    st.tuples(
        st.integers(0, 200_000),
        st.integers(0, 2**40),
        st.integers(1, 40_000),
        st.integers(0, 50_000),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    max_size=12,
)


@given(views_of_any_kind, st.sampled_from([128, 1024, 4096, 16384]), st.sampled_from([128, 512]))
def test_any_views(simulated, drawn, buckets, lanes):
    views, row = [], 0
    for size, start, run, gap, more, dtype in drawn:
        row += more
        views.append((size, start, run, run + gap, row, dtype))
    plan = plan_of(simulated, views, buckets, lanes, rows=row + 1)
    check(plan)


def test_plans_follow_from_sizes_alone(simulated):
    """Not from addresses, keys or narrow dtypes."""
    views = [whole(n, n % 5, i // 2) for i, n in enumerate((1, 70_001, 0, 8192, 333_333, 5))]
    first = plan_of(simulated, views)
    described = table(views)
    described["data"] = np.arange(len(views)) * 977 + 1
    described["key"] = 3
    described["layout"] = 4
    again = simulated.plan_of(described, 3, 1024, 128)
    for name in ("items", "chain_first", "rows"):
        np.testing.assert_array_equal(again[name], first.raw[name])
    half = plan_of(simulated, [(*view[:5], BFLOAT16) for view in views])
    np.testing.assert_array_equal(half.items, first.items)
    np.testing.assert_array_equal(half.chain_first, first.chain_first)
