"""What :func:`hessian_spectrum` gives: eigenvalues, how exact they are, and what they depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradtail.estimators.ranks import RankPowerLaw, eigengaps, rank_power_law

Floats: TypeAlias = npt.NDArray[np.float64]

_FEWEST = 3  # that a power law is fitted to


@dataclass(frozen=True, eq=False, repr=False)
class HessianSpectrum:
    """The largest eigenvalues of a model's curvature; see :func:`hessian_spectrum`.

    Attributes
    ----------
    eigenvalues : ndarray of float64, shape (K,)
        From the largest down; fewer than asked for where it was interrupted.
    residuals : ndarray of float64, shape (K,)
        |A v - l v| of each, as the method knows it: an eigenvalue of the matrix lies so near.
    vectors : Tensor, shape (n, K), or None
        Orthonormal, on the device of the parameters, in the order of ``shapes``.
    converged : int
        Pairs from the largest down that are as exact as was asked.
    products : int
        Of the matrix with a vector.
    interrupted : bool
        Whether Ctrl-C came before the end.
    warnings : tuple of str
    shapes : dict of str to tuple of int
        Of the parameters.
    provenance : dict
        Everything that the numbers depend on: operator, tolerance, precision, examples, batch size, mode,
        seed, device, how products are taken, memory, time, versions.
    """

    eigenvalues: Floats
    residuals: Floats
    vectors: Tensor | None
    converged: int
    products: int
    interrupted: bool
    warnings: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    provenance: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return list(self.shapes)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each parameter."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    def vector(self, i: int) -> dict[str, Tensor]:
        """Return the eigenvector of rank ``i``, from 0, in the shapes of the parameters.

        Raises
        ------
        ValueError
            No vectors were asked for.
        IndexError
            No such rank.
        """
        if self.vectors is None:
            raise ValueError("vectors: expected a spectrum taken with vectors=True, got none")
        if not -self.eigenvalues.size <= i < self.eigenvalues.size:
            raise IndexError(f"i: expected a rank below {self.eigenvalues.size}, got {i}")
        parts = torch.split(self.vectors[:, i], list(self.sizes.values()))
        return {
            name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    @property
    def surely_positive(self) -> int:
        """Eigenvalues from the largest down to the first that does not exceed its residual.

        Those after them may as well be zero: there is no logarithm to fit.
        """
        unsure = np.flatnonzero((self.eigenvalues <= self.residuals) | (self.eigenvalues <= 0))
        return int(unsure[0]) if unsure.size else self.eigenvalues.size

    def power_law(self, top: int | None = None) -> RankPowerLaw:
        """Fit a power law over ranks; see :func:`gradtail.spectrum.rank_power_law`.

        Parameters
        ----------
        top : int, optional
            How many of the largest, at most :attr:`surely_positive`, which is the default; positive ones
            that this leaves out are warned of.

        Raises
        ------
        TypeError, ValueError
            Fewer eigenvalues that are surely positive than ``top``, or than three, or all the same.
        """
        sure = self.surely_positive
        if sure < _FEWEST:
            raise ValueError(f"eigenvalues: expected at least {_FEWEST} positive ones, got {sure}")
        law = rank_power_law(self.eigenvalues[:sure], top)
        rest = int(np.count_nonzero(self.eigenvalues[sure:] > 0))
        if top is not None or not rest:
            return law
        said = f"{rest} positive eigenvalues were left out: from rank {sure + 1} on they may be zero"
        return replace(law, warnings=(*law.warnings, said))

    def gaps(self) -> Floats:
        """Return the eigengaps l_k - l_(k+1), shape (K - 1,).

        Raises
        ------
        ValueError
            A single eigenvalue.
        """
        return eigengaps(self.eigenvalues)

    def __repr__(self) -> str:
        cut = ", interrupted" if self.interrupted else ""
        return (
            f"HessianSpectrum({self.provenance['operator']}, {self.eigenvalues.size} of "
            f"{self.provenance['top']}, largest {self.eigenvalues[0]:.4g}, {self.products} products{cut})"
        )

    def __str__(self) -> str:
        largest = float(np.abs(self.eigenvalues).max())
        worst = float(self.residuals.max()) / largest if largest else 0.0
        operator = self.provenance["operator"].replace("_", " ")
        line = (
            f"{operator} of {self.provenance['parameters']} parameters over "
            f"{self.provenance['examples']} examples: {self.converged} eigenvalues from "
            f"{self.eigenvalues[0]:.4g} to {self.eigenvalues[-1]:.4g}, residuals up to {worst:.1g} of the "
            f"largest, {self.products} products"
        )
        return "\n".join([line, *(f"  warning: {w}" for w in self.warnings)])
