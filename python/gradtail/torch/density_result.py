"""What :func:`hessian_density` gives: where eigenvalues lie, with the error that random vectors make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

MOMENTS = 4


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity:
    """The distribution of a matrix's eigenvalues, from quadratures; see :func:`hessian_density`.

    Attributes
    ----------
    nodes, weights : tuple of ndarray of float64, shape (steps,)
        Of each random vector: a distribution whose average over vectors is that of the eigenvalues. Shorter
        where the vector lies in a smaller invariant space.
    n : int
        Size of the matrix.
    products : int
    interrupted : bool
        Whether Ctrl-C came before all vectors had been taken.
    warnings : tuple of str
    provenance : dict
    """

    nodes: tuple[Floats, ...]
    weights: tuple[Floats, ...]
    n: int
    products: int
    interrupted: bool
    warnings: tuple[str, ...]
    provenance: dict[str, Any]

    @property
    def probes(self) -> int:
        """Random vectors."""
        return len(self.nodes)

    @property
    def moments(self) -> Floats:
        """tr(H**k) / n for k = 1 to 4, shape (4,)."""
        return np.asarray(self._each_moment().mean(axis=0))

    @property
    def moments_stderr(self) -> Floats:
        """Standard errors of the moments, from the spread over vectors, shape (4,)."""
        return self._error(self._each_moment())

    @property
    def trace(self) -> float:
        """The first moment times n."""
        return self.n * float(self.moments[0])

    @property
    def trace_stderr(self) -> float:
        """Standard error of the trace."""
        return self.n * float(self.moments_stderr[0])

    def density(self, grid: npt.ArrayLike, width: float | None = None) -> tuple[Floats, Floats]:
        """Return the density, smoothed by a Gaussian, and its standard error over vectors.

        Parameters
        ----------
        grid : array of float, shape (m,)
            Where; any order.
        width : float, optional
            Standard deviation of the Gaussian; default: a hundredth of the range of the nodes. Nothing that
            is narrower can be seen, and widths far below the range over ``steps`` show single nodes.

        Returns
        -------
        tuple of two ndarray of float64, shape (m,)

        Raises
        ------
        TypeError, ValueError
            A grid of no finite numbers, or a width that is not positive.

        Notes
        -----
        O(probes steps m).
        """
        at = np.asarray(grid)
        if at.dtype.kind not in "fiu":
            raise TypeError(f"grid: expected real numbers, got dtype {at.dtype}")
        if at.ndim != 1 or not np.isfinite(at).all():
            raise ValueError(f"grid: expected finite numbers of shape (m,), got shape {at.shape}")
        if width is None:
            every = np.concatenate(self.nodes)
            width = (float(every.max() - every.min()) or 1.0) / 100
        if not 0 < width < math.inf:
            raise ValueError(f"width: expected a positive number, got {width!r}")
        each = np.empty((self.probes, at.size))
        for i, (nodes, weights) in enumerate(zip(self.nodes, self.weights, strict=True)):
            z = (at.astype(np.float64)[:, None] - nodes) / width
            each[i] = np.exp(-0.5 * z * z) @ weights / (width * math.sqrt(2 * math.pi))
        return each.mean(axis=0), self._error(each)

    def _each_moment(self) -> Floats:
        return np.array(
            [
                [float(weights @ nodes**k) for k in range(1, MOMENTS + 1)]
                for nodes, weights in zip(self.nodes, self.weights, strict=True)
            ]
        )

    def _error(self, each: Floats) -> Floats:
        return np.asarray(each.std(axis=0, ddof=1) / math.sqrt(len(each)))

    def __repr__(self) -> str:
        cut = ", interrupted" if self.interrupted else ""
        return (
            f"SpectralDensity({self.provenance['operator']}, probes={self.probes}, "
            f"trace={self.trace:.4g} +- {self.trace_stderr:.2g}{cut})"
        )

    def __str__(self) -> str:
        first = (
            f"{self.provenance['operator'].replace('_', ' ')} of {self.n} parameters over "
            f"{self.provenance['examples']} examples, {self.probes} random vectors of "
            f"{self.provenance['steps']} steps: trace {self.trace:.4g} +- {self.trace_stderr:.2g}"
        )
        return "\n".join([first, *(f"  warning: {w}" for w in self.warnings)])


@dataclass(frozen=True, eq=False)
class TraceEstimate:
    """The trace of a matrix; see :func:`hessian_trace`.

    Attributes
    ----------
    trace, stderr : float
        The standard error is zero where the trace is exact.
    products : int
    warnings : tuple of str
    provenance : dict
    """

    trace: float
    stderr: float
    products: int
    warnings: tuple[str, ...]
    provenance: dict[str, Any]

    def __str__(self) -> str:
        return f"trace {self.trace:.4g} +- {self.stderr:.2g}, {self.products} products"
