"""Memory: what is stated holds, whatever the number of arrays, of steps and of binades."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from gradtail import GradientStream
from gradtail.states.budget import Sizes, divide, parse_memory

MIB = 1 << 20
SIZES = Sizes(bits=4, window=256, sketch=4096, tracks=4096, history=2048)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 * MIB), ("1 GB", 10**9), ("1.5kib", 1536), ("12", 12), (7, 7), (" 2 mb ", 2 * 10**6)],
)
def test_amounts(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


def test_small_models_have_a_group_an_array() -> None:
    plan = divide(64 * MIB, SIZES, [10**6] * 148, 148, "auto")
    assert plan.groups >= 148
    assert plan.cell >= 64


def test_a_model_of_7b_has_a_group_an_array_in_the_default_memory() -> None:
    elements = [4096 * 4096] * 128 + [4096 * 11008] * 96 + [4096] * 65 + [32000 * 4096] * 2
    plan = divide(64 * MIB, SIZES, elements, len(elements), "auto")
    assert plan.groups >= 200
    assert plan.cell > 64  # moments of fewer coordinates, so that they fit


def test_too_little_memory_is_refused_before_anything_is_seen() -> None:
    stream = GradientStream(memory="3MiB")
    message = r"memory: expected at least .* for a window of 256 steps, a sketch of 4096, .*, got 3 MiB"
    with pytest.raises(ValueError, match=message):
        stream.declare({"w": 100})
    with pytest.raises(ValueError, match=message):
        stream.update({"w": np.ones(100)})
    assert (stream.names, stream.steps) == ([], 0)
    dense = GradientStream(coordinates="dense", memory="20MiB")
    with pytest.raises(ValueError, match="coordinates='dense', got 20 MiB"):
        dense.declare({"w": 10**7})


def test_many_arrays_stay_within_the_stated_memory(backend: str) -> None:
    """Ten thousand in the default memory; NumPy, which takes a millisecond an array, has fewer and less."""
    arrays, memory, steps = (10_000, 64, 3) if backend == "native" else (400, 16, 3)
    rng = np.random.default_rng(0)
    names = [f"layers.{i // 64}.experts.{i % 64}.w" for i in range(arrays)]
    gc.collect()
    tracemalloc.start()
    stream = GradientStream(backend=backend, memory=memory * MIB)
    for _ in range(steps):
        x = (rng.standard_normal(arrays * 4) * 10.0 ** rng.uniform(-12, 12)).astype(np.float32)
        stream.update({name: x[4 * i : 4 * i + 4] for i, name in enumerate(names)})
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stream.nbytes <= memory * MIB
    assert held <= 1.3 * memory * MIB  # with untouched bins, Python's own objects and the arrays of a step
    assert len(stream.groups) <= stream.settings["most_groups"] < arrays
    assert stream.summary().count == steps * arrays * 4
    assert len(stream.tracks().index) >= arrays


def test_memory_does_not_grow_with_steps(backend: str) -> None:
    rng = np.random.default_rng(1)
    stream = GradientStream(
        backend=backend, memory="3MiB", window=16, sketch=256, tracks=64, history=64, coordinates=None
    )
    sizes = []
    for step in range(300):
        scale = 10.0 ** ((step % 61) - 30)  # every binade that float32 has
        stream.update({f"w{i}": rng.standard_normal(50).astype(np.float32) * scale for i in range(5)})
        sizes.append(stream.nbytes)
    assert max(sizes) <= 3 * MIB
    blocks = stream.blocks()
    assert sum(block.steps for block in blocks) == 300
    assert len({block.steps for block in blocks[:-1]}) == 1
    assert stream.summary().count == 300 * 250


def test_no_step_allocates_for_good(backend: str) -> None:
    stream = GradientStream(backend=backend, window=8, sketch=512, tracks=100, history=16)
    arrays = {f"m.{i}": np.random.default_rng(i).standard_normal(300) for i in range(5)}
    for _ in range(200):
        stream.update(arrays)
    before = stream.nbytes
    for _ in range(200):
        stream.update(arrays)
    assert stream.nbytes <= 1.1 * before
