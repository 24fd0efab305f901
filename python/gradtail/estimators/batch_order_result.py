"""What the batches of a run say of how they were drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from gradtail.estimators.policy_result import WORDS

Order: TypeAlias = Literal["reshuffle", "replacement", "fixed", "broken"]


@dataclass(frozen=True)
class BatchOrder:
    """How the batches of a run were drawn, from the examples in them.

    Attributes
    ----------
    verdict : {"reshuffle", "replacement", "fixed", "broken"} or None
        "broken": no way of drawing examples with equal chances, by epochs or with replacement, does what
        ``faults`` says. None: these steps cannot tell.
    faults : tuple of str
        Each with its evidence.
    chance : float
        Bound on the chance of what the verdict rests on, were it wrong: of these faults from a sound sampler
        (the likelier of reshuffled epochs and replacement; 0 is impossible), of epochs without repetition
        from replacement, of a repeated order from either. 1 where there is no verdict. Of "replacement" it is
        0: an example that comes twice in an epoch rules out the others.
    level : float
        A verdict is given where the chance is at most that.
    period : int or None
        Batches of an epoch, as told or found; of a fixed order the steps after which it repeats.
    phase : int or None
        Steps before the first whole epoch, where the epochs are seen.
    steps, draws : int
        Batches, and examples in them.
    examples : int
        That there are, as told, or by the largest index.
    examples_given : bool
    followed : float
        Share of all examples whose every occurrence is known; the counts below are of these.
    equal_batches : int
        Batches of the same examples as one before, an order that repeats apart.
    duplicates : int
        Examples that a batch has had before; of all, not of those followed.
    repeated : int
        Occurrences of an example within an epoch after its first; of epochs from the first step where their
        phase is not seen, and of as many batches as the examples make up without a period.
    repeated_expected : float
        The same if batches were drawn with replacement.
    unseen : int or None
        Examples that never came; None if it was not told how many there are.
    warnings : tuple of str
    """

    verdict: Order | None
    faults: tuple[str, ...]
    chance: float
    level: float
    period: int | None
    phase: int | None
    steps: int
    draws: int
    examples: int
    examples_given: bool
    followed: float
    equal_batches: int
    duplicates: int
    repeated: int
    repeated_expected: float
    unseen: int | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "cannot tell from these steps"
        if self.verdict == "broken":
            said = "broken sampler"
        elif self.verdict is not None:
            said = WORDS[self.verdict]
        by = "" if self.examples_given else " (by the largest index)"
        lines = [
            f"batches: {said}; {self.steps} steps, {self.draws} draws of {self.examples} examples{by}"
            + ("" if self.period is None else f", epochs of {self.period}")
        ]
        lines += [f"  {fault}" for fault in self.faults]
        if self.period is not None and self.verdict != "fixed":
            lines.append(
                f"  {self.repeated} times an example came again within an epoch "
                f"(shuffled anew: 0; with replacement: about {self.repeated_expected:.3g})"
            )
        if self.unseen is not None:
            lines.append(f"  {self.unseen} examples never came")
        if self.verdict not in (None, "replacement"):
            what = "a sampler of equal chances" if self.verdict == "broken" else "another way of drawing"
            lines.append(f"  chance that {what} shows this: " + _chance(self.chance))
        if self.followed < 1:
            lines.append(f"  counted are the occurrences of {100 * self.followed:.3g} % of the examples")
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])

    def __repr__(self) -> str:
        return f"BatchOrder({self.verdict!r}, steps={self.steps}, faults={len(self.faults)})"


def _chance(chance: float) -> str:
    if chance == 0:
        return "none"
    return f"at most {chance:.1g}" if chance > 1e-12 else "below 1e-12"
