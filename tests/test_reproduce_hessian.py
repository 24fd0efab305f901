"""`gradtail reproduce hessian-spectrum`: files, going on after Ctrl-C, language, mistakes."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from gradtail import cli  # noqa: E402
from gradtail.experiments import hessian_case  # noqa: E402
from gradtail.experiments import hessian_spectrum as module  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.gpt import GPTConfig  # noqa: E402
from gradtail.experiments.hessian_case import network  # noqa: E402
from gradtail.experiments.hessian_rows import (  # noqa: E402
    CONNECTED,
    Net,
    Settings,
)
from gradtail.experiments.hessian_spectrum import SCHEMA, run  # noqa: E402
from gradtail.experiments.hessian_sweeps import WIDTHS  # noqa: E402
from gradtail.experiments.hessian_table import table  # noqa: E402
from gradtail.experiments.studies import BadOption  # noqa: E402
from gradtail.experiments.text import Text  # noqa: E402
from gradtail.torch import hessian_spectrum  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402
from gradtail.torch.lanczos_file import LanczosFile  # noqa: E402

TINY = GPTConfig(layers=1, heads=2, width=8, context=16)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    data = write_idx(folder / "data", n=200, side=8)
    with pytest.MonkeyPatch.context() as patch:  # rows in print stand beside those of MNIST alone
        patch.setattr("gradtail.experiments.datasets.MNIST_SHA256", load_images(data).sha256)
        yield Settings(
            data, folder / "out", samples=40, eigenvalues=12, epochs=2, probes=2, steps=8, text_steps=12
        )


@pytest.fixture(scope="module")
def study(settings):
    assert run(settings) == 0
    return read(settings)


def read(settings):
    return json.loads((settings.out / "results.json").read_text())


def test_everything_is_written(settings, study):
    names = {file.name for file in settings.out.iterdir()}
    assert {"results.json", "table.txt", "networks_spectrum.png", "networks_density.png"} <= names
    assert not [name for name in names if name.endswith(".new")]
    assert (study["schema"], study["complete"], len(study["cases"])) == (SCHEMA, True, 5)
    assert [row["setting"] for row in study["rows"]] == [
        "LeNet, random", "LeNet, trained", "two-layer, random", "two-layer, trained", "one-layer, trained",
    ]  # fmt: skip
    assert study["training"]["epochs"] == 2
    for case in study["cases"]:
        spectrum, density = case["spectrum"], case["density"]
        assert spectrum["asked"] == spectrum["found"] == len(spectrum["eigenvalues"]) == 12
        assert spectrum["provenance"]["examples"] == 40
        assert spectrum["provenance"]["mode"] == "eval"
        law = spectrum["power_law"]
        assert law["top"] == spectrum["positive"]
        assert law["slope"] == pytest.approx(1 / (law["exponent"] - 1))
        assert ("not rejected" in law["verdict"]) == (law["ks"] < law["critical"])
        assert spectrum["perturbation"] == pytest.approx(0.01 * spectrum["eigenvalues"][0], rel=1e-6)
        assert 0 < sum(bound < 1 for bound in spectrum["bound"] if bound is not None) <= 12
        assert len(density["nodes"]) == len(density["weights"]) == 2
        assert [sum(weights) for weights in density["weights"]] == pytest.approx([1, 1], abs=1e-4)
        assert (case["training"] is None) == (case["until"] == 0)
    random, trained = (
        next(case["test_loss"] for case in study["cases"] if (case["depth"], case["until"]) == (2, until))
        for until in (0, 2)
    )
    assert trained < random


def test_numbers_are_those_of_the_hessian(settings, study):
    case = study["cases"][2]
    data = load_images(settings.data)
    model = network(Net(CONNECTED, 100, 2), data.side)
    part = tuple(x[:40] for x in data.train)
    names, parameters = zip(*model.named_parameters(), strict=True)
    assert sum(p.numel() for p in parameters) == case["density"]["size"]
    found = hessian_spectrum(model, torch.nn.functional.cross_entropy, part, top=3, mode="eval")
    assert case["spectrum"]["eigenvalues"][:3] == pytest.approx(found.eigenvalues, rel=1e-4)
    assert names[0] == "1.weight"


def test_the_table_is_that_of_the_numbers(settings, study):
    text = table(study)
    assert (settings.out / "table.txt").read_text() == text + "\n"
    case = study["cases"][1]
    law = case["spectrum"]["power_law"]
    first, second = [line for line in text.splitlines() if line.startswith("LeNet, trained")]
    assert f"{law['ks']:.4f}" in first
    assert f"{law['slope']:.3f} +- {law['slope_stderr']:.3f}" in first
    assert first.split()[-3:] == ["not", "rejected", "1.009"]  # in print
    assert f"{case['test_loss']:.4f}" in second


def test_done_cases_are_not_done_again(settings, study, monkeypatch, capsys):
    def never(*arguments):
        raise AssertionError("examined again")

    with monkeypatch.context() as patched:
        patched.setattr(module, "examine", never)
        assert run(settings) == 0
    assert read(settings)["cases"] == study["cases"]
    assert "5 of 5 cases are done already" in capsys.readouterr().err
    monkeypatch.setattr(module, "examine", never)  # depths 1 and 2 are there but for a random depth 1
    with pytest.raises(AssertionError, match="examined again"):
        run(replace(settings, sweeps=("depth",)))


@pytest.mark.parametrize(
    ("other", "said"),
    [({"samples": 41}, "samples 40 and not 41"), ({"limit": 100}, "limit None and not 100"),
     ({"eigenvalues": 13}, "eigenvalues 12 and not 13")],
)  # fmt: skip
def test_other_settings_are_refused(settings, study, other, said):
    before = (settings.out / "results.json").read_bytes()
    with pytest.raises(BadOption, match="out: expected a new folder or one of the same settings"):
        run(replace(settings, **other))
    with pytest.raises(BadOption, match=said if "limit" not in said else "checksum"):
        run(replace(settings, **other))
    assert (settings.out / "results.json").read_bytes() == before


def test_results_of_something_else_are_refused(settings, tmp_path):
    for content in ('{"schema": "gradtail.GradientStructure/1"}', "[]", "no JSON"):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(BadOption, match="out: expected a new folder or one of this study"):
            run(replace(settings, out=tmp_path))


def test_an_interrupted_run_goes_on(settings, tmp_path, monkeypatch, capsys):
    """Ctrl-C in the third of six cases: two are kept, and so are the parameters of the third."""
    asked = replace(settings, out=tmp_path / "out", sweeps=("width",), epochs=1)
    whole, examined = module.examine, []

    def stops(net, images, settings, weights, interrupts, progress):
        examined.append(net.width)
        if len(examined) == 3:
            interrupts._pressed(2, None)
        return whole(net, images, settings, weights, interrupts, progress)

    with monkeypatch.context() as patched:
        patched.setattr(module, "examine", stops)
        assert run(asked) == 130
    data = read(asked)
    assert (data["complete"], len(data["cases"]), examined) == (False, 2, [10, 20, 30])
    assert "the same command goes on from here" in capsys.readouterr().err
    assert run(asked) == 0
    again = read(asked)
    assert again["cases"][:2] == data["cases"]
    assert [case["width"] for case in again["cases"]] == list(WIDTHS)
    assert again["complete"]
    assert (asked.out / "width_power_law.png").stat().st_size > 1000
    lines = (asked.out / "table.txt").read_text().splitlines()
    assert next(line for line in lines if line.startswith("50 ")).endswith("0.0187  not rejected  0.879")


def test_a_search_that_was_stopped_goes_on(settings, study, tmp_path, monkeypatch):
    """Ctrl-C in a product of the first case: the next run takes up its vectors, and finds the same."""
    asked = replace(settings, out=tmp_path / "out")
    product, load, calls, loaded = Curvature.product, LanczosFile.load, [], []

    def counted(self, v):
        calls.append(self.n)
        if len(calls) == 20:
            signal.raise_signal(signal.SIGINT)
        return product(self, v)

    monkeypatch.setattr(Curvature, "product", counted)
    monkeypatch.setattr(LanczosFile, "load", lambda *of: loaded.append(load(*of)) or loaded[-1])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(asked) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    kept = asked.out / "weights" / "LeNet-s0.search"
    assert kept.is_file()
    assert run(asked) == 0
    assert loaded == [False, True, False, False, False, False]
    assert not kept.exists()
    found = {case["key"]: case["spectrum"]["eigenvalues"] for case in read(asked)["cases"]}
    for case in study["cases"]:
        assert found[case["key"]] == pytest.approx(case["spectrum"]["eigenvalues"], rel=1e-5)


def test_a_network_without_a_hessian_is_passed_over(settings, tmp_path, monkeypatch):
    """As one whose training diverged; the others are done, and it is said of this one."""
    whole = hessian_case.network

    def diverged(net, side, channels):
        model = whole(net, side, channels)
        if net.depth == 2 and not net.until:
            torch.nn.init.constant_(model[1].weight, float("nan"))
        return model

    monkeypatch.setattr(hessian_case, "network", diverged)
    asked = replace(settings, out=tmp_path / "out", sweeps=("depth",), epochs=1)
    assert run(asked) == 0
    data = read(asked)
    assert [case["depth"] for case in data["cases"] if "failed" in case] == [2]
    text = (asked.out / "table.txt").read_text()
    assert "fully_connected-2x100-s0: data: expected finite derivatives" in text
    assert [line.split("  ")[0] for line in text.splitlines() if line[:2] in ("1,", "2,", "4,")][:5] == [
        "1, random", "1, trained", "2, trained", "4, random", "4, trained",
    ]  # fmt: skip


def test_too_many_eigenvalues_for_the_memory(settings, tmp_path, monkeypatch):
    def too_many(*arguments, **options):
        raise ValueError("memory: expected at least 9 GiB")

    monkeypatch.setattr(hessian_case, "hessian_spectrum", too_many)
    with pytest.raises(BadOption, match=r"eigenvalues: expected fewer \(memory: expected at least 9 GiB\)"):
        run(replace(settings, out=tmp_path / "out"))


def test_interrupted_before_anything(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "examine", lambda *arguments: None)
    assert run(replace(settings, out=tmp_path / "out")) == 130
    assert "nothing to show" in capsys.readouterr().err


@pytest.fixture
def text(monkeypatch):
    words = b"the spectrum of the matrix is the power of the rank; " * 60
    found = Text(words, words[:400], "a sentence")
    monkeypatch.setattr(module, "load_text", lambda **_: found)
    return found


def test_language(settings, tmp_path, text):
    asked = replace(settings, out=tmp_path / "out", sweeps=("language",), text_steps=25)
    assert run(asked, language=TINY) == 0
    data = read(asked)
    steps = [0, 10, 18, 25]
    assert [row["value"] for row in data["rows"]] == [case["step"] for case in data["cases"]] == steps
    losses = [case["test_loss"] for case in data["cases"]]
    assert losses[-1] < losses[0]
    distances = [case["spectrum"]["power_law"]["ks"] for case in data["cases"]]
    assert data["correlation"]["0"]["pearson"] == pytest.approx(np.corrcoef(distances, losses)[0, 1])
    trained = data["correlation"]["0"]["after_start"]
    if len(distances) > 4:
        assert trained["pearson"] == pytest.approx(np.corrcoef(distances[1:], losses[1:])[0, 1])
    else:
        assert trained is None
    lines = (asked.out / "table.txt").read_text()
    assert f"correlation {data['correlation']['0']['pearson']:.3f} (95 %" in lines
    assert "in print: 0.923 (GPT2-nano, training) and 0.980" in lines
    assert (asked.out / "language_correlation.png").stat().st_size > 1000
    assert [row["published"] and row["published"]["ks"] for row in data["rows"]] == [
        0.0969,
        None,
        None,
        0.0353,
    ]
    (asked.out / "results.json").unlink()  # weights of the same settings are taken, and not trained again
    whole = module.Language._train
    try:
        module.Language._train = lambda *arguments: pytest.fail("trained again")
        assert run(asked, language=TINY) == 0
    finally:
        module.Language._train = whole


def test_mistakes_on_the_command_line(settings, study, tmp_path, capsys):
    start = ["reproduce", "hessian-spectrum", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(start) == cli.USER_ERROR
    assert "--data: expected a folder with train-images-idx3-ubyte" in capsys.readouterr().err
    for option, value, said in (
        ("--sweep", "width,colour", "expected one of optimizer, batch-size"),
        ("--eigenvalues", "2", "at least 3"), ("--epochs", "0", "at least 1"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            cli.main([*start, option, value])
        assert said in capsys.readouterr().err
    here = ["reproduce", "hessian-spectrum", "--data", str(settings.data), "--out"]
    assert cli.main([*here, str(settings.out)]) == cli.USER_ERROR
    assert "--out: expected a new folder or one of the same settings" in capsys.readouterr().err
    taken = tmp_path / "file"
    taken.write_text("x")
    assert cli.main([*here, str(taken)]) == cli.USER_ERROR
    assert "--out: expected a folder or a new name" in capsys.readouterr().err


def test_options_arrive(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(module, "run", lambda settings: given.append(settings) or 0)
    start = ["reproduce", "hessian-spectrum", "--data", str(tmp_path)]
    arguments = ["--sweep", "width,depth", "--sweep", "epochs", "--sweep", "width", "--samples", "9"]
    assert cli.main([*start, *arguments, "--eigenvalues", "4", "--seeds", "2", "--text-steps", "8"]) == 0
    assert cli.main([*start, "--quick", "--epochs", "7"]) == 0
    assert given == [
        Settings(
            tmp_path, sweeps=("width", "depth", "epochs"), samples=9, eigenvalues=4, seeds=2, text_steps=8
        ),
        replace(Settings.quick(tmp_path, Settings.out), epochs=7),
    ]
