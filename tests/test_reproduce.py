"""`gradtail reproduce`: data, networks, what is written, and mistakes on the command line."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx
from published import FOLDER

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from gradtail import cli  # noqa: E402
from gradtail.experiments.classifiers import Training, evaluate, train  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.gradient_structure import SCHEMA, Settings, cases, run, table  # noqa: E402
from gradtail.experiments.networks import LeNet, fully_connected  # noqa: E402
from gradtail.experiments.studies import INTERRUPTED  # noqa: E402
from gradtail.torch import collect_gradients  # noqa: E402


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(tmp_path, zipped):
    images = load_images(write_idx(tmp_path, zipped=zipped))
    x, y = images.train
    assert images.name == f"images of {tmp_path.name}"
    assert (images.side, x.shape, x.dtype) == (28, (40, 1, 28, 28), torch.float32)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std()) == pytest.approx(1, abs=1e-3)
    assert y.dtype == torch.int64
    label = int(y[0])
    assert float(x[0, 0, 3 + 2 * label, 3 + 2 * label]) == pytest.approx(float(x.max()))
    assert load_images(tmp_path, limit=10).train[0].shape[0] == 10


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="data: expected a folder with train-images-idx3-ubyte"):
        load_images(tmp_path)
    write_idx(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="data: expected 31360 bytes of values, got 31355"):
        load_images(tmp_path)
    file.write_bytes(b"\x00\x00\x08\x01" + whole[4:])
    with pytest.raises(ValueError, match=r"data: expected an idx file of kind 2051, got .* of kind 2049"):
        load_images(tmp_path)
    file.write_bytes(whole[:8])
    with pytest.raises(ValueError, match="data: expected a head of 16 bytes, got 8 bytes"):
        load_images(tmp_path)
    file.write_bytes(whole[:16] + bytes(len(whole) - 16))
    with pytest.raises(ValueError, match="data: expected images that differ in the train files"):
        load_images(tmp_path)
    file.write_bytes(whole)
    labels = tmp_path / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + b"\x0b")
    with pytest.raises(ValueError, match="data: expected labels below 10 in the train files, got 11"):
        load_images(tmp_path)
    labels.write_bytes(content[:4] + (39).to_bytes(4, "big") + content[8:-1])
    with pytest.raises(ValueError, match="data: expected as many labels as images in the train files"):
        load_images(tmp_path)


def test_digits_ship_with_scikit_learn():
    pytest.importorskip("sklearn", reason="needs scikit-learn (the extra gradtail[reproduce])")
    images = load_images(None)
    assert (images.name, images.side) == ("digits", 8)
    assert len(images.train[0]) + len(images.test[0]) == 1797


def test_networks_of_the_studies():
    assert sum(p.numel() for p in LeNet().parameters()) == 61_706
    assert LeNet(8)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    net = fully_connected(28, width=100, depth=2)
    assert [tuple(p.shape) for p in net.parameters()] == [(100, 784), (100,), (10, 100), (10,)]
    assert len(list(fully_connected(depth=1).parameters())) == 2


def test_training_learns(tmp_path):
    images = load_images(write_idx(tmp_path, n=400))
    torch.manual_seed(0)
    net = fully_connected()
    before, _ = evaluate(net, images.test)
    train(net, images.train, Training(4, batch=20, rate=0.05), seed=0)
    after, accuracy = evaluate(net, images.test)
    assert after < before / 2
    assert accuracy > 0.9
    assert net.training
    few = fully_connected()
    weights = few[1].weight.clone()
    train(few, (images.train[0][:30], images.train[1][:30]), Training(1), seed=0)  # fewer than a batch
    assert not torch.equal(few[1].weight, weights)
    recipe = Training(10)
    rates = [recipe.rate_at(done) / recipe.rate for done in (0.0, 0.39, 0.4, 0.79, 0.8)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    settings = Settings(
        write_idx(folder / "data", n=300), folder / "out", ("fully connected",), seeds=2, batches=60,
        batch_size=20, eigenvalues=30, epochs=1,
    )  # fmt: skip
    assert run(settings) == 0
    return settings, json.loads((settings.out / "results.json").read_text())


def test_everything_is_written(study):
    settings, data = study
    assert {file.name for file in settings.out.iterdir()} == {
        "results.json", "table.txt", "dimension_wise.png", "iteration_wise.png", "spectrum.png", "rates.png",
    }  # fmt: skip
    assert (data["schema"], data["complete"], len(data["cases"])) == (SCHEMA, True, 4)
    assert [(one["state"], one["seed"]) for one in data["cases"]] == [
        (case.state, case.seed) for case in cases(settings)
    ]
    for case in data["cases"]:
        assert {"batches", "batch_size", "sampling", "seed", "mode", "top", "level"} <= set(
            case["provenance"]
        )
        for kind in ("gradient", "noise"):
            tests = case["kinds"][kind]
            assert tests["dimension_wise"]["power_law_rate"]["tested"] == 60
            assert set(tests["layers"]) == {"1.weight", "1.bias", "3.weight", "3.bias"}
            assert tests["layers"]["1.weight"]["iteration_wise"]["gaussian_rate"]["tested"] > 500
            assert 0 <= tests["iteration_wise"]["gaussian_rate"]["value"] <= 1
            assert tests["all_coordinates"]["tested"] > 50_000
            assert tests["iteration_wise_tenth"]["mean_n_tail"] == 50
            assert np.isfinite(tests["median_excess_kurtosis"])
            assert tests["rivals"]["rival"] == "lognormal"
            assert tests["all_coordinates"]["skipped_constant"] >= 0
        for spectrum in case["spectra"].values():
            assert spectrum["laws"]["all"]["top"] == len(spectrum["eigenvalues"]) == 30
            for law in spectrum["laws"].values():
                assert ("not rejected" in law["verdict"]) == (law["ks"] < law["critical"])
            assert spectrum["laws"]["head"]["top"] == 20
            assert spectrum["laws"]["all"]["slope_sketch_stderr"] > 0
            values, drop = np.array(spectrum["eigenvalues"]), spectrum["drop"]
            ratios = values[:-1] / values[1:]
            assert ratios[drop["after"] - 1] == pytest.approx(drop["ratio"], rel=1e-4)
            assert drop["ratio"] == pytest.approx(ratios.max(), rel=1e-4)
        assert len(case["stability"]["overlap"]) == 10
        assert max(case["stability"]["sine"]) <= 1
    trained, random = (
        np.mean([one["test_accuracy"] for one in data["cases"] if one["state"] == state])
        for state in ("trained", "random")
    )
    assert trained > random


def test_the_table_is_that_of_the_numbers(study):
    settings, data = study
    text = table(data)
    assert (settings.out / "table.txt").read_text() == text + "\n"
    found = [one["kinds"]["noise"]["dimension_wise"]["gaussian_rate"]["value"] for one in data["cases"][::2]]
    line = next(
        line for line in text.splitlines() if "random" in line and "noise" in line and "parameters" in line
    )
    rates = 100 * np.array(found)
    assert line.endswith(f"{rates.mean():.1f} % ({rates.min():.0f}-{rates.max():.0f})")
    assert "power law" in text
    assert "300 images: 60 batches of 20, 2 seeds, 4 cases; trained for 1 epochs" in text


def test_mistakes_on_the_command_line(tmp_path, capsys):
    arguments = ["reproduce", "gradient-structure", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == cli.USER_ERROR
    assert "--data: expected a folder with train-images-idx3-ubyte" in capsys.readouterr().err
    assert cli.main([*arguments, "--batches", "100", "--eigenvalues", "51"]) == cli.USER_ERROR
    assert "--eigenvalues: expected at most 50, half of the batches, got 51" in capsys.readouterr().err
    taken = tmp_path / "file"
    taken.write_text("x")
    data = str(write_idx(tmp_path / "data"))
    few = ["reproduce", "gradient-structure", "--data", data, "--batch-size"]
    assert cli.main([*few, "21", "--out", str(tmp_path / "out")]) == cli.USER_ERROR
    assert "--batch-size: expected at most 20, half of the training images, got 21" in capsys.readouterr().err
    assert cli.main([*few, "20", "--out", str(taken)]) == cli.USER_ERROR
    assert "--out: expected a folder or a new name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "something"])


def test_what_is_called_trained_has_learned(tmp_path, capsys):
    """On the default data, whose epochs have few steps."""
    pytest.importorskip("sklearn", reason="needs scikit-learn (the extra gradtail[reproduce])")
    settings = Settings(None, tmp_path / "out", ("LeNet",), seeds=1, batches=50, eigenvalues=25)
    assert run(settings) == 0
    data = json.loads((settings.out / "results.json").read_text())
    random, trained = (one["test_accuracy"] for one in data["cases"])
    assert random < 0.3
    assert trained > 0.95
    assert "has not learned" not in table(data)
    data["cases"][1]["test_accuracy"] = 0.5
    assert "warning: LeNet, trained has a test accuracy below 80 %: it has not learned" in table(data)


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    settings = Settings(
        write_idx(tmp_path / "data", n=100), tmp_path / "out", ("fully connected",), seeds=2, batches=50,
        batch_size=10, eigenvalues=25, epochs=1,
    )  # fmt: skip
    calls = []

    def collected(*arguments, **given):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return collect_gradients(*arguments, **given)

    monkeypatch.setattr("gradtail.experiments.gradient_structure.collect_gradients", collected)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(settings) == INTERRUPTED
        data = json.loads((settings.out / "results.json").read_text())
        assert (data["complete"], len(data["cases"])) == (False, 1)
        calls[:] = [1]  # the first collection is stopped now
        assert run(replace(settings, out=tmp_path / "other")) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nothing to write" in capsys.readouterr().err
    assert not (tmp_path / "other" / "results.json").exists()


def test_mnist_is_known_by_its_bytes(tmp_path, monkeypatch):
    images = load_images(write_idx(tmp_path))
    monkeypatch.setattr("gradtail.experiments.datasets.MNIST_SHA256", images.sha256)
    assert load_images(tmp_path).name == "MNIST"
    assert load_images(tmp_path, limit=10).name == "MNIST"
    assert load_images(tmp_path, limit=10).sha256 != images.sha256
    if (folder := FOLDER / "mnist").is_dir():
        monkeypatch.undo()
        assert load_images(folder, limit=10).name == "MNIST"
