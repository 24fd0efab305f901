"""What the order of the batches does to gradients at fixed parameters, and how many examples they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gradtail.estimators.autocorrelation import autocorrelation
from gradtail.estimators.autocorrelation_result import Autocorrelation
from gradtail.estimators.noise_scale import NoiseScale, noise_scale_from_batches
from gradtail.estimators.policy_result import SamplingPolicy
from gradtail.estimators.sampling_policy import sampling_policy
from gradtail.stream import GradientStream

Kind: TypeAlias = Literal["gradient", "noise"]


class CollectedNoise:
    """The part of :class:`gradtail.torch.collection.GradientCollection` that looks from batch to batch."""

    if TYPE_CHECKING:
        batches: int
        provenance: dict[str, Any]
        _matrices: Mapping[Kind, npt.NDArray[np.floating]]
        _elements: Mapping[str, int]

        def stream(self, kind: Kind = "gradient") -> GradientStream: ...  # noqa: D102
        def _epoch(self) -> int | None: ...

    def sampling_policy(
        self, group: str | None = None, *, period: int | None = None, **settings: Any
    ) -> SamplingPolicy:
        """Test how batches were drawn, by their noise: :func:`gradtail.sampling_policy`.

        Parameters
        ----------
        group : str, optional
            A parameter, or a dotted prefix of several; default: the whole.
        period : int, optional
            Batches of an epoch; default: the examples over the batch size.
        **settings
            Of that function. ``phase`` is 0 where the collector drew the batches and all of them are there.

        Returns
        -------
        SamplingPolicy
            From the noise itself where ``exact=True`` has kept it, else from the newest sketches. Where the
            model draws or takes statistics of a batch, the noise is not of the examples alone, of which it
            warns.

        Raises
        ------
        TypeError, ValueError
            No noise (``centre=False``), no such group, no period where the batches were given, or as that
            function has it.
        """
        rows, _, steps = self._vectors("noise", group)
        drawn, b = self.provenance["examples"], self.provenance["batch_size"]
        known = drawn is not None and b is not None
        if period is None and not known:
            raise ValueError("period: expected the number of batches of an epoch, as the batches were given")
        if known and len(rows) == self.batches and period in (None, drawn // b):
            settings.setdefault("phase", 0)
        found = sampling_policy(
            rows, period=drawn // b if period is None else period, steps=steps, **settings
        )
        if not (parts := self.provenance["random"]):
            return found
        words = f"{' and '.join(parts)} of the model changed the gradients of examples from batch to batch: "
        words += "that noise hides the order, and may look like batches drawn with replacement; collect with "
        words += 'mode="eval" to see the order alone'
        return replace(found, warnings=(*found.warnings, words))

    def autocorrelation(
        self,
        kind: Kind = "noise",
        group: str | None = None,
        *,
        period: int | None = None,
        lags: int | None = None,
    ) -> Autocorrelation:
        """Estimate the autocovariance over batches: :func:`gradtail.autocorrelation`.

        Parameters
        ----------
        kind : {"noise", "gradient"}
            Of gradients the mean is taken off.
        group : str, optional
            A parameter, or a dotted prefix of several; default: the whole.
        period : int, optional
            Batches of an epoch, for the overlay of theory; default: as the collector drew them.
        lags : int, optional

        Returns
        -------
        Autocorrelation
            From the vectors themselves where ``exact=True`` has kept them, else from the newest sketches.

        Raises
        ------
        TypeError, ValueError
            No such kind or group, or as that function has it.
        """
        rows, norms, steps = self._vectors(kind, group)
        if period is None and (self._epoch() or 1) > 1:
            period = self._epoch()
        return autocorrelation(rows, norms, steps=steps, lags=lags, period=period, centred=kind == "gradient")

    def noise_scale(self, group: str | None = None) -> NoiseScale:
        """Estimate the noise scale, or critical batch size: :func:`gradtail.noise_scale_from_batches`.

        Parameters
        ----------
        group : str, optional
            A parameter, or a dotted prefix of several, such as a layer; default: the whole.

        Returns
        -------
        NoiseScale
            From the gradients themselves where ``exact=True`` has kept them, else from the newest sketches.
            Batches of an epoch without replacement are not independent, of which it warns.

        Raises
        ------
        TypeError, ValueError
            No such group, batches of several sizes, or fewer than 4.
        """
        rows, norms, _ = self._vectors("gradient", group)
        sizes: list[int] = self.provenance["sizes"]
        if len(sizes) != 1:
            raise ValueError(
                f"batch_size: expected batches of one size, got {sizes[0]} to {sizes[-1]} examples"
            )
        found = noise_scale_from_batches(rows, norms, batch_size=sizes[0])
        if self.provenance["sampling"] == "replacement":
            return found
        words = "batches without replacement are not independent: |G|^2 is too small by tr(Sigma) over the"
        words += " number of examples, so the noise scale is too large where it is near that number"
        return replace(found, warnings=(*found.warnings, words))

    def _vectors(
        self, kind: Kind, group: str | None
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float64] | None, npt.NDArray[np.int64] | None]:
        """Return rows, exact norms where the rows are sketches, and numbers of the steps."""
        stream = self.stream(kind)
        if kind not in self._matrices:
            ring = stream.ring(group)
            return ring.vectors, ring.norms, ring.steps
        matrix = self._matrices[kind]
        if group is None:
            return matrix, None, None
        inside = np.array([name == group or name.startswith(f"{group}.") for name in self._elements])
        if not inside.any():
            raise ValueError(f"group: expected the name of a parameter or a prefix of some, got {group!r}")
        return matrix[:, np.repeat(inside, list(self._elements.values()))], None, None
