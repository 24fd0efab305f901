"""`gradtail reproduce`: the options of each study.

What a study needs is imported when it is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from gradtail.cli_options import UserError, at_least, need
from gradtail.experiments.hessian_sweeps import SWEEPS
from gradtail.experiments.tail_index_rows import LOSSES
from gradtail.experiments.tail_index_rows import SWEEPS as TAIL_SWEEPS


def add_studies(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its studies."""
    reproduce = commands.add_parser(
        "reproduce",
        help="rerun a published study",
        description="Reruns a published study here, with tables, pictures and all numbers as JSON.",
    )
    studies = reproduce.add_subparsers(dest="study", required=True, metavar="STUDY")
    add_gradient_structure(studies)
    add_hessian_spectrum(studies)
    add_tail_index(studies)
    add_heavy_tail_sgd(studies)
    add_epoch_noise(studies)


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
        "--data",
        type=Path,
        metavar="FOLDER",
        help="files of MNIST or CIFAR-10; default: scikit-learn's digits",
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
        ("--epochs", 1, "5 for MNIST, 100 for the digits", "of training"),
    ):
        study.add_argument(
            option, type=at_least(least), metavar="N", help=f"{what}; default: {default}, less with --quick"
        )
    study.set_defaults(run=run_gradient_structure)


def add_hessian_spectrum(studies: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the study of the spectrum of the Hessian."""
    study = studies.add_parser(
        "hessian-spectrum",
        help="do the largest eigenvalues of the Hessian follow a power law?",
        description="The largest eigenvalues of the Hessian of a LeNet and of fully connected networks, "
        "random and trained, against their rank, beside the published rows; with --sweep, over what they "
        "depend on. About 20 minutes on two cores with MNIST; how long it will take is said first. Ctrl-C "
        "keeps what is done, and the same command goes on from there.",
    )
    study.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="files of MNIST or CIFAR-10; default: scikit-learn's digits",
    )
    study.add_argument("--out", type=Path, default=Path("gradtail-hessian-spectrum"), metavar="FOLDER",
                       help="default: %(default)s")  # fmt: skip
    study.add_argument(
        "--quick", action="store_true", help="fewer eigenvalues and less training: under two minutes"
    )
    study.add_argument(
        "--sweep", type=_names(SWEEPS), action="append", metavar="WHAT",
        help=f"vary this instead, one or a list with commas, more than once: {', '.join(SWEEPS)}; language "
        "is the last layer of a small GPT over its training",
    )  # fmt: skip
    for option, least, what in (
        ("--samples", 2, "training examples that the Hessian is taken over; default: 512"),
        ("--eigenvalues", 3, "the largest; default: 1000 for MNIST and language, 200 for the digits"),
        ("--epochs", 1, "of training; default: 50 for MNIST, 200 for the digits"),
        ("--seeds", 1, "repeats; default: 1"),
        ("--text-steps", 1, "of the training of the GPT; default: 1000"),
    ):
        study.add_argument(option, type=at_least(least), metavar="N", help=what)
    study.set_defaults(run=run_hessian_spectrum)


def add_tail_index(studies: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the study of the stable index of gradient noise."""
    study = studies.add_parser(
        "tail-index",
        help="which stable index does gradient noise have, and what explains it?",
        description="The stable index of gradient noise of networks over width, depth, batch size and "
        "loss, on training and test data, beside what it is without zeros, of normal noise with the same "
        "variances, and of each coordinate by its own size. About an hour on two cores with MNIST; Ctrl-C "
        "keeps what is done, and the same command goes on from there.",
    )
    _shared(study, "tail-index", "six networks and less training")
    study.add_argument(
        "--sweep", type=_names(TAIL_SWEEPS), action="append", metavar="WHAT",
        help=f"vary this alone, one or a list with commas: {', '.join(TAIL_SWEEPS)} (channels of a "
        "convolutional network); default: all",
    )  # fmt: skip
    study.add_argument(
        "--loss", choices=[name.replace(" ", "-") for name in LOSSES], help="this alone; default: both"
    )
    for option, least, what in (
        ("--iterations", 20, "steps of training; default: 4,000"),
        ("--batches", 16, "gradients whose noise is looked at; default: 50"),
        ("--batch-size", 1, "where it is not varied; default: 100, for the digits 20"),
        ("--seeds", 1, "repeats; default: 1"),
    ):
        study.add_argument(option, type=at_least(least), metavar="N", help=what)
    study.set_defaults(run=run_tail_index)


def add_heavy_tail_sgd(studies: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the study of when the iterates of SGD become heavy-tailed."""
    study = studies.add_parser(
        "heavy-tail-sgd",
        help="when do the iterates of SGD become heavy-tailed?",
        description="SGD on least squares beside the theory of its tail index, and networks over step size "
        "and batch size: the stable index of each layer's averaged iterates, the largest eigenvalue of the "
        "Hessian, and the generalization gap. About 15 minutes on two cores with MNIST; Ctrl-C keeps what is "
        "done, and the same command goes on from there.",
    )
    _shared(study, "heavy-tail-sgd", "six networks, less training, smaller simulations")
    for option, least, what in (
        ("--iterations", 200, "steps of each network; default: 10,000"),
        ("--last", 10, "iterates at the end that are averaged; default: 1,000"),
        ("--samples", 2, "training examples that the Hessian is taken over; default: 512"),
        ("--seeds", 1, "repeats of the networks; default: 1"),
        ("--chains", 1000, "of the simulation of least squares; default: 20,000"),
    ):
        study.add_argument(option, type=at_least(least), metavar="N", help=f"{what}, less with --quick")
    study.set_defaults(run=run_heavy_tail_sgd)


def add_epoch_noise(studies: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the study of what noise that cancels over an epoch does to weights."""
    study = studies.add_parser(
        "epoch-noise",
        help="what does noise that cancels over an epoch do to the weights?",
        description="Weight variance against curvature, beside exact theory: a quadratic, least squares with "
        "the gradients of its own examples, and a network near a minimum, along the eigenvectors of its "
        "Hessian. About 3 minutes on two cores; Ctrl-C keeps what is done, and the same command goes on from "
        "there.",
    )
    _shared(study, "epoch-noise", "fewer directions, one way of drawing batches, smaller simulations")
    study.add_argument(
        "--policy", type=_names(("reshuffle", "replacement", "fixed")), action="append", metavar="WHAT",
        help="how the network's batches are drawn, one or a list with commas: reshuffle, replacement, fixed; "
        "default: the first two",
    )  # fmt: skip
    for option, least, what in (
        ("--batch-size", 1, "of the network; default: 50"),
        ("--directions", 3, "eigenvectors of the Hessian; default: 300"),
        ("--epochs", 8, "that weights are watched for; default: 100"),
        ("--training", 1, "epochs of training before; default: 30"),
        ("--width", 1, "units of the hidden layer; default: 32"),
        ("--seeds", 1, "repeats of the network; default: 1"),
    ):
        study.add_argument(option, type=at_least(least), metavar="N", help=f"{what}, less with --quick"
                           if option in ("--directions", "--epochs", "--training") else what)  # fmt: skip
    study.add_argument("--rate", type=float, metavar="ETA", help="constant step size; default: 0.006")
    study.set_defaults(run=run_epoch_noise)


def _shared(study: argparse.ArgumentParser, name: str, quick: str) -> None:
    """Add the options that all studies of images have."""
    study.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="files of MNIST or CIFAR-10; default: scikit-learn's digits",
    )
    study.add_argument("--out", type=Path, default=Path(f"gradtail-{name}"), metavar="FOLDER",
                       help="default: %(default)s")  # fmt: skip
    study.add_argument("--quick", action="store_true", help=f"{quick}: under two minutes")


def run_gradient_structure(arguments: argparse.Namespace) -> int:
    """Rerun the study of the structure of stochastic gradients."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.gradient_structure import Settings, run
    from gradtail.experiments.studies import BadOption

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


def run_hessian_spectrum(arguments: argparse.Namespace) -> int:
    """Rerun the study of the spectrum of the Hessian."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.hessian_rows import Settings
    from gradtail.experiments.hessian_spectrum import run
    from gradtail.experiments.studies import BadOption

    settings = Settings.quick(arguments.data, arguments.out) if arguments.quick else Settings(
        arguments.data, arguments.out
    )  # fmt: skip
    names = ("samples", "eigenvalues", "epochs", "seeds", "text_steps")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    sweeps = tuple(dict.fromkeys(name for some in arguments.sweep or () for name in some))
    try:
        return run(replace(settings, sweeps=sweeps, **given))
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


def run_tail_index(arguments: argparse.Namespace) -> int:
    """Rerun the study of the stable index of gradient noise."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.studies import BadOption
    from gradtail.experiments.tail_index import Settings, run

    settings = Settings.quick(arguments.data, arguments.out) if arguments.quick else Settings(
        arguments.data, arguments.out
    )  # fmt: skip
    names = ("iterations", "batches", "batch_size", "seeds")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.sweep:
        given["sweeps"] = tuple(dict.fromkeys(name for some in arguments.sweep for name in some))
    if arguments.loss:
        given["losses"] = (arguments.loss.replace("linear-hinge", "linear hinge"),)
    try:
        return run(replace(settings, **given))
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


def run_heavy_tail_sgd(arguments: argparse.Namespace) -> int:
    """Rerun the study of when the iterates of SGD become heavy-tailed."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.heavy_tail_sgd import Settings, run
    from gradtail.experiments.studies import BadOption

    settings = Settings.quick(arguments.data, arguments.out) if arguments.quick else Settings(
        arguments.data, arguments.out
    )  # fmt: skip
    names = ("iterations", "last", "samples", "seeds", "chains")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = replace(settings, **given)
    if settings.last > settings.iterations:
        raise UserError(f"--last: expected at most {settings.iterations}, the steps, got {settings.last}")
    try:
        return run(settings)
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


def run_epoch_noise(arguments: argparse.Namespace) -> int:
    """Rerun the study of epoch noise."""
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from dataclasses import replace

    from gradtail.experiments.epoch_noise import Settings, run
    from gradtail.experiments.studies import BadOption

    settings = Settings.quick(arguments.data, arguments.out) if arguments.quick else Settings(
        arguments.data, arguments.out
    )  # fmt: skip
    names = ("directions", "epochs", "training", "width", "seeds", "rate")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.batch_size is not None:
        given["batch"] = arguments.batch_size
    if arguments.policy:
        given["policies"] = tuple(dict.fromkeys(name for some in arguments.policy for name in some))
    if not 0 < given.get("rate", 1.0) < 1e6:
        raise UserError(f"--rate: expected a positive number, got {given['rate']:g}")
    try:
        return run(replace(settings, **given))
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a converter of names between commas."""

    def convert(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, got {name!r}")
        return names

    return convert
