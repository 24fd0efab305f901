"""`gradtail reproduce heavy-tail-sgd`: its networks by a plain loop, its table, going on after Ctrl-C."""

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
from idx_files import write_idx
from scipy import stats

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
pytest.importorskip("matplotlib", reason="needs matplotlib (the extra gradtail[report])")

from gradtail import cli, stable_index_iterates  # noqa: E402
from gradtail.experiments import heavy_tail_sgd as module  # noqa: E402
from gradtail.experiments import heavy_tail_squares  # noqa: E402
from gradtail.experiments.datasets import load_images  # noqa: E402
from gradtail.experiments.heavy_tail_network import Network, examine  # noqa: E402
from gradtail.experiments.heavy_tail_sgd import SCHEMA, Settings, run  # noqa: E402
from gradtail.experiments.heavy_tail_squares import CURVES, POINTS, curves  # noqa: E402
from gradtail.experiments.heavy_tail_table import orders  # noqa: E402
from gradtail.experiments.networks import fully_connected  # noqa: E402
from gradtail.experiments.studies import BadOption  # noqa: E402
from gradtail.theory import least_squares  # noqa: E402
from gradtail.torch.interrupts import Interrupts  # noqa: E402

SOME = POINTS[3:6]  # one of them beyond eta_max


@pytest.fixture(autouse=True, scope="module")
def _fewer_points():
    """Every point and curve is in the tests of theory; here it is what becomes of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POINTS", SOME)
        patch.setattr(heavy_tail_squares, "CURVES", (CURVES[0], CURVES[-1]))
        curves.cache_clear()
        yield
    curves.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("images") / "data", n=120, side=8)


@pytest.fixture(scope="module")
def settings(folder):
    return Settings(
        folder, folder.parent / "out", rates=(0.01, 0.1, 30.0, 1e8), batches=(7,), width=12, iterations=60,
        last=20, samples=30, chains=1000, steps=40,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(settings):
    assert run(settings) == 0
    return read(settings)


def read(settings):
    return json.loads((settings.out / "results.json").read_text())


def test_averages_are_those_of_a_plain_loop(folder):
    """Batches in epochs without repeats, plain SGD, the mean of the last iterates, the largest eigenvalue."""
    images = load_images(folder)
    at = Network(0.05, 7, 3, width=12, iterations=50, last=11)
    with Interrupts() as interrupts:
        found = examine(at, images, 30, interrupts, False)
    torch.manual_seed(3)
    model = fully_connected(8, 12, 3, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    order = torch.Generator().manual_seed(3)
    x, y = images.train
    kept, index = [], []
    for _ in range(50):
        if len(index) < 7:
            index = torch.randperm(120, generator=order).tolist()
        chosen, index = index[:7], index[7:]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        kept.append([p.detach().double().clone() for p in model.parameters()])
    for name, *some in zip(found["layers"], *kept[-11:], strict=True):
        expected = stable_index_iterates((sum(some) / 11).numpy())
        assert found["layers"][name]["after"]["alpha"] == pytest.approx(expected.alpha, rel=1e-4)
    assert list(found["layers"]) == [name for name, _ in model.named_parameters()]
    norms = [math.sqrt(sum(float((p**2).sum()) for p in some)) for some in (kept[-11], kept[-1])]
    assert found["growth"] == pytest.approx(norms[1] / norms[0], rel=1e-6)
    loss = torch.nn.functional.cross_entropy(model(x), y).detach()
    assert found["train_loss"] == pytest.approx(float(loss), rel=1e-4)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    shapes = [p.shape for p in model.parameters()]

    def of(weights):
        parts = torch.split(weights, [math.prod(shape) for shape in shapes])
        named = zip(dict(model.named_parameters()), parts, shapes, strict=True)
        state = {name: part.view(shape) for name, part, shape in named}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model, state, x[:30]), y[:30])

    largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(of, flat, vectorize=True))[-1]
    assert found["largest_eigenvalue"] == pytest.approx(float(largest), rel=1e-3)


def test_everything_is_written(settings, study):
    names = {file.name for file in settings.out.iterdir()}
    assert names == {"results.json", "table.txt", "least_squares.png", "networks.png"}
    assert (study["schema"], study["complete"]) == (SCHEMA, True)
    assert len(study["cases"]) == len(SOME) + 4
    lost = {case["eta"]: case["lost"] for case in study["cases"] if case["kind"] == "network"}
    assert lost == {0.01: None, 0.1: None, 30.0: "no gradient left", 1e8: "diverged at step 60"}
    text = (settings.out / "table.txt").read_text()
    assert text.count("diverged at step 60") == text.count("  no gradient left") == 1
    squares = {case["eta"]: case for case in study["cases"] if case["kind"] == "squares"}
    for case in squares.values():
        start = [f"{case['eta']:.4g}", str(case["batch"]), str(case["dimension"])]
        line = next(line for line in text.splitlines() if line.split()[:3] == start)
        assert line.endswith(case["state"]) != (case["state"] == "stationary")
    assert (squares[2.6]["alpha"], squares[2.6]["state"]) == (None, "diverges")
    assert squares[1.0]["state"] == "stationary"
    assert len(study["curves"]) == 2
    check_curves(study["curves"])


def check_curves(found):
    for curve in found:
        assert (np.diff(curve["alpha"]) < 0).all()
        assert curve["alpha"][-1] < 2 < curve["alpha"][0]


@pytest.mark.slow
def test_all_points_and_curves(monkeypatch):
    monkeypatch.setattr(heavy_tail_squares, "CURVES", CURVES)
    found = curves.__wrapped__()
    assert [(curve["batch"], curve["dimension"]) for curve in found] == list(CURVES)
    check_curves(found)
    for point in POINTS:
        with Interrupts() as interrupts:
            at = heavy_tail_squares.Squares(*point, chains=1000, steps=40)
            case = heavy_tail_squares.examine(at, interrupts)
        assert (case["state"] == "diverges") == (case["alpha"] is None)


def test_it_goes_on_after_ctrl_c(settings, study, monkeypatch, tmp_path):
    asked = replace(settings, out=tmp_path / "out")
    whole, seen = module.examine_network, []

    def stops(item, images, samples, interrupts, progress):
        seen.append(item.key)
        if len(seen) == 3:
            interrupts._pressed(2, None)
        return whole(item, images, samples, interrupts, progress)

    monkeypatch.setattr(module, "examine_network", stops)
    monkeypatch.setattr(module.heavy_tail_figures, "write", lambda *_: None)
    assert run(asked) == 130
    assert len(read(asked)["cases"]) == len(SOME) + 2
    assert run(asked) == 0
    assert len(seen) == 3 + 2
    again = {case["key"]: case for case in read(asked)["cases"]}
    for case in study["cases"]:
        assert {**again[case["key"]], "seconds": 0} == {**case, "seconds": 0}
    with pytest.raises(BadOption, match=r"out: expected a new folder or one of the same .*width 12"):
        run(replace(asked, width=13))


def test_ctrl_c_stops_a_simulation(settings, tmp_path, monkeypatch):
    whole = least_squares.simulate

    def presses(*rest, stop, **options):
        assert stop() is False
        signal.raise_signal(signal.SIGINT)
        assert stop()
        return whole(*rest, stop=stop, **options)

    monkeypatch.setattr(least_squares, "simulate", presses)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(replace(settings, out=tmp_path / "out")) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert read(replace(settings, out=tmp_path / "out"))["cases"] == []


def test_rank_correlations():
    rng = np.random.default_rng(0)
    noise, sharp, gap, alpha = rng.standard_normal((4, 20))
    cases = [
        {
            "noise": n, "largest_eigenvalue": s, "test_loss": g + 1, "train_loss": 1.0,
            "layers": {"one": {"after": {"alpha": a}}, "two": {"after": None}},
        }
        for n, s, g, a in zip(noise, sharp, gap, alpha, strict=True)
    ]  # fmt: skip
    found = {tuple(one["of"]): one for one in orders(cases)}
    assert len(found) == 6  # none of the layer with too few weights
    one = found["eta / b", "alpha of one"]
    expected = stats.spearmanr(noise, alpha).statistic
    assert one["spearman"] == pytest.approx(expected)
    low, high = one["ci95"]
    reach = 1.96 * math.sqrt((1 + expected**2 / 2) / 17)
    assert math.atanh(high) - math.atanh(low) == pytest.approx(2 * reach, rel=1e-4)
    assert orders(cases[:4]) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--last", "300", "--iterations", "200"), "--last: expected at most 200"),
     (("--chains", "5"), "expected a whole number of at least 1000"),
     (("--data", "nowhere"), "--data: expected a folder with")],
)  # fmt: skip
def test_mistakes(options, said, capsys, tmp_path):
    try:
        code = cli.main(["reproduce", "heavy-tail-sgd", "--out", str(tmp_path), *options])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err
