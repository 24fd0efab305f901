"""`gradtail demo`: train a small GPT on real text under the Monitor, and report on its gradients."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gradtail.experiments.gpt import GPT, GPTConfig
from gradtail.experiments.progress import PlainView, Tracker, View
from gradtail.experiments.text import Text, load_text
from gradtail.experiments.training import OnGradients, Recipe, as_tensor, heldout_loss, train
from gradtail.report import Report
from gradtail.states.summary import summarize
from gradtail.torch import Monitor
from gradtail.torch.interrupts import Interrupts

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended
PROMPT = b"def "


@dataclass(frozen=True)
class Settings:
    """What to train on, how, and where to put the report.

    Parameters
    ----------
    text : Path, optional
        File to train on; by default the sources of Python's standard library.
    out : Path
        Folder for the report; new, empty, or holding an earlier report.
    device : str
        A torch device.
    model : GPTConfig
    recipe : Recipe
    sample : int
        Bytes of generated text to show at the end.
    """

    text: Path | None = None
    out: Path = Path("gradtail-demo")
    device: str = "cpu"
    model: GPTConfig = field(default_factory=GPTConfig)
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=350))
    sample: int = 240


class Demo:
    """One run of the demo; everything that the user may have got wrong is refused at once.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    monitor : Monitor
        Of the model in training, with its defaults.

    Raises
    ------
    ValueError
        A text that is too short or cannot be read, a device that is not there, or a folder that
        holds somebody's files.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = check_device(settings.device)
        self.text: Text = load_text(settings.text, least=settings.model.context + 1)
        self.out = prepare_folder(settings.out)
        torch.manual_seed(settings.recipe.seed)
        self.model = GPT(settings.model).to(self.device)
        self.monitor = Monitor(self.model)
        self.steps = 0
        self.final: dict[str, float] = {}

    def run(self, *, on_gradients: OnGradients | None = None) -> int:
        """Train, write the report, and return the exit code: 0, or 130 after Ctrl-C.

        Parameters
        ----------
        on_gradients : callable, optional
            Called with the step and the model before the monitor sees the gradients.
        """
        with Interrupts() as interrupts:
            try:
                self._train(interrupts, on_gradients)
                if interrupts.stopped and not self.steps:
                    print("Interrupted before the first step: there is nothing to report.")
                    return INTERRUPTED
                interrupts.finishing()
                self._finish(interrupts)
            except KeyboardInterrupt:
                print(f"\nGiven up while writing the report: {self.out} is not complete.")
                return INTERRUPTED
        return INTERRUPTED if interrupts.stopped else 0

    def title(self) -> str:
        """Say what is trained on what."""
        size = f"{self.model.parameter_count() / 1e6:.1f} M parameters"
        data = f"{(len(self.text.train) + len(self.text.heldout)) / 1e6:.1f} MB of {self.text.source}"
        return f"GPT of {size}, byte by byte on {data}"

    def _train(self, interrupts: Interrupts, on_gradients: OnGradients | None) -> None:
        recipe = self.settings.recipe
        tracker = Tracker(self.monitor, recipe.steps)
        if self.monitor.stream.backend == "numpy":
            print("No native extension here (see gradtail info): NumPy watches, many times slower.")
        data = as_tensor(self.text.train)
        with self._view() as view:
            for step in train(self.model, data, recipe, self.monitor, on_gradients=on_gradients):
                self.steps = step.number + 1
                self.final["loss"] = step.loss
                view.show(tracker.after(step))
                if interrupts.stopped:
                    break

    def _finish(self, interrupts: Interrupts) -> None:
        if interrupts.stopped:
            wanted = self.settings.recipe.steps
            print(f"Stopped after {self.steps} of {wanted} steps; Ctrl-C again gives the report up.")
        else:
            self._evaluate()
        print("Writing the report ...", flush=True)
        report = self.monitor.report(title="gradtail demo: " + self.title(), settings=self._account())
        report.save(self.out)
        print()
        print(report)
        print()
        print(f"Report: {self.out / 'report.html'}")

    def _evaluate(self) -> None:
        loss = heldout_loss(self.model, as_tensor(self.text.heldout))
        self.final["heldout_loss"] = loss
        print(f"Loss on the held-out tenth of the text: {loss:.3f} nats a byte.")
        if self.settings.sample:
            written = self.model.sample(PROMPT, self.settings.sample, seed=self.settings.recipe.seed)
            print("The model writes:\n")
            print("\n".join("    " + line.rstrip() for line in printable(written).splitlines()) + "\n")

    def _view(self) -> View:
        steps = self.settings.recipe.steps
        # Asked of the stream itself: rich would also take FORCE_COLOR, which CI sets, for a terminal.
        if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            print(self.title(), flush=True)
            return PlainView(steps)
        from rich.console import Console

        from gradtail.experiments.live import LiveView

        return LiveView(self.monitor.stream, steps, title=self.title(), console=Console())

    def _account(self) -> dict[str, Any]:
        recipe, model = self.settings.recipe, self.settings.model
        return {
            "text": self.text.source,
            "text_bytes": len(self.text.train) + len(self.text.heldout),
            "model": f"GPT, {model.layers} layers, {model.heads} heads, width {model.width}",
            "model_parameters": self.model.parameter_count(),
            "context": model.context,
            "batch": recipe.batch,
            "optimizer": f"AdamW, {recipe.learning_rate:g}, warmup and cosine",
            "max_norm": recipe.max_norm,
            "steps": self.steps,
            "steps_wanted": recipe.steps,
            "seed": recipe.seed,
            "device": str(self.device),
            "torch_threads": torch.get_num_threads(),
            **{name: round(value, 4) for name, value in self.final.items()},
        }


def check_device(name: str) -> torch.device:
    """Return the torch device, if torch has it and gradtail can read it."""
    try:
        device = torch.device(name)
        probe = torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: expected a torch device that is here, got {name!r} ({reason})") from None
    try:
        summarize(probe)
    except (TypeError, ValueError) as error:
        raise ValueError(f"device: expected one that gradtail can read, got {name!r} ({error})") from None
    return device


def prepare_folder(folder: Path) -> Path:
    """Make the folder, unless it holds files that are not an earlier report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"out: expected a folder that can be made, got {str(folder)!r} ({reason})") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"out: expected a folder that can be written to, got {str(folder)!r}")
    if taken:
        try:
            Report.load(folder)
        except (OSError, ValueError, TypeError):
            raise ValueError(
                "out: expected a folder that is new, empty or holds an earlier report, "
                f"got {str(folder)!r} with other files"
            ) from None
    return folder


def printable(text: bytes) -> str:
    """Decode, and put a replacement for control characters: a terminal would obey them."""
    shown = text.decode("utf-8", errors="replace").expandtabs(4)
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in shown)
