"""A monitor answers for its stream, and prints in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, small_model  # noqa: E402

from gradtail import GradientStream  # noqa: E402
from gradtail.torch import Monitor  # noqa: E402


def test_torch_the_readings_are_those_of_the_stream(tmp_path: Path) -> None:
    model = small_model()
    monitor = Monitor(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    assert repr(monitor) == "Monitor(6 parameters, nothing observed)"
    for step in range(40):
        monitor.step(backward(model, step))
        optimizer.step()
    stream = monitor.stream
    assert repr(monitor) == "Monitor(6 parameters, 40 steps observed, newest 39)"
    assert monitor.history is stream.history
    assert str(monitor.spectrum()) == str(stream.spectrum())
    assert str(monitor.spectrum("2", centred=False)) == str(stream.spectrum("2", centred=False))
    assert str(monitor.suggest_clip(0.1)) == str(stream.suggest_clip(0.1))
    np.testing.assert_array_equal(monitor.tracks(["0.weight"]).values, stream.tracks(["0.weight"]).values)
    np.testing.assert_array_equal(monitor.coordinates("0.weight").mean, stream.coordinates("0.weight").mean)
    monitor.save(tmp_path / "run.npz")
    assert GradientStream.load(tmp_path / "run.npz").steps == 40
    monitor.enabled = False
    assert repr(monitor).endswith(", off)")
