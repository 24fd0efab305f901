"""The live view of the demo, drawn with rich."""

from __future__ import annotations

import math
import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gradtail.experiments.progress import SHOWN, LayerTail, Status, heaviest_tails, percent
from gradtail.stream import GradientStream

REFRESH = 1.0  # seconds between looks at the tails
LEVELS = "▁▂▃▄▅▆▇█"


class LiveView:
    """Progress, loss and the heaviest tails, redrawn after each step.

    Nothing is drawn by a background thread: it would take its time from the steps being timed.
    """

    def __init__(self, stream: GradientStream, steps: int, *, title: str, console: Console) -> None:
        self._stream = stream
        self._title = title
        self._curve = Curve(steps, width=max(1, min(72, console.width - 1)))
        self._gap = Text("   ")
        self._tails: list[LayerTail] = []
        self._looked = -math.inf
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("training", total=steps)
        self._wide = console.width >= 80
        self._unicode = console.encoding.startswith("utf")
        self._live = Live(self._draw(None), console=console, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, status: Status) -> None:
        """Redraw; look at the tails again if the last look is a second old."""
        self._progress.update(self._task, completed=status.done)
        self._curve.add(status.done, status.loss)
        now = time.monotonic()
        if now - self._looked >= REFRESH or status.done == status.steps:
            self._tails = heaviest_tails(self._stream)
            self._looked = now
        self._live.update(self._draw(status), refresh=True)

    def _draw(self, status: Status | None) -> RenderableType:
        return Group(
            Text(self._title, style="bold", no_wrap=True, overflow="ellipsis"),
            self._progress,
            self._numbers(status),
            Text(),
            self._table(),
        )

    def _numbers(self, status: Status | None) -> RenderableType:
        first, second = Text("loss ?"), Text("non-finite ?")
        if status is not None:
            bad = "bold red" if status.nonfinite else "bold"
            first = self._gap.join(
                [
                    labelled("loss", f"{status.loss:.3f}"),
                    labelled("gradient norm", f"{status.norm:.2f}"),
                    labelled("tokens/s", f"{status.tokens_per_second:,.0f}"),
                ]
            )
            second = self._gap.join(
                [
                    labelled("non-finite", f"{status.nonfinite:,}", bad),
                    labelled("overhead", f"{percent(status.overhead)} of the time"),
                ]
            )
        lines = [first, second]
        if self._unicode:
            lines.append(Text(self._curve.draw(), style="cyan"))
        for line in lines:  # never more lines than these, however narrow the terminal
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("heaviest tails, newest step", no_wrap=True, min_width=22)
        table.add_column("alpha", justify="right", no_wrap=True, min_width=5)
        table.add_column("95 %, iid values", no_wrap=True, min_width=18)
        if self._wide:
            table.add_column("", no_wrap=True)
        for row in range(SHOWN):  # always as many rows, so that nothing jumps
            cells = tail_cells(self._tails[row]) if row < len(self._tails) else ("", "", "", "")
            table.add_row(*cells[: len(table.columns)])
        return table


class Curve:
    """The loss so far as a line of blocks, as wide as the share of the run that is done."""

    def __init__(self, steps: int, width: int = 60) -> None:
        self._steps = steps
        self._width = min(width, steps)
        self._sums = [0.0] * self._width
        self._counts = [0] * self._width

    def add(self, done: int, loss: float) -> None:
        """Add the loss of step ``done``, counted from 1."""
        if math.isfinite(loss):
            column = (done - 1) * self._width // self._steps
            self._sums[column] += loss
            self._counts[column] += 1

    def draw(self) -> str:
        """Return one character a column, the lowest loss lowest."""
        means = [s / n for s, n in zip(self._sums, self._counts, strict=True) if n]
        if not means:
            return ""
        low, span = min(means), max(means) - min(means)
        top = len(LEVELS) - 1
        return "".join(LEVELS[round(top * (mean - low) / span) if span else 0] for mean in means)


def labelled(label: str, value: str, style: str = "bold") -> Text:
    """Write a value after its label."""
    return Text.assemble((label + " ", "dim"), (value, style))


def tail_cells(layer: LayerTail) -> tuple[str, Text, str, str]:
    """Cells of a layer: name, alpha, interval and a word on what it means."""
    found = layer.estimate
    if found.plateau is False and found.slide is not None:
        wide, narrow = found.slide.alpha_wide, found.slide.alpha_narrow
        return layer.name, Text("none", style="dim"), f"slides {wide:.1f} to {narrow:.1f}", "no single index"
    low, high = found.ci(0.95)
    if found.plateau is None:
        style, meaning = "dim", "too few values to tell"
    else:
        style = "bold red" if high < 2 else "bold yellow" if high < 4 else "bold"
        meaning = "infinite variance" if high < 2 else "infinite 4th moment" if high < 4 else ""
    return layer.name, Text(f"{found.alpha:.2f}", style=style), f"{low:.2f} to {high:.2f}", meaning
