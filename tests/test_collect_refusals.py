"""Gradients at fixed parameters: what is refused, before anything is taken."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset, TensorDataset  # noqa: E402

from gradtail.torch import collect_gradients  # noqa: E402

mse = nn.functional.mse_loss


def regression():
    generator = torch.Generator().manual_seed(0)
    return nn.Linear(4, 1), (torch.randn(60, 4, generator=generator), torch.randn(60, 1, generator=generator))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sampling": "random"}, ValueError, "sampling: expected one of 'shuffle', 'replacement'"),
        ({"batches": None}, ValueError, "batches: expected an int for data that is not in batches, got None"),
        ({"batch_size": None}, ValueError, "batch_size: expected an int for data that is not in batches"),
        ({"batches": 1}, ValueError, "batches: expected at least 2, got 1"),
        ({"batches": 2.0}, TypeError, "batches: expected an int, got float"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"batch_size": 61}, ValueError, "data: expected at least 61 examples for a batch, got 60"),
        ({"mode": "test"}, ValueError, "mode: expected None, 'train' or 'eval', got 'test'"),
        ({"top": 49}, ValueError, "top: expected at least 50, got 49"),
        ({"top": 60.0}, TypeError, "top: expected an int, got float"),
        ({"centre": "no"}, TypeError, "centre: expected a bool, got str"),
        ({"exact": 1}, TypeError, "exact: expected a bool, got int"),
        ({"layers": None}, TypeError, "layers: expected a bool, got NoneType"),
        ({"sketch": "big"}, TypeError, "sketch: expected a power of two from 128 to 65536, got 'big'"),
        ({"sketch": 100}, ValueError, "sketch: expected a power of two from 128 to 65536, got 100"),
        ({"tracks": "all"}, TypeError, "tracks: expected an int of at least 0, got 'all'"),
        ({"tracks": None}, TypeError, "tracks: expected an int of at least 0, got None"),
        ({"coordinates": 1.5}, TypeError, "coordinates: expected 'auto', 'dense', None or a power of two"),
        ({"seed": "x"}, TypeError, "seed: expected an int"),
        ({"loss": "mse"}, TypeError, "loss: expected a callable, got str"),
        ({"loss": lambda o, t: o - t}, ValueError, "loss: expected a scalar tensor, the mean over"),
        ({"loss": lambda o, t: o.detach().mean()}, ValueError, "loss: expected a value that depends on the"),
        ({"loss": lambda o, t: 1.0}, ValueError, "loss: expected a scalar tensor, .* got float"),
        ({"model": 3}, TypeError, "model: expected a torch.nn.Module, got int"),
        ({"model": nn.ReLU()}, ValueError, "model: expected parameters that require a gradient, got none"),
        ({"data": 3}, TypeError, "data: expected a pair of tensors, an indexable data set or an iterable"),
        ({"data": (torch.ones(3, 4), torch.ones(2, 1))}, ValueError, "data: expected as many inputs"),
        (
            {"data": (torch.ones(0, 4), torch.ones(0, 1)), "sampling": "replacement"},
            ValueError, "data: expected at least 1 example, got none",
        ),
    ],
)  # fmt: skip
def test_refusals(given, error, message):
    model, data = regression()
    arguments = {"model": model, "loss": mse, "data": data, "batches": 4, "batch_size": 8, **given}
    with pytest.raises(error, match=message.replace("(", r"\(")):
        collect_gradients(**arguments)


def test_refusals_of_ready_batches():
    model, (x, y) = regression()
    with pytest.raises(ValueError, match="batch_size: expected none where batches come ready"):
        collect_gradients(model, mse, [(x, y)] * 3, batch_size=8)
    with pytest.raises(ValueError, match="sampling: expected none where batches come ready"):
        collect_gradients(model, mse, [(x, y)] * 3, sampling="replacement")
    with pytest.raises(ValueError, match="sampling: expected none where batches come ready"):
        collect_gradients(model, mse, [(x, y)] * 3, sampling="shuffle")
    with pytest.raises(
        TypeError, match=r"data: expected batches of \(inputs, targets\) or mappings, got a tuple of 3"
    ):
        collect_gradients(model, mse, [(x, y, y)] * 3)
    with pytest.raises(ValueError, match="data: expected something to go through twice"):
        collect_gradients(model, mse, iter([(x, y)] * 3), 3)
    with pytest.raises(ValueError, match="batches: expected an int for data that does not know how many"):
        collect_gradients(model, mse, iter([(x, y)] * 3), centre=False)
    with pytest.raises(ValueError, match="data: expected at least 2 batches, got 1"):
        collect_gradients(model, mse, [(x, y)])
    with pytest.raises(
        TypeError, match=r"data: expected batches of \(inputs, targets\) or mappings, got Tensor"
    ):
        collect_gradients(model, mse, [x, y, x], centre=False)


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize(
    "given",
    [
        {"loss": 3}, {"top": 2}, {"mode": "x"}, {"layers": 1}, {"centre": 1}, {"sampling": "shuffle"},
        {"batch_size": 3}, {"batches": 1}, {"tracks": "x"}, {},
    ],
)  # fmt: skip
def test_a_refused_call_takes_nothing_from_a_loader(given):
    """Not even its iterator, which draws a seed; the last is refused for the loss, in the course of it."""
    model, data = regression()
    own = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(*data), batch_size=8, shuffle=True, generator=own)
    before, drawn = states(), own.get_state()
    arguments = {"loss": lambda output, target: output, **given}
    with pytest.raises((TypeError, ValueError)):
        collect_gradients(model, data=loader, **arguments)
    assert states() == before
    assert torch.equal(own.get_state(), drawn)


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items)


def test_an_iterable_data_set_with_a_length_has_ready_batches():
    model, (x, y) = regression()
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10)]
    found = collect_gradients(model, mse, Stream(batches), exact=True)
    assert (found.matrix() == collect_gradients(model, mse, batches, exact=True).matrix()).all()
    collect_gradients(model, lambda o, t: mse(o, t["y"]), Stream([(a, {"y": b}) for a, b in batches]))
    for items in (list(x), list(zip(x, y[:, 0], strict=True)), [(one, 3) for one in x]):
        with pytest.raises(TypeError, match="data: expected batches from an IterableDataset"):
            collect_gradients(model, mse, Stream(items))


def test_an_iterator_that_ends_early_was_not_interrupted():
    model, data = regression()
    found = collect_gradients(model, mse, iter([data] * 3), 5, centre=False)
    assert (found.batches, found.interrupted) == (3, False)
    assert (found.provenance["batches"], found.provenance["asked_for"]) == (3, 5)
    for few in (0, 1):
        with pytest.raises(ValueError, match=f"data: expected at least 2 batches, got {few}"):
            collect_gradients(model, mse, iter([data] * few), 5, centre=False)


def test_refusals_of_readings():
    model, data = regression()
    found = collect_gradients(model, mse, data, 4, 8)
    bare = collect_gradients(model, mse, data, 4, 8, coordinates=None)
    for read in (found.iteration_wise, found.all_coordinates):
        with pytest.raises(ValueError, match="names: expected names of parameters, got none"):
            read(names=[])
        with pytest.raises(TypeError, match="names: expected names of parameters, got str"):
            read(names="bias")
        with pytest.raises(TypeError, match="names: expected names of parameters, got int"):
            read(names=3)
    assert found.all_coordinates(names=["bias"]).pvalue.size == 1
    assert found.all_coordinates().pvalue.size == 5
    with pytest.raises(ValueError, match="coordinates: expected moments of coordinates to be kept, got None"):
        bare.all_coordinates()
    with pytest.raises(ValueError, match=r"test: expected one of 'dagostino', .*, got 'foo'"):
        found.iteration_wise(test="foo")
    with pytest.raises(ValueError, match="top: expected at least 50, got 49"):
        found.iteration_wise(top=49)
    with pytest.raises(TypeError, match="top: expected an int, got float"):
        found.iteration_wise(top=60.0)
    with pytest.raises(TypeError, match="top: expected an int, got str"):
        found.spectrum(top="x")
    with pytest.raises(ValueError, match="top: expected at least 1, got 0"):
        found.spectrum(top=0)
