"""Gradients of single examples along given directions, at fixed weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradtail.torch.asked import Loss, problem_of
from gradtail.torch.batches import held_batches
from gradtail.torch.directions import Directions
from gradtail.torch.frozen import Frozen, Mode, random_parts
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.parameters import Filter
from gradtail.torch.products import rows

_EXAMPLES = 64  # whose gradients are in memory at once


def project_examples(
    model: nn.Module,
    loss: Loss,
    data: Any,
    directions: Directions | HessianSpectrum | Tensor | npt.NDArray[Any],
    params: Filter | None = None,
    *,
    batch_size: int = _EXAMPLES,
    mode: Mode | None = None,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Project the gradient of every example on directions.

    The gradient of a batch is the mean of its examples': from these numbers follow the noise of any batch
    along the directions, exactly, and its variance (:func:`gradtail.theory.epochs.noise_variance` of their
    variance with ``ddof=1``).

    Parameters
    ----------
    model : nn.Module
        As it was afterwards, bit for bit.
    loss, data, params
        As for :func:`hessian_spectrum`.
    directions : Directions, HessianSpectrum, Tensor or ndarray
        Of k directions; as for :class:`Directions`.
    batch_size : int
        Examples whose gradients are in memory at once.
    mode : {"train", "eval"}, optional
        What the model is set to meanwhile; default: as it is.
    seed : int
        Of dropout.

    Returns
    -------
    ndarray of float64, shape (N, k)

    Raises
    ------
    TypeError, ValueError
        Arguments that are none of these, or a model whose batch normalisation takes statistics of the batch.

    Notes
    -----
    O(N n k) for n parameters.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> project_examples(model, nn.functional.mse_loss, (x, torch.ones(2, 1)), torch.eye(2)).tolist()
    [[-2.0, 0.0], [0.0, -4.0]]
    """
    problem = problem_of(model, loss, params, "second_moment", mode, seed)
    given = directions if isinstance(directions, Directions) else Directions(directions)
    chosen = given.chosen(list(zip(problem.names, problem.parameters, strict=True)))
    problem = replace(problem, names=[name for name, _ in chosen], parameters=[p for _, p in chosen])
    found = []
    batches = held_batches(data, batch_size, _EXAMPLES)
    with Frozen(model, mode, seed):
        if "batch statistics" in random_parts(model):
            raise ValueError(
                "model: expected gradients of single examples, got batch normalisation that takes the "
                'statistics of a batch; use mode="eval"'
            )
        matrix = given.rows.to(problem.device)
        for number, batch in enumerate(batches):
            with torch.enable_grad():
                gradients = rows(problem, batch, number)
            found.append((gradients.detach().to(matrix.dtype) @ matrix.T).double().cpu().numpy())
    return np.concatenate(found)
