"""What a test of the order of batches says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from gradtail.states.magnitudes import FloatArray
from gradtail.theory.epochs import Policy

POLICIES: tuple[Policy, ...] = ("reshuffle", "replacement", "fixed")

WORDS: Mapping[Policy, str] = {
    "reshuffle": "epochs that are shuffled anew",
    "replacement": "batches drawn with replacement (white noise)",
    "fixed": "the same order in every epoch",
}

# noise shows no more than that it has no memory, while numbers of examples show how they were drawn
_OF_NOISE: Mapping[Policy, str] = {
    **WORDS,
    "replacement": "no memory (batches drawn with replacement, or mostly noise from elsewhere)",
}

_ENOUGH = 0.9
_STATISTICS = 3  # that white noise is tested by


@dataclass(frozen=True, eq=False)
class SamplingPolicy:
    """Which ways of drawing batches the noise of some steps at fixed weights agrees with.

    Attributes
    ----------
    pvalues : dict of policy to float
        "replacement": of white noise, by permutations of all steps. "reshuffle": of the joint statistic
        ``chi2``, by permutations within epochs; 0 where more than ``leak`` of the noise is left over one.
        "fixed": 1 where at most ``leak`` of the noise differs after an epoch, else 0.
    level : float
        Size of the tests: a policy with a p-value of at most that is rejected.
    remainder : float
        Power of the sum of the noise over an epoch, over that of its batches: 1 for white noise, 0 where
        batches add up to the full gradient.
    repetition : float
        Correlation with the noise an epoch later: 1 for a fixed order, 0 else.
    chi2 : float
        Sum over lags 1..M of the squared distance of the autocovariance from that of reshuffled epochs, over
        its variance by permutations within epochs.
    correlation : ndarray of float64, shape (M + 1,)
        At lags 0..M.
    leak : float
        Share of the noise that may come from elsewhere than the choice of examples.
    period, phase : int
        Batches of an epoch; steps of the first, incomplete one.
    phase_given : bool
    steps, epochs : int
        Steps, and whole epochs among them.
    participation_ratio : float
        Series of single numbers that these vectors are worth.
    permutations : int
    warnings : tuple of str
    """

    pvalues: Mapping[Policy, float]
    level: float
    remainder: float
    repetition: float
    chi2: float
    correlation: FloatArray
    leak: float
    period: int
    phase: int
    phase_given: bool
    steps: int
    epochs: int
    participation_ratio: float
    permutations: int
    warnings: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[Policy, ...]:
        """The policies that are not rejected."""
        return tuple(kind for kind in POLICIES if self.pvalues[kind] > self.level)

    @property
    def verdict(self) -> Policy | None:
        """The one policy that is not rejected; None if there are several, or none."""
        return self.accepted[0] if len(self.accepted) == 1 else None

    def power(self, rejected: Policy, truth: Policy) -> float:
        """Return about how often a policy is rejected where another is the truth, on data as these.

        Parameters
        ----------
        rejected, truth : {"reshuffle", "replacement", "fixed"}
            Two different ones.

        Notes
        -----
        From the number of steps and the participation ratio p: the remainder of white noise is about
        chi-square of n = p * epochs degrees of freedom over n (times the number of phases where the phase is
        not known, by Bonferroni), and its correlation at lag M about normal of variance 1 / (p (T - M)). Of
        reshuffled noise 1 / M is taken to be left over an epoch, of a fixed order ``leak`` to differ, and
        white noise to be tested at a third of the level by each of its three statistics. Where more of the
        noise is from elsewhere than the choice of examples, such as dropout, this is not the power.

        Raises
        ------
        ValueError
            Not two different policies.
        """
        for name, kind in (("rejected", rejected), ("truth", truth)):
            if kind not in POLICIES:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, POLICIES))}, got {kind!r}")
        if rejected == truth:
            raise ValueError(f"truth: expected another policy than {rejected!r}, got the same")
        ratio = self.participation_ratio
        if math.isnan(ratio):
            return math.nan
        each = self.level / _STATISTICS
        phases = 1 if self.phase_given else self.period
        freedom = min(ratio * self.epochs, 1e9)

        def below(share: float) -> float:  # how often the remainder of white noise is, at most
            return min(1.0, phases * float(special.gammainc(freedom / 2, share * freedom / 2)))

        sharp = (1 - self.leak) * math.sqrt(ratio * (self.steps - self.period))
        if rejected == "fixed":
            return float(special.ndtr(sharp))
        if truth == "fixed":
            size = each if rejected == "replacement" else self.level / self.period
            return float(special.ndtr(sharp + special.ndtri(max(size, 1e-300))))
        if rejected == "reshuffle":
            return 1 - below(self.leak)
        enough = self.permutations + 1 >= 1 / each
        return float(below(min(self.leak, 1 / self.period)) <= each and enough)

    @property
    def least_power(self) -> float:
        """The least of the six powers."""
        return float(np.min([self.power(a, b) for a in POLICIES for b in POLICIES if a != b]))

    def __str__(self) -> str:
        tests = "; ".join(
            f"{kind} {'rejected' if self.pvalues[kind] <= self.level else 'not rejected'} "
            f"(p = {self.pvalues[kind]:.3g})"
            for kind in POLICIES
        )
        if self.verdict is not None:
            said = _OF_NOISE[self.verdict]
        elif self.accepted:
            said = "cannot tell " + " from ".join(_OF_NOISE[kind] for kind in self.accepted)
        else:
            said = "none of the three ways of drawing batches"
        lines = [
            f"order of batches: {said}; {self.steps} steps, epochs of {self.period}",
            f"  {tests}",
            f"  of the noise {100 * self.remainder:.3g} % is left over an epoch (white noise: 100 %); "
            f"correlation an epoch later {self.repetition:.3f} (fixed order: 1)",
            f"  if the noise is of the examples alone, at size {100 * self.level:g} % each is told from the "
            f"others with a power of at least {self.least_power:.2g}",
        ]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def __repr__(self) -> str:
        return f"SamplingPolicy({self.verdict!r}, steps={self.steps}, period={self.period})"


def about_power(found: SamplingPolicy) -> tuple[str, ...]:
    """Warn where these steps are too few to tell policies apart."""
    if not found.least_power < _ENOUGH:
        return ()
    return (
        f"{found.steps} steps are few for noise worth {found.participation_ratio:.3g} series of numbers: "
        f"the least power is {found.least_power:.2g}",
    )
