"""Noise of a small network at fixed weights: how its batches were drawn, and how many examples it needs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch import nn  # noqa: E402
from torch.func import functional_call, grad, vmap  # noqa: E402

from gradtail import autocorrelation, noise_scale, noise_scale_from_batches, sampling_policy  # noqa: E402
from gradtail.torch import collect_gradients  # noqa: E402

SAMPLING = {"reshuffle": "shuffle", "replacement": "replacement", "fixed": "in order"}
PERIOD, BATCH, EXAMPLES = 24, 10, 240


def problem(seed):
    """A classifier, and data of four noisy clusters."""
    torch.manual_seed(seed)
    y = torch.arange(EXAMPLES) % 4
    x = torch.randn(4, 12)[y] + torch.randn(EXAMPLES, 12)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4))
    return model, x, y


def trained(model, x, y, steps):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        some = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()


def each_gradient(model, x, y):
    """Gradient of every example, shape (N, n), float64."""
    params = {name: p.detach().double() for name, p in model.named_parameters()}

    def loss(params, x, y):
        return nn.functional.cross_entropy(functional_call(model, params, x[None]), y[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(params, x.double(), y)
    return torch.cat([g.flatten(1) for g in found.values()], dim=1).numpy()


@pytest.mark.parametrize("seeds", [[1], pytest.param(range(5), marks=pytest.mark.slow)])
def test_torch_policies_of_a_network_are_told_apart(seeds):
    """Five seeds, exact and sketched alike; the joint statistic against epoch noise holds at 1 %."""
    for seed in seeds:
        model, x, y = problem(seed)
        trained(model, x, y, 60 * seed)
        for policy, sampling in SAMPLING.items():
            found = collect_gradients(
                model, nn.functional.cross_entropy, (x, y), 3 * PERIOD, BATCH,
                sampling=sampling, exact=True, layers=False, coordinates=None, seed=seed, progress=False,
            )  # fmt: skip
            ring = found.noise.ring()
            for rows in (found.matrix("noise"), ring.vectors):
                one = sampling_policy(rows, period=PERIOD, level=0.01)
                assert one.verdict == policy, (seed, str(one))
                assert one.least_power >= 0.9
            exact = autocorrelation(found.matrix("noise"), period=PERIOD)
            sketched = found.noise.autocorrelation(period=PERIOD, frozen=True, centred=False)
            off = np.abs(sketched.correlation - exact.correlation)[1 : 2 * PERIOD]
            assert np.all(off <= 5 * sketched.sketch_stderr[1 : 2 * PERIOD])
            assert sketched.verdict == ("fixed" if policy == "fixed" else None)
            assert np.corrcoef(exact.correlation[1:], sketched.correlation[1:])[0, 1] > 0.8


@pytest.mark.parametrize("steps", [0, 300])
def test_torch_noise_scale_covers_that_of_all_examples(steps):
    """1000 resamplings of 30 steps of 4 micro-batches: against the exact covariance of single examples."""
    model, x, y = problem(0)
    trained(model, x, y, steps)
    g, rng = each_gradient(model, x, y), np.random.default_rng(1)
    mean = g.mean(axis=0)
    truth = np.sum((g - mean) ** 2) / EXAMPLES / np.sum(mean**2)  # of draws with replacement
    products = g @ g.T
    held, bounded = [], 0
    for _ in range(1000):
        some = rng.integers(0, EXAMPLES, (30, 4 * BATCH))
        weights = np.zeros((30, 4, EXAMPLES))
        for part in range(4):
            index = some[:, BATCH * part : BATCH * (part + 1)]
            np.add.at(weights[:, part], (np.arange(30)[:, None], index), 1 / BATCH)
        small = np.einsum("kpi,kpi->kp", weights @ products, weights).mean(axis=1)
        whole = weights.mean(axis=1)
        big = np.einsum("ki,ki->k", whole @ products, whole)
        found = noise_scale(small, big, small=BATCH, big=4 * BATCH)
        low, high = found.ci()
        held.append(low <= truth <= high)
        bounded += found.is_bounded()
    assert 0.92 <= np.mean(held) <= 0.98
    assert bounded >= (950 if steps == 0 else 0)
    batches = rng.integers(0, EXAMPLES, (40, BATCH))
    low, high = noise_scale_from_batches(g[batches].mean(axis=1), batch_size=BATCH).ci(0.999)
    assert low <= truth <= high


def test_torch_methods_of_a_collection():
    """The noise of a collection is looked at by its own methods: exact where kept, else by sketches."""
    model, x, y = problem(0)
    loss = nn.functional.cross_entropy
    settings = {"layers": False, "coordinates": None, "progress": False}
    exact = collect_gradients(model, loss, (x, y), 3 * PERIOD, BATCH, exact=True, **settings)
    found = exact.sampling_policy(level=0.01)
    assert (found.verdict, found.period, found.phase_given) == ("reshuffle", PERIOD, True)
    assert exact.autocorrelation().period == PERIOD
    assert not exact.autocorrelation().sketched
    assert exact.noise_scale().value == noise_scale_from_batches(exact.matrix(), batch_size=BATCH).value
    assert "batches without replacement are not independent" in str(exact.noise_scale())
    layer = exact.matrix("noise")[:, : 12 * 24 + 24]
    assert np.array_equal(exact.autocorrelation(group="0").covariance, autocorrelation(layer).covariance)
    with pytest.raises(
        ValueError, match="group: expected the name of a parameter or a prefix of some, got '9'"
    ):
        exact.noise_scale("9")
    kept = collect_gradients(
        model, loss, (x, y), 3 * PERIOD, BATCH, sampling="replacement", seed=1, **settings
    )
    assert kept.sampling_policy(level=0.01).verdict == "replacement"
    assert kept.autocorrelation().sketched
    assert kept.autocorrelation("gradient", "2").centred
    assert kept.autocorrelation().period is None
    whole, layer = kept.noise_scale(), kept.noise_scale("0.weight")
    assert whole.sketched
    assert layer.sketched
    assert whole.warnings == ()
    low, high = whole.ci(0.999)
    g = each_gradient(model, x, y)
    assert low <= np.sum((g - g.mean(axis=0)) ** 2) / EXAMPLES / np.sum(g.mean(axis=0) ** 2) <= high
    some = [(x[:8], y[:8])] * 4 + [(x[:4], y[:4])]
    given = collect_gradients(model, loss, some, centre=False, **settings)
    with pytest.raises(ValueError, match="batch_size: expected batches of one size, got 4 to 8 examples"):
        given.noise_scale()
    with pytest.raises(ValueError, match="kind: expected 'gradient'"):
        given.sampling_policy()


@pytest.mark.parametrize("part", [nn.Dropout(0.8), nn.BatchNorm1d(24)])
def test_torch_noise_of_the_model_itself_is_told(part):
    """Strong dropout looks like batches drawn with replacement; that it may be dropout is said."""
    model, x, y = problem(2)
    model.insert(2, part)
    settings = {"layers": False, "coordinates": None, "exact": True, "progress": False}
    found = {
        mode: collect_gradients(
            model, nn.functional.cross_entropy, (x, y), 3 * PERIOD, BATCH, mode=mode, **settings
        ).sampling_policy(level=0.01)
        for mode in ("train", "eval")
    }
    name = "dropout" if isinstance(part, nn.Dropout) else "batch statistics"
    if name == "dropout":
        assert found["train"].verdict == "replacement"
        words = "no memory (batches drawn with replacement, or mostly noise from elsewhere)"
        assert str(found["train"]).startswith(f"order of batches: {words}")
    said = f"{name} of the model changed the gradients of examples"
    assert found["train"].verdict != "reshuffle"
    assert said in found["train"].warnings[-1]
    assert "if the noise is of the examples alone" in str(found["train"])
    assert (found["eval"].verdict, found["eval"].warnings) == ("reshuffle", ())
