"""Sharded gradients, with two processes: read in place, counted once, merged into those of the whole."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import same_summaries  # noqa: E402

from gradtail.report import Report  # noqa: E402
from gradtail.torch import merge_states  # noqa: E402

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)
pytest.importorskip("torch.distributed.tensor", reason="needs DTensor (torch 2.5 or newer)")
try:
    import monitor_ranks as ranks
except ImportError as error:
    pytest.skip(f"needs fully_shard (torch 2.6 or newer): {error}", allow_module_level=True)

Found = dict[str, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What each of two processes found."""
    import torch.multiprocessing as multiprocessing

    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(ranks.work, (str(folder),), nprocs=ranks.RANKS)
    return [torch.load(Path(folder) / f"rank{rank}.pt", weights_only=True) for rank in range(ranks.RANKS)]


def scene(both: list[dict[str, Found]], name: str) -> list[Found]:
    for found in both:
        assert "error" not in found[name], found[name]["traceback"]
    return [found[name] for found in both]


def test_torch_fully_sharded_norms_are_those_of_the_whole(both: list[dict[str, Found]]) -> None:
    for found in scene(both, "fully_sharded"):
        assert found["sharded"]["norms"] == pytest.approx(found["whole"]["norms"], rel=1e-6)
        assert found["apart"] < 1e-7
        assert found["pending"] == []


def test_torch_no_step_communicates_and_a_clip_does_once(both: list[dict[str, Found]]) -> None:
    for found in scene(both, "fully_sharded"):
        assert found["sharded"]["calls"] == [0, 1, 0, 1]
        assert found["whole"]["calls"] == [0, 0, 0, 0]


def test_torch_local_numbers_do_not_go_by_global_names(both: list[dict[str, Found]]) -> None:
    for found in scene(both, "fully_sharded"):
        local = [name for name in found["scalars"] if name.startswith("grad/") and name != "grad/norm"]
        assert local
        assert all(name.startswith("grad/local/") for name in local)


def test_torch_the_plan_says_which_block_a_rank_holds(both: list[dict[str, Found]]) -> None:
    first, second = ({row[0]: row[1:] for row in f["plan"]} for f in scene(both, "fully_sharded"))
    assert first["3.weight"] == ["shard", "[150, 5] of [300, 5] at [0, 0]"]
    assert second["3.weight"] == ["shard", "[150, 5] of [300, 5] at [150, 0]"]
    assert second["0.weight"] == ["shard", "[0, 6] of [1, 6] at [1, 0]"]


def test_torch_merged_shards_are_the_whole(both: list[dict[str, Found]]) -> None:
    found = scene(both, "fully_sharded")
    merged = merge_states(f["sharded"]["state"] for f in found)
    whole = merge_states([found[0]["whole"]["state"]])
    assert set(merged.names) == set(whole.names)
    same_summaries(merged, whole, whole.names)
    assert merged.steps == whole.steps == 4
    np.testing.assert_allclose(merged.history.norm, whole.history.norm, rtol=1e-6)
    assert merged.ring().steps.tolist() == whole.ring().steps.tolist()
    scale = np.abs(whole.ring().vectors).max()
    np.testing.assert_allclose(merged.ring().vectors, whole.ring().vectors, atol=1e-5 * scale)


@pytest.mark.parametrize("case", ["columns", "replica", "hybrid", "both", "copies"])
def test_torch_each_element_counts_once_whatever_the_placements(
    both: list[dict[str, Found]], case: str
) -> None:
    found = [f[case] for f in scene(both, "placed")]
    value = np.arange(35.0) - 11
    for f in found:
        assert f["norm"] == pytest.approx(np.linalg.norm(value), rel=1e-6)
        assert f["clipped"] == pytest.approx(1.0, rel=1e-5)
    summary = merge_states(f["state"] for f in found).summary()
    assert (summary.count, summary.zeros, summary.max_abs) == (35, 1, 23)
    assert summary.norm == pytest.approx(np.linalg.norm(value), rel=1e-6)
    if case in ("replica", "copies"):
        assert [f["scope"] for f in found] == ["owner", "replica"]


def test_torch_parameters_of_several_meshes_and_plain_ones_share_a_norm(both: list[dict[str, Found]]) -> None:
    expected = math.sqrt(5 * float(np.sum((np.arange(35.0) - 11) ** 2)) + 4 * 9)
    for found in scene(both, "placed"):
        assert found["mixed"] == pytest.approx(expected, rel=1e-6)
        assert found["mixed_clipped"] == pytest.approx(3 / expected, rel=1e-5)


@pytest.mark.parametrize(
    ("case", "message", "norm"),
    [
        ("partial", r"got placement P.*: each rank holds a summand", math.sqrt(48)),
        ("strided", r"got placement _S.*: its shards are interleaved", math.sqrt(12)),
    ],
)
def test_torch_gradients_that_are_no_blocks_are_refused_and_clipped(
    both: list[dict[str, Found]], case: str, message: str, norm: float
) -> None:
    for found in (f[case] for f in scene(both, "refused")):
        (warning,) = found["warning"]
        assert re.search(message, warning)
        assert not found["enabled"]
        assert found["norm"] == pytest.approx(norm, rel=1e-6)
        assert found["local"] == pytest.approx(1 / norm, rel=1e-5)


def test_torch_a_nan_of_one_rank_stops_the_clip_on_all(both: list[dict[str, Found]]) -> None:
    found = scene(both, "nonfinite")
    for f in found:
        assert math.isnan(f["norm"])
        assert f["found_inf"] == 1.0
        assert f["same"]
    assert [f["first"] for f in found] == [None, ["3.weight", 752]]


def test_torch_a_folded_clip_of_sharded_parameters(both: list[dict[str, Found]]) -> None:
    for found in scene(both, "folded"):
        assert found["apart"] < 1e-6


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists, by path."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found.update(numbers(item, f"{path}/{key}"))
    return found


def test_torch_the_report_of_two_processes_is_that_of_one(both: list[dict[str, Found]]) -> None:
    found = scene(both, "split")
    for f in found:
        assert merge_states([f["mine"]]).steps == 12
    merged = Report.from_stream(merge_states(f["mine"] for f in found)).data
    whole = Report.from_stream(merge_states([found[0]["everything"]])).data
    compared = 0
    for part in ("run", "whole", "layers"):
        a, b = numbers(merged[part]), numbers(whole[part])
        assert a.keys() == b.keys(), part
        for path, value in b.items():
            if isinstance(value, float):
                assert a[path] == pytest.approx(value, rel=1e-5, nan_ok=True), path
            else:
                assert a[path] == value, path
            compared += 1
    assert compared > 100


def test_torch_what_two_have_counted_is_refused(both: list[dict[str, Found]]) -> None:
    state = scene(both, "split")[0]["mine"]
    with pytest.raises(ValueError, match=r"0\.weight"):
        merge_states([state, state])
    with pytest.raises(ValueError, match="states: expected at least one state, got none"):
        merge_states([])
    with pytest.raises(TypeError, match=r"states\[0\]: expected the state_dict of a Monitor, got list"):
        merge_states([[]])
