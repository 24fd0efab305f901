"""What a look at a model with fixed parameters gives: gradients, their noise, and tests of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradtail.estimators.normality import NormalityTests
from gradtail.estimators.spectrum import CovarianceSpectrum, covariance_spectrum
from gradtail.estimators.stable import StableEstimate, stable_index_noise
from gradtail.estimators.stable_sums import StreamAlpha
from gradtail.estimators.structure import (
    FEWEST_IN_TAIL,
    ColumnTests,
    RowTest,
    Structure,
    all_rows,
    rows,
)
from gradtail.estimators.subspace import SubspaceStability, subspace_stability
from gradtail.stream import GradientStream
from gradtail.torch.asked import checked_int
from gradtail.torch.collected_noise import CollectedNoise, Kind

_Index = TypeVar("_Index", StableEstimate, StreamAlpha)


@dataclass(frozen=True, repr=False)
class GradientCollection(CollectedNoise):
    """Minibatch gradients at fixed parameters, as streams; see :func:`collect_gradients`.

    Attributes
    ----------
    gradients : GradientStream
        Of the minibatch gradients; step t is batch t.
    noise : GradientStream or None
        Of each less the full-batch gradient; None without ``centre``.
    full : dict of str to Tensor, or None
        The full-batch gradient, float64, on the device of the parameters.
    batches : int
        Gathered.
    interrupted : bool
        Whether Ctrl-C came before all were.
    provenance : dict
        Everything that the numbers depend on: batches, batch size, sampling, centring, mode ("mixed" where
        modules differ), what of the model is random or takes statistics of a batch, seed, dtypes, sizes,
        cutoff rule, versions.
    """

    gradients: GradientStream
    noise: GradientStream | None
    full: dict[str, Tensor] | None
    batches: int
    interrupted: bool
    provenance: dict[str, Any]
    _columns: Mapping[tuple[Kind, str | None], ColumnTests] = field(default_factory=dict)
    _matrices: Mapping[Kind, npt.NDArray[np.floating]] = field(default_factory=dict)
    _elements: Mapping[str, int] = field(default_factory=dict)

    def stream(self, kind: Kind = "gradient") -> GradientStream:
        """Return the stream of gradients or of noise.

        Raises
        ------
        ValueError
            Another kind, or noise that was not collected.
        """
        if kind == "gradient":
            return self.gradients
        if kind != "noise":
            raise ValueError(f"kind: expected 'gradient' or 'noise', got {kind!r}")
        if self.noise is None:
            raise ValueError("kind: expected 'gradient', as centre=False has kept no noise, got 'noise'")
        return self.noise

    def dimension_wise(self, kind: Kind = "gradient", group: str | None = None) -> Structure:
        """Return the tests across parameters: one vector a batch.

        Parameters
        ----------
        kind : {"gradient", "noise"}
        group : str, optional
            A parameter; None is the whole model.

        Raises
        ------
        ValueError
            No such kind or parameter, or columns of parameters that were not tested (``layers=False``).
        """
        self.stream(kind)
        found = self._columns.get((kind, group))
        if found is None:
            untested = not self.provenance.get("layers", True) and group in self.gradients.names
            expected = "None (layers=False tests no other)" if untested else "the name of a parameter"
            raise ValueError(f"group: expected {expected}, got {group!r}")
        return found.result()

    def iteration_wise(
        self,
        kind: Kind = "gradient",
        names: list[str] | None = None,
        *,
        test: RowTest = "dagostino",
        top: int = 1000,
    ) -> Structure:
        """Test the tracked parameters across batches: one vector each.

        Parameters
        ----------
        kind : {"gradient", "noise"}
        names : list of str, optional
            Of parameters; None is all.
        test, top
            As for :func:`gradtail.estimators.structure.rows`; ``top`` at least 50, as fewer are not tested.

        Raises
        ------
        TypeError, ValueError
            No such kind, name or test, no names, or another ``top``.
        """
        stream = self.stream(kind)
        if test not in get_args(RowTest):
            expected = ", ".join(map(repr, get_args(RowTest)))
            raise ValueError(f"test: expected one of {expected}, got {test!r}")
        top = checked_int("top", top, FEWEST_IN_TAIL)
        return rows(stream.tracks(_checked_names(names)), kind, test, top)

    def all_coordinates(self, kind: Kind = "gradient", names: list[str] | None = None) -> NormalityTests:
        """Test every coordinate that moments are kept of (all, unless asked otherwise) by Jarque-Bera.

        Parameters
        ----------
        kind : {"gradient", "noise"}
        names : list of str, optional
            Of parameters; None is all.

        Raises
        ------
        TypeError, ValueError
            No such kind or name, no names, or no moments kept (``coordinates=None``).
        """
        stream, chosen = self.stream(kind), _checked_names(names)
        if self.provenance.get("coordinates", "dense") is None:
            raise ValueError("coordinates: expected moments of coordinates to be kept, got None")
        return all_rows([stream.coordinates(name) for name in (stream.names if chosen is None else chosen)])

    def spectrum(
        self, kind: Kind = "gradient", *, centred: bool = True, top: int | None = None, exact: bool = False
    ) -> CovarianceSpectrum:
        """Estimate the spectrum of the covariance over batches.

        Parameters
        ----------
        kind : {"gradient", "noise"}
        centred : bool
            About the mean of the batches; else the second moment, which for noise is about the full gradient.
        top : int, optional
        exact : bool
            From the gradients themselves, where ``exact=True`` has kept them, by their T x T Gram matrix.

        Raises
        ------
        TypeError, ValueError
            No such kind; as many eigenvalues as batches or more, or no number; gradients that were not kept.
        """
        stream = self.stream(kind)
        if top is not None and checked_int("top", top, 1) >= self.batches:
            raise ValueError(f"top: expected fewer than the {self.batches} batches, got {top}")
        if exact:
            found = covariance_spectrum(self.matrix(kind), centred=centred, top=top)
        else:
            found = stream.spectrum(centred=centred, top=top)
        lost = self._lost_ranks(kind, centred)
        if not lost or found.eigenvalues.size <= self.batches - lost:
            return found
        why = (
            "batches of whole epochs add up to the full gradient, unless dropout or statistics of batches "
            "(batch normalisation) are in the model"
        )
        if self.provenance["batch_size"] is None:
            why = "the batches are all of the data, and add up to the full gradient"
        words = f"{why}: the last {lost} of {self.batches} eigenvalues are 0, or what a sketch makes of it"
        return replace(found, warnings=(*found.warnings, words))

    def _lost_ranks(self, kind: Kind, centred: bool) -> int:
        """Count the eigenvalues that are zero since batches of an epoch that leaves nobody out add up."""
        n: int | None = self.provenance["examples"]
        b: int | None = self.provenance["batch_size"]
        sampling = self.provenance["sampling"]
        about_full = centred or kind == "noise"
        if n is None or b is None:
            return int(about_full and self.provenance["whole"])
        # Batch normalisation gives the same batch the same gradient, but another to examples elsewhere.
        random = self.provenance["random"]
        if sampling == "replacement" or "dropout" in random or (random and sampling == "shuffle"):
            return 0
        if sampling == "in order":
            repeated = max(self.batches - n // b, 0)
            return repeated + int(centred or (about_full and n % b == 0 and self.batches >= n // b))
        epochs = self.batches // (n // b) if n % b == 0 else 0
        return max(epochs, int(centred)) if about_full else max(epochs - 1, 0)

    def subspace_stability(
        self, kind: Kind = "gradient", *, centred: bool = True, top: int = 10, exact: bool = False
    ) -> SubspaceStability:
        """Compare the leading directions of the covariance over both halves of the batches.

        Parameters
        ----------
        kind, centred, exact
            As for :meth:`spectrum`.
        top : int

        Raises
        ------
        TypeError, ValueError
            As for :func:`gradtail.spectrum.subspace_stability`; gradients that were not kept.
        """
        stream = self.stream(kind)
        if exact:
            return subspace_stability(self.matrix(kind), centred=centred, top=top)
        return stream.subspace_stability(centred=centred, top=top)

    def matrix(self, kind: Kind = "gradient") -> npt.NDArray[np.floating]:
        """Return the gradients themselves, shape (batches, parameters), in the order of the stream's names.

        Raises
        ------
        ValueError
            They were not kept (``exact=True`` keeps them), or no such kind.
        """
        self.stream(kind)
        if kind not in self._matrices:
            raise ValueError("kind: expected gradients collected with exact=True, got a stream alone")
        return self._matrices[kind]

    def stable_index(
        self, kind: Kind = "noise", *, block: int | None = None, layers: bool = True, seed: int = 0
    ) -> StableEstimate | StreamAlpha:
        """Estimate the stable index over all coordinates, with its controls where gradients were kept.

        Parameters
        ----------
        kind : {"noise", "gradient"}
            Called noise alpha, or gradient alpha.
        block : int, optional
            Consecutive parameters of one batch in a sum; where gradients were not kept one of 64, 256, 1024
            and 4096.
        layers : bool
            Of every parameter as well.
        seed : int
            Of the controls.

        Returns
        -------
        StableEstimate or StreamAlpha
            With ``exact=True`` that of :func:`gradtail.stable_index_noise`. Else the number alone, from the
            sums that the stream has taken, each parameter against its own mean of logarithms.

        Raises
        ------
        TypeError, ValueError
            No such kind or block; too few values; neither gradients (``exact=True`` keeps them) nor block
            sums (of gradients on a CUDA device ``stable=True`` takes them).
        """
        self.stream(kind)
        if kind in self._matrices:
            return self._with_sizes(self._exact_index(kind, block, layers, seed))
        return self._with_sizes(self._raw_index(kind, block, layers))

    def _exact_index(self, kind: Kind, block: int | None, layers: bool, seed: int) -> StableEstimate:
        ends = np.cumsum(list(self._elements.values())).tolist()
        parts = {
            name: slice(end - size, end)
            for (name, size), end in zip(self._elements.items(), ends, strict=True)
        }
        return stable_index_noise(
            self.matrix(kind), parts if layers else None, block=block, epoch=self._epoch(), kind=kind,
            seed=seed,
        )  # fmt: skip

    def _raw_index(self, kind: Kind, block: int | None, layers: bool) -> StreamAlpha:
        stream = self.stream(kind)
        found, own, small = replace(stream.stable_index(None, block), kind=kind), {}, []
        for name in stream.names if layers else ():
            try:
                one = stream.stable_index(name, block)
            except ValueError:  # fewer than two sums
                small.append(name)
                continue
            own[name] = replace(one, kind=kind)
        words = [
            "the number alone, which zeros, unequal scales and related neighbours lower as well as a tail: "
            "its controls need exact=True"
        ]
        if small:
            words.append(f"too few values in {', '.join(small)}")
        return replace(found, layers=own, warnings=(*found.warnings, *words))

    def _with_sizes(self, found: _Index) -> _Index:
        """Say whether batches were of unequal sizes."""
        sizes: list[int] = self.provenance["sizes"]
        if len(sizes) == 1:
            return found
        words = f"batches of {sizes[0]} to {sizes[-1]} examples have noise of different scales"
        return replace(found, warnings=(*found.warnings, words))

    def _epoch(self) -> int | None:
        """Return how many batches an epoch without replacement has; None where each is drawn by itself."""
        n, b = self.provenance["examples"], self.provenance["batch_size"]
        if n is None or b is None:
            return self.batches if self.provenance["whole"] else None
        return None if self.provenance["sampling"] == "replacement" else max(int(n // b), 1)

    def __repr__(self) -> str:
        cut = ", interrupted" if self.interrupted else ""
        return f"GradientCollection({self.batches} batches of {self.provenance['batch_size']}{cut})"

    def __str__(self) -> str:
        lines = [repr(self)]
        for kind in ("gradient", "noise"):
            if kind == "gradient" or self.noise is not None:
                lines += [str(self.dimension_wise(kind)), str(self.iteration_wise(kind))]
        return "\n".join(lines)


def _checked_names(names: list[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"names: expected names of parameters, got {type(names).__name__}")
    if not (found := list(names)):
        raise ValueError("names: expected names of parameters, got none")
    return found
