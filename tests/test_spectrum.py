"""The covariance spectrum: exact rows against numpy, sketches against exact rows, intervals against laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tails import has

from gradtail.estimators import covariance_spectrum
from gradtail.states.hashing import tensor_key
from gradtail.states.projection import sketch_map


def rows_of(seed, steps=60, size=40, mean=1.0):
    rng = np.random.default_rng(seed)
    return mean + rng.standard_normal((steps, size)) * np.arange(1, size + 1) ** -0.5


def count_sketch(rng, size, buckets):
    """A sketch by itself: a bucket and a sign for each coordinate, drawn at random."""
    bucket, sign = rng.integers(0, buckets, size), rng.choice([-1.0, 1.0], size)
    return lambda x: np.array([np.bincount(bucket, sign * row, buckets) for row in x])


def rot8(seed, size, buckets):
    """The library's own map."""
    bucket, sign = sketch_map(tensor_key(seed, "a"), np.arange(size), buckets)
    return lambda x: np.array([np.bincount(bucket, sign * row, buckets) for row in x])


@pytest.mark.parametrize(("steps", "size"), [(60, 40), (30, 200), (5, 3), (2, 7)])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_exact_rows_equal_the_explicit_covariance(steps, size, mean):
    x = rows_of(1, steps, size, mean)
    found = covariance_spectrum(x)
    explicit = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1]
    assert found.eigenvalues == pytest.approx(explicit[: min(steps - 1, size)], rel=1e-6, abs=1e-9)
    assert found.trace == pytest.approx(explicit.sum(), rel=1e-9)
    assert (found.centred, found.steps, found.size, found.sketched) == (True, steps, size, False)
    second = covariance_spectrum(x, centred=False)
    explicit = np.linalg.eigvalsh(x.T @ x / steps)[::-1]
    assert second.eigenvalues == pytest.approx(explicit[: min(steps, size)], rel=1e-6, abs=1e-9)
    assert second.trace == pytest.approx(explicit.sum(), rel=1e-9)
    if steps > 10:
        assert covariance_spectrum(x, top=3).eigenvalues == pytest.approx(found.eigenvalues[:3], rel=1e-12)


def test_squared_trace_is_the_sum_over_distinct_steps():
    x = rows_of(2, 7, 5, mean=3.0)
    g, steps = x @ x.T, range(7)
    one = np.mean([g[i, j] ** 2 for i in steps for j in steps if i != j])
    two = np.mean([g[i, j] * g[j, k] for i in steps for j in steps for k in steps if len({i, j, k}) == 3])
    four = np.mean(
        [
            g[i, j] * g[k, m]
            for i in steps for j in steps for k in steps for m in steps
            if len({i, j, k, m}) == 4
        ]
    )  # fmt: skip
    found = covariance_spectrum(x)
    assert found.inverse_ratio == pytest.approx((one - 2 * two + four) / found.trace**2, rel=1e-9)
    assert covariance_spectrum(x, centred=False).inverse_ratio == pytest.approx(
        one / np.mean(np.diag(g)) ** 2, rel=1e-12
    )


@given(exponent=st.integers(-400, 400), seed=st.integers(0, 5), centred=st.booleans())
def test_scaling_by_powers_of_two_is_exact(exponent, seed, centred):
    x = rows_of(seed, 12, 6)
    one = covariance_spectrum(x, centred=centred)
    other = covariance_spectrum(np.ldexp(x, exponent), centred=centred)
    assert np.array_equal(np.ldexp(one.eigenvalues, 2 * exponent), other.eigenvalues)
    assert np.array_equal(np.ldexp(one.stderr, 2 * exponent), other.stderr, equal_nan=True)
    assert np.ldexp(one.trace, 2 * exponent) == other.trace
    assert one.participation_ratio == other.participation_ratio


@given(seed=st.integers(0, 30))
def test_order_of_steps_and_rotations_leave_the_eigenvalues(seed):
    x, rng = rows_of(seed, 25, 10), np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    one = covariance_spectrum(x)
    for other in (covariance_spectrum(x[rng.permutation(25)]), covariance_spectrum(x @ rotation)):
        assert other.eigenvalues == pytest.approx(one.eigenvalues, rel=1e-9)
        assert other.trace == pytest.approx(one.trace, rel=1e-12)
        assert other.participation_ratio == pytest.approx(one.participation_ratio, rel=1e-9)
    shifted = covariance_spectrum(x + 7.0)
    assert shifted.eigenvalues == pytest.approx(one.eigenvalues, rel=1e-9)


def test_intervals_cover_a_known_law():
    """Gaussian rows of few directions and more steps: eigenvalues, trace and ratio of the law."""
    rng = np.random.default_rng(3)
    law = np.arange(1, 31.0) ** -1.2
    ratio = law.sum() ** 2 / (law**2).sum()
    hits, repeats = np.zeros(4), 120
    for _ in range(repeats):
        found = covariance_spectrum(2 + rng.standard_normal((150, 30)) * np.sqrt(law))
        low, high = found.ci()
        ends = [(low[i], high[i], law[i]) for i in (0, 2)]
        ends += [(*found.trace_ci(), law.sum()), (*found.participation_ratio_ci(), ratio)]
        hits += [low <= value <= high for low, high, value in ends]
    assert np.all(hits / repeats >= 0.88), hits / repeats
    assert np.mean(hits / repeats) >= 0.92


LAWS = {
    "power law": np.arange(1, 3001.0) ** -1.0,
    "white": np.ones(3000),
    "low rank and noise": np.where(np.arange(3000) < 4, 600.0 / np.arange(1, 3001), 0.2),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("mean", [0.0, 5.0])
def test_sketched_eigenvalues_are_within_their_errors(name, known, mean):
    rng, law = np.random.default_rng(4), LAWS[name]
    held, ratios, repeats = [], [], 30
    for _ in range(repeats):
        x = mean * np.sqrt(law.mean()) + rng.standard_normal((48, law.size)) * np.sqrt(law)
        exact = covariance_spectrum(x)
        norms = np.linalg.norm(x, axis=1) if known else None
        found = covariance_spectrum(count_sketch(rng, law.size, 512)(x), norms, sketched=True)
        held.append(np.abs(found.eigenvalues - exact.eigenvalues) <= 1.96 * found.sketch_stderr)
        error = abs(found.trace - exact.trace)
        held[-1] = np.append(held[-1], error <= 1.96 * found.trace_sketch_stderr)
        ratios.append(found.inverse_ratio)
    shares = np.mean(held, axis=0)
    assert shares[:10].mean() >= 0.93
    assert shares.mean() >= 0.93
    assert shares[-1] >= 0.85
    # without bias: neither by the steps nor by the buckets, though the ratio may be larger than both
    truth = (law**2).sum() / law.sum() ** 2
    assert np.mean(ratios) == pytest.approx(truth, abs=3.5 * np.std(ratios) / np.sqrt(repeats))


def test_the_sketch_of_the_library_is_one():
    rng = np.random.default_rng(5)
    x = 0.5 + rng.standard_normal((64, 5000)) * np.arange(1, 5001) ** -0.7
    exact = covariance_spectrum(x)
    held, ratio = [], []
    for seed in range(25):
        found = covariance_spectrum(rot8(seed, 5000, 512)(x), np.linalg.norm(x, axis=1))
        held.append(np.abs(found.eigenvalues - exact.eigenvalues) <= 1.96 * found.sketch_stderr)
        ratio.append(found.inverse_ratio)
    assert np.mean(held, axis=0)[:10].mean() >= 0.9
    assert np.mean(held) >= 0.9
    assert np.mean(ratio) == pytest.approx(exact.inverse_ratio, rel=0.1)


def test_second_moment_of_sketches():
    rng = np.random.default_rng(6)
    held = []
    for _ in range(60):
        x = 3 + rng.standard_normal((40, 400))
        exact = covariance_spectrum(x, centred=False, top=1)
        norms = np.linalg.norm(x, axis=1)
        found = covariance_spectrum(count_sketch(rng, 400, 256)(x), norms, centred=False, top=1)
        assert found.trace == pytest.approx(np.mean(norms**2), rel=1e-12)
        assert found.trace_sketch_stderr == 0
        apart = abs(found.inverse_ratio - exact.inverse_ratio)
        held.append(
            [
                apart <= 1.96 * found.inverse_ratio_sketch_stderr,
                abs(found.eigenvalues[0] - exact.eigenvalues[0]) <= 1.96 * found.sketch_stderr[0],
            ]
        )
    assert np.mean(held, axis=0).min() >= 0.88


def test_stderr_has_two_parts():
    x = rows_of(7, 64, 300)
    found = covariance_spectrum(
        count_sketch(np.random.default_rng(0), 300, 128)(x), np.linalg.norm(x, axis=1)
    )
    both = np.hypot(found.sampling_stderr, found.sketch_stderr)
    assert np.array_equal(found.stderr, both, equal_nan=True)
    assert np.all(found.sketch_stderr > 0)
    assert np.all(covariance_spectrum(x).sketch_stderr == 0)
    low, high = found.ci()
    inside = ~np.isnan(found.stderr)
    assert np.all((low < found.eigenvalues) & (found.eigenvalues < high) | ~inside)
    narrow = found.ci(0.5)
    assert np.all((narrow[0] >= low) & (narrow[1] <= high) | ~inside)


def test_warnings():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((40, 500))
    assert has(covariance_spectrum(x), "directions in 40 steps the largest eigenvalues may be up to")
    line = np.linspace(-1, 1, 40)[:, None]
    assert has(covariance_spectrum(x + 3 * line), "the mean gradient moved over these steps")
    assert not has(covariance_spectrum(x), "moved")
    assert has(covariance_spectrum(x[:3]), "3 steps are few")
    assert has(covariance_spectrum(x[:2]), "too few for a standard error")
    sketch = count_sketch(rng, 500, 128)(x)
    assert has(
        covariance_spectrum(sketch, np.linalg.norm(x, axis=1)),
        "only 128 buckets, all that a stream keeps of one group",
    )
    low_rank = rng.standard_normal((100, 2)) @ rng.standard_normal((2, 50))
    assert covariance_spectrum(low_rank).warnings == ()


def allowed(found):
    """Most directions that the trace and the largest eigenvalue of these steps leave room for."""
    return (found.trace / found.eigenvalues[0]) ** 2


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("sketched", [True, False])
def test_one_large_step_makes_no_impossible_ratio(centred, sketched):
    """The U-statistic gave an infinite ratio, or a million directions of a gradient of 4000 elements."""
    rng = np.random.default_rng(12)
    for _ in range(2):
        x = rng.standard_normal((64, 4000))
        x[13] *= 20
        rows, norms = (rot8(1, 4000, 1024)(x), np.linalg.norm(x, axis=1)) if sketched else (x, None)
        found = covariance_spectrum(rows, norms, centred=centred, dimension=4000, steps=100 + np.arange(64))
        assert found.basis == "sample"
        assert has(found, "step 113 alone carries 8")
        assert has(found, "no estimate of what other steps would give")
        assert not has(found, "too large and the smallest")
        low, high = found.participation_ratio_ci()
        assert 1 <= low <= found.participation_ratio <= high <= allowed(found) * (1 + 1e-9)
        assert found.participation_ratio < 2
        assert found.largest_share > 0.8
    if not sketched:
        values = found.eigenvalues
        assert found.participation_ratio == pytest.approx(values.sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("centred", [True, False])
def test_warm_up_is_told(centred):
    """Norms that fall to their level in the first steps, as in training: they carry the trace."""
    rng, t = np.random.default_rng(13), np.arange(150)
    law = np.arange(1, 2001) ** -0.5
    for height in (8, 30):
        x = (1 + height * np.exp(-t / 5))[:, None] * rng.standard_normal((150, 2000)) * law
        found = covariance_spectrum(x, centred=centred)
        assert found.basis == "sample"
        assert has(found, "of 150 steps (")
        assert has(found, "as in a warm-up")
        assert found.participation_ratio <= allowed(found)
        assert found.participation_ratio_ci()[1] <= allowed(found)
        after = covariance_spectrum(x[40:], centred=centred)
        assert after.basis == "law"
        assert after.participation_ratio == pytest.approx((law**2).sum() ** 2 / (law**4).sum(), rel=0.3)


@pytest.mark.parametrize(("steps", "size"), [(20, 1), (64, 1), (20, 3), (40, 10), (64, 2000), (8, 500)])
def test_steps_of_one_law_keep_the_ratio_of_the_law(steps, size):
    rng, repeats = np.random.default_rng(14), 35
    found = [covariance_spectrum(rng.standard_normal((steps, size)), top=1) for _ in range(repeats)]
    assert sum(one.basis == "sample" for one in found) <= 0.03 * repeats
    ratios = np.array([one.participation_ratio for one in found])
    assert np.all(ratios <= size)
    assert np.median(ratios) == pytest.approx(size, rel=0.1)
    # norms that scatter as those of most runs do
    x = np.exp(0.2 * rng.standard_normal(steps))[:, None] * rng.standard_normal((steps, size))
    assert covariance_spectrum(x).basis == "law"


def test_no_more_directions_than_elements():
    rng = np.random.default_rng(15)
    for seed in range(6):
        x = rng.standard_normal((24, 3000))
        found = covariance_spectrum(rot8(seed, 3000, 512)(x), np.linalg.norm(x, axis=1), dimension=3000)
        assert found.participation_ratio <= found.participation_ratio_ci()[1] <= 3000 == found.most_directions
        assert found.is_open == (found.inverse_ratio <= 0)
    with pytest.raises(ValueError, match="dimension: expected a positive int, got 0"):
        covariance_spectrum(x, dimension=0)
    with pytest.raises(TypeError, match=r"dimension: expected a positive int, got 2\.5"):
        covariance_spectrum(x, dimension=2.5)
    with pytest.raises(ValueError, match=r"steps: expected shape \(24,\), got \(3,\)"):
        covariance_spectrum(x, steps=[1, 2, 3])


def test_numbers_of_steps_go_with_the_rows_that_are_left():
    x = np.random.default_rng(16).standard_normal((40, 300))
    x[20] *= 30
    x[3, 0] = np.nan
    assert has(covariance_spectrum(x, steps=10 * np.arange(40)), "step 200 alone carries")


def test_shown_in_a_few_words():
    x = np.random.default_rng(17).standard_normal((40, 300))
    found = covariance_spectrum(x)
    assert len(repr(found)) < 200
    assert "array" not in repr(found)
    assert "participation ratio" in str(found)
    x[7] *= 50
    assert "participation ratio of these steps" in str(covariance_spectrum(x))
    assert "participation ratio not known" in str(covariance_spectrum(x[:3]))


def test_a_moving_mean_is_seldom_seen_where_there_is_none():
    rng = np.random.default_rng(9)
    alarms = 0
    for _ in range(150):
        x = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 50))
        alarms += has(covariance_spectrum(x, top=1), "moved")
    assert alarms <= 6


def test_steps_that_are_not_finite_are_left_out():
    x = rows_of(10)
    broken = x.copy()
    broken[3, 5], broken[17, 0] = np.nan, -np.inf
    found = covariance_spectrum(broken)
    assert np.array_equal(found.eigenvalues, covariance_spectrum(np.delete(x, [3, 17], axis=0)).eigenvalues)
    assert (found.nonfinite, found.steps) == (2, 58)
    assert has(found, "2 steps with NaN or infinite values")
    norms = np.linalg.norm(x, axis=1)
    norms[4] = np.nan
    assert covariance_spectrum(x, norms).nonfinite == 1


def test_zero_gradients():
    found = covariance_spectrum(np.zeros((10, 4)))
    assert not found.eigenvalues.any()
    assert found.trace == 0
    assert np.isnan(found.participation_ratio)
    assert found.trace_ci() == (0.0, 0.0)
    assert np.isnan(found.participation_ratio_ci()).all()
    covariance_spectrum(np.zeros((10, 4)), np.zeros(10))
    str(found)


def test_float32_and_wide_rows():
    x = rows_of(11, 10, 70_000).astype(np.float32)
    assert covariance_spectrum(x).trace == pytest.approx(x.astype(float).var(axis=0, ddof=1).sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 2.0],), ValueError, r"vectors: expected shape \(steps, m\)"),
        ((np.ones((3, 0)),), ValueError, r"vectors: expected shape \(steps, m\)"),
        ((np.ones((1, 3)),), ValueError, "vectors: expected at least 2 steps with finite values, got 1"),
        (
            (np.full((5, 3), np.nan),),
            ValueError,
            "at least 2 steps with finite values, got 0, and 5 with NaN",
        ),
        ((np.ones((3, 2), complex),), TypeError, "vectors: expected an array of real numbers, got dtype"),
        ((np.ones((3, 2)), np.ones(2)), ValueError, r"norms: expected shape \(3,\), got \(2,\)"),
        ((np.ones((3, 2)), -np.ones(3)), ValueError, "norms: expected numbers of at least 0, got -1"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        covariance_spectrum(*arguments)


def test_top_is_at_most_the_rank():
    x = np.random.default_rng(0).standard_normal((5, 9))
    with pytest.raises(ValueError, match="top: expected an int from 1 to 4, the rank of these steps, got 5"):
        covariance_spectrum(x, top=5)
    assert covariance_spectrum(x, top=5, centred=False).eigenvalues.size == 5
    with pytest.raises(TypeError, match="top: expected an int"):
        covariance_spectrum(x, top=2.0)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        covariance_spectrum(x).ci(1.0)
