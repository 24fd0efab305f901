"""Gradients at fixed parameters: the model and all random states are as they were, after Ctrl-C too."""

import random
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from model_states import everything, same  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from gradtail.torch import collect_gradients, hessian_spectrum  # noqa: E402
from gradtail.torch import interrupts as interrupts_module  # noqa: E402

mse = nn.functional.mse_loss


def regression(n=60, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    y = x @ torch.randn(d, 1, generator=generator) + torch.randn(n, 1, generator=generator)
    torch.manual_seed(seed)
    return nn.Linear(d, 1), (x, y)


class Squares(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def odd_model():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Dropout(0.5),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 1)),
    )
    model[1].eval()
    model[0].weight.grad = torch.ones(6, 4)
    return model


class Noisy(Squares):
    def __getitem__(self, i):
        return self.x[i] + 0.1 * np.random.rand() + 0.1 * random.random() + torch.rand(1), self.y[i]  # noqa: NPY002


@pytest.mark.parametrize("mode", [None, "train", "eval"])
def test_the_model_is_as_it_was(mode):
    model, (_, data) = odd_model(), regression()
    before, grad, buffer = everything(model), model[0].weight.grad, model[1].running_mean
    for centre in (False, True):
        collect_gradients(model, mse, Noisy(*data), 6, 8, mode=mode, centre=centre)
        same(before, everything(model))
    assert model[0].weight.grad is grad
    assert model[1].running_mean is buffer


def test_the_model_is_as_it_was_after_an_error():
    model, (_, data) = odd_model(), regression()
    before, calls = everything(model), []

    def loss(output, target):
        calls.append(1)
        if len(calls) == 11:
            raise RuntimeError("from the loss")
        return mse(output, target)

    with pytest.raises(RuntimeError, match="from the loss"):
        collect_gradients(model, loss, data, 6, 8, mode="train")
    same(before, everything(model))


@pytest.mark.parametrize("batches", [None, 4])
def test_a_loader_and_its_random_states_are_as_they_were(batches):
    model, (_, data) = odd_model(), regression()
    own = torch.Generator().manual_seed(5)
    for generator in (None, own):
        loader = DataLoader(Noisy(*data), batch_size=8, shuffle=True, generator=generator)
        before, drawn = everything(model), own.get_state()
        for centre in (False, True):
            collect_gradients(model, mse, loader, batches, centre=centre)
            same(before, everything(model))
            assert torch.equal(own.get_state(), drawn)
        hessian_spectrum(model, mse, loader, 1, mode="eval")
        same(before, everything(model))
        assert torch.equal(own.get_state(), drawn)


class Registering(nn.Module):
    """Registers on a module that had nothing, and takes and replaces what it had."""

    def __init__(self):
        super().__init__()
        self.empty, self.linear, self.last = nn.Identity(), nn.Linear(4, 1), nn.Tanh()
        self.linear.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        self.empty.register_buffer("seen", x.detach().mean())
        self.empty.register_buffer("passing", x.detach().mean(), persistent=False)
        self.empty.register_parameter("also", nn.Parameter(torch.ones(1)))
        if not hasattr(self, "added"):
            self.added = nn.BatchNorm1d(4)
            self.last = nn.ReLU()
            del self.linear.scale
        return self.last(self.linear(self.added(x)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_a_forward_pass_registers_goes():
    model, data = Registering(), regression()[1]
    names, last = list(model.state_dict()), model.last
    collect_gradients(model, mse, data, 4, 8)
    assert list(model.state_dict()) == names
    assert [name for name, _ in model.named_modules()] == ["", "empty", "linear", "last"]
    assert model.last is last
    assert (dict(model.empty.named_buffers()), list(model.empty.parameters())) == ({}, [])
    assert not model.empty._non_persistent_buffers_set
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1)))
    before = everything(scripted)
    collect_gradients(scripted, mse, data, 4, 8)
    same(before, everything(scripted))


def test_the_mode_matters_where_it_should():
    model, data = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1)), regression()[1]
    fixed, dropped = (
        collect_gradients(model, mse, [data] * 6, centre=False, exact=True, mode=mode).matrix()
        for mode in ("eval", "train")
    )
    assert (fixed == fixed[0]).all()
    assert not (dropped == dropped[0]).all()


def test_modes_and_what_is_random_are_in_the_provenance():
    _, data = regression()
    modes = {None: "mixed", "train": "train", "eval": "eval"}
    parts = {None: ["dropout"], "train": ["batch statistics", "dropout"], "eval": []}
    for mode in modes:
        known = collect_gradients(odd_model(), mse, data, 4, 8, mode=mode).provenance
        assert (known["mode"], known["random"]) == (modes[mode], parts[mode])


# Ctrl-C.


def stop_after(monkeypatch, batches):
    class Stopping(interrupts_module.Interrupts):
        asked = 0

        @property
        def stopped(self):
            self.asked += 1
            return self.asked > batches

    monkeypatch.setattr("gradtail.torch.collect.Interrupts", Stopping)


def test_ctrl_c_reaches_an_inner_block_from_an_outer_one():
    """The study holds Ctrl-C while it collects; a real signal must stop the collection."""
    model, data = regression()

    def loss(output, target):
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return mse(output, target)

    calls = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts_module.Interrupts() as outer:
            found = collect_gradients(model, loss, data, 20, 8, centre=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert outer.stopped
    assert (found.batches, found.interrupted) == (5, True)


def test_ctrl_c_keeps_what_was_gathered(monkeypatch):
    model, data = regression()
    whole = collect_gradients(model, mse, data, 6, 8, centre=False, exact=True)
    stop_after(monkeypatch, 3)
    found = collect_gradients(model, mse, data, 6, 8, centre=False, exact=True)
    assert (found.batches, found.interrupted, found.gradients.steps) == (3, True, 3)
    assert (found.matrix() == whole.matrix()[:3]).all()
    assert "interrupted" in repr(found)
    assert (found.provenance["batches"], found.provenance["asked_for"]) == (3, 6)


def test_ctrl_c_before_there_is_anything_leaves_the_model_as_it_was(monkeypatch):
    model, (_, data) = odd_model(), regression()
    before = everything(model)
    for batches in (0, 1, 5, 9):
        stop_after(monkeypatch, batches)
        with pytest.raises(KeyboardInterrupt):
            collect_gradients(model, mse, data, 6, 8, mode="train")
        same(before, everything(model))
