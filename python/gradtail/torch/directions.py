"""Weights along given directions, step by step: what a monitor keeps of ``directions``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradtail.estimators.weight_variance import weight_variances
from gradtail.estimators.weight_variance_result import WeightVariances
from gradtail.states.budget import format_bytes, parse_memory
from gradtail.theory.epochs import Policy
from gradtail.torch.hessian_result import HessianSpectrum
from gradtail.torch.parameters import Named
from gradtail.torch.sharding import is_sharded

_ROWS = 256  # steps that memory is taken for at once
_FLOAT = 8


class Directions:
    """Directions for ``Monitor(..., directions=)``, and how much of the series along them is kept.

    Parameters
    ----------
    vectors : HessianSpectrum, Tensor or ndarray of shape (n, k)
        A spectrum taken with ``vectors=True``; or one column a direction, in the order of the parameters that
        the monitor watches and that require a gradient. Not copied where they lie on the right device,
        each in one piece.
    memory : str or int
        What the series may take, such as "64MiB": 8 bytes a direction and step. Of a longer run the newest
        steps are kept.

    Raises
    ------
    TypeError, ValueError
        Vectors that are none, not finite or of another shape, or memory that is too little for one step.

    Examples
    --------
    >>> Directions(torch.eye(5)[:, :2], memory="1MiB")
    Directions(2 directions of 5 elements, newest 65536 steps)
    """

    def __init__(self, vectors: HessianSpectrum | Tensor | npt.NDArray[Any], memory: str | int = "64MiB"):
        self.shapes: dict[str, tuple[int, ...]] | None = None
        self.curvature: npt.NDArray[np.float64] | None = None
        found: Any = vectors
        if isinstance(vectors, HessianSpectrum):
            if vectors.vectors is None:
                raise ValueError("directions: expected a spectrum taken with vectors=True, got one without")
            self.shapes, self.curvature, found = vectors.shapes, vectors.eigenvalues, vectors.vectors
        elif isinstance(vectors, np.ndarray):
            found = torch.from_numpy(np.ascontiguousarray(vectors.T)).T
        if not isinstance(found, Tensor):
            raise TypeError(
                "directions: expected a HessianSpectrum, or a tensor or array of shape (n, k), "
                f"got {type(vectors).__name__}"
            )
        if found.ndim != 2 or not found.numel():
            raise ValueError(f"directions: expected shape (n, k), got {tuple(found.shape)}")
        if not found.dtype.is_floating_point:
            raise TypeError(f"directions: expected a real floating dtype, got {found.dtype}")
        if not bool(found.isfinite().all()):
            raise ValueError("directions: expected finite vectors, got NaN or infinite values")
        self.rows = found.detach().T
        if self.rows.dtype.itemsize < 4:
            self.rows = self.rows.float()
        self.window = parse_memory(memory) // (_FLOAT * len(self.rows))
        if not self.window:
            raise ValueError(
                f"memory: expected at least {format_bytes(_FLOAT * len(self.rows))}, a step of "
                f"{len(self.rows)} directions, got {memory!r}"
            )

    def __repr__(self) -> str:
        k, n = self.rows.shape
        return f"Directions({k} directions of {n} elements, newest {self.window} steps)"

    def along(self, parameters: Sequence[Named]) -> Trajectory:
        """Make what records parameters along these directions.

        Raises
        ------
        TypeError, ValueError
            Other parameters than the directions are of, sharded ones, or some on several devices.
        """
        return Trajectory(self, self.chosen(parameters))

    def chosen(self, parameters: Sequence[Named]) -> list[Named]:
        """Return the parameters that the directions are of, in their order; errors as :meth:`along`."""
        if self.shapes is not None:
            named = dict(parameters)
            for name, shape in self.shapes.items():
                if name not in named:
                    raise ValueError(f"directions: expected directions of watched parameters, got {name}")
                if tuple(named[name].shape) != shape:
                    raise ValueError(
                        f"directions: expected shape {tuple(named[name].shape)} for {name}, got {shape}"
                    )
            chosen = [(name, named[name]) for name in self.shapes]
        else:
            chosen = [(name, p) for name, p in parameters if p.requires_grad]
        for name, p in chosen:
            if is_sharded(p):
                raise TypeError(f"directions: expected whole parameters, got DTensor shards for {name}")
        if len({p.device for _, p in chosen}) > 1:
            raise ValueError("directions: expected parameters on one device, got several")
        elements = sum(p.numel() for _, p in chosen)
        if elements != self.rows.shape[1]:
            raise ValueError(
                f"directions: expected vectors of {elements} elements, one for each of the parameters, "
                f"got {self.rows.shape[1]}"
            )
        return chosen


class Trajectory:
    """Weights along k directions at the newest steps, from where they were at the first.

    What ``Monitor.directions`` is. A row belongs to a call of ``step`` or ``clip_``: the weights are those
    that the gradients of that step were taken at, before the optimizer moves them; the difference of two
    successive rows is the move in between.

    Notes
    -----
    A step costs one read of the k n elements of the directions, besides copies of the n weights: for
    k = 200 about as much as 200 reads of the gradients. No step waits for the device; steps that a CUDA graph
    replays are not recorded. Memory: the directions, twice the weights, and the series, 8 k bytes a step up
    to ``memory`` (:attr:`nbytes`).
    Differences to the first weights are projected, so that float32 leaves errors of about 1e-6 of how far the
    weights have moved, and not of how large they are.
    """

    def __init__(self, directions: Directions, parameters: Sequence[Named]) -> None:
        self._parameters = [p for _, p in parameters]
        first = self._parameters[0]
        self._rows = directions.rows.to(first.device).contiguous()
        self.curvature = directions.curvature
        self._window = directions.window
        self._reference: list[Tensor] | None = None
        self._flat = torch.empty(self._rows.shape[1], dtype=self._rows.dtype, device=first.device)
        sizes = [p.numel() for p in self._parameters]
        self._parts = torch.split(self._flat, sizes)
        self._pieces: list[Tensor] = []
        self._steps: list[int] = []
        self._piece = max(1, min(_ROWS, self._window // 4))

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        return f"Trajectory({len(self._rows)} directions, {len(self)} steps)"

    @property
    def nbytes(self) -> int:
        """Bytes held: directions, weights and series."""
        held = [self._rows, self._flat, *(self._reference or ()), *self._pieces]
        return sum(one.numel() * one.element_size() for one in held)

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Numbers of the steps that are kept, shape (T,)."""
        return np.array(self._steps, np.int64)

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Take down the weights as they are, unless that was done for this step."""
        if self._steps and step <= self._steps[-1]:
            return
        if self._reference is None:
            self._reference = [p.detach().clone() for p in self._parameters]
        for part, p, first in zip(self._parts, self._parameters, self._reference, strict=True):
            if part.dtype == p.dtype:
                torch.sub(p, first, out=part.view(p.shape))
            else:
                # in the wider of both: what large weights have moved by may be below their rounding here
                wide = torch.promote_types(part.dtype, p.dtype)
                part.view(p.shape).copy_(p.to(wide) - first.to(wide))
        place = len(self._steps) % self._piece
        if place == 0:
            if self._steps and len(self._steps) + self._piece > self._window:
                del self._pieces[0], self._steps[: self._piece]
            shape = (self._piece, len(self._rows))
            self._pieces.append(torch.empty(shape, dtype=torch.float64, device=self._flat.device))
        self._pieces[-1][place].copy_(self._rows @ self._flat)
        self._steps.append(step)

    def weights(self) -> npt.NDArray[np.float64]:
        """Return the weights along the directions, shape (T, k), less those at the first step of the run."""
        if not self._steps:
            return np.empty((0, len(self._rows)))
        return torch.cat(self._pieces)[: len(self._steps)].cpu().numpy()

    def variances(
        self,
        *,
        eta: float,
        beta: float,
        M: int,
        curvature: npt.ArrayLike | None = None,
        noise_variance: npt.ArrayLike | None = None,
        policy: Policy = "reshuffle",
        weight_decay: float = 0.0,
        newest: int | None = None,
    ) -> WeightVariances:
        """Compare variances along the directions with theory; see :func:`gradtail.weight_variances`.

        Parameters
        ----------
        eta, beta, M, noise_variance, policy
            As there.
        curvature : array of float, shape (k,), optional
            Default: the eigenvalues that came with the directions.
        weight_decay : float
            Of the optimizer, where it acts as a gradient: it adds to every curvature.
        newest : int, optional
            Steps to look at; default: all that are kept, from the last gap on.

        Raises
        ------
        TypeError, ValueError
            As there; no curvature given with directions that came without.
        """
        curved = self.curvature if curvature is None else curvature
        if curved is None:
            raise ValueError("curvature: expected that of each direction, got none, nor a HessianSpectrum")
        if newest is not None and (isinstance(newest, bool) or not isinstance(newest, int) or newest < 1):
            raise ValueError(f"newest: expected a positive int, got {newest!r}")
        gaps = np.flatnonzero(np.diff(self.steps) != 1)
        first = int(gaps[-1]) + 1 if gaps.size else 0
        x = self.weights()[max(first, 0 if newest is None else len(self) - newest) :]
        return weight_variances(
            x, np.asarray(curved, np.float64) + weight_decay, eta=eta, beta=beta, M=M,
            noise_variance=noise_variance, policy=policy,
        )  # fmt: skip

    def cut(self, step: float = -math.inf) -> None:
        """Forget what was recorded after a step; default: everything, and where the weights were."""
        kept = int(np.searchsorted(self.steps, step, side="right"))
        del self._steps[kept:], self._pieces[-(-kept // self._piece) :]
        if not kept:
            self._reference = None


def as_trajectory(directions: object, parameters: Sequence[Named]) -> Trajectory | None:
    """Return what records the directions given to a monitor."""
    if directions is None:
        return None
    given = directions if isinstance(directions, Directions) else Directions(directions)  # type: ignore[arg-type]
    return given.along(parameters)
