"""Whether the leading directions of a covariance last: the first half of the steps against the second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.estimators.gram import centre
from gradtail.estimators.ranks import subspace_bound
from gradtail.estimators.rows import check_top, checked
from gradtail.estimators.spectrum_sample import rounding_of, scaled_gram
from gradtail.states.magnitudes import FloatArray

_FEWEST_STEPS = 6


@dataclass(frozen=True, eq=False)
class SubspaceStability:
    """How far the leading eigenvectors of the covariance turn from one half of the steps to the other.

    Attributes
    ----------
    sine : ndarray of float64, shape (k,)
        Of the largest angle between the spaces of the first j eigenvectors of both halves, j = 1, ..., k.
        NaN, as all below, beyond the rank of either half.
    overlap : ndarray of float64, shape (k,)
        tr(P Q) / j of the projections on them: mean squared cosine; about j / n by chance in n dimensions.
    bound : ndarray of float64, shape (k,)
        Of ``sine``, by Davis and Kahan: 2 |D| / (l_j - l_(j+1)), with D the difference of both covariances.
        From 1 on it says nothing.
    vector_sine, vector_bound : ndarray of float64, shape (k,)
        Of the j-th eigenvectors alone, and :func:`gradtail.spectrum.subspace_bound` of them.
    perturbation : float
        |D|: spectral norm of the difference of the two covariances.
    eigenvalues : ndarray of float64, shape (2, k)
        Of each half.
    steps : int
    sketched : bool
    warnings : tuple of str
    """

    sine: FloatArray
    overlap: FloatArray
    bound: FloatArray
    vector_sine: FloatArray
    vector_bound: FloatArray
    perturbation: float
    eigenvalues: FloatArray
    steps: int
    sketched: bool
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        rank = max(int(np.count_nonzero(np.isfinite(self.sine))), 1)
        below = int(np.argmin(np.append(self.bound < 1, False)))
        end = f"below 1 up to rank {below}" if below else "at least 1 at the first rank"
        lines = [
            f"the first {rank} directions of two halves of {self.steps} steps overlap by "
            f"{self.overlap[rank - 1]:.3g}, the first by {self.overlap[0]:.3g}; the bound for their sines is "
            f"{end}"
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def __repr__(self) -> str:
        return f"SubspaceStability(steps={self.steps}, top={self.sine.size}, overlap={self.overlap[-1]:.4g})"


def subspace_stability(
    vectors: npt.ArrayLike,
    norms: npt.ArrayLike | None = None,
    *,
    top: int = 10,
    centred: bool = True,
    sketched: bool | None = None,
) -> SubspaceStability:
    """Compare the leading eigenvectors of the covariance over both halves of the steps.

    Parameters
    ----------
    vectors, norms, centred, sketched
        As for :func:`gradtail.spectrum.covariance_spectrum`; each half is taken about its own mean.
    top : int
        Directions to compare.

    Returns
    -------
    SubspaceStability

    Raises
    ------
    TypeError, ValueError
        As there, fewer than 6 finite rows, or more directions than half of them has, less one.

    Notes
    -----
    All from the T x T Gram matrix, O(T**2 m + T**3). Both bounds ask for gaps of the first half alone: Yu,
    Wang and Samworth (2015), Biometrika 102, 315, theorem 2 in the spectral norm (where 2 |D| is less than
    the gap, Weyl's inequality leaves half of it to Davis and Kahan's theorem) and corollary 1. Sketches into
    r buckets leave errors of about 1 / sqrt(r) in each cosine.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.standard_normal((400, 50)) * np.sqrt([100, 10] + [0.1] * 48)
    >>> found = subspace_stability(rows, top=3)
    >>> found.overlap.round(2).tolist(), bool((found.sine <= found.bound).all())
    ([1.0, 1.0, 0.69], True)
    """
    x, exact, _, left_out = checked(vectors, norms, None)
    steps = len(x)
    if steps < _FEWEST_STEPS:
        raise ValueError(f"vectors: expected at least {_FEWEST_STEPS} steps with finite values, got {steps}")
    is_sketch = exact is not None if sketched is None else bool(sketched)
    half = steps // 2
    k = check_top(top, min(half - int(centred), x.shape[1]) - 1, "less than half of these steps have")
    _, g, _, _, exponent = scaled_gram(x, exact)
    first, second, across = g[:half, :half], g[half:, half:], g[:half, half:]
    if centred:
        across = across - across.mean(axis=0) - across.mean(axis=1)[:, None] + across.mean()
        first, second = centre(first), centre(second)
    dof = [len(part) - 1 if centred else len(part) for part in (first, second)]
    (values, left), (values_, right) = (_leading(part, k + 1, rounding_of(g)) for part in (first, second))
    rank = int(min(np.count_nonzero(values[:k]), np.count_nonzero(values_[:k])))
    cosines = (left.T @ across @ right)[:k, :k]
    sine, overlap = np.full(k, np.nan), np.full(k, np.nan)
    for j in range(1, rank + 1):
        singular = np.clip(np.linalg.svd(cosines[:j, :j], compute_uv=False), 0.0, 1.0)
        sine[j - 1] = math.sqrt(max(1 - float(singular[-1]) ** 2, 0.0))
        overlap[j - 1] = float(np.mean(singular**2))
    perturbation = _difference(first / dof[0], second / dof[1], across / math.sqrt(dof[0] * dof[1]))
    eigenvalues = np.array([values / dof[0], values_ / dof[1]])
    gaps = -np.diff(eigenvalues[0])
    bound = np.divide(2 * perturbation, gaps, out=np.full(k, np.inf), where=gaps > 0)
    vector_sine = np.sqrt(np.maximum(1 - np.diag(cosines) ** 2, 0.0))
    vector_bound = subspace_bound(eigenvalues[0], perturbation)[:k]
    for found in (bound, vector_sine, vector_bound):
        found[rank:] = np.nan
    said = [f"{left_out} steps with NaN or infinite values are left out"] if left_out else []
    if rank < k:
        said.append(f"the halves have {rank} directions alone: there is nothing to compare beyond")
    scale = 2 * exponent
    return SubspaceStability(
        sine, overlap, bound, vector_sine, vector_bound,
        float(np.ldexp(perturbation, scale)), np.ldexp(eigenvalues[:, :k], scale), steps, is_sketch,
        tuple(said),
    )  # fmt: skip


def _leading(g: FloatArray, k: int, rounding: float) -> tuple[FloatArray, FloatArray]:
    """Return the largest eigenvalues of a Gram matrix, and the weights of its rows that make unit vectors."""
    values, vectors = np.linalg.eigh(g)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    values = np.where(values > rounding, values, 0.0)
    lengths = np.sqrt(values)
    return values, np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _difference(first: FloatArray, second: FloatArray, across: FloatArray) -> float:
    """Spectral norm of A'A - B'B from A A', B B' and A B': that of R J R' for [A; B][A; B]' = R' R."""
    whole = np.block([[first, across], [across.T, second]])
    values, vectors = np.linalg.eigh(whole)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    sign = np.where(np.arange(len(whole)) < len(first), 1.0, -1.0)
    return float(np.abs(np.linalg.eigvalsh(root.T @ (sign[:, None] * root))).max())
