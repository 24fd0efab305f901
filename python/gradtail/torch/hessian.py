"""The largest eigenvalues of a model's Hessian, Gauss-Newton matrix or gradient second moment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradtail.states.budget import format_bytes, parse_memory
from gradtail.torch.asked import (
    Loss,
    batches_of_all,
    check_memory,
    checked_int,
    element_bytes,
    problem_of,
    provenance_of,
)
from gradtail.torch.countdown import Countdown, announce
from gradtail.torch.curvature import Curvature
from gradtail.torch.frozen import Frozen, Mode
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.interrupts import Interrupts
from gradtail.torch.lanczos import Lanczos, least_rows
from gradtail.torch.lanczos_file import LanczosFile
from gradtail.torch.parameters import Filter
from gradtail.torch.products import Operator

_PER_VALUE, _MORE = 3, 30  # products that are likely to be needed
_ROWS_A_VALUE = 4
_LIMIT_A_VALUE, _LIMIT = 50, 1000
_ALIKE, _ROUNDING = 1e-3, 20.0  # of a product's length, and times its rounding: so near is the same matrix


def hessian_spectrum(
    model: nn.Module,
    loss: Loss,
    data: Any,
    top: int,
    params: Filter | None = None,
    *,
    operator: Operator = "hessian",
    batch_size: int | None = None,
    vectors: bool = False,
    tol: float = 1e-4,
    mode: Mode | None = None,
    seed: int = 0,
    memory: str | int = "4GiB",
    max_products: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> HessianSpectrum:
    """Find the largest eigenvalues of the curvature of a loss, averaged over all of the data.

    Parameters
    ----------
    model : nn.Module
        As it was afterwards, bit for bit: parameters, buffers, gradients, modes; random states too.
    loss : callable
        Of the model's output and the target; the mean over the batch.
    data : pair of tensors, indexable data set, or iterable of batches
        ``(inputs, targets)`` of equal length; something with ``len`` and indexing to an ``(input, target)``;
        or an iterable of ready ``(inputs, targets)`` batches. All of it is used, and held in memory unless it
        is a pair of tensors, so that random augmentation is drawn once. A last batch may be smaller.
    top : int
        Eigenvalues wanted, K, at most the number of parameters: the largest ones with their sign, so that
        negative ones come last.
    params : filter, optional
        Which parameters, as for :class:`Monitor`, such as the last layer; all others are constants.
    operator : {"hessian", "gauss_newton", "second_moment", "covariance"}
        The Hessian; the mean of J'HJ, with J the derivative of the model's output and H the Hessian of
        the loss by the output; the mean of g g' over the gradients g of single examples, not centred; or
        their covariance, about the mean gradient, over their number.
    batch_size : int, optional
        Examples of each batch, 512 by default; not for ready batches.
    vectors : bool
        Return eigenvectors too.
    tol : float
        The residual |A v - l v| of each pair is to be at most ``tol`` times its eigenvalue, or times 1 % of
        the largest magnitude if that is more, but not less than 20 times the rounding of a product.
    mode : {"train", "eval"}, optional
        What the model is set to meanwhile; default: as it is.
    seed : int
        Of the first vector, and of dropout, which drops the same in every product.
    memory : str or int
        What vectors, kept graphs and held data may take, such as "4GiB". The memory that the model needs for
        the gradient of a batch is in it, the model itself is not.
    max_products : int, optional
        Stop after so many products; default: 50 K + 1000.
    checkpoint : path, optional
        A file that the state is written to about once a minute and when it ends, and that a later call
        with the same arguments goes on from. It takes as much room as the vectors so far, and one more
        product, which tells whether the matrix is the same.
    progress : bool, optional
        Say how far it is on the standard error stream; default: on a terminal.

    Returns
    -------
    HessianSpectrum

    Raises
    ------
    TypeError, ValueError
        Arguments that are none of these, a loss that is no scalar or does not depend on the parameters, NaN,
        single examples' gradients of a model with batch statistics,
        more memory needed than stated, a checkpoint of another problem, or no pair within ``max_products``.
    KeyboardInterrupt
        Ctrl-C before the first pair has converged; later it ends the search early, and the pairs that
        have converged are returned.

    Notes
    -----
    Lanczos' method with full reorthogonalisation (see :class:`gradtail.torch.lanczos.Lanczos`, which says
    how eigenvalues that occur more than once are found, and how surely), restarted when the vectors fill the
    memory. ``provenance["unseen_above"]`` is a bound for what may have been missed. What Tang et al.,
    "Investigating the Overlooked Hessian Structure" (2025, arXiv:2201.13011), fit to these
    eigenvalues is :meth:`HessianSpectrum.power_law`.

    A product takes about as long as a gradient where it could be traced, twice as long where the graph of
    the first backward pass was kept, and three times where the memory is too small for either. 2.5 K to 5 K
    products are usual. Vectors take 4 n bytes each (8 in float64), of which 2 K + 80 are needed, and 4 K + 80
    save restarts; orthogonalising the j-th costs O(n j). Without second derivatives products are differences
    of gradients: the step is searched for once, by some 40 gradients, and what they err by is measured and
    said. Of parameters in bfloat16 or float16 eigenvalues are known as roughly as these are, and some may be
    missed, with a warning.

    Many eigenvalues that are nearly equal, as those of a last layer before training, take many products.

    Examples
    --------
    >>> x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    >>> found = hessian_spectrum(nn.Linear(5, 1), nn.functional.mse_loss, (x, x[:, :1]), top=3)
    >>> wide = torch.cat([x, torch.ones(64, 1)], dim=1)
    >>> truth = torch.linalg.eigvalsh(2 * wide.T @ wide / 64).flip(0)
    >>> found.converged, bool(np.allclose(found.eigenvalues, truth[:3], rtol=1e-4))
    (3, True)
    """
    began = time.perf_counter()
    problem = problem_of(model, loss, params, operator, mode, seed)
    elements = sum(p.numel() for p in problem.parameters)
    top = checked_int("top", top, 1)
    if top > elements:
        raise ValueError(f"top: expected at most the {elements} elements of the parameters, got {top}")
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not 0 < tol < 1:
        raise ValueError(f"tol: expected a number between 0 and 1, got {tol!r}")
    limit = (
        _LIMIT_A_VALUE * top + _LIMIT
        if max_products is None
        else checked_int("max_products", max_products, 1)
    )
    allowed = parse_memory(memory)
    rows = least_rows(elements, top)
    what = f"top={top}, vectors={bool(vectors)}"
    both = rows + (top if vectors else 0)
    check_memory(allowed, both, what, problem, 0, 0)  # before the model runs at all
    batches, held = batches_of_all(data, batch_size, allowed)
    with Frozen(model, mode, seed), torch.enable_grad(), Interrupts() as interrupts:
        curvature = Curvature(problem, batches, operator)
        spare = check_memory(allowed, both, what, problem, curvature.graph_bytes, held)
        row = elements * element_bytes(problem)
        wished = (min(elements, rows + (_ROWS_A_VALUE - 2) * top) - rows) * row
        graphs = curvature.keep(
            max(spare - wished, spare // 2),
            min(_PER_VALUE * top + _MORE, limit),
            lambda: not interrupts.stopped,
        )
        rows = min(elements, rows + max(spare - graphs, 0) // row)
        announce(
            f"memory: at most {format_bytes(rows * row + graphs + held)} of the {format_bytes(allowed)} "
            f"allowed: {format_bytes(rows * row)} for {rows} vectors, {format_bytes(graphs)} for graphs, "
            f"{format_bytes(held)} for data",
            progress,
        )
        solver = Lanczos(
            curvature.product, elements, top, tol=tol, noise=curvature.noise, rows=rows,
            dtype=curvature.dtype, device=curvature.device, seed=seed,
        )  # fmt: skip
        file = None
        if checkpoint is not None:
            file = LanczosFile(
                Path(checkpoint), *_identity(curvature, problem.names, operator, top, tol, seed)
            )
            file.load(solver)
        done = _search(solver, limit, file, interrupts, Countdown("eigenvalues", top, progress))
        pairs = solver.pairs()
        count = top if done else pairs.converged
        if not count and interrupts.stopped:
            raise KeyboardInterrupt
        if not count:
            raise ValueError(f"max_products: expected enough for one eigenvalue to converge, got {limit}")
        checked = solver.check(count) if done else None
        found = solver.vectors(count).T if vectors else None
        provenance = provenance_of(problem, curvature, operator, batches)
    provenance |= {
        "top": top, "tol": float(tol), "seconds": time.perf_counter() - began, "max_products": limit,
        "memory": {"allowed": allowed, "rows": rows, "row": row, "graphs": graphs, "data": held},
        "residual_check": checked, "unseen_above": pairs.unseen,
    }  # fmt: skip
    said = [*curvature.warnings, *_about(solver, count, checked, done, curvature.products_by)]
    if not done and not interrupts.stopped:
        said.append(f"max_products={limit} ended the search: {count} of {top} eigenvalues have converged")
    shapes = {name: tuple(p.shape) for name, p in zip(problem.names, problem.parameters, strict=True)}
    return HessianSpectrum(
        pairs.eigenvalues[:count], pairs.residuals[:count], found, min(pairs.converged, count),
        solver.products, interrupts.stopped and not done, tuple(said), shapes, provenance,
    )  # fmt: skip


def _search(
    solver: Lanczos, limit: int, file: LanczosFile | None, interrupts: Interrupts, progress: Countdown
) -> bool:
    shown = solver.pairs().converged if solver.products else 0
    progress.skip(shown)

    def more(products: int, converged: int) -> bool:
        nonlocal shown
        if converged <= shown:
            progress.busy(f"{products} products")
        for _ in range(shown, converged):
            progress.advance()
        shown = max(shown, converged)
        if file is not None:
            file.save_now_and_then(solver)
        return products < limit and not interrupts.stopped

    with progress:
        done = solver.run(more)
        if done:
            for _ in range(shown, solver.top):
                progress.advance()
    if file is not None:
        file.save(solver)
    return done


def _identity(
    curvature: Curvature, names: list[str], operator: str, top: int, tol: float, seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Say which problem this is, and how far numbers may differ; a product stands for data, loss and mode."""
    generator = torch.Generator().manual_seed(seed)
    product = curvature.product(curvature.random(generator))
    size = float(torch.linalg.vector_norm(product))
    along = float(torch.dot(curvature.random(generator), product))
    near = max(_ALIKE, _ROUNDING * curvature.noise) * size  # other threads round otherwise
    identity = {
        "operator": operator, "parameters": curvature.n, "names": ", ".join(names), "top": top,
        "tol": float(tol), "seed": seed, "examples": curvature.examples, "precision": str(curvature.dtype),
        "length of a product": size, "product along a random vector": along,
    }  # fmt: skip
    return identity, {"length of a product": near, "product along a random vector": near}


def _about(
    solver: Lanczos, count: int, checked: tuple[float, float] | None, done: bool, products_by: str
) -> list[str]:
    said = []
    if not done:
        said.append(
            "stopped before the search for eigenvalues that were missed: a repeated one may be among them"
        )
    elif not solver.clear():
        pairs = solver.pairs()
        said.append(
            f"an eigenvalue between {pairs.eigenvalues[-1]:.4g} and {pairs.unseen:.4g} may have been missed"
        )
    if solver.inexact:
        said.append(
            f"products err by {solver.inexact:.2g} of the largest eigenvalue, more than their precision "
            "would: smaller eigenvalues are known no better than that"
        )
    if checked is not None and checked[0] > 3 * checked[1] + solver.rounding:
        why = "products do not repeat, or are not symmetric"
        if products_by == "finite differences":
            why = "products are finite differences, whose error is more than was assumed"
        said.append(
            f"residuals are {checked[0]:.2g} on average by a product of their own, and not {checked[1]:.2g}: "
            f"{why}"
        )
    return said
