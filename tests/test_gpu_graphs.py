"""CUDA graphs: a step that was captured is observed at every replay."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_device import DEVICE, as_tensors, needed
from small_streams import gradient, stream
from streams import assert_same_summary

torch = pytest.importorskip("torch", reason="CUDA graphs are captured with PyTorch")

from gradtail.torch import Monitor  # noqa: E402

pytestmark = needed
WARM, REPLAYS = 3, 6


def arrays_of(step):
    """Arrays whose names are the same at every step."""
    found = gradient(step)
    found.pop("late", None)
    return found


def written(there, step):
    """Write the arrays of a step to the tensors of the graph."""
    for name, x in arrays_of(step).items():
        there[name].copy_(torch.from_numpy(x))


@pytest.mark.parametrize("side", [False, True])
def test_replays_are_steps(side):
    """Reading waits for replays, on whatever stream they run."""
    there, found, expected = as_tensors(arrays_of(0)), stream("native"), stream("numpy")
    for step in range(WARM):
        written(there, step)
        found.update(there, step)
        expected.update(arrays_of(step), step)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found.update(there)
    assert found.steps == WARM, "what was captured is not run"
    own = torch.cuda.Stream() if side else torch.cuda.current_stream()
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        for step in range(WARM, WARM + REPLAYS):
            written(there, step)
            torch.cuda._sleep(100_000_000)
            graph.replay()
            expected.update(arrays_of(step), step)
    assert_same_summary(found.summary(), expected.summary())
    assert found.steps == expected.steps == WARM + REPLAYS
    assert found.last_step == expected.last_step
    np.testing.assert_allclose(found.history.norm, expected.history.norm, rtol=2e-6)
    np.testing.assert_array_equal(found.tracks().values, expected.tracks().values)
    assert_same_summary(found.summary(steps="newest"), expected.summary(steps="newest"))


def test_steps_outside_the_graph_go_on():
    there, found, expected = as_tensors(arrays_of(0)), stream("native"), stream("numpy")
    found.update(there)
    expected.update(arrays_of(0))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found.update(there)
    for step in range(1, 7):
        written(there, step)
        if step % 2:
            graph.replay()
        else:
            found.update(there)
        expected.update(arrays_of(step))
        torch.cuda.synchronize()
    assert found.steps == expected.steps
    assert_same_summary(found.summary(), expected.summary())


def test_new_arrays_in_a_capture_are_refused():
    there, found = as_tensors(arrays_of(0)), stream("native")
    found.update(there)
    there["new"] = torch.ones(5, device=DEVICE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(RuntimeError, match="update once with the same arrays"):
        found.update(there)
    assert found.steps == 1


def test_a_monitored_step():
    """The monitor's call is part of the graph, as `backward` is; it is made once before the capture."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(DEVICE)
    there = torch.randn(16, 6, device=DEVICE)
    monitor = Monitor(model, on_error="raise")

    def step(number=None):
        for p in model.parameters():
            p.grad.zero_()
        model(there).square().mean().backward()
        monitor.step(step=number)

    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    side = torch.cuda.Stream()  # as torch asks for before a capture
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for number in range(WARM):
            step(number)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(WARM)
    norms = []
    for i in range(REPLAYS):
        there.copy_(torch.randn(16, 6, generator=torch.Generator().manual_seed(i)))
        graph.replay()
        total = sum(float(p.grad.double().square().sum()) for p in model.parameters())
        norms.append(total**0.5)
    torch.cuda.synchronize()
    assert monitor.stream.steps == WARM + REPLAYS
    np.testing.assert_allclose(monitor.history.norm[-REPLAYS:], norms, rtol=1e-6)
    assert monitor.wait().norm == pytest.approx(norms[-1], rel=1e-6)
