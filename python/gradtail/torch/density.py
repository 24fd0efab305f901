"""Where the eigenvalues of a model's curvature lie, and their sum, by products with random vectors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg
from torch import Tensor, nn

from gradtail.states.budget import parse_memory
from gradtail.torch.asked import Loss, batches_of_all, check_memory, checked_int, problem_of, provenance_of
from gradtail.torch.basis import Basis
from gradtail.torch.countdown import Countdown
from gradtail.torch.curvature import Curvature
from gradtail.torch.density_result import SpectralDensity, TraceEstimate
from gradtail.torch.frozen import Frozen, Mode
from gradtail.torch.interrupts import Interrupts
from gradtail.torch.parameters import Filter
from gradtail.torch.products import Operator

Floats: TypeAlias = npt.NDArray[np.float64]

_CLOSED = 20.0  # roundings: so short a residual is none


def hessian_density(
    model: nn.Module,
    loss: Loss,
    data: Any,
    *,
    probes: int = 10,
    steps: int = 50,
    params: Filter | None = None,
    operator: Operator = "hessian",
    batch_size: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    memory: str | int = "4GiB",
    progress: bool | None = None,
) -> SpectralDensity:
    """Estimate the distribution of all eigenvalues by stochastic Lanczos quadrature.

    Parameters
    ----------
    model, loss, data, params, operator, batch_size, mode, memory, progress
        As for :func:`hessian_spectrum`.
    probes : int
        Random vectors, at least 2.
    steps : int
        Products of each, at least 3, so that the moments are exact but for the choice of vectors.
    seed : int
        Of the random vectors, and of dropout.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    TypeError, ValueError
        As for :func:`hessian_spectrum`.
    KeyboardInterrupt
        Ctrl-C before the second vector is done; later what was done is returned.

    Notes
    -----
    Each vector of random signs, over sqrt(n), gives the nodes and weights of Gauss quadrature for its
    spectral measure by Lanczos' method (Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl. 38, 1075;
    Ghorbani, Krishnan and Xiao 2019), with full reorthogonalisation; the mean over vectors is the
    distribution. Standard errors are from the spread over vectors. ``probes * steps`` products, for each
    vector O(n steps**2) besides, and ``steps`` vectors of memory.

    Examples
    --------
    >>> x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    >>> found = hessian_density(nn.Linear(5, 1), nn.functional.mse_loss, (x, x[:, :1]), probes=20, steps=6)
    >>> exact = 2 * float((x**2).sum() / 64 + 1)
    >>> found.n, abs(found.trace - exact) < 4 * found.trace_stderr
    (6, True)
    """
    probes, steps = checked_int("probes", probes, 2), checked_int("steps", steps, 3)
    opened = _open(
        model, loss, data, params, operator, batch_size, mode, seed, memory, steps, f"steps={steps}"
    )
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Floats, Floats]] = []
    with opened(probes * steps) as at, Countdown("random vectors", probes, progress) as countdown:
        curvature = at.curvature
        for _ in range(probes):
            measure = _quadrature(at, curvature.random(generator), steps, lambda: not at.interrupts.stopped)
            if measure is None:
                break
            found.append(measure)
            countdown.advance()
    if len(found) < 2:
        raise KeyboardInterrupt
    nodes, weights = zip(*found, strict=True)
    return SpectralDensity(
        nodes, weights, curvature.n, at.products, len(found) < probes, tuple(curvature.warnings),
        at.provenance | {"probes": len(found), "asked_for": probes, "steps": steps},
    )  # fmt: skip


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    data: Any,
    *,
    products: int = 30,
    params: Filter | None = None,
    operator: Operator = "hessian",
    batch_size: int | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    memory: str | int = "4GiB",
    progress: bool | None = None,
) -> TraceEstimate:
    """Estimate the sum of all eigenvalues by Hutch++.

    Parameters
    ----------
    model, loss, data, params, operator, batch_size, mode, memory, progress
        As for :func:`hessian_spectrum`.
    products : int
        At least 6.
    seed : int
        Of the random vectors, and of dropout.

    Returns
    -------
    TraceEstimate

    Raises
    ------
    TypeError, ValueError
        As for :func:`hessian_spectrum`.
    KeyboardInterrupt
        Ctrl-C.

    Notes
    -----
    A third of the products finds a space that holds much of the matrix, a third takes the trace within it
    exactly, and a third estimates the rest by Hutchinson's method (1990, Commun. Stat. Simul. Comput. 19,
    433): Meyer, Musco, Musco and Woodruff (2021), "Hutch++", algorithm 1. Where few eigenvalues are large, as
    of a Gauss-Newton matrix, the error is several times less than Hutchinson's of as many products; where
    none are, it is about sqrt(3) times larger. The standard error is that of the last third. Takes
    ``2 * products / 3`` vectors of memory.

    Examples
    --------
    >>> x = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    >>> found = hessian_trace(nn.Linear(9, 1), nn.functional.mse_loss, (x, x[:, :1]), products=12)
    >>> abs(found.trace - 2 * float((x**2).sum() / 64 + 1)) < 1e-3, found.stderr  # exact: 10 parameters
    (True, 0.0)
    """
    products = checked_int("products", products, 6)
    third = products // 3
    opened = _open(
        model, loss, data, params, operator, batch_size, mode, seed, memory, 2 * third, f"products={products}"
    )
    generator = torch.Generator().manual_seed(seed)
    with opened(products) as at, Countdown("products", products, progress) as countdown:
        curvature = at.curvature

        def product(v: Tensor) -> Tensor:
            if at.interrupts.stopped:
                raise KeyboardInterrupt
            countdown.advance()
            return at.product(v)

        if curvature.n <= products:
            unit = torch.eye(curvature.n, dtype=curvature.dtype, device=curvature.device)
            trace, error = sum(float(product(row)[i]) for i, row in enumerate(unit)), 0.0
        else:
            drawn = torch.stack([product(curvature.random(generator)) for _ in range(third)])
            space = torch.linalg.qr(drawn.T)[0].T
            inside = sum(float(torch.dot(row, product(row))) for row in space)
            rest = []
            for _ in range(products - 2 * third):
                v = curvature.random(generator)
                for _ in range(2):
                    v = v - space.T @ (space @ v)
                rest.append(float(torch.dot(v, product(v))))
            trace = inside + float(np.mean(rest))
            error = float(np.std(rest, ddof=1)) / math.sqrt(len(rest))
    return TraceEstimate(
        trace, error, at.products, tuple(curvature.warnings), at.provenance | {"asked_for": products}
    )


@dataclass
class _Opened:
    """A curvature, ready for products."""

    curvature: Curvature
    interrupts: Interrupts
    provenance: dict[str, Any]
    products: int = 0

    def product(self, v: Tensor) -> Tensor:
        """Return the product with a vector, and count it."""
        self.products += 1
        found = self.curvature.product(v)
        if not bool(found.isfinite().all()):
            raise ValueError("data: expected finite derivatives of the loss, got NaN or infinity")
        return found


class _Open(Protocol):
    def __call__(self, expected: int) -> AbstractContextManager[_Opened]: ...


def _open(
    model: nn.Module,
    loss: Loss,
    data: Any,
    params: Filter | None,
    operator: Operator,
    batch_size: int | None,
    mode: Mode | None,
    seed: int,
    memory: str | int,
    rows: int,
    what: str,
) -> _Open:
    """Check everything, and return what makes the curvature for so many products."""
    problem = problem_of(model, loss, params, operator, mode, seed)
    allowed = parse_memory(memory)
    check_memory(allowed, rows, what, problem, 0, 0)
    batches, held = batches_of_all(data, batch_size, allowed)

    @contextmanager
    def opened(expected: int) -> Iterator[_Opened]:
        began = time.perf_counter()
        with Frozen(model, mode, seed), torch.enable_grad(), Interrupts() as interrupts:
            curvature = Curvature(problem, batches, operator)
            spare = check_memory(allowed, rows, what, problem, curvature.graph_bytes, held)
            graphs = curvature.keep(spare, expected, lambda: not interrupts.stopped)
            at = _Opened(curvature, interrupts, provenance_of(problem, curvature, operator, batches))
            at.provenance["memory"] = {"allowed": allowed, "rows": rows, "graphs": graphs, "data": held}
            yield at
            at.provenance["seconds"] = time.perf_counter() - began

    return opened


def _quadrature(at: _Opened, v: Tensor, steps: int, more: Callable[[], bool]) -> tuple[Floats, Floats] | None:
    """Return nodes and weights of the spectral measure of a vector; None if asked to stop."""
    curvature = at.curvature
    basis = Basis(curvature.n, steps, curvature.dtype, curvature.device)
    basis.append(v / torch.linalg.vector_norm(v))
    diagonal: list[float] = []
    beside: list[float] = []
    for i in range(min(steps, curvature.n)):
        if not more():
            return None
        w = at.product(basis[i])
        diagonal.append(float(torch.dot(w, basis[i])))
        w.add_(basis[i], alpha=-diagonal[-1])
        if i:
            w.add_(basis[i - 1], alpha=-beside[-1])
        basis.remove_from(w)
        beta = float(torch.linalg.vector_norm(w))
        if beta <= _CLOSED * curvature.noise * max(map(abs, diagonal)):
            break
        beside.append(beta)
        if i + 1 < min(steps, curvature.n):
            basis.append(w.div_(beta))
    nodes, rows = linalg.eigh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    return nodes, rows[0] ** 2
