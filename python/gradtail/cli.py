"""The `gradtail` command.

What a command needs beyond NumPy and SciPy is imported inside it, so that `gradtail info` works
wherever gradtail itself does.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradtail.cli_options import UserError, at_least, need
from gradtail.cli_studies import add_studies

if TYPE_CHECKING:
    from gradtail.report import Report

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the command; by default those of the process.

    Returns
    -------
    int
        0; 2 for a mistake of the user; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show every character
    arguments = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"gradtail {arguments.command}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as in `gradtail info | head -1`; the interpreter would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(
        prog="gradtail", description="What the gradients of a training run look like, in one read of them."
    )
    whole.add_argument("--version", action=ShowVersion, help="print the version and leave")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what this build has, and why there is no GPU if there is none")
    info.set_defaults(run=run_info)

    demo = commands.add_parser(
        "demo",
        help="train a small GPT under the monitor and write a report of its gradients",
        description="Trains a GPT of 3 million parameters on the sources of Python's standard library, "
        "watches its gradients and writes a report. Takes about two minutes on two cores. Ctrl-C stops "
        "early and still writes the report.",
    )
    demo.add_argument("--text", type=Path, metavar="PATH", help="train on this file instead, byte by byte")
    demo.add_argument("--steps", type=at_least(1), default=350, metavar="N", help="default: %(default)s")
    demo.add_argument(
        "--out", type=Path, default=Path("gradtail-demo"), metavar="FOLDER", help="default: %(default)s"
    )
    demo.add_argument("--device", default="cpu", help="a torch device; default: %(default)s")
    demo.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="default: %(default)s")
    demo.set_defaults(run=run_demo)

    report = commands.add_parser(
        "report",
        help="draw a report from its report.json, or from the saved streams of one or more processes",
        description="Writes report.html and the pictures, and prints the table: anew from a report.json, or "
        "from what GradientStream.save wrote. Streams of several processes (shards, steps, both) are merged.",
    )
    report.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a report.json, its folder, or .npz files of streams",
    )
    report.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: beside the report.json or first .npz"
    )
    report.set_defaults(run=run_report)

    add_studies(commands)
    return whole


def run_info(arguments: argparse.Namespace) -> int:
    """Print what this build has."""
    from gradtail.build import format_build_info

    print(format_build_info())
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """Train, watch, report."""
    need("demo", "torch", "matplotlib", "rich")
    if os.environ.get("GRADTAIL") == "0":
        raise UserError("GRADTAIL: expected it unset, since a demo of the monitor needs the monitor, got '0'")
    from gradtail.experiments.demo import Demo, Settings
    from gradtail.experiments.training import Recipe

    recipe = Recipe(steps=arguments.steps, seed=arguments.seed)
    settings = Settings(text=arguments.text, out=arguments.out, device=arguments.device, recipe=recipe)
    try:
        demo = Demo(settings)
    except ValueError as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options
    return demo.run()


def run_report(arguments: argparse.Namespace) -> int:
    """Draw a report from a file, or from streams."""
    need("report", "matplotlib")
    paths: list[Path] = arguments.paths
    try:
        report = load_report(paths)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"path: expected a report.json, or .npz files of streams, that can be read, "
            f"got {error.filename or str(paths[0])!r} ({reason})"
        ) from None
    except (TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(str(error)) from None
    folder: Path = arguments.out or (paths[0] if paths[0].is_dir() else paths[0].parent)
    try:
        report.save(folder)
    except OSError as error:
        if error.errno is None:  # not the system's refusal but the report's, in its own words
            raise UserError(f"--out: {str(error).removeprefix('folder: ')}") from None
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"--out: expected a folder that can be written to, got {str(folder)!r} ({reason})"
        ) from None
    print(report)
    print(f"\nReport: {folder / 'report.html'}")
    return 0


def load_report(paths: Sequence[Path]) -> Report:
    """Read one report, or merge the streams of many files and draw up theirs."""
    from gradtail.report import Report
    from gradtail.stream import GradientStream

    if len(paths) == 1 and paths[0].suffix != ".npz":
        return Report.load(paths[0])
    merged: GradientStream | None = None
    for path in paths:
        if path.suffix != ".npz":
            raise ValueError(
                f"path: expected .npz files of streams where there are several, got {str(path)!r}"
            )
        try:
            stream = GradientStream.load(path)
            merged = stream if merged is None else merged.merge(stream)
        except (TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: {error}") from None
    assert merged is not None
    return Report.from_stream(merged, settings={"merged_streams": len(paths)} if len(paths) > 1 else None)


class ShowVersion(argparse.Action):
    """Prints the version; asks for it only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and leave."""
        from gradtail import __version__

        print(f"gradtail {__version__}")
        parser.exit()
