"""How batches were drawn, from their examples: sound samplers, broken ones, bounded memory, false alarms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradtail import batch_order
from gradtail.estimators import batch_chances
from gradtail.states.batch_log import BatchLog, is_followed

N, S, M = 600, 30, 20


def drawn(rng, policy, epochs, n=N, size=S, drop=False):
    """Batches of whole epochs, the last of each short, or left out."""
    order, batches = rng.permutation(n), []
    for _ in range(epochs):
        if policy == "reshuffle":
            order = rng.permutation(n)
        elif policy == "replacement":
            order = rng.integers(0, n, n)
        some = [order[i : i + size] for i in range(0, n, size)]
        batches += [rng.permutation(batch) for batch in some if len(batch) == size or not drop]
    return batches


@pytest.mark.parametrize("policy", ["reshuffle", "replacement", "fixed"])
@pytest.mark.parametrize("told", [{}, {"period": M}, {"examples": N}])
def test_three_ways_are_told_apart(policy, told):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        skipped = int(rng.integers(M)) if seed else 0
        found = batch_order(drawn(rng, policy, 5)[skipped:], **told)
        assert found.verdict == policy, str(found)
        assert (found.faults, found.period) == ((), M)
        assert found.chance <= 1e-6
        if policy == "reshuffle":
            assert (found.phase, found.repeated) == ((-skipped) % M, 0)
        if "examples" in told and policy != "replacement":
            assert found.unseen == 0


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 300),
    size=st.integers(1, 40),
    epochs=st.integers(1, 6),
    policy=st.sampled_from(["reshuffle", "replacement", "fixed"]),
    drop=st.booleans(),
    told=st.booleans(),
)
@settings(max_examples=150)
def test_no_sound_sampler_is_called_broken(seed, n, size, epochs, policy, drop, told):
    rng = np.random.default_rng(seed)
    size = min(size, n)
    batches = drawn(rng, policy, epochs, n, size, drop)
    skipped = int(rng.integers(len(batches)))
    period = n // size if drop else math.ceil(n / size)
    found = batch_order(batches[skipped:], examples=n, period=period if told else None)
    assert found.verdict != "broken", str(found)
    if found.verdict is not None and n > 2 * size:
        assert found.verdict == policy


def faults(batches, **told):
    found = batch_order(batches, **told)
    assert found.verdict == "broken", str(found)
    assert "broken sampler" in str(found)
    return " ".join(found.faults)


def test_broken_samplers():
    rng = np.random.default_rng(1)
    sound = drawn(rng, "reshuffle", 3)
    twice = [batch for batch in sound for _ in range(2)]
    assert faults(twice).startswith(
        "60 batches have the same examples as an earlier one, as steps 0 and 1: wor"
    )
    halves = [np.concatenate([batch[:15], batch[:15]]) for batch in sound]  # two workers of one seed
    assert faults(halves).startswith("900 times an example is in its batch already, first in that of step 0")
    part = drawn(rng, "reshuffle", 6, n=500)
    assert "100 of 600 examples never came in 3000 draws" in faults(part, examples=600)
    assert "the index 600 is none of 600 examples" in faults([*sound, [600]], examples=600)
    once = list(sound)
    once[13] = once[4]
    assert "1 batches have the same examples as an earlier one, as steps 4 and 13" in faults(once)
    some = [batch.copy() for batch in sound]  # 2 examples of each batch were in the one before
    for before, batch in zip(sound, some[1:], strict=False):
        batch[:2] = before[-2:]
    assert "again within an epoch of 20 batches: never" in faults(some, period=M)
    order = drawn(rng, "fixed", 4)
    assert "the same 20 batches come 2 times in an epoch" in faults(order, period=2 * M)


def resumed(rng, whole, part, n=2000, size=20):
    """Whole epochs, one that is broken off, and whole ones again."""
    one = drawn(rng, "reshuffle", whole + 1, n, size)
    return one[: whole * (n // size) + part] + drawn(rng, "reshuffle", whole, n, size)


@pytest.mark.parametrize(("whole", "part"), [(3, 40), (3, 10), (20, 73), (0, 40)])
def test_interrupted_epochs_are_no_fault(whole, part):
    found = batch_order(resumed(np.random.default_rng(part), whole, part), period=100)
    assert found.verdict != "broken", str(found)
    if whole:
        assert (found.verdict, found.chance) == (None, 1.0)
        assert "epochs that were broken off and begun anew do so" in str(found)


@pytest.mark.parametrize("kept", [10, 25, 50])
def test_epochs_always_broken_off_are_no_fault(kept):
    rng = np.random.default_rng(kept)
    epochs = [drawn(rng, "reshuffle", 1, 2000, 20)[:kept] for _ in range(6000 // kept)]
    found = batch_order([batch for epoch in epochs for batch in epoch], period=100, examples=2000)
    assert found.verdict != "broken", str(found)


@pytest.mark.parametrize("skipped", [0, 37])
@pytest.mark.parametrize("epochs", [3, 100])
def test_padding_of_ranks_is_no_fault(skipped, epochs):
    """Indices of 4 ranks that are filled up with the first of the epoch, as torch's distributed sampler."""
    rng, batches = np.random.default_rng(skipped), []
    for _ in range(epochs):
        order = rng.permutation(2003)
        order = np.append(order, order[:1])
        batches += [order[i : i + 20] for i in range(0, 2004, 20)]
    found = batch_order(batches[skipped:], period=101)
    assert found.verdict is None
    assert "padding of the last batch?" in str(found)
    half = batches[: 101 * (epochs // 2) + 40] + batches[101 * (epochs // 2 + 1) :]  # and broken off
    assert batch_order(half[skipped:], period=101).verdict is None


def test_unequal_chances_are_no_fault():
    rng = np.random.default_rng(2)
    p = np.arange(1, N + 1) / np.arange(1, N + 1).sum()
    found = batch_order([rng.choice(N, S, p=p) for _ in range(400)], period=M)
    assert found.verdict is None
    assert "some examples come more often than by chance" in str(found)


@pytest.mark.parametrize("few", [20, 1000])
@pytest.mark.parametrize(
    ("steps", "size"), [(1, 1000), (2, 1000), (3, 20), (10, 20), (40, 20), (100, 20), (150, 20), (1000, 20)]
)
@pytest.mark.parametrize("told", [{}, {"examples": 2000, "period": 100}])
def test_weighted_samplers_are_no_fault(few, steps, size, told):
    """A half of the draws on a hundredth of the examples; nine tenths on a half of them."""
    share = 0.5 if few == 20 else 0.9
    p = np.where(np.arange(2000) < few, share / few, (1 - share) / (2000 - few))
    rng = np.random.default_rng(steps)
    for _ in range(3):
        found = batch_order(rng.permutation(2000)[rng.choice(2000, (steps, size), p=p)], **told)
        assert found.verdict != "broken", str(found)
    if steps == 1000:
        assert "weighted" in str(found)


def test_heavy_tailed_weights_are_no_fault():
    for seed in range(120):
        rng = np.random.default_rng(seed)
        n, size = int(rng.choice([100, 600, 2003, 10000])), int(rng.choice([8, 20, 64]))
        p = rng.pareto(rng.choice([0.3, 1.0, 3.0]), n) + 1e-3
        told = [{}, {"period": -(-n // size)}, {"period": -(-n // size), "examples": n}][seed % 3]
        found = batch_order(rng.choice(n, (int(rng.choice([3, 30, 200])), size), p=p / p.sum()), **told)
        assert found.verdict != "broken", str(found)


def test_weights_do_not_hide_faults():
    rng = np.random.default_rng(11)
    twice = [batch for batch in drawn(rng, "replacement", 3) for _ in range(2)]
    assert "have the same examples as an earlier one" in faults(twice, examples=N)
    halves = [np.concatenate([batch[:15], batch[:15]]) for batch in drawn(rng, "replacement", 3)]
    assert "an example is in its batch already" in faults(halves, examples=N)


def test_too_little_tells_nothing():
    rng = np.random.default_rng(3)
    for policy in ("reshuffle", "replacement"):
        found = batch_order(drawn(rng, policy, 1)[:3])
        assert (found.verdict, found.chance) == (None, 1.0)
        assert "cannot tell from these steps" in str(found)
    everything = batch_order([np.arange(50)] * 4)
    assert (everything.verdict, everything.period) == ("fixed", 1)
    assert "every batch is of the same examples" in str(everything)


def test_memory_is_bounded_and_what_is_followed_is_so_throughout():
    rng = np.random.default_rng(4)
    batches = drawn(rng, "reshuffle", 6)
    log, whole = BatchLog(most_steps=90, most_ids=500), BatchLog()
    for step, batch in enumerate(batches):
        log.add(step, batch)
        whole.add(step, batch)
    assert len(log.ids) <= 500
    assert len(log) <= 90
    assert log.dropped == 45
    assert log.halvings >= 2
    kept = is_followed(np.concatenate(batches[45:]), log.halvings)
    expected = [np.sort(b[is_followed(b, log.halvings)]) for b in batches[45:]]
    assert np.array_equal(log.ids, np.concatenate(expected))
    assert np.array_equal(log.counts, [len(b) for b in expected])
    assert kept.sum() == len(log.ids)
    assert np.array_equal(log.hashes, whole.hashes[45:])
    found = batch_order(log, period=M)
    assert (found.verdict, found.phase) == ("reshuffle", 15)
    assert "the 45 steps before are not kept" in str(found)
    assert f"the occurrences of {100 * 2.0**-log.halvings:.3g} % of the examples" in str(found)
    part = BatchLog(most_ids=500)
    for step, batch in enumerate(drawn(rng, "reshuffle", 8, n=300)):
        part.add(step, batch)
    missing = np.count_nonzero(is_followed(np.arange(300, 600), part.halvings))
    assert batch_order(part, examples=600).unseen == missing


def test_log_goes_back_and_is_saved():
    rng = np.random.default_rng(5)
    batches = drawn(rng, "reshuffle", 3)
    log = BatchLog()
    for step, batch in enumerate(batches):
        log.add(step, batch)
    log.cut(29)
    again = BatchLog.from_state_dict(log.state_dict())
    for one in (log, again):
        for step in range(30, 60):
            one.add(step, batches[step])
        assert batch_order(one, period=M) == batch_order(batches, period=M)
    for one in (log, again):
        one.add(60, [-7, 10**6])
        assert (one.smallest, one.largest) == (-7, 10**6)
        one.cut(59)
        assert (one.smallest, one.largest) == (0, N - 1)
        assert batch_order(one, period=M, examples=N).verdict == "reshuffle"
    few = BatchLog(most_steps=4)
    for step in range(100):
        few.add(step, [200 - step])
    few = BatchLog.from_state_dict(few.state_dict())
    few.cut(97)
    assert (few.dropped > 2, few.smallest, few.largest) == (True, 103, 200)
    log.add(59, [1, 1])
    assert (len(log), log.sizes[-1], log.repeated[-1]) == (60, 2, 1)
    empty = BatchLog.from_state_dict(BatchLog().state_dict())
    empty.add(0, [0])
    assert len(empty) == 1
    with pytest.raises(ValueError, match="state: expected rising steps and their examples"):
        BatchLog.from_state_dict({**log.state_dict(), "ids": np.zeros(1)})


def test_bounds_hold():
    """Against frequencies: hits within batches, examples left out, epochs without repetition."""
    rng = np.random.default_rng(6)
    x = rng.integers(0, 50, (4000, 10))
    hits = 10 - np.array([len(np.unique(row)) for row in x])
    for count in (2, 3, 4):
        assert np.mean(hits >= count) <= batch_chances.hits(count, 90 / 100) + 0.01
    left = np.array([50 - len(np.unique(row)) for row in rng.integers(0, 50, (4000, 200))])
    for count in (3, 4, 5):
        assert np.mean(left >= count) <= batch_chances.unseen(count, 50, 50, 200, 0, 0)
    bound = batch_chances.unseen(4, 50, 50, 200, 4, 25)
    left = [50 - len(set().union(*(rng.permutation(50)[:25] for _ in range(4)))) for _ in range(2000)]
    assert np.mean(np.array(left) >= 4) <= max(bound, batch_chances.unseen(4, 50, 50, 100, 0, 0))
    assert batch_chances.unseen(3, 50, 50, 10**6, 4, 2) < 1e-100
    assert batch_chances.equal(10, 6, 3) == pytest.approx(0.5)
    assert batch_chances.same_order(4, 1, 4, 4, 1) == pytest.approx(1 / 24)


REFUSED = [
    ({"batches": []}, ValueError, "batches: expected at least one, got none"),
    (
        {"batches": [[0.5]]},
        TypeError,
        "batch: expected the indices of the examples as ints, got dtype float64",
    ),
    ({"batches": [[]]}, TypeError, "batch: expected the indices of the examples as ints, got dtype float64"),
    ({"batches": [np.zeros(0, int)]}, ValueError, "batch: expected the indices of the examples, got none"),
    ({"period": 0}, ValueError, "period: expected an int of at least 1, got 0"),
    ({"examples": 2.0}, TypeError, "examples: expected an int of at least 1, got 2.0"),
    ({"level": 1}, ValueError, "level: expected a number between 0 and 1, got 1"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refused(changed, error, message):
    given_ = {"batches": [[1, 2]]} | changed
    with pytest.raises(error, match=message):
        batch_order(given_.pop("batches"), **given_)
