"""The network of `gradtail reproduce epoch-noise`: weight variance along eigenvectors of its Hessian."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradtail.estimators.autocorrelation import autocorrelation
from gradtail.estimators.sampling_policy import sampling_policy
from gradtail.estimators.weight_variance_result import Quantity, WeightVariances
from gradtail.experiments.datasets import DIGITS, Images
from gradtail.experiments.studies import BadOption
from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs import Policy, noise_variance
from gradtail.torch import Directions, HessianSpectrum, Monitor, hessian_spectrum, project_examples
from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts

_RATES = (0.1, 0.03)  # of training, a third and two thirds of its epochs
_MINIMISE = 600  # steps of L-BFGS over all examples
_TOLERANCE = 1e-2  # of eigenvalues: a per cent of the largest at most
_BURN_IN = 3.0  # relaxation times of the flattest direction
_SIDE = 8  # pixels that larger images are averaged to, about
_FROZEN_EPOCHS, _TESTED = 40, 6  # of noise at fixed weights, and those that tests look at
_ROWS, _PAIRS = 100_000, 2_000_000  # steps of that noise, and pairs of steps that tests look at, at most
_LAGS = 10
_CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network near a minimum, and SGD around it with batches drawn in one of three ways.

    Attributes
    ----------
    policy : {"reshuffle", "replacement", "fixed"}
    batch : int
    eta, beta, decay : float
        Constant step size, momentum and weight decay.
    width : int
        Units of the hidden layer, which has tanh.
    training, epochs : int
        Epochs before the search for the minimum, and in the window.
    directions : int
        Eigenvectors, from the largest eigenvalue down.
    seed : int
    """

    policy: Policy
    batch: int = 50
    eta: float = 0.006
    beta: float = 0.9
    decay: float = 2e-3
    width: int = 32
    training: int = 30
    epochs: int = 100
    directions: int = 300
    seed: int = 0

    @property
    def key(self) -> str:
        """Name it."""
        return f"network-{self.policy}-s{self.seed}"

    @property
    def start(self) -> tuple[Any, ...]:
        """What the minimum depends on."""
        return self.batch, self.beta, self.decay, self.width, self.training, self.directions, self.seed


@dataclass(frozen=True)
class Minimum:
    """Where the windows of all policies begin.

    Attributes
    ----------
    start : tuple
        Settings that it depends on.
    model : nn.Module
    data : pair of Tensor
        Whole batches of examples.
    spectrum : HessianSpectrum
        Without weight decay.
    examples : ndarray, shape (N, k)
        Gradients of the examples along the eigenvectors.
    loss, gradient : float
        With weight decay, and the norm of the gradient.
    """

    start: tuple[Any, ...]
    model: nn.Module
    data: tuple[Tensor, Tensor]
    spectrum: HessianSpectrum
    examples: FloatArray
    loss: float
    gradient: float


def parameters_of(images: Images, width: int) -> int:
    """Count the parameters of the network on these images."""
    channels, *sides = images.train[0].shape[1:]
    inputs = channels * math.prod(side // _shrunk(images) for side in sides)
    return (inputs + 1) * width + (width + 1) * _CLASSES


def _shrunk(images: Images) -> int:
    """Side of the squares of pixels that are averaged."""
    return round(images.side / _SIDE) if images.name != DIGITS and images.side >= 2 * _SIDE else 1


def examples_of(images: Images, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return flat images and labels in whole batches.

    scikit-learn's digits are too few for an epoch to be long: each is there nine times, shifted by up to a
    pixel. Larger images are averaged down.
    """
    x, y = images.train
    if images.name == DIGITS:
        padded = nn.functional.pad(x, (1, 1, 1, 1), value=float(x.min()))
        side = images.side
        x = torch.cat([padded[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3)])
        y = y.repeat(9)
    elif _shrunk(images) > 1:
        x = nn.functional.avg_pool2d(x, _shrunk(images))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    order = order[: len(x) // batch * batch]
    return x.flatten(1)[order].contiguous(), y[order]


def find_minimum(
    at: Network, images: Images, interrupts: Interrupts, progress: bool | None
) -> Minimum | None:
    """Train a network, go to the minimum, and take its Hessian apart; None after Ctrl-C.

    Raises
    ------
    BadOption
        Training that diverges, or more eigenvectors than memory holds.
    """
    x, y = examples_of(images, at.batch, at.seed)
    torch.manual_seed(at.seed)
    model = nn.Sequential(nn.Linear(x.shape[1], at.width), nn.Tanh(), nn.Linear(at.width, _CLASSES))
    orders = _Orders(len(x), at.batch, "reshuffle", at.seed)
    with Countdown("training", at.training, progress) as countdown:
        for epoch in range(at.training):
            if interrupts.stopped:
                return None
            if epoch in (0, at.training // 3):
                rate = _RATES[min(epoch, 1)]
                optimizer = torch.optim.SGD(model.parameters(), rate, momentum=at.beta, weight_decay=at.decay)
            for chosen in orders.epoch():
                last = _gradient(model, optimizer, x[chosen], y[chosen])
                optimizer.step()
            if not math.isfinite(float(last)):
                raise BadOption(
                    f"batch-size: expected larger batches, got {at.batch}: training at step size {rate:g} "
                    f"diverged in epoch {epoch + 1}"
                )
            countdown.advance()
    loss, gradient = _minimise(model, x, y, at.decay)
    try:
        spectrum = hessian_spectrum(
            model, nn.functional.cross_entropy, (x, y), at.directions, vectors=True, tol=_TOLERANCE,
            seed=at.seed, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    except ValueError as error:
        if str(error).startswith("memory:"):
            raise BadOption(f"directions: expected fewer ({error})") from None
        raise
    if spectrum.interrupted or interrupts.stopped:
        return None
    examples = project_examples(model, nn.functional.cross_entropy, (x, y), spectrum)
    return Minimum(at.start, model, (x, y), spectrum, examples, loss, gradient)


def examine(
    at: Network, minimum: Minimum, interrupts: Interrupts, progress: bool | None
) -> dict[str, Any] | None:
    """Run SGD around the minimum; return variances beside theory, or None after Ctrl-C.

    Raises
    ------
    BadOption
        A step size at which SGD is unstable there, or diverges.
    """
    steepest = float(minimum.spectrum.eigenvalues[0]) + at.decay
    if at.eta * steepest >= 2 * (1 + at.beta):
        raise BadOption(
            f"rate: expected below {2 * (1 + at.beta) / steepest:.4g}, got {at.eta:g}: SGD is unstable at a "
            f"minimum of curvature {steepest:.4g}"
        )
    began = time.perf_counter()
    n = len(minimum.data[0])
    batches = n // at.batch
    noise = noise_variance(
        minimum.examples.var(axis=0, ddof=1), batch_size=at.batch, examples=n, policy=at.policy
    )
    flattest = max(float(minimum.spectrum.eigenvalues[-1]), 0.0) + at.decay
    before = math.ceil(_BURN_IN * (1 - at.beta) / (at.eta * flattest) / batches)
    ran = _run(at, minimum, before, interrupts, progress)
    if ran is None:
        return None
    monitor, loss = ran
    assert monitor.directions is not None
    found = monitor.directions.variances(
        eta=at.eta, beta=at.beta, M=batches, noise_variance=noise, policy=at.policy, weight_decay=at.decay,
        newest=at.epochs * batches,
    )  # fmt: skip
    return {
        **asdict(at), "examples": n, "batches": batches,
        "parameters": minimum.spectrum.provenance["parameters"], "burn_in": before,
        "minimum": {"loss": minimum.loss, "gradient": minimum.gradient}, "mean_loss": loss,
        **numbers(found), "frozen": _frozen(at, minimum),
        "warnings": [*minimum.spectrum.warnings, *found.warnings], "text": str(found),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def numbers(found: WeightVariances) -> dict[str, Any]:
    """Return everything that a window has shown."""
    low, high = found.fluctuation.ci()
    arrays = (
        "curvature", "weight", "weight_stderr", "expected", "white", "velocity", "velocity_stderr",
        "expected_velocity", "noise_variance", "correlation_time", "expected_correlation_time", "relaxed",
    )  # fmt: skip
    return {
        **{name: getattr(found, name).tolist() for name in arrays},
        "compared": found.compared, "crossover": found.crossover,
        "measured_crossover": _quantity(found.find_crossover()),
        "measured_crossover_without_excess": _quantity(found.find_crossover(without_excess=True)),
        "excess": _quantity(found.white_excess),
        "fluctuation": {**asdict(found.fluctuation), "ci95": [low, high]},
    }  # fmt: skip


def _quantity(found: Quantity) -> dict[str, Any]:
    return {"value": found.value, "stderr": found.stderr, "n": found.n, "ci95": list(found.ci())}


class _Orders:
    """Batches of one epoch after the other."""

    def __init__(self, n: int, batch: int, policy: Policy, seed: int) -> None:
        self._n, self._batch, self._policy = n, batch, policy
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.randperm(n, generator=self._generator)

    def epoch(self) -> tuple[Tensor, ...]:
        """Draw the examples of each batch."""
        if self._policy == "replacement":
            self._order = torch.randint(self._n, (self._n,), generator=self._generator)
        elif self._policy == "reshuffle":
            self._order = torch.randperm(self._n, generator=self._generator)
        return torch.split(self._order, self._batch)


def _gradient(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _minimise(model: nn.Module, x: Tensor, y: Tensor, decay: float) -> tuple[float, float]:
    """Go to the minimum over all examples, in float64; return loss and norm of the gradient there."""
    model.double()
    x = x.double()
    parameters = list(model.parameters())
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_MINIMISE, history_size=20, tolerance_grad=1e-7, tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        optimizer.zero_grad()
        squares = torch.stack([p.square().sum() for p in parameters]).sum()
        loss = nn.functional.cross_entropy(model(x), y) + decay / 2 * squares
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    loss = closure()
    gradient = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
    optimizer.zero_grad()
    model.float()
    return loss, gradient


def _run(
    at: Network, minimum: Minimum, before: int, interrupts: Interrupts, progress: bool | None
) -> tuple[Monitor, float] | None:
    """Run SGD from the minimum on; return the monitor, and the mean loss of batches in the window."""
    x, y = minimum.data
    batches = len(x) // at.batch
    state = {name: value.clone() for name, value in minimum.model.state_dict().items()}
    model = minimum.model
    optimizer = torch.optim.SGD(model.parameters(), at.eta, momentum=at.beta, weight_decay=at.decay)
    room = (at.epochs * batches + 2 * 256) * 8 * at.directions
    monitor = Monitor(
        model, optimizer, every=10 * batches, directions=Directions(minimum.spectrum, memory=room),
        on_error="raise",
    )  # fmt: skip
    orders = _Orders(len(x), at.batch, at.policy, at.seed + 1)
    losses = torch.zeros((), dtype=torch.float64)
    try:
        with Countdown(f"epochs, {at.policy}", before + at.epochs, progress) as countdown:
            for epoch in range(before + at.epochs):
                if interrupts.stopped:
                    return None
                for chosen in orders.epoch():
                    loss = _gradient(model, optimizer, x[chosen], y[chosen])
                    if epoch >= before:
                        losses += loss
                        monitor.step()
                    optimizer.step()
                if not math.isfinite(float(loss)):
                    raise BadOption(
                        f"rate: expected a smaller step size, got {at.eta:g}: SGD diverged from the minimum "
                        f"in epoch {epoch + 1}"
                    )
                countdown.advance()
    finally:
        model.load_state_dict(state)
    return monitor, float(losses) / (at.epochs * batches)


def _frozen(at: Network, minimum: Minimum) -> dict[str, Any]:
    """Look at the noise of batches at the minimum itself, whose weights stay: exact in all directions.

    Of long epochs there are fewer, and of very long ones no tests: they look at all pairs of steps.
    """
    noise = minimum.examples - minimum.examples.mean(axis=0)
    n = len(noise)
    batches = n // at.batch
    orders = _Orders(n, at.batch, at.policy, at.seed + 2)
    rows = np.concatenate(
        [
            noise[torch.stack(orders.epoch()).numpy()].mean(axis=1)
            for _ in range(min(_FROZEN_EPOCHS, max(2, _ROWS // batches)))
        ]
    )  # fmt: skip
    found = autocorrelation(rows, period=batches)
    tested = min(_TESTED, _PAIRS // batches**2)
    told = None
    if tested >= 2:
        told = sampling_policy(rows[: tested * batches], period=batches, phase=0, seed=at.seed)
    lags = sorted({*range(1, min(_LAGS, batches) + 1), batches // 2, batches - 1, batches, batches + 1})
    expected = found.expected(at.policy)
    return {
        "steps": len(rows), "lags": lags, "correlation": [float(found.correlation[h]) for h in lags],
        "stderr": [float(found.stderr[h]) for h in lags], "expected": [float(expected[h]) for h in lags],
        "first_epoch": found.correlation[1 : batches + 1].tolist(),
        "pvalues": {} if told is None else dict(told.pvalues),
        "remainder": math.nan if told is None else told.remainder,
        "accepted": [] if told is None else list(told.accepted),
    }  # fmt: skip
