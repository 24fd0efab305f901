"""`gradtail reproduce epoch-noise`: its network by a plain loop, its table, going on after Ctrl-C."""

import json
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from gradtail import cli, sampling_policy  # noqa: E402
from gradtail.experiments import epoch_noise as module  # noqa: E402
from gradtail.experiments import epoch_noise_network  # noqa: E402
from gradtail.experiments.datasets import DIGITS, Images, load_images  # noqa: E402
from gradtail.experiments.epoch_noise import SCHEMA, Settings, run  # noqa: E402
from gradtail.experiments.epoch_noise_network import (  # noqa: E402
    Network,
    examine,
    examples_of,
    find_minimum,
    parameters_of,
)
from gradtail.experiments.epoch_noise_theory import Squares, examine_squares  # noqa: E402
from gradtail.experiments.studies import BadOption  # noqa: E402
from gradtail.torch.interrupts import Interrupts  # noqa: E402

TINY = Network("reshuffle", batch=10, eta=0.02, decay=0.02, width=6, training=3, epochs=12, directions=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("images") / "data", n=125, side=8)


@pytest.fixture(scope="module")
def minimum(folder):
    with Interrupts() as interrupts:
        return find_minimum(TINY, load_images(folder), interrupts, False)


@pytest.fixture(scope="module")
def settings(folder):
    return Settings(
        folder, folder.parent / "out", policies=("reshuffle", "fixed"), batch=10, rate=0.02, decay=0.02,
        width=6, training=3, epochs=12, directions=8, simulated=(8, 2), squares=((0.02, 10),), runs=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(settings):
    assert run(settings, progress=False) == 0
    return read(settings)


def read(settings):
    return json.loads((settings.out / "results.json").read_text())


def loss_of(model, x, y, decay=0.0):
    squares = sum(p.square().sum() for p in model.parameters())
    return torch.nn.functional.cross_entropy(model(x), y) + decay / 2 * squares


def test_the_window_begins_at_a_minimum(minimum):
    x, y = minimum.data
    assert x.shape == (120, 64)
    gradient = torch.autograd.grad(loss_of(minimum.model, x, y, TINY.decay), minimum.model.parameters())
    size = float(torch.cat([g.flatten() for g in gradient]).norm())
    assert size == pytest.approx(minimum.gradient, abs=1e-6)  # float32 here
    assert minimum.gradient < 1e-6
    assert (minimum.spectrum.eigenvalues + TINY.decay > 0).all()


@pytest.mark.parametrize("policy", ["reshuffle", "replacement", "fixed"])
def test_variances_are_those_of_a_plain_loop(minimum, policy):
    at = replace(TINY, policy=policy)
    before = [p.detach().clone() for p in minimum.model.parameters()]
    with Interrupts() as interrupts:
        found = examine(at, minimum, interrupts, False)
    for p, value in zip(minimum.model.parameters(), before, strict=True):
        assert torch.equal(p, value)  # the next policy begins there too
    x, y = minimum.data
    weights = [p.clone().requires_grad_() for p in before]
    names = [name for name, _ in minimum.model.named_parameters()]
    optimizer = torch.optim.SGD(weights, 0.02, momentum=0.9, weight_decay=0.02)
    generator = torch.Generator().manual_seed(1)
    order, kept = torch.randperm(120, generator=generator), []
    for epoch in range(found["burn_in"] + 12):
        if policy == "reshuffle":
            order = torch.randperm(120, generator=generator)
        elif policy == "replacement":
            order = torch.randint(120, (120,), generator=generator)
        for chosen in order.split(10):
            if epoch >= found["burn_in"]:
                moved = zip(weights, before, strict=True)
                kept.append(torch.cat([(p - b).detach().double().flatten() for p, b in moved]))
            optimizer.zero_grad()
            output = torch.func.functional_call(
                minimum.model, dict(zip(names, weights, strict=True)), x[chosen]
            )
            torch.nn.functional.cross_entropy(output, y[chosen]).backward()
            optimizer.step()
    along = torch.stack(kept) @ minimum.spectrum.vectors.double()
    np.testing.assert_allclose(found["weight"], along.numpy().var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found["curvature"], minimum.spectrum.eigenvalues + 0.02)
    noise = minimum.examples.var(axis=0, ddof=1) / 10
    share = 119 / 120 if policy == "replacement" else 1 - 10 / 120
    np.testing.assert_allclose(found["noise_variance"], noise * share, rtol=1e-9)
    frozen = dict(zip(found["frozen"]["lags"], found["frozen"]["expected"], strict=True))
    assert frozen[1] == pytest.approx({"replacement": 0, "reshuffle": -1 / 12, "fixed": -1 / 11}[policy])
    assert policy in found["frozen"]["accepted"]


def test_examples_are_shifted_or_averaged():
    x, y = torch.randn(30, 1, 8, 8), torch.arange(30) % 10
    found, labels = examples_of(Images(DIGITS, (x, y), (x, y), ""), 20, 0)
    assert (found.shape, labels.shape) == ((260, 64), (260,))  # of 270
    rows = {tuple(row) for row in found.tolist()}
    shifted = torch.full((8, 8), float(x.min()))
    shifted[1:, :-1] = x[3, 0, :-1, 1:]
    present = [tuple(row.tolist()) in rows for row in (x[3].flatten(), shifted.flatten())]
    assert sum(present) >= 1
    assert len(rows) == 260
    large = torch.randn(12, 1, 28, 28)
    found, _ = examples_of(Images("MNIST", (large, y[:12]), (x, y), ""), 4, 0)
    assert found.shape == (12, 49)
    np.testing.assert_allclose(found.mean(dim=1).sort()[0], large.mean(dim=(1, 2, 3)).sort()[0], atol=1e-6)


def test_everything_is_written(settings, study):
    names = {file.name for file in settings.out.iterdir()}
    assert names == {
        "results.json", "table.txt", "theory.png", "network-reshuffle-s0.png", "network-fixed-s0.png",
    }  # fmt: skip
    assert (study["schema"], study["complete"]) == (SCHEMA, True)
    assert [case["kind"] for case in study["cases"]] == [*["quadratic"] * 3, "squares", *["network"] * 2]
    published = [0.4054525, 0.40256840, 0.37800646, 0.22501017, 0.039027020, 4.1760480e-3, 4.5255296e-4]
    np.testing.assert_allclose([row["weight"] for row in study["exact"]], published, rtol=1e-6)
    text = (settings.out / "table.txt").read_text()
    assert text.count("fluctuation of the loss") == 3
    assert "over theory with its white noise" in text


def test_it_goes_on_after_ctrl_c(settings, study, minimum, monkeypatch, tmp_path):
    asked = replace(settings, out=tmp_path / "out")
    whole, seen = module.examine, []

    def stops(item, minimum, interrupts, progress):
        seen.append(item.policy)
        if len(seen) == 2:
            interrupts._pressed(2, None)
        return whole(item, minimum, interrupts, progress)

    monkeypatch.setattr(module, "examine", stops)
    monkeypatch.setattr(module, "find_minimum", lambda *_: minimum)
    monkeypatch.setattr(module.epoch_noise_figures, "write", lambda *_: None)
    assert minimum.start == Network("fixed", 10, 0.02, 0.9, 0.02, 6, 3, 12, 8).start
    assert run(asked, progress=False) == 130
    assert len(read(asked)["cases"]) == 5
    assert run(asked, progress=False) == 0
    assert seen == ["reshuffle", "fixed", "fixed"]
    again = {case["key"]: case for case in read(asked)["cases"]}
    for case in study["cases"]:
        if case["kind"] != "network":
            assert {**again[case["key"]], "seconds": 0} == {**case, "seconds": 0}
        else:
            np.testing.assert_allclose(again[case["key"]]["weight"], case["weight"], rtol=1e-3)
    with pytest.raises(BadOption, match=r"out: expected a new folder or one of the same .*width 6"):
        run(replace(asked, width=7))


def test_a_window_in_which_nothing_relaxes_is_kept_and_gone_on_with(
    settings, study, minimum, monkeypatch, tmp_path
):
    """A finished case is neither lost nor in the way of the next call."""
    out = tmp_path / "out"
    asked = replace(settings, out=out, policies=("reshuffle",), rate=1e-5)
    kept = [case for case in study["cases"] if case["kind"] != "network"]
    monkeypatch.setattr(module, "find_minimum", lambda *_: minimum)
    monkeypatch.setattr(module, "examine_quadratic", lambda item: kept[0])
    monkeypatch.setattr(module, "examine_squares", lambda item, _: kept[-1])
    monkeypatch.setattr(epoch_noise_network, "_BURN_IN", 1e-6)
    assert run(asked, progress=False) == 0
    case = read(asked)["cases"][-1]
    assert (case["compared"], case["excess"]["value"]) == (0, None)
    table = (out / "table.txt").read_text()
    assert "no direction can have relaxed in this window" in table
    assert "measured over theory" not in table
    assert (out / "network-reshuffle-s0.png").exists()
    assert run(asked, progress=False) == 0


def test_a_step_size_that_is_too_large_is_told_before_the_window(settings, minimum, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_minimum", lambda *_: minimum)
    monkeypatch.setattr(module, "examine_quadratic", lambda _: {})
    monkeypatch.setattr(module, "examine_squares", lambda *_: {})
    monkeypatch.setattr(module, "table", lambda _: "")
    monkeypatch.setattr(epoch_noise_network, "_run", None)
    steepest = minimum.spectrum.eigenvalues[0] + 0.02
    asked = replace(settings, out=tmp_path / "out", rate=4 / steepest)
    with pytest.raises(BadOption, match=rf"rate: expected below {3.8 / steepest:.4g}, got .*unstable"):
        run(asked, progress=False)
    assert len(read(asked)["cases"]) == 4


@pytest.mark.parametrize("burn_in", [3.0, 0.0])  # before the window, and within it
def test_runs_that_diverge_are_told(minimum, folder, monkeypatch, burn_in):
    monkeypatch.setattr(epoch_noise_network, "_BURN_IN", burn_in)
    x, y = minimum.data
    with Interrupts() as interrupts:
        with pytest.raises(BadOption, match=r"rate: expected a smaller step size, got 0\.02: SGD diverged"):
            examine(TINY, replace(minimum, data=(torch.full_like(x, torch.inf), y)), interrupts, False)
        images = load_images(folder)
        images = replace(images, train=(torch.full_like(images.train[0], torch.inf), images.train[1]))
        with pytest.raises(BadOption, match=r"batch-size: expected larger batches, got 10: .* in epoch 1"):
            find_minimum(TINY, images, interrupts, False)


def test_more_directions_than_memory_holds(folder, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("memory: expected more")

    monkeypatch.setattr(epoch_noise_network, "hessian_spectrum", refuse)
    with Interrupts() as interrupts, pytest.raises(BadOption, match=r"directions: expected fewer \(memory"):
        find_minimum(replace(TINY, training=0), load_images(folder), interrupts, False)


def test_tests_of_long_epochs_look_at_few_of_them(minimum, monkeypatch):
    """All pairs of steps of six epochs of 16,000 batches would be 70 GB."""
    seen = []

    def counts(rows, **settings):
        seen.append(len(rows))
        return sampling_policy(rows, **settings)

    monkeypatch.setattr(epoch_noise_network, "sampling_policy", counts)
    for pairs in (10**6, 3 * 12**2, 2 * 12**2 - 1):
        monkeypatch.setattr(epoch_noise_network, "_PAIRS", pairs)
        found = epoch_noise_network._frozen(TINY, minimum)
    assert seen == [72, 36]
    assert found["pvalues"] == {}
    monkeypatch.setattr(epoch_noise_network, "_ROWS", 50)
    assert epoch_noise_network._frozen(TINY, minimum)["steps"] == 48


@pytest.mark.parametrize(("name", "side"), [(DIGITS, 8), ("MNIST", 28), ("CIFAR-10", 32), ("small", 9)])
def test_parameters_are_counted_before_there_is_a_network(name, side):
    x, y = torch.randn(20, 3 if side == 32 else 1, side, side), torch.arange(20)
    images = Images(name, (x, y), (x, y), "")
    inputs = examples_of(images, 5, 0)[0].shape[1]
    model = torch.nn.Sequential(torch.nn.Linear(inputs, 7), torch.nn.Linear(7, 10))
    assert parameters_of(images, 7) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--batch-size", "100"), "--batch-size: expected at most 41"),
     (("--directions", "5000", "--batch-size", "10"), "--directions: expected at most 2410, the parameters"),
     (("--epochs", "7"), "expected a whole number of at least 8"),
     (("--policy", "sorted"), "expected one of reshuffle, replacement, fixed"),
     (("--rate", "0"), "--rate: expected a positive number"),
     (("--data", "nowhere"), "--data: expected a folder with")],
)  # fmt: skip
def test_mistakes(options, said, capsys, tmp_path, folder):
    try:
        code = cli.main(["reproduce", "epoch-noise", "--data", str(folder), "--out", str(tmp_path), *options])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_noise_of_least_squares_that_depends_on_the_weights():
    """Published to be 1.03 to 1.05 in steep directions and 2.2 +- 0.3 at curvature 0.003."""
    with Interrupts() as interrupts:
        found = examine_squares(Squares(0.02, 900, 24), interrupts)
    ratio, stderr, curvature = (np.array(found[name]) for name in ("ratio", "ratio_stderr", "curvature"))
    steep = curvature > 0.09
    assert steep.sum() == 4
    assert (ratio[steep] - 3 * stderr[steep] < 1.05).all()
    assert (ratio[steep] + 3 * stderr[steep] > 1.03).all()
    assert ratio[np.argmin(abs(curvature - 0.003))] == pytest.approx(2.2, abs=0.3)
    assert found["loss"] == pytest.approx(1.007e-2, rel=0.01)
    assert found["expected_loss"] == pytest.approx(0.964e-2, rel=1e-3)
    assert found["white_loss"] == pytest.approx(1.051e-2, rel=1e-3)
