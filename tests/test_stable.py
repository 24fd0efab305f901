"""The stable index of an array: against its law, a plain version, planted explanations, and its error bar."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_samples import isotropic, planted, stable

import gradtail
from gradtail.estimators.log_sums import from_log_means, log_variance
from gradtail.estimators.stable.index import stable_index
from gradtail.estimators.stable.result import ENOUGH

MILLION = 10**6


def predicted(alpha, n):
    """Standard error of the reference: alpha^2 sqrt(v / K2) / log K1."""
    k1 = math.isqrt(n)
    v = math.pi**2 / 6 * (1 / alpha**2 + 0.5)
    return alpha**2 * math.sqrt(v / (n // k1)) / math.log(k1)


def by_hand(x, k1):
    """The estimator, block by block."""
    logs_x, logs_y = [], []
    for i in range(len(x) // k1):
        block = x[i * k1 : (i + 1) * k1]
        logs_x += [math.log(np.linalg.norm(v)) for v in block]
        logs_y.append(math.log(np.linalg.norm(np.sum(block, axis=0))))
    return math.log(k1) / (np.mean(logs_y) - np.mean(logs_x))


# The number.


@pytest.mark.parametrize(("n", "block"), [(100, None), (101, None), (997, 7), (1000, 500)])
def test_agrees_with_loops(n, block):
    x = np.random.default_rng(n).standard_t(2, n)
    found = stable_index(x, block)
    k1 = block or math.isqrt(n)
    assert (found.k1, found.k2, found.n) == (k1, n // k1, n)
    assert found.dropped == n - k1 * (n // k1)
    assert found.alpha == pytest.approx(by_hand(x[:, None], k1), rel=1e-12)


def test_vectors_agree_with_loops():
    x = np.random.default_rng(0).standard_cauchy((500, 3))
    assert stable_index(x, 11, vectors=True).alpha == pytest.approx(by_hand(x, 11), rel=1e-12)
    assert stable_index(x[:, :1], 11, vectors=True).alpha == stable_index(x[:, 0], 11).alpha
    assert stable_index(x, 11).n == 1500  # without being asked for vectors, scalars in C order
    assert stable_index(x, 11).alpha == stable_index(x.reshape(-1), 11).alpha


@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-30, 1e-3, 7.0, 1e30]),
    n=st.integers(200, 3000),
)
@settings(max_examples=30, deadline=None)
def test_neither_scale_nor_sign_matters(seed, scale, n):
    x = np.random.default_rng(seed).standard_t(1.7, n)
    found = stable_index(x, checks=False)
    for other in (stable_index(scale * x, checks=False), stable_index(-x, checks=False)):
        assert other.inverse == pytest.approx(found.inverse, abs=1e-10)
        assert other.stderr == pytest.approx(found.stderr, rel=1e-8)


def test_sums_beyond_the_largest_double():
    x = np.random.default_rng(0).standard_normal(10_000)
    huge = x / np.abs(x).max() * 1.7e308
    assert stable_index(huge).alpha == pytest.approx(stable_index(x).alpha, rel=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 1.8, 2.0])
def test_a_million_stable_values(alpha):
    found = stable_index(stable(alpha, MILLION, np.random.default_rng(int(100 * alpha))))
    assert abs(found.alpha - alpha) < 4 * predicted(alpha, MILLION)
    assert (found.k1, found.k2, found.dropped) == (1000, 1000, 0)
    assert found.stderr == pytest.approx(predicted(alpha, MILLION), rel=0.04)  # it is taken at the estimate
    assert found.observed_stderr == pytest.approx(found.stderr, rel=0.15)
    assert found.findings == found.warnings == ()
    for rival in ("quantiles", "characteristic"):
        control = found.controls[rival]
        assert abs(control.alpha - alpha) < 4.5 * control.stderr
        assert control.stderr < found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 1.8, 2.0])
def test_bias_and_error_over_forty_millions(alpha):
    rng = np.random.default_rng(12345)
    found = [stable_index(stable(alpha, MILLION, rng), checks=False) for _ in range(40)]
    alphas = np.array([one.alpha for one in found])
    assert abs(alphas.mean() - alpha) < 0.015
    assert alphas.std(ddof=1) == pytest.approx(predicted(alpha, MILLION), rel=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.8])
def test_coverage_and_false_alarms(alpha):
    """Over 400 samples of 1e5: 92 to 98 % of intervals hold, and at most 5 % of samples get a warning."""
    rng = np.random.default_rng(int(10 * alpha))
    found = [stable_index(stable(alpha, 10**5, rng)) for _ in range(400)]
    held = np.mean([one.ci()[0] <= alpha <= one.ci()[1] for one in found])
    assert 0.92 <= held <= 0.98
    assert np.mean([bool(one.warnings) for one in found]) <= 0.05


def test_coverage_of_small_samples():
    rng = np.random.default_rng(4)
    held = [
        low <= 1.5 <= high
        for low, high in (stable_index(stable(1.5, 2500, rng), checks=False).ci() for _ in range(600))
    ]
    assert 0.92 <= np.mean(held) <= 0.985  # binomial: +- 0.018 at two errors


def test_isotropic_vectors():
    rng = np.random.default_rng(5)
    found = stable_index(isotropic(1.5, 10**5, 10, rng), vectors=True)
    assert abs(found.alpha - 1.5) < 4 * found.stderr
    assert found.observed_stderr == pytest.approx(found.stderr, rel=0.25)  # Var log |X| knows the dimension
    assert found.findings == ()
    assert found.stderr < stable_index(stable(1.5, 10**5, rng)).stderr


def test_variance_of_log_magnitudes():
    rng = np.random.default_rng(6)
    for alpha in (0.8, 1.0, 1.5, 2.0):
        logs = np.log(np.abs(stable(alpha, 400_000, rng)))
        assert logs.var() == pytest.approx(log_variance(1 / alpha), rel=0.02)
        assert log_variance(1 / alpha) == pytest.approx(math.pi**2 / 6 * (1 / alpha**2 + 0.5))
    logs = np.log(np.linalg.norm(isotropic(1.2, 400_000, 4, rng), axis=1))
    assert logs.var() == pytest.approx(log_variance(1 / 1.2, 4), rel=0.02)


def test_means_of_logs_alone():
    x = np.random.default_rng(7).standard_cauchy(10_000)
    found = stable_index(x)
    blocks = x.reshape(100, 100)
    same = from_log_means(
        np.log(np.abs(x)).mean(), x.size, np.log(np.abs(blocks.sum(axis=1))).mean(), 100, 100
    )
    assert (same.alpha, same.stderr) == pytest.approx((found.alpha, found.stderr), rel=1e-12)
    assert math.isnan(from_log_means(0.0, 0, 0.0, 10, 0).alpha)
    assert from_log_means(1.0, 1000, 0.5, 10, 100).alpha == math.inf
    with pytest.raises(ValueError, match="k1: expected at least 2"):
        from_log_means(0.0, 10, 1.0, 1, 10)


def test_interval():
    found = stable_index(np.random.default_rng(8).standard_normal(1000))
    low, high = found.ci(0.5)
    wide = found.ci(0.95)
    assert wide[0] < low < found.alpha < high < wide[1]
    assert 1 / low - found.inverse == pytest.approx(found.inverse - 1 / high)  # linear in 1 / alpha
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        found.ci(95)
    alternating = np.tile([1.0, -1.0001], 5000) * np.random.default_rng(9).uniform(0.99, 1.01, 10_000)
    beyond = stable_index(alternating, 100)
    assert (beyond.alpha, beyond.ci()[1]) == (math.inf, math.inf)
    assert "dependence" in beyond.findings


# Zeros and what else is left out.


@pytest.mark.parametrize(
    ("share", "raw", "wide"), [(0.01, 1.85, 0.06), (0.1, 1.00, 0.03), (0.3, 0.497, 0.02)]
)
def test_zeros(share, raw, wide):
    rng = np.random.default_rng(10)
    x = np.where(rng.random(MILLION) < share, 0, rng.standard_normal(MILLION))
    found = stable_index(x)
    assert found.zeros == MILLION - np.count_nonzero(x)
    assert found.controls["zeros_kept"].alpha == pytest.approx(raw, abs=wide)
    assert found.alpha == pytest.approx(2, abs=0.07)
    assert found.findings == ("zeros",)
    assert "zeros are" in found.warnings[0]
    assert found.verdict.startswith("of what is not zero, normal values not excluded: alpha")


def test_number_with_zeros_kept_is_that_of_the_published_code():
    rng = np.random.default_rng(11)
    x = np.where(rng.random(10_000) < 0.1, 0, rng.standard_normal(10_000)) * 1e-6
    eps = np.spacing(1.0)
    y = x.reshape(100, 100).sum(axis=1)
    inverse = (np.log(np.abs(y) + eps).mean() - np.log(np.abs(x) + eps).mean()) / math.log(100)
    assert stable_index(x).controls["zeros_kept"].alpha == pytest.approx(1 / inverse, rel=1e-12)


def test_few_zeros_are_counted_without_a_word():
    x = np.random.default_rng(12).standard_normal(10_000)
    x[:3] = 0
    found = stable_index(x)
    assert (found.zeros, found.findings, found.n) == (3, (), 10_000)


def test_non_finite_values_are_left_out():
    x = np.random.default_rng(13).standard_normal(10_000)
    clean = stable_index(x)
    dirty = np.insert(x, [5, 500, 9000], [np.nan, np.inf, -np.inf])
    found = stable_index(dirty)
    assert (found.alpha, found.nonfinite) == (clean.alpha, 3)
    assert any("3 non-finite values are left out" in w for w in found.warnings)


def test_prime_lengths_leave_a_remainder():
    found = stable_index(np.random.default_rng(14).standard_normal(10_007))
    assert (found.k1, found.k2, found.dropped) == (100, 100, 7)


# What explains a small alpha.


@pytest.mark.parametrize(
    ("name", "finding", "words"),
    [
        ("scales", "not stable", "scale mixture"),
        ("zeros", "zeros", "zeros are "),
        ("runs", "scale mixture", "scale mixture: from run to run"),
        ("t3", "not stable", "a law of finite variance"),
        ("laplace", "not stable", "a law of finite variance"),
        ("ar+", "dependence", "makes alpha too small"),
        ("ar-", "dependence", "makes alpha too large"),
        ("mean", "mean", "the values have a mean or are skew"),
        ("spike", "ties", "% of the values are 0.25"),
    ],
)
def test_planted_explanations_are_found_every_time(name, finding, words):
    for seed in range(12):
        found = stable_index(planted(name, 10**5, np.random.default_rng(seed)))
        assert finding in found.findings, (seed, found.findings)
        assert any(words in w for w in found.warnings)
        assert found.verdict.startswith("no stable index (" if name != "zeros" else "of what is not zero")
        assert "infinite variance" not in str(found)


def test_values_that_never_change_sign():
    for x in (np.ones(500), np.random.default_rng(0).uniform(1, 2, 5000)):
        found = stable_index(x)
        assert found.alpha == pytest.approx(1, abs=0.02)  # sums grow as fast as the number of values
        assert "mean" in found.findings


def test_the_verdict_is_no_more_than_was_looked_at():
    rng = np.random.default_rng(22)
    seen = "nothing seen against a stable law: alpha"
    assert stable_index(stable(1.5, 10**5, rng)).verdict.startswith(seen)
    assert stable_index(rng.standard_normal(10**5)).verdict.startswith("normal values not excluded: alpha")
    mixture = planted("scales", 10**5, rng)
    assert stable_index(mixture, checks=False).verdict.startswith("not checked: alpha")
    assert stable_index(mixture, checks=False).ci()[1] < 2
    for name in ("scales", "t3"):  # at 3000 values neither is seen, though alpha is below 2 for sure
        found = [stable_index(planted(name, 3000, rng)) for _ in range(10)]
        assert sum(not one.findings for one in found) > 7
        assert any(one.ci()[1] < 2 for one in found if not one.findings)
        for one in found:
            assert one.verdict.startswith(("too few values to tell: alpha", "no stable index ("))
            assert not one.told
    for _ in range(5):  # and at ENOUGH both are
        assert all(stable_index(planted(name, ENOUGH, rng)).findings for name in ("scales", "t3", "laplace"))
    assert stable_index(rng.standard_normal(1000)).verdict.startswith("too few values to tell: alpha")


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_stable_samples_are_left_alone(alpha):
    rng = np.random.default_rng(int(alpha * 7))
    said = [
        bool(stable_index(stable(alpha, n, rng)).warnings) for n in (400, 5000, 40_000) for _ in range(20)
    ]
    assert sum(said) <= 2


@pytest.mark.parametrize(
    ("name", "alpha", "wide"),
    [("t3", 1.78, 0.09), ("laplace", 1.82, 0.09), ("ar+", 1.75, 0.08), ("ar-", 2.42, 0.12)],
)
def test_failure_modes_of_the_study(name, alpha, wide):
    x = planted(name, MILLION, np.random.default_rng(15))
    assert stable_index(x, checks=False).alpha == pytest.approx(alpha, abs=wide)


def test_known_scales():
    """Independent log-normal scales: 1 / (1/2 + tau^2 / log K1), and 2 once they are taken off."""
    rng = np.random.default_rng(16)
    scales = np.exp(rng.standard_normal(MILLION))
    found = stable_index(scales * rng.standard_normal(MILLION), scale=scales)
    assert found.alpha == pytest.approx(1.55, abs=0.07)
    assert found.controls["standardised"].alpha == pytest.approx(2, abs=0.07)
    assert found.controls["gaussian"].alpha == pytest.approx(1.55, abs=0.07)
    assert "scale mixture" in found.findings
    assert any("mixed scales explain" in w for w in found.warnings)
    truly = stable_index(stable(1.5, MILLION, rng), scale=2.0)
    assert truly.findings == ()
    assert truly.controls["standardised"].alpha == pytest.approx(truly.alpha)
    assert truly.controls["gaussian"].alpha == pytest.approx(2, abs=0.09)


def test_centre():
    x = np.random.default_rng(17).standard_normal(10**5) + 0.5
    assert stable_index(x).alpha < 1.2
    found = stable_index(x, centre=True)
    assert abs(found.alpha - 2) < 4 * found.stderr
    assert found.findings == ()


def test_zeros_are_left_out_before_a_mean_is_taken_off():
    rng = np.random.default_rng(21)
    x = (rng.standard_normal((1000, 100)) + 0.5) * (np.arange(100) >= 10)
    found = stable_index(x, centre=True)
    assert (found.zeros, found.findings) == (10_000, ("zeros",))
    assert abs(found.alpha - 2) < 4 * found.stderr
    assert found.alpha == stable_index(x[:, 10:], centre=True).alpha
    vectors = np.concatenate([np.zeros((50, 3)), rng.standard_normal((500, 3)) + 1])
    assert stable_index(vectors, vectors=True, centre=True).zeros == 50
    scales = np.exp(rng.standard_normal(x.shape))
    given = stable_index((x - 0.5 * (x != 0)) * scales, centre=True, scale=scales)
    assert given.controls["standardised"].n == 90_000


def test_a_sample_mean_of_heavy_tails_may_be_taken_off():
    """The median that this leaves is no finding, as it does not move alpha by its error."""
    for seed in range(10):
        found = stable_index(stable(1.5, 20_000, np.random.default_rng(seed)), centre=True)
        assert abs(found.alpha - 1.5) < 4 * found.stderr
        assert found.findings == ()


def test_kinds_are_named():
    x = np.random.default_rng(18).standard_normal(1000)
    assert "gradient alpha" in stable_index(x, kind="gradient").verdict
    assert "noise alpha" in str(stable_index(x, kind="noise"))
    assert stable_index(x).label == "alpha"


def test_input_is_left_as_it_was():
    x = np.random.default_rng(19).standard_normal(1000)
    x.flags.writeable = False
    stable_index(x, centre=True, scale=np.ones(1000))
    short = stable_index(x.astype(np.float32))
    assert short.alpha == pytest.approx(stable_index(x).alpha, rel=1e-4)
    assert stable_index(x.tolist()).alpha == stable_index(x).alpha


def test_whole_numbers_whose_sums_vanish():
    x = np.random.default_rng(20).choice([-1, 1], 10_000)
    found = stable_index(x, 10)
    blocks = x.reshape(-1, 10).sum(axis=1)
    assert found.k2 == np.count_nonzero(blocks)
    assert any("blocks whose sum is 0 are left out" in w for w in found.warnings)
    assert "ties" in found.findings


def test_tensors():
    torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    assert stable_index(x).alpha == stable_index(x.numpy()).alpha
    assert stable_index(x.bfloat16()).n == 2000


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"x": np.ones(99)}, ValueError, "x: expected at least 100 values that are neither zero nor"),
        ({"x": np.zeros(1000)}, ValueError, "got 0"),
        ({"x": np.ones((50, 300)), "vectors": True}, ValueError, "x: expected at least 100 vectors"),
        ({"x": np.ones(1000), "vectors": True}, ValueError, r"x: expected shape \(N, p\)"),
        ({"x": np.ones(1000), "block": 1}, ValueError, "block: expected an int from 2 to 500"),
        ({"x": np.ones(1000), "block": 501}, ValueError, "block: expected an int from 2 to 500"),
        ({"x": np.ones(1000), "block": 2.0}, TypeError, "block: expected an int of at least 2, got float"),
        ({"x": np.ones(1000), "kind": "tail"}, ValueError, "kind: expected one of 'values'"),
        ({"x": np.ones(1000), "centre": 1}, TypeError, "centre: expected a bool, got int"),
        ({"x": np.ones(1000), "scale": np.ones(3)}, ValueError, "scale: expected a shape that broadcasts"),
        ({"x": np.ones(1000), "scale": 0.0}, ValueError, "scale: expected finite positive numbers"),
        ({"x": np.ones(1000), "seed": "a"}, TypeError, "seed: expected an int of at least 0, got str"),
        ({"x": np.ones(1000), "seed": -1}, ValueError, "seed: expected an int of at least 0, got -1"),
        ({"x": "abc"}, TypeError, "x: expected an array of real numbers"),
        ({"x": np.ones(1000, complex)}, TypeError, "array of real numbers, got dtype complex128"),
        ({"x": np.tile([1.0, -1.0], 500), "block": 2}, ValueError, "expected a block of 2 values whose"),
    ],
)  # fmt: skip
def test_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        stable_index(**arguments)


def test_public_names():
    assert gradtail.stable_index is stable_index
