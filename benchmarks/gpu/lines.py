"""The lines of the table of figures, and the table in Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_MEASURED = "not measured"
MEASURED_ON = "Measured on "  # begins the line that says where
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass
class Line:
    """One line of the table.

    Attributes
    ----------
    key : str
        By which those who measure find it.
    what, reach : str
        As the table has them; ``reach`` is empty where a line is only a comparison.
    measured : str
    met : bool or None
        None where nothing was measured, or there is nothing to reach.
    """

    key: str
    what: str
    reach: str = ""
    measured: str = NOT_MEASURED
    met: bool | None = None

    def fill(self, measured: str, met: bool | None = None) -> None:
        self.measured, self.met = measured, met


def all_lines() -> list[Line]:
    """Return every line, not measured."""
    clip = "faster by at least the read and write of the gradients"
    step = "a GPT-2-124M bf16 step, 8 x 1024 tokens"
    every = "on every step"
    return [
        Line("sum float32", "plain sum of 1e9 fp32 elements (torch.sum), the reference"),
        Line("sum bfloat16", "plain sum of 1e9 bf16 elements, the reference"),
        Line(
            "pass float32", "fp32, 1e9 elements in 300 tensors, whole pass", "at least 90 % of the plain sum"
        ),
        Line("pass bfloat16", "bf16, same", "at least 80 %; stretch 90 %"),
        Line("foreach float32", "fp32 whole pass against `torch._foreach_norm`, same list", "not slower"),
        Line("foreach bfloat16", "bf16, same", "not slower"),
        Line(
            "clip bfloat16", "`clip_(into=fused AdamW)` + step against `clip_grad_norm_` + step, bf16", clip
        ),
        Line("clip float32", "fp32, same", clip),
        Line("host 300", "host time of one update, 300 tensors", "p50 at most 60 us; 2 launches, 0 syncs"),
        Line(
            "host 2000", "host time of one update, 2,000 tensors", "p50 at most 300 us; 2 launches, 0 syncs"
        ),
        Line(
            "host 10000", "host time of one update, 10,000 tensors", "p50 at most 1.5 ms; 2 launches, 0 syncs"
        ),
        Line("gpt plain", f"{step}: neither clipped nor watched"),
        Line("gpt clipped", f"{step}: `clip_grad_norm_`"),
        Line("gpt step", f"{step}: `Monitor.step` {every}", "at most 1 % over the plain step"),
        Line("gpt clip_", f"{step}: `Monitor.clip_(into=)` {every}", "less than with `clip_grad_norm_`"),
        Line("dense", "CoordinateMoments, dense, fp32", "at least 85 % of its own traffic limit"),
        Line("memory", "memory held at defaults, 124M model", "at most 64 MiB"),
        Line("eager", "the same statistics by eager torch, 1e8 fp32 elements, beside the pass"),
        Line("topk", "`torch.topk` for one Hill value (k = 1 %), beside the pass"),
        Line("wandb", "the histogram of `wandb.watch`, beside the pass"),
    ]


@dataclass
class Figures:
    """All lines, and the raw numbers behind them."""

    lines: list[Line] = field(default_factory=all_lines)
    raw: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Line:
        return next(line for line in self.lines if line.key == key)

    def markdown(self) -> str:
        """Return the table."""
        head = ["| what | reach | measured | |", "|---|---|---|---|"]
        met = {None: "", True: "met", False: "**missed**"}
        rows = [f"| {one.what} | {one.reach} | {one.measured} | {met[one.met]} |" for one in self.lines]
        return "\n".join([*head, *rows]) + "\n"


def cell(text: object) -> str:
    """Make a text fit for a cell: one line, no bars, not long."""
    plain = " ".join(str(text).replace("|", "/").split())
    return plain if len(plain) <= 160 else plain[:157] + "..."


def page(figures: Figures, heading: str, command: str) -> str:
    """Return the text of FIGURES.md. ``heading``: where and when it was measured, or why it was not."""
    return (
        "# Figures on a GPU\n\n"
        f"{heading}\n\n"
        f"Command: `{command}`\n\n"
        f"{figures.markdown()}\n"
        "How each line is measured: [README.md](../README.md#on-a-gpu).\n"
    )


def is_measured(path: Path) -> bool:
    """Whether a file has figures of a run on a GPU."""
    return path.exists() and f"\n{MEASURED_ON}" in path.read_text("utf-8")


def put_table(text: str, heading: str, table: str) -> str:
    """Replace what lies between the two marks in a text."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"text: expected the marks {BEGIN} and {END} in it, got none")
    return f"{before}{BEGIN}\n\n{heading}\n\n{table}\n{END}{after}"
