"""The stable index of gradient noise of a real net: what is collected, and what it is called."""

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from torch import nn  # noqa: E402

from gradtail import stable_index_noise  # noqa: E402
from gradtail.torch import collect_gradients  # noqa: E402

cross_entropy = nn.functional.cross_entropy

KEPT = {
    "exact": True,
    "layers": False,
    "coordinates": None,
    "tracks": 0,
}  # the gradients, and no tests of them


def network(dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 64, bias=bias), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
    )
    return net.to(dtype)


def classes(n=480, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 20, generator=generator, dtype=dtype)
    return x, torch.randint(0, 5, (n,), generator=generator)


def full_by_hand(net, x, y):
    loss = cross_entropy(net(x), y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))]).numpy()


@pytest.mark.parametrize("sampling", ["in order", "shuffle"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_columns_of_an_epoch_sum_to_zero(sampling, dtype):
    net, (x, y) = network(dtype), classes(dtype=dtype)
    found = collect_gradients(net, cross_entropy, (x, y), 24, 20, sampling=sampling, **KEPT)
    rounding = torch.finfo(dtype).eps
    gradients, noise = found.matrix(), found.matrix("noise")
    size = np.abs(gradients).max(axis=0)
    assert np.all(np.abs(noise.sum(axis=0, dtype=np.float64)) <= 24 * 8 * rounding * size)
    full = full_by_hand(net, x, y)
    mean = gradients.mean(axis=0, dtype=np.float64)
    assert np.linalg.norm(mean - full) < 1e-6 * np.linalg.norm(full)
    assert noise == pytest.approx(gradients - mean, abs=float(100 * rounding * size.max()))
    assert found.provenance["sizes"] == [20]


def test_an_unequal_last_batch_is_weighted():
    net, (x, y) = network(), classes(470)
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 470, 20)]
    found = collect_gradients(net, cross_entropy, batches, **KEPT)
    weight = np.array([len(b) for b, _ in batches])
    assert weight[-1] == 10
    noise = found.matrix("noise")
    assert np.abs(weight @ noise).max() < 1e-12
    assert np.abs(noise.sum(axis=0)).max() > 1e-6  # not what an unweighted mean would give
    full = np.concatenate([g.numpy().reshape(-1) for g in found.full.values()])
    assert full == pytest.approx(full_by_hand(net, x, y), abs=1e-12)
    assert found.provenance["sizes"] == [10, 20]
    assert any("batches of 10 to 20 examples" in w for w in found.stable_index(layers=False).warnings)


def test_drawn_batches_are_all_of_one_size():
    net, data = network(), classes(470)
    found = collect_gradients(net, cross_entropy, data, 40, 20, **KEPT)
    assert found.provenance["sizes"] == [20]
    assert not any("examples" in w for w in found.stable_index(layers=False).warnings)


def test_index_of_noise_and_of_gradients():
    net, data = network(torch.float32), classes(dtype=torch.float32)
    found = collect_gradients(net, cross_entropy, data, 48, 20, **KEPT)
    noise = found.stable_index(seed=3)
    assert (noise.kind, noise.n) == ("noise", 48 * found.provenance["parameters"])
    assert "noise alpha" in noise.verdict
    assert found.stable_index("gradient", layers=False).verdict.count("gradient alpha") == 1
    assert list(noise.layers) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight"]
    assert any("4.bias" in w for w in noise.warnings)  # five numbers are too few
    by_hand = stable_index_noise(found.matrix("noise"), block=noise.k1, epoch=24, seed=3)
    assert (by_hand.alpha, by_hand.controls) == (noise.alpha, noise.controls)
    first = stable_index_noise(found.matrix("noise")[:, : 20 * 64])
    assert noise.layers["0.weight"].alpha == first.alpha
    # Neurons share their inputs, and weights have many scales: nothing of this is a tail.
    assert noise.findings
    assert noise.verdict.startswith("no stable index")
    again = collect_gradients(net, cross_entropy, data, 48, 20, **KEPT)
    assert again.stable_index(seed=3).alpha == noise.alpha


def test_batches_of_an_epoch_are_known():
    net, data = network(), classes()

    def across(batches, size, **more):
        found = collect_gradients(net, cross_entropy, data, batches, size, **KEPT, **more).stable_index(
            layers=False
        )
        return found.controls.get("across_batches")

    assert across(60, 80) is None  # an epoch has 6 batches, whose noise adds up to 0
    assert across(60, 80, sampling="replacement").alpha < 3
    several = across(60, 10)  # of 48: blocks of 7, eight of them
    assert several.n % 7 == 0
    assert several.n <= 56 * sum(p.numel() for p in net.parameters())
    ready = [(data[0][i : i + 20], data[1][i : i + 20]) for i in range(0, 480, 20)]
    found = collect_gradients(net, cross_entropy, ready, **KEPT)
    assert found.provenance["whole"]
    assert found.stable_index(layers=False).controls["across_batches"].alpha < 4  # of 24, blocks of 4


def test_dead_neurons_are_zeros():
    net, data = network(), classes()
    with torch.no_grad():
        net[0].bias[:16] = -100.0
    found = collect_gradients(net, cross_entropy, data, 24, 20, **KEPT).stable_index()
    dead = 24 * 16 * (20 + 1 + 64)
    assert dead <= found.zeros < 1.1 * dead  # and those of neurons that a batch happens not to reach
    assert "zeros" in found.findings
    assert found.controls["zeros_kept"].alpha < found.alpha


@pytest.mark.parametrize("kind", ["noise", "gradient"])
def test_the_number_without_the_gradients(kind):
    """Against the gradients of the same batches: sums and means of logarithms, layer by layer, in NumPy."""
    net, data = network(torch.float32), classes(dtype=torch.float32)
    small = {"layers": False, "coordinates": None, "tracks": 0}
    found = collect_gradients(net, cross_entropy, data, 48, 20, **small)
    raw = found.stable_index(kind, block=64)
    assert (raw.kind, raw.block, raw.parts is None) == (kind, 64, False)
    assert str(raw).startswith(f"{kind} alpha ")
    assert any("controls need exact=True" in w for w in raw.warnings)
    assert list(raw.layers) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight"]
    assert any("4.bias" in w for w in raw.warnings)
    matrix = collect_gradients(net, cross_entropy, data, 48, 20, **KEPT).matrix(kind).astype(np.float64)
    ends = np.cumsum([0, *(p.numel() for p in net.parameters())])

    def inverse(low, high):
        """Of a layer: what all of its sums and values say together, and how many sums there are."""
        x = matrix[:, low:high]
        y = x[:, : x.shape[1] // 64 * 64].reshape(len(x), -1, 64)
        blocks, values, nonzero = np.abs(y.sum(axis=2)), np.abs(x[x != 0]), np.count_nonzero(y, axis=2)
        size = nonzero[blocks > 0].mean()
        return (np.log(blocks[blocks > 0]).mean() - np.log(values).mean()) / np.log(size), blocks.size

    names = [name for name, _ in net.named_parameters()]
    assert all(p.numel() % 64 == 0 for p in list(net.parameters())[:5])
    for name, low, high in zip(names[:5], ends[:5], ends[1:6], strict=True):
        by_hand, _ = inverse(low, high)
        one = raw.layers[name]
        assert one.kind == kind
        assert next(s for s in one.sizes if s.block == 64).alpha == pytest.approx(1 / by_hand, rel=5e-3)
        # That of the mean over blocks of steps, each against its own mean of logarithms, is another number.
        assert abs(1 / one.alpha - by_hand) < 4 * one.stderr / one.alpha**2
    parts = np.array([inverse(low, high) for low, high in pairwise(ends[:6])])
    whole = np.average(parts[:, 0], weights=parts[:, 1])
    assert abs(1 / raw.alpha - whole) < 4 * raw.stderr / raw.alpha**2


def test_what_a_number_needs():
    net, data = network(), classes()
    found = collect_gradients(net, cross_entropy, data, 4, 20, layers=False, stable=False)
    with pytest.raises(ValueError, match="expected a stream that takes block sums, got stable=False"):
        found.stable_index()
    with pytest.raises(ValueError, match="kind: expected 'gradient' or 'noise', got 'values'"):
        found.stable_index("values")
    with pytest.raises(ValueError, match="expected gradients collected with exact=True"):
        found.matrix()
    with pytest.raises(TypeError, match="stable: expected a bool, got 1"):
        collect_gradients(net, cross_entropy, data, 4, 20, stable=1)
    batches = [(data[0][i : i + 20], data[1][i : i + 20]) for i in range(0, 470, 20)]
    unequal = [*batches[:23], (data[0][460:470], data[1][460:470])]
    found = collect_gradients(net, cross_entropy, unequal, layers=False, coordinates=None, tracks=0)
    assert any("batches of 10 to 20 examples" in w for w in found.stable_index(layers=False).warnings)


def test_memory_is_said_before_anything_is_taken():
    net, data = network(), classes()
    elements = sum(p.numel() for p in net.parameters())
    needed = 2 * 24 * elements * 8
    calls = []

    def loss(output, target):
        calls.append(1)
        return cross_entropy(output, target)

    with pytest.raises(
        ValueError, match=rf"memory: expected at least .* for 24 gradients of {elements} elements"
    ):
        collect_gradients(net, loss, data, 24, 20, exact=True, memory=needed - 1)
    assert not calls
    found = collect_gradients(net, loss, data, 24, 20, exact=True, memory=needed, layers=False)
    assert math.isfinite(found.stable_index(layers=False).alpha)
    with pytest.raises(ValueError, match="memory"):
        collect_gradients(net, loss, data, 24, 20, exact=True, memory="much")
