"""The parts of the study of Hessian spectra: rows, labels, training, what is taken of a spectrum, print."""

import math
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from gradtail.experiments import hessian_cost  # noqa: E402
from gradtail.experiments.classifiers import RATES, Training, evaluate, train  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.gpt import GPTConfig  # noqa: E402
from gradtail.experiments.hessian_case import Weights, eigenvalues, rests_on, training_set  # noqa: E402
from gradtail.experiments.hessian_cost import Unit  # noqa: E402
from gradtail.experiments.hessian_language import Language, correlation  # noqa: E402
from gradtail.experiments.hessian_published import ROWS, audit, published  # noqa: E402
from gradtail.experiments.hessian_rows import (  # noqa: E402
    CONNECTED,
    Checkpoint,
    Net,
    Settings,
    checkpoints,
    left_out,
    rows,
)
from gradtail.experiments.hessian_sweeps import SWEEPS  # noqa: E402
from gradtail.experiments.hessian_table import verdict  # noqa: E402
from gradtail.experiments.networks import fully_connected  # noqa: E402
from gradtail.experiments.text import Text  # noqa: E402
from gradtail.torch import HessianSpectrum  # noqa: E402

TINY = GPTConfig(layers=1, heads=2, width=8, context=16)
TEXT = Text(b"the spectrum of the matrix is the power of the rank; " * 60, b"", "a sentence")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(write_idx(tmp_path_factory.mktemp("images") / "data", n=900))


def test_labels_that_are_wrong(images):
    _, right = images.train
    for share in ("0.4", "0.8"):
        _, labels = training_set(Net("LeNet", noise=share), images)
        wrong = float((labels != right).double().mean())
        assert wrong == pytest.approx(float(share), abs=4 * math.sqrt(0.25 / len(right)))
        assert int(labels.min()) >= 0
        assert int(labels.max()) <= 9
    _, shuffled = training_set(Net("LeNet", noise="random labels"), images)
    assert torch.equal(shuffled.sort().values, right.sort().values)
    assert float((shuffled == right).double().mean()) < 0.25
    assert torch.equal(images.train[1], right)


@pytest.mark.parametrize("name", list(RATES))
def test_every_optimizer_trains(images, name):
    torch.manual_seed(0)
    model = fully_connected(28, width=20)
    before, _ = evaluate(model, images.test)
    recipe = Training(4, 20, RATES[name], optimizer=name)
    train(model, images.train, recipe, seed=0)
    after, _ = evaluate(model, images.test)
    assert after < 0.8 * before
    made = recipe.make(model.parameters())
    assert {"AMSGrad": "Adam", "SGD with momentum": "SGD", "vanilla SGD": "SGD"}.get(name, name) == (
        type(made).__name__
    )
    assert made.defaults["weight_decay"] == 5e-4
    assert made.defaults.get("amsgrad", False) == (name == "AMSGrad")
    assert made.defaults.get("momentum", 0) == (0.9 if name == "SGD with momentum" else 0)


def test_training_up_to_an_epoch_is_the_start_of_the_whole(images):
    nets = [fully_connected(28, width=10) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    seen = []
    optimizer = Training.make

    class Recorded(Training):
        def make(self, parameters):
            made = optimizer(self, parameters)
            made.register_step_post_hook(lambda *_: seen.append(made.param_groups[0]["lr"]))
            return made

    train(nets[0], images.train, Recorded(4), seed=0, until=2)
    steps = len(images.train[0]) // 128
    assert len(seen) == 2 * steps
    assert seen[0] == pytest.approx(0.01)
    assert seen[-1] == pytest.approx(0.001)  # beyond 40 % of four epochs
    train(nets[1], images.train, Training(2), seed=0)
    assert not torch.equal(nets[0][1].weight, nets[1][1].weight)


def spectrum_of(values, residual=1e-6):
    values = np.asarray(values, np.float64)
    size = values.size
    return HessianSpectrum(
        values, np.full(size, residual), None, size, 3 * size, False, (), {"w": (100,)}, {"top": size}
    )


def test_eigenvalues_that_are_not_positive():
    """Only those above their residuals are fitted, and it is said how many there were."""
    found = eigenvalues(spectrum_of([*(1 / np.arange(1, 31)), 1e-7, -0.2, -0.3]), 33)
    assert (found["positive"], found["negative"], found["found"]) == (30, 2, 33)
    assert found["power_law"]["top"] == 30
    assert found["power_law"]["loglog_slope"] == pytest.approx(1)
    assert found["gaps"]["top"] == 14
    few = eigenvalues(spectrum_of([1.0, 0.5, -1.0]), 3)
    assert (few["positive"], few["power_law"], few["gaps"]) == (2, None, None)
    none = eigenvalues(spectrum_of([-1.0, -2.0, -3.0]), 3)
    assert (none["positive"], none["power_law"], none["bounded_ranks"]) == (0, None, 2)
    same = eigenvalues(spectrum_of([1.0, 1.0, 1.0, 1.0]), 4)
    assert same["power_law"] is None
    assert same["gaps_below_residuals"] == 3


def test_bounded_ranks():
    """Of l_k = 1 / k and 1 % the bound is 0.02 k (k + 1), which is below 1 up to rank 6."""
    assert eigenvalues(spectrum_of(1 / np.arange(1.0, 31.0)), 30)["bounded_ranks"] == 6


def test_how_many_examples_a_hessian_rests_on():
    """All where they are alike; one where the classes of all others are certain."""
    layer = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(layer.weight)
    assert rests_on(layer, torch.ones(50, 3)) == pytest.approx(50)
    certain = torch.tensor([40.0, 0.0, 0.0]).repeat(20, 1)
    assert rests_on(layer, torch.cat([certain, torch.ones(1, 3)])) == pytest.approx(1)
    both = rests_on(layer, torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    p = torch.softmax(torch.tensor([2.0, 0.0, 0.0]), 0)
    first, second = 2 / 3, float(1 - (p**2).sum())
    assert both == pytest.approx((first + second) ** 2 / (first**2 + second**2))
    assert layer.training


def test_verdicts_over_seeds():
    def law(ks):
        return {"ks": ks, "critical": 0.03, "printed": 0.04}

    assert verdict([law(0.02), law(0.01)]) == "not rejected"
    assert verdict([law(0.05), None]) == "rejected"
    assert verdict([law(0.035)]) == "rejected*"
    assert verdict([law(0.05), law(0.01)]) == "1 of 2 rejected"
    assert verdict([None]) == "too few"


def test_audit_of_the_published_rows():
    """Exactly the rows that the reference names as inconsistent."""
    assert set(audit()) == {
        ("optimizers, LeNet, CIFAR-10", "DiffGrad"), ("optimizers, ResNet18, CIFAR-10", "Adam"),
        ("batch size, ResNet18, CIFAR-10", "512"), ("epochs, LeNet, MNIST", "3"), ("width, MNIST", "50"),
        ("width, MNIST", "70"),
    }  # fmt: skip
    assert "1.245" in audit()["optimizers, LeNet, CIFAR-10", "DiffGrad"][0]
    fitted = [row for row in ROWS if row.exponent is not None]
    assert len(fitted) > 55
    assert len({(row.table, row.setting) for row in ROWS}) == len(ROWS)
    for row in fitted:  # a digit that is wrong is found
        assert replace(row, slope=row.slope + 0.02 + 0.02 * row.slope).flags()
    for row in ROWS:  # verdicts are those of the critical value that the tables used
        critical = 0.176 if row.top == 50 else 1.36 / math.sqrt(row.top)
        assert row.accepted == (row.ks < critical), row


def test_published_rows_beside_ours(images):
    assert published("networks", "LeNet, trained").slope == 1.009
    assert published("optimizer", "NAdam") is None
    assert published("language", "after").ks == 0.0353
    there = {
        sweep: sum(published(sweep, row.setting) is not None for row in some)
        for sweep in SWEEPS if (some := rows(Settings(sweeps=(sweep,)), images))
    }  # fmt: skip
    assert there == {
        "optimizer": 5, "batch-size": 4, "train-size": 2, "label-noise": 4, "width": 6, "depth": 6,
        "epochs": 6, "language": 0,
    }  # fmt: skip


def test_correlation():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(40)
    y = 2 * x + rng.standard_normal(40)
    found = correlation(list(x), list(y))
    r = found["pearson"]
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    low, high = found["ci95"]
    assert math.atanh(high) - math.atanh(r) == pytest.approx(1.96 / math.sqrt(37), rel=1e-3)
    assert low < r < high
    assert correlation([1, 2, 3], [1, 2, 3]) is None
    assert correlation([1.0] * 5, [1, 2, 3, 4, 5]) is None
    assert correlation([1, 2, 3, 4], [2, 4, 6, 8])["pearson"] == pytest.approx(1)


def test_the_last_layer_of_a_language_model(tmp_path):
    """Its loss is that of the model, and its Hessian that of the head where the input is held fixed."""
    language = Language(TEXT, TINY, Settings(samples=40), Weights(tmp_path, ""))
    model = language.model(0)
    layer, (inputs, targets) = language.last_layer(model)
    assert inputs.shape == (8 * 40 // 16 * 16, 8)
    assert torch.equal(layer.weight, model.head.weight)
    starts = torch.linspace(0, len(TEXT.train) - 17, 20).long()
    cut = torch.frombuffer(bytearray(TEXT.train), dtype=torch.uint8)[starts[:, None] + torch.arange(17)]
    with torch.no_grad():
        assert torch.nn.functional.cross_entropy(layer(inputs), targets).item() == pytest.approx(
            model.loss(cut.long()).item(), rel=1e-5
        )


def test_weights_of_other_settings_are_not_taken(tmp_path):
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    weights = Weights(tmp_path / "weights", "one")
    assert not weights.load("a", model)
    weights.save("a", model)
    assert not replace(weights, identity="another").load("a", other)
    assert not torch.equal(model.weight, other.weight)
    assert weights.load("a", other)
    assert torch.equal(model.weight, other.weight)


def test_checkpoints_of_the_text():
    assert checkpoints(1000) == [0, 10, 18, 32, 56, 100, 178, 316, 562, 1000]
    assert checkpoints(3) == [0, 3]
    assert Checkpoint(3, 10, 1).key != Checkpoint(3, 10, 0).key


def test_estimates(images, tmp_path):
    """Twice the cases are twice the time, but for what two of a kind share, and training is part of it."""
    made = Settings(samples=20, eigenvalues=5, probes=2, steps=4, text_steps=7)
    of = [Unit(step=3.0, product=2.0, row=0.0, size=50)]
    net = Net(CONNECTED, 10, 2, epochs=2, until=2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hessian_cost, "_of_net", lambda *arguments: of[0])
        patched.setattr(hessian_cost, "_of_language", lambda *arguments: of[0])
        steps = 2 * (900 // 128)
        spectrum = (50 + 2 * 4) * 2.0  # no more products than there are dimensions
        assert hessian_cost.estimate([net], made, images, None) == pytest.approx(steps * 3 + spectrum)
        language = Language(TEXT, TINY, made, Weights(tmp_path, ""))
        both = [Checkpoint(0, 7), Checkpoint(7, 7)]
        assert hessian_cost.estimate(both, made, images, language) == pytest.approx(7 * 3 + 2 * spectrum)
    real = hessian_cost._of_net(net, images, made)
    assert real.size == sum(p.numel() for p in fully_connected(28, 10).parameters())
    assert min(real.step, real.product, real.row) > 0
    assert hessian_cost._of_language(language).size == 256 * 8


def test_rows_of_the_sweeps(images):
    def of(sweep, **more):
        return rows(Settings(sweeps=(sweep,), **more), images)

    assert [row.setting for row in of("optimizer")] == list(RATES)
    assert [row.item.batch for row in of("batch-size")] == [128, 512, 640, 768]  # of 900 images
    assert [row.item.examples for row in of("train-size")] == [600, 800]
    assert [row.item.noise for row in of("label-noise")] == ["", "0.4", "0.8", "random labels"]
    assert [row.item.width for row in of("width")] == [10, 20, 30, 50, 70, 100]
    assert [(row.item.depth, row.item.until) for row in of("depth", epochs=3)] == [
        (depth, until) for depth in (1, 2, 4) for until in (0, 3)
    ]
    assert [(row.item.until, row.item.epochs) for row in of("epochs", epochs=20)] == [
        (until, 20) for until in (1, 2, 3, 10, 20)
    ]
    assert left_out(Settings(sweeps=("train-size", "epochs"), epochs=20), images) == [
        "train-size 1000, 3000, 6000 left out: there are 900 of them",
        "epochs 30, 50 left out: there are 20 epochs",
    ]
    every = rows(Settings(sweeps=SWEEPS, seeds=2), images)
    keys = {row.item.key: row.item for row in every}
    assert all(keys[row.item.key] == row.item for row in every)  # no two of one name
    shared = [row.sweep for row in every if row.item == of("optimizer")[0].item]
    assert shared == ["optimizer", "batch-size", "label-noise", "epochs"]  # one training serves them all
