"""What the stable index is returned as: the number, how sure it is, and what else explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from scipy import special

from gradtail.estimators.stable.blocks import BlockCurve

Kind: TypeAlias = Literal["values", "gradient", "noise"]

LABELS: dict[Kind, str] = {"values": "alpha", "gradient": "gradient alpha", "noise": "noise alpha"}


ENOUGH = 50_000
"""Nonzero values from which on the tests against a stable law have power.

Of 40 samples each, without a finding at N = 1e4, 3e4, 4e4, 5e4: Student's t with 3 degrees of freedom 39, 14,
6, 0, Laplace's law 14, 0, 0, 0, and normal values of log-normal scales (variance of the log 1) none; at
3000 nearly all of them.
"""


def worded(findings: tuple[str, ...], unchecked: str, told: bool, high: float) -> str:
    """Say in words what an index may be called, of which ``high`` is the upper end of the interval.

    >>> worded((), "", True, 1.6), worded((), "", True, 2.1), worded((), "", False, 1.6)
    ('nothing seen against a stable law', 'normal values not excluded', 'too few values to tell')
    >>> worded((), "not checked", True, 1.6), worded(("mean",), "", False, 1.6)
    ('not checked', 'no stable index (mean)')
    """
    if findings not in ((), ("zeros",)):
        return f"no stable index ({', '.join(findings)})"
    word = "nothing seen against a stable law" if high < 2 else "normal values not excluded"
    word = unchecked or (word if told else "too few values to tell")
    return f"of what is not zero, {word}" if findings else word


@dataclass(frozen=True)
class Control:
    """The index by another way, or of other values, to hold beside an estimate.

    Attributes
    ----------
    alpha, stderr : float
        NaN where it cannot be said.
    n : int
        Values that it rests on.
    what : str
        In words.
    """

    alpha: float
    stderr: float
    n: int
    what: str

    def __str__(self) -> str:
        if math.isnan(self.alpha):
            return f"{self.what}: not known"
        if math.isinf(self.alpha):
            return f"{self.what}: sums do not grow"
        return f"{self.what}: {self.alpha:.4g} +- {self.stderr:.2g}"


@dataclass(frozen=True)
class StableEstimate:
    """A stable index by sums of blocks, and what stands beside it.

    Attributes
    ----------
    inverse : float
        1 / alpha, in which the estimator is linear; 0 or less where sums of blocks do not grow.
    inverse_stderr : float
        By the stable law with this alpha.
    observed_inverse_stderr : float
        By the spread between blocks, or between the rows of a matrix; NaN of fewer than two.
    freedom : int
        Degrees of freedom of that spread.
    k1, k2 : int
        Values a block, and blocks.
    n : int
        Finite values there were, or vectors.
    dropped : int
        Of a remainder that fills no block.
    zeros, nonfinite : int
        Left out before blocks were made.
    kind : {"values", "gradient", "noise"}
        Of what this is the index: it names it "alpha", "gradient alpha" or "noise alpha".
    controls : mapping of str to Control
        "zeros_kept": the published number, with zeros in the blocks and machine epsilon added to each
        magnitude. "quantiles", "characteristic": other estimators. "standardised": each value by the scale
        of its coordinate. "gaussian": normal values of the same variances, zeros where these are.
        "gaussian_typical": the same with each coordinate's typical size, which its own outliers do not
        decide. "shuffled": coordinates in another order. "standardised_shuffled": both.
        "across_batches": each coordinate by itself, summed over batches.
    curve : BlockCurve or None
        The index by block size.
    layers : mapping of str to StableEstimate
        Of each layer by itself.
    findings : tuple of str
        Those warnings by which the values follow no stable law, in a word each: "zeros", "mean",
        "dependence", "scale mixture", "batch scales", "ties", "not stable".
    warnings : tuple of str
    unchecked : str
        "not checked", or "scales not checked" where no coordinate was seen often enough to know its scale; ""
        where all was looked at.
    """

    inverse: float
    inverse_stderr: float
    observed_inverse_stderr: float
    freedom: int
    k1: int
    k2: int
    n: int
    dropped: int = 0
    zeros: int = 0
    nonfinite: int = 0
    kind: Kind = "values"
    controls: Mapping[str, Control] = field(default_factory=dict)
    curve: BlockCurve | None = None
    layers: Mapping[str, StableEstimate] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unchecked: str = "not checked"

    @property
    def alpha(self) -> float:
        """The index; above 2 by chance, or since values depend on each other; inf where sums do not grow."""
        return 1 / self.inverse if self.inverse > 0 else math.inf if self.inverse <= 0 else math.nan

    @property
    def stderr(self) -> float:
        """Standard error of alpha by the stable law: alpha^2 sqrt(v (1 / k2 + 1 / (k1 k2))) / log k1."""
        return self.alpha**2 * self.inverse_stderr

    @property
    def observed_stderr(self) -> float:
        """Standard error of alpha by the spread between blocks, which supposes no law."""
        return self.alpha**2 * self.observed_inverse_stderr

    @property
    def label(self) -> str:
        """What the number is called."""
        return LABELS[self.kind]

    def ci(self, level: float = 0.95) -> tuple[float, float]:
        """Interval for alpha, from that of 1 / alpha with the larger of both standard errors.

        Of stable values it covers at least its level, and more of few, as the larger of two errors is taken:
        at 95 % about 99 % for N = 100, 97 to 98 % for 1000, and 95 to 96 % from about 1e4 on.

        Parameters
        ----------
        level : float in (0, 1)

        Returns
        -------
        low, high : float
            ``high`` is inf where sums may not grow.

        Raises
        ------
        ValueError
            ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
        p = (1 + level) / 2
        half = float(special.ndtri(p)) * self.inverse_stderr
        if self.freedom > 0 and math.isfinite(self.observed_inverse_stderr):
            half = max(half, float(special.stdtrit(self.freedom, p)) * self.observed_inverse_stderr)
        most, least = self.inverse + half, self.inverse - half
        return 1 / most if most > 0 else math.inf, 1 / least if least > 0 else math.inf

    @property
    def told(self) -> bool:
        """Whether there are values enough, 50,000, that no finding says something."""
        return self.n - self.zeros >= ENOUGH

    @property
    def verdict(self) -> str:
        """The result in words: what speaks against a stable law, or that nothing does, or cannot."""
        low, high = self.ci()
        number = f"{self.label} {self.alpha:.4g} (95 % {low:.4g} to {high:.4g})"
        return f"{worded(self.findings, self.unchecked, self.told, high)}: {number}"

    def __str__(self) -> str:
        left = [f"{self.zeros} zeros"] if self.zeros else []
        left += [f"{self.nonfinite} non-finite"] if self.nonfinite else []
        left += [f"{self.dropped} over"] if self.dropped else []
        out = f", left out {', '.join(left)}" if left else ""
        lines = [f"{self.verdict}; {self.k2} blocks of {self.k1}, {self.n} values{out}"]
        lines += [f"  {control}" for control in self.controls.values()]
        for name, layer in self.layers.items():
            beside = layer.controls.get("standardised")
            lines.append(f"  {name}: {layer.alpha:.4g}" + (f"; {beside}" if beside else ""))
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])
