"""Signs in a flat array that its values are no independent ones of a single symmetric stable law."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from gradtail.estimators.stable.blocks import BlockCurve
from gradtail.estimators.stable.result import Control, StableEstimate
from gradtail.states.magnitudes import FloatArray

CERTAIN = 4.0
"""Standard errors from which on a sign counts: once in 16,000 times by chance."""

ZEROS_WORTH_A_WORD = 1e-3
_PVALUE = 2e-5
_LAGS = (1, 2, 3)
_SERIAL = 0.01  # correlation of signs, below which alpha hardly moves
_SCALES = 0.02  # variance of log scale along the array
_FEWEST_RUNS = 16
_SPIKE = 0.01
_ENOUGH = 1 << 20  # values, for their median
_APART = 0.02  # of alpha, between estimators
_EXPLAINED = 0.015  # of 1 / alpha
_SPREADS = 0.15
_ACROSS = 5e-4  # chance, that coordinates over batches are by chance heavier-tailed

Sign = tuple[str, str]
"""A finding in a word, or none, and the warning."""


def zeros_sign(zeros: int, of: int, kept: Control | None) -> list[Sign]:
    """Say that there were zeros, and what they would do."""
    if not zeros > ZEROS_WORTH_A_WORD * of:
        return []
    share = f"zeros are {100 * zeros / of:.3g} % of the values and are left out"
    if kept is None or math.isnan(kept.alpha):
        return [("zeros", share)]
    return [("zeros", f"{share}; kept, with epsilon in each logarithm, alpha is {kept.alpha:.3g}")]


def sides_sign(x: FloatArray) -> list[Sign]:
    """Test by the signs of sums of blocks whether they lie around 0, and whether that moves alpha.

    Of a normal Y the mean of log |Y + c| is about log(1 + c^2) / 2 above that of log |Y|, c in
    standard deviations, which are 1.9 times exp of the mean log. A sample mean of heavy tails that was
    taken off leaves a median, which is no more than the error.
    """
    k1 = math.isqrt(x.size)
    k2 = x.size // k1
    sums = x[: k1 * k2].reshape(k2, k1).sum(axis=1)
    above = int(np.count_nonzero(sums > 0)) / k2
    if abs(2 * above - 1) * math.sqrt(k2) < CERTAIN:
        return []
    middle = float(np.median(sums))
    about = np.abs(sums - middle)
    about = about[about > 0]
    size = 1.9 * math.exp(float(np.log(about).mean())) if about.size else 0.0
    if size > 0 and math.log1p((middle / size) ** 2) / 2 < math.sqrt(1.5 / k2):
        return []
    return [
        (
            "mean",
            f"{100 * above:.3g} % of the sums of blocks are positive: the values have a mean or are skew, "
            "which makes alpha too small; centre=True takes the mean off",
        )
    ]


def serial_sign(x: FloatArray) -> list[Sign]:
    """Test by products of signs whether neighbours depend on each other."""
    above = x > np.median(x[:: -(-x.size // _ENOUGH)])
    level = 2 * int(np.count_nonzero(above)) / x.size - 1
    for lag in _LAGS:
        unlike = int(np.count_nonzero(above[lag:] ^ above[:-lag]))
        r = 1 - 2 * unlike / (x.size - lag) - level * level
        if abs(r) > max(_SERIAL, CERTAIN / math.sqrt(x.size - lag)):
            way = "small" if r > 0 else "large"
            return [
                (
                    "dependence",
                    f"neighbours depend on each other (signs {lag} apart correlate by {r:+.3f}), which makes "
                    f"alpha too {way}; the error supposes independence",
                )
            ]
    return []


def scales_sign(x: FloatArray, shortest: int = 16) -> list[Sign]:
    """Test whether scale varies along the array, by means of log magnitudes over runs of it."""
    means = np.abs(x)
    np.log(means, out=means)
    means -= means.mean()
    squares = means * means
    variance = float(squares.sum()) / x.size
    if variance <= 0:
        return []
    excess = float(squares @ squares) / x.size / variance**2 - 3
    run, longer = 1, shortest
    while x.size // (run * longer) >= _FEWEST_RUNS:
        m = means.size // longer
        means = means[: m * longer].reshape(m, longer).mean(axis=1)
        run, longer = run * longer, 16
        between = float(means.var()) * m / (m - 1)
        scale = between - variance / run
        chance = variance / run * math.sqrt(2 / (m - 1) + max(excess, 0.0) / (run * m))
        if scale > max(_SCALES, CERTAIN * chance):
            return [
                (
                    "scale mixture",
                    f"scale mixture: from run to run of {run} values the scale moves by a factor of "
                    f"{math.exp(math.sqrt(scale)):.3g} (one standard deviation), and values of mixed scales "
                    "read as a smaller alpha than any of them has",
                )
            ]
    return []


def spike_sign(x: FloatArray) -> list[Sign]:
    """Look for a value that too many share."""
    some = x[: 1 << 17]
    values, counts = np.unique(some, return_counts=True)
    top = int(counts.argmax())
    if counts[top] <= max(_SPIKE * some.size, 3):
        return []
    return [
        (
            "ties",
            f"ties: {100 * counts[top] / some.size:.3g} % of the values are {values[top]:.4g}, "
            f"{values.size} distinct",
        )
    ]


def curve_sign(curve: BlockCurve | None) -> list[Sign]:
    """Say that alpha moves with the size of blocks."""
    if curve is None or curve.pvalue > _PVALUE:
        return []
    first, last = (1 / s if s > 0 else math.inf for s in curve.steps[[0, -1]].tolist())
    return [
        (
            "not stable",
            f"sums grow by alpha {first:.3g} up to blocks of {curve.k1[0]} and by {last:.3g} from blocks of "
            f"{curve.k1[-2]} to {curve.k1[-1]} (p = {curve.pvalue:.1g} for one alpha): no stable law, but "
            "for instance a scale mixture of lighter-tailed values, a law of finite variance, or dependence",
        )
    ]


_RIVALS = {"quantiles": "quantiles", "characteristic": "the characteristic function"}


def rivals_sign(
    found: StableEstimate,
    rivals: Mapping[str, Control],
    across: Across | None = None,
    batch_scales: float = 0.0,
) -> list[Sign]:
    """Say that other estimators disagree, or each coordinate by itself over batches.

    ``batch_scales`` is the variance of the log scale of batches: a sum over coordinates of one batch grows as
    normal values do, whatever the batch's own scale is, and does not see heavy tails between batches.
    """
    error = max(found.stderr, found.observed_stderr) if found.freedom else found.stderr
    apart = {
        f"{_RIVALS[name]} {rival.alpha:.3g} +- {rival.stderr:.2g}": rival.alpha < found.alpha
        for name, rival in rivals.items()
        if abs(rival.alpha - found.alpha) > max(CERTAIN * math.hypot(error, rival.stderr), _APART)
    }
    if across is not None and across.below(found):
        own = across.control
        apart[f"each coordinate by itself over batches {own.alpha:.3g} +- {own.stderr:.2g}"] = True
    if not apart:
        return []
    text = f"sums of blocks say {found.alpha:.3g} +- {found.stderr:.2g}, {', '.join(apart)}"
    if batch_scales > _SCALES and all(apart.values()):
        return [
            (
                "batch scales",
                "batches are heavy-tailed, or their scales differ (by a factor of "
                f"{math.exp(math.sqrt(batch_scales)):.3g}, one standard deviation), and sums over "
                f"coordinates hide it: {text}",
            )
        ]
    return [
        (
            "not stable",
            f"estimators disagree: {text}: no single stable law, but for instance a scale mixture or a law "
            "of finite variance",
        )
    ]


@dataclass(frozen=True)
class Across:
    """Sums over batches of each coordinate by itself.

    Attributes
    ----------
    control : Control
    freedom : int
        Of its error: blocks of batches less one, since the coordinates of a batch may depend on each other.
    """

    control: Control
    freedom: int

    def below(self, found: StableEstimate) -> bool:
        """Whether alpha is below that of sums over coordinates, for sure; in 1 / alpha."""
        alpha = self.control.alpha
        if not (math.isfinite(alpha) and self.freedom > 0):
            return False
        other = max(found.inverse_stderr, found.observed_inverse_stderr if found.freedom else 0.0)
        error = math.hypot(self.control.stderr / alpha**2, other)
        surely = -float(special.stdtrit(self.freedom, _ACROSS))
        return 1 / alpha - found.inverse > max(surely * error, _EXPLAINED)


def spread_sign(found: StableEstimate) -> list[Sign]:
    """Say that blocks differ by more, or less, than the law and independence allow."""
    if found.freedom < 30 or not (found.inverse_stderr > 0 and found.observed_inverse_stderr > 0):
        return []
    ratio = found.observed_inverse_stderr / found.inverse_stderr
    # The kurtosis of log |Y| is 7 for a normal Y, and less for others.
    chance = CERTAIN * 0.5 * math.sqrt(7 / found.freedom)
    if abs(math.log(ratio)) < chance + _SPREADS:
        return []
    return [
        (
            "",
            f"by the spread of what was summed the error is {found.observed_stderr:.2g}, not the "
            f"{found.stderr:.2g} of independent stable values; the interval takes the larger",
        )
    ]


def mixture_sign(
    found: StableEstimate,
    controls: Mapping[str, Control],
    before: Mapping[str, tuple[float, float]] | None = None,
) -> list[Sign]:
    """Say how much of the distance from 2 the scales of the coordinates explain.

    In the order of the coordinates, or, where scales come in runs longer than blocks, in another one.
    ``before`` has, for each control, the alpha of the same values before they were standardised, and the
    standard error of the difference in 1 / alpha; by default that of ``found``, and of independent errors.
    """
    before = {} if before is None else before
    for name, said, order in (
        ("standardised", found.alpha, ""),
        ("standardised_shuffled", math.nan, "in another order, "),
    ):
        own = controls.get(name)
        if own is None:
            return []
        said = controls["shuffled"].alpha if order else said
        mixed, error = before.get(name, (said, math.nan))
        if _moved(mixed, own, error):
            break
    else:
        return []
    moved, whole = 1 / mixed - 1 / own.alpha, 1 / mixed - 0.5
    share = min(moved / whole, 1.0) if whole > 0 else 1.0
    same = controls.get("gaussian_typical") or controls.get("gaussian")
    beside = f", and normal values of the same sizes give {same.alpha:.3g}" if same and not order else ""
    return [
        (
            "scale mixture",
            f"scale mixture: {order}standardised by coordinate alpha is {own.alpha:.3g} in the place of "
            f"{said:.3g}{beside}: mixed scales explain {100 * share:.0f} % of the distance from 2",
        )
    ]


def _moved(mixed: float, own: Control, error: float) -> bool:
    """Whether a control has a larger alpha for sure."""
    if not (math.isfinite(own.alpha) and math.isfinite(mixed)):
        return False
    if not math.isfinite(error):
        error = 2 * own.stderr / own.alpha**2
    return 1 / mixed - 1 / own.alpha > max(CERTAIN * error, _EXPLAINED)


def order_sign(before: Control, after: Control, paired: float) -> list[Sign]:
    """Say that the order of the coordinates matters, which it does not where they are independent.

    ``paired`` is the standard error of the difference in 1 / alpha.
    """
    moved = 1 / before.alpha - 1 / after.alpha
    error = paired if math.isfinite(paired) else 2 * before.stderr / before.alpha**2
    if not abs(moved) > max(CERTAIN * error, _EXPLAINED):
        return []
    return [
        (
            "dependence",
            f"neighbouring coordinates depend on each other: in another order alpha is {after.alpha:.3g} in "
            f"the place of {before.alpha:.3g} ({after.what})",
        )
    ]


def common_sign(sides: FloatArray) -> list[Sign]:
    """Test whether the coordinates of a batch lean to one side together, whatever their order.

    ``sides`` are sums of the signs of each row over its standard deviation, normal where independent.
    """
    total = float(sides @ sides)
    if special.chdtrc(sides.size, total) > _PVALUE or total < 1.5 * sides.size:
        return []
    return [
        (
            "dependence",
            "coordinates of one batch have a part in common (their signs agree more than independent ones "
            "would), which sums of blocks take for a smaller alpha",
        )
    ]


@dataclass(frozen=True)
class Looked:
    """Findings in a word each, without repeats, and warnings."""

    findings: tuple[str, ...]
    warnings: tuple[str, ...]


def gathered(signs: list[Sign]) -> Looked:
    """Join signs."""
    words = dict.fromkeys(word for word, _ in signs if word)
    return Looked(tuple(words), tuple(text for _, text in signs))


def array_signs(x: npt.NDArray[np.floating], curve: BlockCurve | None) -> list[Sign]:
    """Look at a flat array of nonzero values."""
    own = x.astype(np.float64, copy=False)
    serial = serial_sign(own)
    # Neighbours that depend on each other have sizes that do: runs must be long beside that memory.
    scales = scales_sign(own, 256 if serial else 16)
    return [*sides_sign(own), *serial, *scales, *spike_sign(own), *curve_sign(curve)]
