"""`gradtail reproduce tail-index`: noise by a plain loop, rows, slopes, going on after Ctrl-C."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from matplotlib.figure import Figure  # noqa: E402

from gradtail import cli, stable_index_noise  # noqa: E402
from gradtail.experiments import tail_index as module  # noqa: E402
from gradtail.experiments import tail_index_case as case_module  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.studies import BadOption  # noqa: E402
from gradtail.experiments.tail_index import SCHEMA, Settings, rows, run  # noqa: E402
from gradtail.experiments.tail_index_case import Network, examine, linear_hinge  # noqa: E402
from gradtail.experiments.tail_index_figures import _training  # noqa: E402
from gradtail.experiments.tail_index_rows import CONVOLUTIONAL, LOSSES, SWEEPS  # noqa: E402
from gradtail.experiments.tail_index_table import jump, jump_text, slopes, table  # noqa: E402
from gradtail.torch.interrupts import Interrupts  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("images") / "data", n=320, side=8)


@pytest.fixture(scope="module")
def settings(folder):
    return Settings(
        folder, folder.parent / "out", sweeps=("batch-size", "channels"), losses=LOSSES[1:], iterations=30,
        looks=2, batches=16, batch_size=10, few=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(settings):
    assert run(settings) == 0
    return json.loads((settings.out / "results.json").read_text())


def test_the_hinge_by_hand():
    output = torch.tensor([[0.5, -2.0, 0.0], [1.5, 3.0, -0.5]])
    by_hand = [0.5, 0, 1, 2.5, 0, 0.5]  # the class of the first is 0, of the second 1
    assert float(linear_hinge(output, torch.tensor([0, 1]))) == pytest.approx(sum(by_hand) / 6)


@pytest.mark.parametrize("loss", LOSSES)
def test_noise_is_that_of_a_plain_loop(folder, loss):
    """Of the last look: gradients of batches less that of all, one after another in a row."""
    images = load_images(folder)
    at = Network("fully connected", loss, 9, 2, 10, 1, 20, 2, 32)
    with Interrupts() as interrupts:
        found = examine(at, images, interrupts, False)
    model = at.make(images)
    function = linear_hinge if loss == "linear hinge" else torch.nn.functional.cross_entropy
    x, y = images.train
    order = torch.Generator().manual_seed(1)
    index = torch.randperm(320, generator=order)
    for step in range(20):
        chosen = index[10 * step : 10 * step + 10]
        grads = torch.autograd.grad(function(model(x[chosen]), y[chosen]), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= 0.1 * 0.5 ** (3 * step // 20) * g
    look = found["looks"][-1]
    assert look["step"] == 20
    assert look["loss"] == pytest.approx(float(function(model(x), y).detach()), rel=1e-4)
    assert look["accuracy"] == pytest.approx(float((model(x).argmax(1) == y).double().mean()), abs=1e-9)

    def gradient(part):
        grads = torch.autograd.grad(function(model(x[part]), y[part]), list(model.parameters()))
        return torch.cat([g.flatten() for g in grads]).double().numpy()

    full = gradient(slice(None))
    # Which batches these are is the collector's: any partition of all gives about the same index.
    matrix = np.stack([gradient(index[10 * i : 10 * i + 10]) - full for i in range(32)])
    near = stable_index_noise(matrix)
    noise = look["noise"]
    assert (noise["batches"], noise["batch"], noise["n"]) == (32, 10, matrix.size)
    assert noise["zeros"] == pytest.approx(near.zeros, rel=0.1, abs=20)
    assert abs(noise["alpha"] - near.alpha) < 4 * math.hypot(noise["observed_stderr"], near.observed_stderr)


def test_everything_is_written(settings, study):
    names = {file.name for file in settings.out.iterdir()}
    drawn = {f"{sweep}{part}.png" for sweep in settings.sweeps for part in ("", "_training")}
    assert names == {"results.json", "table.txt", *drawn}
    assert (study["schema"], study["complete"]) == (SCHEMA, True)
    assert len(study["cases"]) == len({row["key"] for row in study["rows"]}) == 5
    for case in study["cases"]:
        assert {look["step"] for look in case["looks"]} <= {0, 30}
        assert case["on_test_data"]["alpha"] > 0
        assert set(case["looks"][0]["noise"]["layers"])
    assert study["jumps"] == dict.fromkeys((case["key"] for case in study["cases"]), None)  # of two looks
    assert "linear hinge" in (settings.out / "table.txt").read_text()


def test_rows(folder):
    images = load_images(folder)
    made = rows(Settings(folder), images)
    assert {(row["sweep"], row["loss"]) for row in made} == {(a, b) for a in SWEEPS for b in LOSSES}
    assert max(row["value"] for row in made if row["sweep"] == "batch-size") <= 320 // 16
    shared = {row["item"].key for row in made}
    assert len(shared) < len(made)  # the network where nothing is varied is in several sweeps
    assert all(row["item"].network == CONVOLUTIONAL for row in made if row["sweep"] == "channels")
    assert len(rows(Settings.quick(folder, folder), images)) <= 6


def test_slopes():
    def case(alpha):
        return {"looks": [{"noise": {"alpha": alpha, "zeros": 0, "controls": {}}}]}

    values = (4, 8, 16, 32)
    some = [{"sweep": "width", "loss": "hinge", "value": v, "key": str(v)} for v in values]
    found = slopes(some, {str(v): case(1.9 - 0.05 * math.log2(v)) for v in values})
    plain = next(one for one in found if one["of"] == "without zeros")
    assert (plain["slope"], plain["networks"]) == (pytest.approx(-0.05), 4)
    assert plain["ci95"] == pytest.approx([-0.05, -0.05], abs=1e-6)
    assert slopes(some[:2], {str(v): case(1.0) for v in values}) == []


def made_case(alphas):
    rng = np.random.default_rng(2)
    looks = [
        {
            "step": 10 * i,
            "loss": 1.0,
            "accuracy": 0.5,
            "test_accuracy": 0.5,
            "noise": {
                "alpha": alpha + 0.01 * rng.standard_normal(),
                "zeros": 0,
                "n": 1,
                "controls": {},
                "findings": [],
            },
        }
        for i, alpha in enumerate(alphas)
    ]
    return {"looks": looks, "ended": "all steps", "on_test_data": None}


def test_a_jump_is_named():
    """One that is planted, none in a level and a fall, and no word of few looks."""
    cases = {
        "planted": made_case([1.6, 1.5, 1.4, 1.3, 1.2, 1.2, 1.2, 1.2, 1.5, 1.5, 1.5, 1.5]),
        "level": made_case([1.5] * 12),
        "fall": made_case([1.6 - 0.02 * i for i in range(12)]),
        "few": made_case([1.2, 1.2, 1.2, 1.2, 1.5, 1.5, 1.5]),
    }
    cases["few"]["looks"].append({**cases["few"]["looks"][-1], "step": 100, "noise": None})
    jumps = {key: jump(case) for key, case in cases.items()}
    assert {key: jump_text(one) for key, one in jumps.items()} == {
        "planted": "70-80", "level": "none", "fall": "none", "few": "?",
    }  # fmt: skip
    planted = jumps["planted"]
    assert planted["from_minimum"]
    assert planted["rise"] == pytest.approx(0.3, abs=0.03)
    rows = [{"sweep": "width", "loss": "hinge", "value": 4, "seed": 0, "key": key} for key in cases]
    data = {
        "data": "made", "images": 1, "settings": {"iterations": 1, "batches": 1}, "rows": rows, "slopes": [],
        "cases": [{"key": key, **case} for key, case in cases.items()], "jumps": jumps,
    }  # fmt: skip
    lines = table(data).splitlines()
    column = next(line for line in lines if "jump at" in line).index("jump at") + len("jump at")
    said = [line[:column].split()[-1] for line in lines if line.startswith("4 ")]
    assert said == ["70-80", "none", "none", "?"]
    axes = Figure().subplots(3, 1)
    _training(axes, "width", rows, cases, jumps)
    assert [len(ax.patches) for ax in axes] == [1, 1, 1]
    said = [text.get_text().partition("jump: ")[2] for text in axes[0].get_legend().get_texts()]
    assert said == ["70-80", "none", "none", "?"]


def test_it_goes_on_after_ctrl_c(settings, study, monkeypatch, tmp_path):
    asked = replace(settings, out=tmp_path / "out", sweeps=("batch-size",))
    whole, seen = module.examine, []

    def stops(item, images, interrupts, progress):
        seen.append(item.key)
        if len(seen) == 2:
            interrupts._pressed(2, None)
        return whole(item, images, interrupts, progress)

    monkeypatch.setattr(module, "examine", stops)
    monkeypatch.setattr(module.tail_index_figures, "write", lambda *_: None)
    assert run(asked) == 130
    assert run(asked) == 0
    assert len(seen) == 2 + 1
    data = json.loads((asked.out / "results.json").read_text())
    straight = {case["key"]: case for case in study["cases"]}
    assert len(data["cases"]) == 2
    for case in data["cases"]:
        assert {**straight[case["key"]], "seconds": 0} == {**case, "seconds": 0}


@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_in_the_noise_of_test_data_keeps_no_part_of_it(folder, monkeypatch, at):
    images = load_images(folder)
    network = Network("fully connected", LOSSES[0], 9, 2, 10, 1, 10, 2, 16)
    whole, seen = case_module.collect_gradients, []
    with Interrupts() as interrupts:

        def presses(model, loss, data, *rest, **options):
            if data[0] is images.test[0]:
                seen.append(1)
                if at == 1:
                    raise KeyboardInterrupt
                interrupts._pressed(2, None)
            return whole(model, loss, data, *rest, **options)

        monkeypatch.setattr(case_module, "collect_gradients", presses)
        assert examine(network, images, interrupts, False) is None
    assert seen == [1]


def test_too_few_images_are_refused(tmp_path):
    data = write_idx(tmp_path / "data", n=12, side=8)
    with pytest.raises(BadOption, match=r"data: expected at least 16 images to train on .*, got 12"):
        run(Settings(data, tmp_path / "out"))


def test_training_that_diverges_is_said(folder):
    images = load_images(folder)
    at = Network("fully connected", "linear hinge", 9, 6, 10, 1, 40, 3, 16, rate=1e6)
    with Interrupts() as interrupts:
        found = examine(at, images, interrupts, False)
    assert (found["ended"], found["on_test_data"]) == ("diverged", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--sweep", "width,colour"), "expected one of width, depth, batch-size, channels, got 'colour'"),
     (("--batches", "2"), "expected a whole number of at least 16"), (("--loss", "l2"), "invalid choice")],
)  # fmt: skip
def test_mistakes(options, said, capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "tail-index", "--out", str(tmp_path), *options])
    assert said in capsys.readouterr().err
