"""What someone who trains should know first, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gradtail.report import laws_text, noise_text, words
from gradtail.report.words import Row

Level = Literal["bad", "note", "good"]

_SPIKE = 5.0  # a step whose norm is so many times the median is worth a look
_CLIPS_MOST = 0.5  # share of the steps from which clipping is no exception
_COSTLY = 0.05  # overhead in step times from which it is more than noise


@dataclass(frozen=True)
class Finding:
    """One sentence of the headline."""

    level: Level
    title: str
    text: str


def findings(data: dict[str, Any]) -> list[Finding]:
    """Read the headline out of a report's data, the most urgent sentence first."""
    if data["run"]["steps"] == 0:
        return [Finding("note", "Nothing observed", "The stream has not seen a step yet.")]
    found = [
        _nonfinite(data), _tails(data), _laws(data), _norm(data), _clipping(data), _spectrum(data),
        _loss(data), _overhead(data), _frozen(data), _zeros(data),
    ]  # fmt: skip
    present = [one for one in found if one is not None]
    return sorted(present, key=lambda one: one.level != "bad")


def _nonfinite(data: dict[str, Any]) -> Finding:
    bad, first = data["nonfinite"], data["nonfinite"]["first"]
    if not bad["values"]:
        text = f"No NaN and no infinity among {words.count(data['run']['values'])} values."
        return Finding("good", "All values finite", text)
    where = words.plural(bad["layers"], "layer")
    worst = max(data["layers"], key=lambda row: row["nonfinite"])
    text = f"{bad['values']:,} NaN or infinite values in {where}"
    text += f", most in {worst['name']} ({worst['nonfinite']:,})."
    if first is not None:
        text += f" The first came at step {first['step']}, in {first['name']}, element {first['index']:,}."
    return Finding("bad", "Non-finite gradients", text + " The other numbers here leave them out.")


def _tails(data: dict[str, Any]) -> Finding:
    rows = sorted(data["layers"], key=words.heaviness)
    estimates = [(row, row["tails"]["both"]) for row in rows]
    sliding = sum(tail is not None and tail["plateau"] is False for _, tail in estimates)
    quoted = [(row, tail) for row, tail in estimates if words.is_index(tail)]
    enough = [(row, tail) for row, tail in quoted if not words.is_small(tail)]
    told = [(row, tail) for row, tail in enough if tail["plateau"]]
    layers = words.plural(len(rows), "layer")
    rest = f" {sliding} of {layers} have no plateau: no index is quoted for them." if sliding else ""
    if not quoted:
        text = f"No tail index can be quoted for any of {layers}.{rest}"
        return Finding("note", "No power-law tail found", text)
    if not told:
        text = f"The heaviest may be {_one_tail(enough[0][0])}, but no" if enough else "No"
        text += " layer has enough values to tell."
        return Finding("note", "Too few values for a verdict", f"{text}{rest} {how_sure(data)}")
    named = "; ".join(_one_tail(row) for row, _ in told[:3])
    below = [sum(_surely_below(tail, limit) for _, tail in told) for limit in (words.HEAVY, words.LIGHT)]
    text = f"{named}. {told[0][0]['name']} is {words.what_alpha_means(told[0][1])}."
    text += f" Power laws below 2 for sure: {below[0]} of {layers}; below 4: {below[1]}."
    title = "Infinite-variance tails" if below[0] else "Heavy tails" if below[1] else "Mild tails"
    return Finding("note" if below[1] else "good", title, f"{text}{rest} {how_sure(data)}{_whole(data)}")


def _whole(data: dict[str, Any]) -> str:
    """Say what the tail of the whole model is worth."""
    tail, mixed = data["whole"]["tails"]["both"], words.mixture(data["whole"])
    if not mixed or not words.is_index(tail):
        return ""
    return f" Whole model: α = {words.alpha_text(tail)}, but {mixed}."


def _one_tail(row: Row) -> str:
    tail = row["tails"]["both"]
    return f"{row['name']}: α = {words.alpha_text(tail)} ({words.interval_text(tail)})"


def _surely_below(tail: Row, limit: float) -> bool:
    high = tail["ci95"][1]
    return high is not None and high < limit


def how_sure(data: dict[str, Any]) -> str:
    """Say where the error bars come from."""
    tails = [tail for row in data["layers"] if (tail := row["tails"]["both"]) is not None]
    most = max((tail["blocks"] or 0 for tail in tails), default=0)
    if most:
        return f"Intervals are 95 %, from the spread between {most} blocks of steps."
    return "Intervals are 95 % by the iid formula (too few steps for better): read them as too narrow."


def _laws(data: dict[str, Any]) -> Finding | None:
    found = laws_text.headline(data)
    return None if found is None else Finding("good" if found[0] else "note", "Formal tests", found[1])


def _norm(data: dict[str, Any]) -> Finding | None:
    norm, history = data["whole"]["norm"], data["history"]
    if not norm["median"] or norm["max"] is None:
        return None
    ratio = norm["max"] / norm["median"]
    step = history["steps"][max(range(len(history["norm"])), key=lambda i: history["norm"][i] or 0.0)]
    text = f"Median {words.number(norm['median'])}, largest {words.number(norm['max'])} at step {step}"
    newest = "not finite" if norm["newest"] is None else words.number(norm["newest"])
    text += f" ({words.number(ratio, 2)} times the median), newest {newest}."
    calm = ratio <= _SPIKE and norm["newest"] is not None
    return Finding("good" if calm else "note", "Gradient norm", text)


def _clipping(data: dict[str, Any]) -> Finding | None:
    clip = data.get("clipping")
    if not clip:
        return None
    used = clip["in_use"]
    now = _in_use(used)
    if "why" in clip:
        if not now:
            return None
        return Finding("note", "Clipping", f"No threshold can be suggested: {clip['why']}.{now}")
    text = (
        f"A threshold of {words.number(clip['threshold'])}{words.range_text(clip['ci95'])} would clip about "
    )
    text += (
        f"{words.percent(clip['rate'])} of the steps ({words.percent_range(clip['rate_ci95'])}), if training "
    )
    text += f"goes on as in steps {clip['first_step']} to {clip['last_step']} ({clip['norms']} norms)."
    text += now
    for warning in clip["warnings"]:
        text += f" Warning: {warning}."
    most = used is not None and used["rate"] is not None and used["rate"] > _CLIPS_MOST
    if most:
        text += " Where most steps are clipped, their length is the threshold's and not the gradient's."
    return Finding("note" if most or clip["warnings"] else "good", "Clipping", text)


def _in_use(used: Row | None) -> str:
    if used is None:
        return ""
    said = f" max_norm = {words.number(used['max_norm'])} in use"
    if used["rate"] is None:
        return f"{said}: its clip rate is not known."
    share, norms = words.percent(used["rate"]), used["norms"]
    return (
        f"{said} clips {share} ({words.percent_range(used['rate_ci95'])}) "
        f"of steps {used['first_step']} to {used['last_step']} ({norms} norms)."
    )


def _spectrum(data: dict[str, Any]) -> Finding | None:
    found = data.get("spectrum")
    if not found:
        return None
    if "why" in found:
        return Finding("note", "Gradient noise", f"No spectrum of its covariance: {found['why']}.")
    return Finding("note" if found["warnings"] else "good", "Gradient noise", noise_text.headline(found))


def _loss(data: dict[str, Any]) -> Finding | None:
    loss = data["history"]["loss"]
    if not loss or not loss["steps"]:
        return None
    lost = [step for step, value in zip(loss["steps"], loss["values"], strict=True) if value is None]
    if lost:
        text = f"First at step {lost[0]}, in {words.plural(len(lost), 'step')} in all."
        return Finding("bad", "Loss not finite", text)
    (first, *_), (start, *_) = loss["values"], loss["steps"]
    last, end = loss["values"][-1], loss["steps"][-1]
    text = f"From {words.number(first)} at step {start} to {words.number(last)} at step {end}."
    return Finding("good" if last <= first else "note", "Loss", text)


def _overhead(data: dict[str, Any]) -> Finding | None:
    cost = data["overhead"]
    if not cost or not isinstance(cost.get("share"), (int, float)):
        return None
    text = f"Watching took {words.percent(cost['share'])} of the time"
    means, medians = (
        [cost.get(name) for name in names] for names in (("mean", "mean_step"), ("p50", "step"))
    )
    if all(isinstance(value, (int, float)) for value in means):
        inside, step = (words.duration(value) for value in means)
        text += f": on average {inside} of each step's {step}"
    elif all(isinstance(value, (int, float)) for value in medians):  # whose ratio is another
        inside, step = (words.duration(value) for value in medians)
        text += f"; the median call took {inside}, the median step {step}"
    return Finding("note" if cost["share"] > _COSTLY else "good", "Overhead", text + ".")


def _frozen(data: dict[str, Any]) -> Finding | None:
    still = [row["name"] for row in data["layers"] if row["count"] and row["zeros"] == row["count"]]
    if not still:
        return None
    more = f" and {len(still) - 3} more" if len(still) > 3 else ""
    text = f"All values were exactly zero in all steps in {', '.join(still[:3])}{more}: frozen, or cut off."
    return Finding("note", f"No gradient in {words.plural(len(still), 'layer')}", text)


def _zeros(data: dict[str, Any]) -> Finding | None:
    def share(row: Row) -> float:
        return float(row["zeros"] / row["count"]) if row["count"] else 0.0

    idle = sorted((row for row in data["layers"] if 0.5 < share(row) < 1), key=share, reverse=True)
    if not idle:
        return None
    named = ", ".join(f"{row['name']} ({words.percent(share(row))})" for row in idle[:3])
    more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
    return Finding("note", "Mostly zeros", f"More than half of the values are exactly zero in {named}{more}.")
