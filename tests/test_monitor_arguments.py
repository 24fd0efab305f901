"""Monitor refuses what it cannot use, in the library's voice."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch import nn  # noqa: E402

from gradtail.torch import Monitor  # noqa: E402


def small_model() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every: expected a positive int, got 0"),
        ({"every": 1.5}, TypeError, "every: expected a positive int, got 1.5"),
        ({"on_error": "ignore"}, ValueError, "on_error: expected 'disable' or 'raise', got 'ignore'"),
        ({"optimizer": 3}, TypeError, "optimizer: expected a torch.optim.Optimizer, got int"),
        ({"optimizer": [3]}, TypeError, "optimizer: expected torch.optim.Optimizers, got int"),
        ({"when": "later"}, ValueError, "when: expected 'call' or 'optimizer', got 'later'"),
        ({"when": "optimizer"}, ValueError, "when: expected an optimizer to be given .*, got none"),
        ({"memory": "lots"}, ValueError, "memory: expected"),
        ({"groups": {"a": "("}}, ValueError, r"groups\['a'\]: expected a regular expression"),
        ({"window": -1}, ValueError, "window: expected an int of at least 0, got -1"),
        ({"param": "x"}, TypeError, "param: expected one of .* that Monitor has not; did you mean params?"),
        ({"colour": 1}, TypeError, "colour: expected one of optimizer, every, .* that Monitor has not$"),
        ({"bits": 11}, ValueError, "bits: expected an int from 0 to 10, got 11"),
    ],
)
def test_torch_arguments_are_checked(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Monitor(small_model(), **arguments)


def test_torch_max_norm_is_checked() -> None:
    monitor = Monitor(small_model())
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm: expected a positive number"):
            monitor.clip_(bad)
    with pytest.raises(TypeError, match="max_norm: expected a positive number, got None"):
        monitor.clip_(None)
    with pytest.raises(RuntimeError, match="grad_norm: expected a call of step or clip_ before"):
        monitor.grad_norm()
    with pytest.raises(RuntimeError, match="found_inf: expected a call of step or clip_ before"):
        monitor.found_inf  # noqa: B018
    optimizer = torch.optim.AdamW(small_model().parameters())
    with pytest.raises(
        TypeError, match=r"^loss: expected a number .*, got an optimizer; .*into=optimizer\)$"
    ):
        monitor.clip_(1.0, optimizer)
    with pytest.raises(
        TypeError, match=r"^loss: .*, got an optimizer; give it as Monitor\(model, optimizer\)$"
    ):
        monitor.step(optimizer)
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        Monitor([])


def test_torch_shards_that_do_not_say_where_they_lie_are_refused() -> None:
    class FullyShardedDataParallel(nn.Module):  # the wrapper of FSDP1, by name
        def __init__(self) -> None:
            super().__init__()
            self.module = small_model()

    with pytest.raises(TypeError, match=r"model: expected plain or DTensor parameters"):
        Monitor(FullyShardedDataParallel())


def test_torch_hooks_and_states_are_checked() -> None:
    monitor = Monitor(small_model())
    with pytest.raises(TypeError, match=r"optimizer: expected a torch.optim.Optimizer, got str"):
        monitor.attach("adam")
    with pytest.raises(TypeError, match="state: expected the state_dict of a Monitor, got list"):
        monitor.load_state_dict([])
    with pytest.raises(TypeError, match="step: expected an int, got 'two'"):
        monitor.rollback("two")
