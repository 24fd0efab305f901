"""`gradtail demo` from end to end, with a model that takes milliseconds a step."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy import special

torch = pytest.importorskip("torch", reason="the demo trains with PyTorch")
pytest.importorskip("matplotlib", reason="the demo writes a report with pictures")
rich_console = pytest.importorskip("rich.console", reason="the demo's live view is drawn with rich")

from gradtail.experiments.demo import Demo, Settings, prepare_folder, printable  # noqa: E402
from gradtail.experiments.gpt import GPTConfig  # noqa: E402
from gradtail.experiments.live import Curve, LiveView  # noqa: E402
from gradtail.experiments.progress import PlainView, Status, heaviest_tails  # noqa: E402
from gradtail.experiments.training import Recipe  # noqa: E402

TINY = GPTConfig(layers=1, heads=2, width=32, context=16)
needs_signals = pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to another process")


def tiny(tmp_path, steps=3, **other):
    text = tmp_path / "text.txt"
    if not text.exists():
        text.write_bytes(bytes(np.random.default_rng(5).integers(32, 127, 4000, dtype=np.uint8)))
    defaults = {"text": text, "out": tmp_path / "out", "model": TINY, "sample": 8}
    return Settings(**{**defaults, "recipe": Recipe(steps=steps, batch=2), **other})


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Tiny matrices are slower on several threads, much so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three steps: its demo, its report.json and the gradients before clipping."""
    seen = []

    def keep(step, model):
        assert step == len(seen)
        seen.append({name: p.grad.numpy().copy().reshape(-1) for name, p in model.named_parameters()})

    demo = Demo(tiny(tmp_path_factory.mktemp("run")))
    assert demo.run(on_gradients=keep) == 0
    return demo, json.loads((demo.out / "report.json").read_text()), seen


def test_writes_every_file(finished):
    demo, data, _ = finished
    assert (demo.out / "report.html").stat().st_size > 10_000
    assert list(demo.out.glob("*.png"))
    assert data["run"]["steps"] == 3
    assert data["run"]["elements"] == demo.model.parameter_count()


def test_report_says_what_was_run(finished):
    demo, data, _ = finished
    said = data["settings"]
    assert said["text"] == "text.txt"
    assert said["text_bytes"] == 4000
    assert said["seed"] == 0
    assert said["steps"] == said["steps_wanted"] == 3
    assert said["model_parameters"] == demo.model.parameter_count()
    assert said["heldout_loss"] == pytest.approx(5.5, abs=0.5)
    assert len(data["history"]["loss"]["values"]) == 3


# The numbers of report.json, computed again from the gradients themselves. The code below shares
# nothing with the library: plain NumPy in float64 on the values of all steps.


def layer_values(finished):
    _, data, seen = finished
    assert [row["name"] for row in data["layers"]] == list(seen[0])
    for row in data["layers"]:
        yield row, [step[row["name"]].astype(np.float64) for step in seen]
    everything = [np.concatenate([g.astype(np.float64) for g in step.values()]) for step in seen]
    yield data["whole"], everything


def hill_by_hand(values, k):
    """Log alpha of the top k, freed of its bias, and the threshold."""
    top = np.sort(np.abs(values[values != 0]))[::-1]
    k = min(k, top.size - 1)
    mean = np.mean(np.log(top[:k] / top[k]))
    return special.digamma(k) - np.log(k) - np.log(mean), top[k]


def test_counts_are_those_of_the_gradients(finished):
    for row, steps in layer_values(finished):
        x = np.concatenate(steps)
        assert row["count"] == x.size
        assert row["zeros"] == np.count_nonzero(x == 0)
        assert row["nan"] == row["posinf"] == row["neginf"] == 0
        assert row["size"] == steps[0].size
        assert row["observed"] == 3
        assert row["max_abs"] == np.abs(x).max()


def test_moments_are_those_of_the_gradients(finished):
    for row, steps in layer_values(finished):
        x = np.concatenate(steps)
        # Power sum p is within 1e-6 of sum |x|**p; what is made of them follows.
        sd, mean = x.std(), x.mean()
        assert row["mean"] == pytest.approx(mean, abs=1e-6 * np.abs(x).mean())
        assert row["sd"] == pytest.approx(sd, rel=2e-6)
        z = (x - mean) / sd
        assert row["skewness"] == pytest.approx((z**3).mean(), abs=1e-5 * (np.abs(z) ** 3).mean())
        kurtosis = (z**4).mean()
        assert row["excess_kurtosis"] == pytest.approx(kurtosis - 3, abs=1e-5 * kurtosis)


def test_norms_are_those_before_clipping(finished):
    _, data, seen = finished
    for row, steps in layer_values(finished):
        norms = [np.linalg.norm(x) for x in steps]
        assert row["norm"]["newest"] == pytest.approx(norms[-1], rel=1e-6)
        assert row["norm"]["median"] == pytest.approx(np.median(norms), rel=1e-6)
        assert row["norm"]["max"] == pytest.approx(max(norms), rel=1e-6)
    whole = [np.linalg.norm(np.concatenate(list(step.values())).astype(np.float64)) for step in seen]
    assert data["history"]["norm"] == pytest.approx(whole, rel=1e-6)
    assert data["settings"]["clipped"] == sum(norm > 1 for norm in whole)


def test_quantiles_are_within_a_bin_of_the_gradients(finished):
    bin_width = 2.0**-4  # of the lower edge, at 4 mantissa bits
    for row, steps in layer_values(finished):
        size = np.sort(np.abs(np.concatenate(steps)))
        for q, value in row["quantiles"].items():
            # A quantile lies between two values; whose bin it is, is a matter of convention.
            at = float(q) * (size.size - 1)
            low, high = size[int(np.floor(at))], size[min(int(np.ceil(at)), size.size - 1)]
            assert low / (1 + bin_width) <= value <= high * (1 + bin_width)


def test_tail_exponents_are_those_of_the_gradients(finished):
    seen_one = False
    width = np.log(1 + 2.0**-4)  # widest bin in log |x|
    for row, steps in layer_values(finished):
        tail = row["tails"]["both"]
        nonzero = [np.count_nonzero(x) for x in steps]
        assert tail["n"] == sum(nonzero)
        assert (tail["spread"], tail["blocks"]) == ("blocks", 3)
        # The same share of the values of each step; of the share, only its sum over steps is told.
        at = [max(1, round(tail["k"] / tail["n"] * n)) for n in nonzero]
        assert abs(sum(at) - tail["k"]) <= 2
        logs, thresholds = zip(*map(hill_by_hand, steps, at), strict=True)
        wide, _ = zip(*(hill_by_hand(x, 10 * k) for x, k in zip(steps, at, strict=True)), strict=True)
        log_alpha = np.mean(logs)
        alpha = np.exp(log_alpha)
        # Where k values lie within their bins, and where the threshold lies in its own: each uniform
        # at worst, so three standard errors of the one, and the whole width of the other. And one
        # value more or less.
        open_by = 3 * alpha * width / np.sqrt(12 * tail["k"]) + alpha * width / 4
        open_by += (alpha * width) ** 2 / 12 + 1 / min(at)
        assert np.log(tail["alpha"]) == pytest.approx(log_alpha, abs=open_by)
        typical = np.exp(np.mean(np.log(thresholds)))
        assert np.log(tail["threshold"]) == pytest.approx(np.log(typical), abs=2 * width)
        # Student's interval of the logarithms, longer on the side to which alpha still moves as k falls.
        half = special.stdtrit(2, 0.975) * np.std(logs, ddof=1) / np.sqrt(3)
        drift = (log_alpha - np.mean(wide)) / (np.sqrt(10) - 1)
        ends = log_alpha - half + min(drift, 0), log_alpha + half + max(drift, 0)
        slack = open_by * (1 + special.stdtrit(2, 0.975))
        assert np.log(tail["ci95"]) == pytest.approx(ends, abs=slack)
        low, high = tail["ci95"]
        assert low < tail["alpha"] < high
        seen_one = True
    assert seen_one


def losses(tmp_path, seed):
    tmp_path.mkdir()
    demo = Demo(tiny(tmp_path, recipe=Recipe(steps=4, batch=2, seed=seed), sample=0))
    demo._finish = lambda interrupts: None
    demo.run()
    return demo.monitor.losses[1]


def test_same_seed_gives_the_same_run(tmp_path):
    first = losses(tmp_path / "a", 1)
    assert first == losses(tmp_path / "b", 1)
    assert first != losses(tmp_path / "c", 2)


def test_learns(tmp_path):
    text = tmp_path / "plain.txt"
    text.write_bytes(b"the same few words again and again, " * 200)
    recipe = Recipe(steps=60, batch=8, learning_rate=1e-2)
    demo = Demo(tiny(tmp_path, text=text, recipe=recipe))
    demo._finish = lambda interrupts: None
    demo.run()
    values = demo.monitor.losses[1]
    assert values[0] > 5
    assert values[-1] < 2


def test_runs_again_over_its_own_report(finished, tmp_path):
    demo, _, _ = finished
    assert prepare_folder(demo.out) == demo.out
    assert prepare_folder(tmp_path / "new" / "folder").is_dir()


def test_heaviest_tails_come_first(finished):
    demo, _, _ = finished
    found = heaviest_tails(demo.monitor.stream)
    assert 0 < len(found) <= 5
    keys = [(layer.estimate.plateau is False, layer.estimate.ci()[1]) for layer in found]
    assert keys == sorted(keys)
    assert "norm.weight" not in [layer.name for layer in found]


def status(done, steps=40, loss=2.0):
    return Status(done, steps, loss, 0.5, 1234.5, 0, 0.0123, 7.0 * done)


def test_plain_view_is_a_line_every_few_steps():
    lines = []
    with PlainView(40, lines=4, write=lines.append) as view:
        for done in range(1, 41):
            view.show(status(done))
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 10, 20, 30, 40]
    assert lines[1] == (
        "step 10/40  loss 2.000  norm 0.5  1,234 tokens/s  non-finite 0  overhead 1.2 %  3:30 left"
    )


@pytest.mark.parametrize("width", [60, 80, 140])
def test_live_view_shows_the_layers_and_keeps_its_height(finished, width):
    demo, _, _ = finished
    out = io.StringIO()
    console = rich_console.Console(file=out, force_terminal=True, width=width, height=30, color_system=None)
    view = LiveView(demo.monitor.stream, 40, title="a title", console=console)
    empty = console.render_lines(view._draw(None))
    with view:
        for done in range(1, 41):
            view.show(status(done, loss=5 - done / 10))
    last = console.render_lines(view._draw(status(40)))
    text = "\n".join("".join(segment.text for segment in line) for line in last)
    assert heaviest_tails(demo.monitor.stream)[0].name in text
    assert "1.2 % of the time" in text
    assert "40/40" in text
    assert len(empty) == len(last)


def test_curve_falls_with_the_loss():
    curve = Curve(100, width=8)
    for done in range(1, 101):
        curve.add(done, 100 - done)
    assert curve.draw() == "█▇▆▅▄▃▂▁"
    assert Curve(10).draw() == ""
    half = Curve(100, width=8)
    half.add(1, float("nan"))
    half.add(50, 1.0)
    assert half.draw() == "▁"


def test_generated_text_obeys_no_control_codes():
    assert printable(b"a\x1b[31m\tb\nc\r\xff") == "a�[31m  b\nc��"


# Other processes: Ctrl-C, and what is written where there is no terminal.

TINY_RUN = """
    import signal, sys, time
    from pathlib import Path
    import torch
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have ignored it
    from gradtail.experiments.demo import Demo, Settings
    from gradtail.experiments.gpt import GPTConfig
    from gradtail.experiments.training import Recipe
    from gradtail.report import Report
    torch.set_num_threads(1)
    folder, steps, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    def save(self, folder):
        time.sleep(seconds)
        self.write_json(folder / "report.json")
    Report.save = save  # without the pictures, which take seconds of another length
    model = GPTConfig(layers=1, heads=2, width=32, context=16)
    sys.exit(Demo(Settings(folder / "text.txt", folder / "out", model=model, recipe=Recipe(steps, 2))).run())
"""

COMMAND = """
    import runpy, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_module("gradtail", run_name="__main__", alter_sys=True)
"""


def start(script, *arguments, **options):
    environment = {**os.environ, "FORCE_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", env=environment,
        **{"stdout": subprocess.PIPE, **options},
    )  # fmt: skip


def read_until(process, beginning):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return lines
    raise AssertionError(f"ended without {beginning!r}:\n{''.join(lines)}")


@needs_signals
def test_interrupted_command_still_writes_the_report(tmp_path):
    with start(COMMAND, "demo", "--out", tmp_path / "out") as process:
        lines = read_until(process, "step ")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
    out = "".join(lines) + rest
    assert process.returncode == 130, out
    assert re.search(r"Stopped after \d+ of 350 steps", out)
    assert "Traceback" not in out
    assert "\x1b" not in out
    assert str(tmp_path / "out" / "report.html") in out
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 1 <= data["run"]["steps"] < 350
    assert data["settings"]["steps"] == data["run"]["steps"]
    assert (tmp_path / "out" / "report.html").exists()


@needs_signals
def test_second_interrupt_gives_the_report_up(tmp_path):
    tiny(tmp_path)
    with start(TINY_RUN, tmp_path, 10**6, 60) as process:
        lines = read_until(process, "step ")
        process.send_signal(signal.SIGINT)
        lines += read_until(process, "Writing the report")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (tmp_path / "out" / "report.json").exists()
    assert "Given up while writing the report" in rest
    assert "Traceback" not in rest


@needs_signals
def test_one_interrupt_while_the_report_is_written_lets_it_finish(tmp_path):
    tiny(tmp_path)
    with start(TINY_RUN, tmp_path, 2, 1) as process:
        read_until(process, "Writing the report")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert (tmp_path / "out" / "report.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_terminal_gets_the_live_view(tmp_path):
    tiny(tmp_path)
    import pty

    master, slave = pty.openpty()
    with start(TINY_RUN, tmp_path, 3, 0, stdout=slave) as process:
        os.close(slave)
        parts = []
        while True:
            try:
                parts.append(os.read(master, 65536))
            except OSError:  # the other side is closed
                break
            if not parts[-1]:
                break
    os.close(master)
    out = b"".join(parts).decode("utf-8", errors="replace")
    assert process.returncode == 0, out
    assert "\x1b[" in out
    assert "heaviest tails" in out
    assert "3/3" in out
