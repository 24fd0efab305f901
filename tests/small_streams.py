"""Small streams of made-up gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtail import GradientStream

SHAPES = {"a.weight": (40, 9), "a.bias": (9,), "b.weight": (3, 3, 5), "late": (100,)}


def gradient(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([step, 11])
    found = {n: rng.standard_t(3, shape).astype(np.float32) for n, shape in SHAPES.items()}
    if step == 3:
        found["b.weight"][1, 2, 3] = np.inf
    if step < 7:
        del found["late"]
    return found


def stream(backend: str, **settings: Any) -> GradientStream:
    small = {"sketch": 256, "tracks": 50, "window": 5, "history": 8, "coordinates": 2}
    return GradientStream(backend=backend, **{**small, **settings})  # type: ignore[arg-type]


def filled(backend: str, steps: range, **settings: Any) -> GradientStream:
    found = stream(backend, **settings)
    for step in steps:
        found.update(gradient(step), step)
    return found


def assert_equal_states(found: GradientStream, expected: GradientStream) -> None:
    """Equal to the bit."""
    a, b = found.state_dict(), expected.state_dict()
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
