"""The `gradtail` command.

What a command needs beyond NumPy and SciPy is imported inside it, so that `gradtail info` works
wherever gradtail itself does.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradtail.report import Report

USER_ERROR = 2
INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can mend; shown without a traceback."""


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

    reproduce = commands.add_parser(
        "reproduce",
        help="rerun a published study",
        description="Reruns a published study here, with tables, pictures and all numbers as JSON.",
    )
    studies = reproduce.add_subparsers(dest="study", required=True, metavar="STUDY")
    add_gradient_structure(studies)
    return whole


def add_gradient_structure(studies: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the study of the structure of stochastic gradients."""
    study = studies.add_parser(
        "gradient-structure",
        help="are gradients and their noise heavy-tailed, across parameters or across batches?",
        description="Gradients of minibatches at fixed parameters of a LeNet and a fully connected network, "
        "before and after training: power laws and normality across parameters and across batches, and the "
        "spectrum of their covariance. About 7 minutes on two cores with MNIST; Ctrl-C keeps what is done.",
    )
    study.add_argument(
        "--data", type=Path, metavar="FOLDER", help="MNIST's four idx files; default: scikit-learn's digits"
    )
    study.add_argument("--out", type=Path, default=Path("gradtail-gradient-structure"), metavar="FOLDER",
                       help="default: %(default)s")  # fmt: skip
    study.add_argument("--quick", action="store_true", help="fewer batches, one seed: under two minutes")
    for option, least, default, what in (
        ("--seeds", 1, 3, "repeats"),
        ("--batches", 50, 1000, "gradients of each case"),
        ("--batch-size", 1, 100, "examples of each"),
        (
            "--eigenvalues",
            25,
            500,
            "that the power law of the rank is fitted to, half the batches at most",
        ),
        ("--epochs", 1, 5, "of training"),
    ):
        study.add_argument(
            option, type=at_least(least), metavar="N", help=f"{what}; default: {default}, less with --quick"
        )
    study.set_defaults(run=run_gradient_structure)


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


def run_gradient_structure(arguments: argparse.Namespace) -> int:
    """Rerun the study of the structure of stochastic gradients."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.gradient_structure import BadOption, Settings, run

    settings = Settings.quick(arguments.data, arguments.out) if arguments.quick else Settings(
        arguments.data, arguments.out
    )  # fmt: skip
    names = ("seeds", "batches", "batch_size", "eigenvalues", "epochs")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = replace(settings, **given)
    if "eigenvalues" not in given:
        settings = replace(settings, eigenvalues=min(settings.eigenvalues, settings.batches // 2))
    if settings.eigenvalues > settings.batches // 2:
        raise UserError(
            f"--eigenvalues: expected at most {settings.batches // 2}, half of the batches, "
            f"got {settings.eigenvalues}"
        )
    try:
        return run(settings)
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


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


def at_least(least: int) -> Callable[[str], int]:
    """Return a converter to an int that is not below ``least``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return convert


def need(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"expected {' and '.join(missing)} to be installed, got nothing of that name; "
            f"pip install 'gradtail[{extra}]'"
        )
