"""Block sums on the simulated device: those of the host, to the bit, whatever the dtype, place and run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pretend
import pytest
import values
from pretend import Device, Pair
from test_block_sums import hard


@pytest.fixture
def device(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield from pretend.lying_on(simulated, monkeypatch)


def same_blocks(pair: Pair) -> None:
    for group in (None, *pair.here.groups):
        for steps in ("all", "newest"):
            found, wanted = pair.call(lambda s, g=group, w=steps: s.summary(g, w).block_logs)  # type: ignore[misc]
            assert repr(found) == repr(wanted)  # NaN is NaN


@pytest.mark.parametrize("dtype", values.DTYPES)
def test_every_dtype_and_size(device: Device, dtype: str) -> None:
    pair = Pair(device, coordinates=None, tracks=0)
    sizes = {"a": 63, "b": 64, "c": 4096, "d": 13_001, "e": 0}
    for step in range(6):
        pair.update({name: hard(step * 10 + n % 7, n, dtype) for name, n in sizes.items()})
        if step == 3:
            same_blocks(pair)
    same_blocks(pair)


@pytest.mark.parametrize("columns", [(0, 100), (37, 300), (64, 256), (0, 384)])
def test_places_and_runs(device: Device, columns: tuple[int, int]) -> None:
    pair = Pair(device, coordinates=None, tracks=0)
    low, high = columns
    for step in range(3):
        whole = hard(step, 60 * 384).reshape(60, 384)
        block = np.ascontiguousarray(whole[7:50, low:high])
        pair.update({"w": block}, step, {"w": ((60, 384), (7, low))})
        pair.update({"v": hard(step + 9, 5000)[3:]}, step)  # no multiple of 16 bytes
    same_blocks(pair)


def test_parts_of_a_step_and_a_stream_that_goes_on(device: Device) -> None:
    pair = Pair(device, coordinates=None, tracks=0)
    for step in range(9):
        for name in ("a", "b"):
            pair.update({name: hard(step, 5000)}, step)
            if step in (2, 5):
                same_blocks(pair)
    same_blocks(pair)
    found, wanted = pair.call(lambda s: s.stable_index(block=64, steps="newest"))
    assert (found.alpha, found.stderr, found.blocks) == (wanted.alpha, wanted.stderr, wanted.blocks)
