"""`gradtail reproduce`: the options of each study.

What a study needs is imported when it is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

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


def _rerun(
    arguments: argparse.Namespace, study: str, names: Sequence[str],
    finish: Callable[[Any, dict[str, Any]], Any] | None = None,
) -> int:  # fmt: skip
    """Run a study with the settings of its own, or its quick ones, and the options that were given.

    ``finish`` takes the settings and what was given, and returns them mended, or refuses.
    """
    need("reproduce", "torch", "matplotlib", *(() if arguments.data else ("sklearn",)))
    from gradtail.experiments.studies import BadOption

    module = import_module(f"gradtail.experiments.{study}")
    make = module.Settings.quick if arguments.quick else module.Settings
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = replace(make(arguments.data, arguments.out), **given)
    if finish is not None:
        settings = finish(settings, given)
    try:
        return int(module.run(settings))
    except BadOption as error:
        raise UserError(f"--{error}") from None  # its arguments have the names of the options


def run_gradient_structure(arguments: argparse.Namespace) -> int:
    """Rerun the study of the structure of stochastic gradients."""

    def finish(settings: Any, given: dict[str, Any]) -> Any:
        most = settings.batches // 2
        if "eigenvalues" not in given:
            settings = replace(settings, eigenvalues=min(settings.eigenvalues, most))
        if settings.eigenvalues > most:
            raise UserError(
                f"--eigenvalues: expected at most {most}, half of the batches, got {settings.eigenvalues}"
            )
        return settings

    names = ("seeds", "batches", "batch_size", "eigenvalues", "epochs")
    return _rerun(arguments, "gradient_structure", names, finish)


def run_hessian_spectrum(arguments: argparse.Namespace) -> int:
    """Rerun the study of the spectrum of the Hessian."""
    names = ("samples", "eigenvalues", "epochs", "seeds", "text_steps")
    sweeps = _flat(arguments.sweep)
    return _rerun(arguments, "hessian_spectrum", names, lambda made, _: replace(made, sweeps=sweeps))


def run_tail_index(arguments: argparse.Namespace) -> int:
    """Rerun the study of the stable index of gradient noise."""

    def finish(settings: Any, given: dict[str, Any]) -> Any:
        if arguments.sweep:
            settings = replace(settings, sweeps=_flat(arguments.sweep))
        if arguments.loss:
            settings = replace(settings, losses=(arguments.loss.replace("linear-hinge", "linear hinge"),))
        return settings

    return _rerun(arguments, "tail_index", ("iterations", "batches", "batch_size", "seeds"), finish)


def run_heavy_tail_sgd(arguments: argparse.Namespace) -> int:
    """Rerun the study of when the iterates of SGD become heavy-tailed."""

    def finish(settings: Any, given: dict[str, Any]) -> Any:
        if settings.last > settings.iterations:
            raise UserError(f"--last: expected at most {settings.iterations}, the steps, got {settings.last}")
        return settings

    return _rerun(arguments, "heavy_tail_sgd", ("iterations", "last", "samples", "seeds", "chains"), finish)


def run_epoch_noise(arguments: argparse.Namespace) -> int:
    """Rerun the study of epoch noise."""

    def finish(settings: Any, given: dict[str, Any]) -> Any:
        if not 0 < given.get("rate", 1.0) < 1e6:
            raise UserError(f"--rate: expected a positive number, got {given['rate']:g}")
        if arguments.batch_size is not None:
            settings = replace(settings, batch=arguments.batch_size)
        return replace(settings, policies=_flat(arguments.policy)) if arguments.policy else settings

    names = ("directions", "epochs", "training", "width", "seeds", "rate")
    return _rerun(arguments, "epoch_noise", names, finish)


def _flat(some: Sequence[Sequence[str]] | None) -> tuple[str, ...]:
    """Join lists of names, each once."""
    return tuple(dict.fromkeys(name for names in some or () for name in names))


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a converter of names between commas."""

    def convert(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, got {name!r}")
        return names

    return convert
