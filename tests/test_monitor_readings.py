"""A monitor answers for its stream, and prints in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from monitor_models import backward, norm64, small_model  # noqa: E402

from gradtail import GradientStream  # noqa: E402
from gradtail.stream import Latest  # noqa: E402
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


@pytest.mark.parametrize(("value", "norm"), [(float("nan"), "nan"), (float("inf"), "inf"), (1.5, None)])
def test_torch_the_newest_step_in_three_numbers(backend: str, value: float, norm: str | None) -> None:
    model = small_model()
    monitor = Monitor(model, backend=backend, every=2)
    assert monitor.latest() is None
    assert monitor.wait() is None
    for step in range(4):
        backward(model, step)
        if step == 2:
            model[0].bias.grad[3] = value
            expected = norm64(model)
        monitor.step()
    found = monitor.latest()
    assert isinstance(found, Latest)
    assert (found.step, found.nonfinite) == (2, int(norm is not None))
    assert found.norm == pytest.approx(expected, rel=1e-6) if norm is None else str(found.norm) == norm
    for other in (monitor.wait(), monitor.stream.latest(), monitor.stream.wait()):
        assert repr(other) == repr(found)
    monitor.rollback(1)
    assert monitor.latest() is None
    with pytest.raises(AttributeError):
        found.step = 3


def test_torch_gradient_alpha_of_every_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Tanh(), torch.nn.Linear(40, 30))
    monitor, bare = Monitor(model), Monitor(model, stable=False)
    for step in range(12):
        torch.manual_seed(step)
        model.zero_grad()
        (model(torch.randn(8, 30)) ** 2).mean().backward()
        monitor.step()
        bare.step()
    found = monitor.stable_index("0.weight", 64)
    assert found == monitor.stream.stable_index("0.weight", 64)
    assert (found.blocks, found.parts) == (12 * (1200 // 64), 12)
    assert len(monitor.stable_curve("0", 64)) == 12
    assert [row["name"] for row in monitor.report().data["stable"]["layers"]] == ["0.weight", "2.weight"]
    with pytest.raises(ValueError, match="expected a stream that takes block sums, got stable=False"):
        bare.stable_index()


def test_torch_accuracy_in_the_report_and_in_a_state() -> None:
    model, other = small_model(), small_model()
    monitor = Monitor(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    monitor.note(accuracy=0.0)  # before the first step
    told = torch.zeros(())
    for step in range(40):
        loss = backward(model, step)
        if step == 7:
            monitor.note(accuracy=0.3)  # of the weights that step 6 has made
        monitor.clip_(1.0, loss)
        optimizer.step()
        if step % 4 == 3:
            told.fill_((step + 1) / 40)
            monitor.note(accuracy=told)  # which is no alias
    expected = [0.0, 0.1, 0.3, *((step + 1) / 40 for step in range(7, 40, 4))]
    steps, values = monitor.accuracies
    assert steps == [0, 3, 6, *range(7, 40, 4)]
    assert values == pytest.approx(expected)
    data = monitor.report().data
    assert data["history"]["accuracy"] == {"steps": steps, "values": pytest.approx(expected)}
    assert len(data["history"]["loss"]["steps"]) == 40
    assert data["stable"]["accuracy_jump"] is not None
    again = Monitor(other)
    again.load_state_dict(monitor.state_dict())
    assert again.accuracies == monitor.accuracies
    again.rollback(9)
    assert again.accuracies == ([0, 3, 6, 7], values[:4])
    older = {key: value for key, value in monitor.state_dict().items() if key != "accuracies"}
    again.load_state_dict(older)
    assert again.accuracies == ([], [])
    with pytest.warns(RuntimeWarning, match="accuracy: expected a number or a tensor of one, got 'x'"):
        again.note(accuracy="x")  # type: ignore[arg-type]
    assert again.enabled
    again.enabled = False
    again.note(accuracy=1.0)
    assert again.accuracies == ([], [])


def test_torch_accuracy_of_a_step_that_is_given_up() -> None:
    """What is told within a step counts for the one before, so that steps of the log rise whatever comes."""
    model = small_model()
    monitor = Monitor(model)
    for step in range(3):
        backward(model, step)
        monitor.step()
    backward(model, 3)
    monitor.observe(model[0].weight)
    monitor.note(accuracy=0.25)
    backward(model, 4)
    with pytest.warns(RuntimeWarning):  # as gradients seen in backward have made way for others
        monitor.observe(model[0].weight)
    monitor.step()
    monitor.note(accuracy=0.5)
    assert monitor.accuracies == ([2, 3], [0.25, 0.5])
