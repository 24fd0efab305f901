"""The covariance of single examples' gradients and the Hessian of the same loss, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradtail.states.budget import parse_memory
from gradtail.torch.asked import Loss, batches_of_all, checked_int, problem_of
from gradtail.torch.batches import Batch
from gradtail.torch.curvature import Curvature
from gradtail.torch.frozen import Frozen, Mode
from gradtail.torch.hessian import hessian_spectrum
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.interrupts import Interrupts
from gradtail.torch.parameters import Filter
from gradtail.torch.products import Operator

Floats: TypeAlias = npt.NDArray[np.float64]

_FEWEST_FOR_A_LINE = 3
_OPERATORS: tuple[Operator, ...] = ("hessian", "covariance")


@dataclass(frozen=True, eq=False, repr=False)
class CovarianceAgainstHessian:
    """What :func:`covariance_against_hessian` gives.

    Attributes
    ----------
    hessian, covariance : HessianSpectrum
        With vectors, as many as both searches have found; the covariance is that of the gradients of single
        examples. That of the mean over B of them, drawn with replacement, is the B-th part of it.
    overlap : ndarray of float64, shape (K,)
        tr(P Q) / j of the projections on the first j eigenvectors of both: 1 for one and the same space,
        about j / n by chance.
    along : ndarray of float64, shape (K,)
        u'Cu of the Hessian's eigenvectors u.
    slope, slope_stderr : float
        Of a least-squares line through log u'Cu over log l, for the eigenvalues l that are surely positive;
        NaN of fewer than three. 1 where C is proportional to H.
    """

    hessian: HessianSpectrum
    covariance: HessianSpectrum
    overlap: Floats
    along: Floats
    slope: float
    slope_stderr: float

    @property
    def ratio(self) -> Floats:
        """U'Cu / l: constant where C is proportional to H, as near the minimum of a likelihood."""
        return np.asarray(self.along / self.hessian.eigenvalues)

    def of_batches(self, batch_size: int) -> Floats:
        """Return the eigenvalues of the covariance of minibatch gradients, drawn with replacement."""
        return self.covariance.eigenvalues / batch_size

    def __repr__(self) -> str:
        return f"CovarianceAgainstHessian(top={self.along.size}, overlap={self.overlap[-1]:.4g})"

    def __str__(self) -> str:
        along = "u'Cu"
        head = f"{'rank':>6}{'Hessian l':>13}{'covariance':>13}{along:>13}{along + ' / l':>11}{'overlap':>9}"
        lines = [head]
        ranks = sorted({*(2**i for i in range(self.along.size.bit_length())), self.along.size})
        for rank in ranks:
            i = rank - 1
            lines.append(
                f"{rank:>6}{self.hessian.eigenvalues[i]:>13.4g}{self.covariance.eigenvalues[i]:>13.4g}"
                f"{self.along[i]:>13.4g}{self.ratio[i]:>11.3g}{self.overlap[i]:>9.3f}"
            )
        lines.append(
            "u: eigenvectors of the Hessian, C: covariance of single examples; overlap: of the directions of "
            "both up to this rank"
        )
        lines.append(f"u'Cu goes as l to the power of {self.slope:.3g} +- {self.slope_stderr:.2g}")
        for name, one in (("Hessian", self.hessian), ("covariance", self.covariance)):
            sure = one.eigenvalues[: one.surely_positive]
            if sure.size >= _FEWEST_FOR_A_LINE and sure[0] > sure[-1]:
                law = one.power_law()
                lines += [f"{name}: {law.verdict}", *(f"  warning: {w}" for w in law.warnings)]
            lines += [f"  warning: {w}" for w in one.warnings]
        return "\n".join(lines)


def covariance_against_hessian(
    model: nn.Module,
    loss: Loss,
    data: Any,
    top: int,
    params: Filter | None = None,
    *,
    batch_size: int | None = None,
    tol: float = 1e-4,
    mode: Mode | None = None,
    seed: int = 0,
    memory: str | int = "4GiB",
    progress: bool | None = None,
) -> CovarianceAgainstHessian:
    """Compare the largest eigenvalues of the Hessian and of the gradient covariance, and their directions.

    Parameters
    ----------
    model, loss, data, top, params, batch_size, tol, mode, seed, memory, progress
        As for :func:`hessian_spectrum`, which is run for both.

    Returns
    -------
    CovarianceAgainstHessian

    Raises
    ------
    TypeError, ValueError
        As there.
    KeyboardInterrupt
        Ctrl-C before the first pair of the covariance has converged; later it ends that search early.

    Notes
    -----
    Both matrices are over all of the data and without a sketch: the covariance is known by its products,
    as the Hessian is. Near the minimum of a negative log-likelihood that the data follow, C = F = H
    (Fisher); elsewhere C_ii has been found to go as H_ii to a power of 1 to 2 (arXiv 2602.05600). Costs
    twice a Hessian spectrum, and K products more.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> x, noise = torch.randn(2000, 3, generator=generator), torch.randn(2000, 1, generator=generator)
    >>> model = nn.Linear(3, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> loss = lambda output, target: 0.5 * (output - target).square().mean()
    >>> found = covariance_against_hessian(model, loss, (x, x.sum(1, keepdim=True) + noise), top=3)
    >>> bool((abs(found.ratio - 1) < 0.1).all())
    True
    """
    problem = problem_of(model, loss, params, "covariance", mode, seed)
    top = checked_int("top", top, 1)
    batches, held = batches_of_all(data, batch_size)
    if held:  # else a pair of tensors, which can be read again
        data, batch_size = [_ready(batch) for batch in batches], None
    with Interrupts() as interrupts:
        both = []
        for operator in _OPERATORS:
            found = hessian_spectrum(
                model, loss, data, top, params, operator=operator, batch_size=batch_size, vectors=True,
                tol=tol, mode=mode, seed=seed, memory=memory, progress=progress,
            )  # fmt: skip
            both.append(found)
            if interrupts.stopped and len(both) < len(_OPERATORS):
                raise KeyboardInterrupt
        interrupts.finishing()
        common = min(one.eigenvalues.size for one in both)
        hessian, covariance = (_first(one, common) for one in both)
        assert hessian.vectors is not None
        assert covariance.vectors is not None
        with Frozen(model, mode, seed), torch.enable_grad():
            curvature = Curvature(problem, batches, "covariance")
            curvature.keep(parse_memory(memory) // 2, common)  # a product needs rows besides
            along = np.array([float(torch.dot(u, curvature.product(u))) for u in hessian.vectors.T])
    slope, error = _line(hessian.eigenvalues[: hessian.surely_positive], along[: hessian.surely_positive])
    return CovarianceAgainstHessian(
        hessian, covariance, _overlap(hessian.vectors, covariance.vectors), along, slope, error
    )


def _ready(batch: Batch) -> Any:
    """Return a batch in the form that it was given in."""
    one = isinstance(batch.inputs, Mapping) and batch.inputs is batch.targets
    return batch.inputs if one else (batch.inputs, batch.targets)


def _first(found: HessianSpectrum, count: int) -> HessianSpectrum:
    """Leave the largest pairs alone."""
    assert found.vectors is not None
    return replace(
        found, eigenvalues=found.eigenvalues[:count], residuals=found.residuals[:count],
        vectors=found.vectors[:, :count], converged=min(found.converged, count),
    )  # fmt: skip


def _overlap(left: Tensor, right: Tensor) -> Floats:
    squares = (left.T @ right).double().square().cpu().numpy()
    inner = np.cumsum(np.cumsum(squares, axis=0), axis=1)
    return np.asarray(np.diag(inner) / np.arange(1, len(squares) + 1))


def _line(eigenvalues: Floats, along: Floats) -> tuple[float, float]:
    """Slope of log-log least squares and its standard error."""
    known = along > 0
    count = int(np.count_nonzero(known))
    if count < _FEWEST_FOR_A_LINE:
        return math.nan, math.nan
    x, y = np.log(eigenvalues[known]), np.log(along[known])
    x, y = x - x.mean(), y - y.mean()
    square = float(x @ x)
    if square == 0:
        return math.nan, math.nan
    slope = float(x @ y) / square
    rest = y - slope * x
    return slope, math.sqrt(float(rest @ rest) / (count - 2) / square)
