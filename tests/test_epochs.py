"""Epoch noise in closed form: printed values, brute-force sums, spectral integrals, limits, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradtail.theory import epochs
from gradtail.theory.epochs import (
    autocovariance,
    correlation_time,
    crossover_curvature,
    flat_limit,
    loss_fluctuation,
    loss_fluctuation_ratio,
    spectrum,
    velocity_variance,
    weight_variance,
)

TABLE = {  # curvature: variances of weight, velocity, and weight under white noise; correlation time
    0.0006: (0.40256840, 1.2926776e-4, 41.666700, 6228.44),
    0.006: (0.37800646, 1.2956206e-4, 4.1666996, 5835.14),
    0.06: (0.22501017, 1.3092594e-4, 0.41669956, 3437.21),
    0.6: (0.039027020, 1.3173124e-4, 0.041699587, 592.52),
    6.0: (4.1760480e-3, 1.3275035e-4, 4.1998232e-3, 62.916),
    60.0: (4.5255296e-4, 1.4299924e-4, 4.5238095e-4, 6.3294),
}
SETTING = {"eta": 0.005, "beta": 0.9, "M": 1000}


def impulse(step, eta, beta, length):
    """Response of the weight to a unit of noise, by the definition of heavy ball."""
    theta, v, found = 0.0, 0.0, []
    for k in range(length):
        v = beta * v - step * theta - (eta if k == 0 else 0.0)
        theta += v
        found.append(theta)
    return np.array(found)


def brute_force(step, eta, beta, M, policy="reshuffle"):
    """Variances of weight and velocity as the double sum over the noise of two steps."""
    length = 4000
    h = impulse(step, eta, beta, length)
    assert abs(h[-1]) < 1e-13
    v = np.diff(h, prepend=0.0)
    lags = np.arange(-length + 1, length)
    noise = autocovariance(lags, M, policy=policy)
    return [float(noise @ np.correlate(one, one, "full")) for one in (h, v)]


def over_spectrum(step, eta, beta, M):
    """The same by the integral of the spectrum times the squared transfer function."""
    w = 2 * np.pi * (np.arange(1 << 17) + 0.5) / (1 << 17)
    q = np.exp(-1j * w)
    gain = np.abs(eta / (1 - (1 + beta - step) * q + beta * q**2)) ** 2 * spectrum(w, M)
    return float(gain.mean()), float((gain * np.abs(1 - q) ** 2).mean())


@pytest.mark.parametrize("curvature", TABLE)
def test_printed_values(curvature):
    weight, velocity, white, time = TABLE[curvature]
    assert weight_variance(curvature, **SETTING) == pytest.approx(weight, rel=1e-7)
    assert velocity_variance(curvature, **SETTING) == pytest.approx(velocity, rel=1e-7)
    assert weight_variance(curvature, **SETTING, policy="replacement") == pytest.approx(white, rel=1e-7)
    assert correlation_time(curvature, **SETTING) == pytest.approx(time, rel=1e-5)
    white_time = correlation_time(curvature, **SETTING, policy="replacement")
    assert white_time == pytest.approx(1.9 / (0.005 * curvature), rel=1e-12)


def test_flat_limit():
    assert weight_variance(0.0, **SETTING) == pytest.approx(0.4054525, rel=1e-7)
    assert velocity_variance(0.0, **SETTING) == pytest.approx(1.2923186e-4, rel=1e-7)
    assert correlation_time(0.0, **SETTING) == pytest.approx(6274.8, rel=1e-5)
    assert weight_variance(0.0, **SETTING, policy="replacement") == math.inf
    for eta, beta, M in ((0.1, 0.0, 50), (0.02, 0.9, 100), (0.01, 0.5, 2), (0.3, 0.95, 7)):
        inner = beta * ((M - 1) - M * beta + beta**M) / (1 - beta) ** 2
        kept = 1 - 2 * inner / (M * (M - 1))
        exact = eta**2 / (1 - beta) ** 2 * ((M + 1) / 6 - beta * kept / (1 - beta**2))
        assert flat_limit(eta=eta, beta=beta, M=M) == pytest.approx(exact, rel=1e-9)
        # to first order in the curvature, so that digits lost to cancellation would show
        flat = flat_limit(eta=eta, beta=beta, M=M)
        small, smaller = (weight_variance(x, eta=eta, beta=beta, M=M) / flat - 1 for x in (1e-6, 1e-9))
        assert 0 < abs(small) < 1e-2
        assert smaller == pytest.approx(small / 1000, rel=1e-2)
    assert flat_limit(eta=0.1, beta=0.0, M=50) == pytest.approx(0.01 * 51 / 6, rel=1e-12)
    # a bridge about its own mean has half of the variance about its ends
    fixed = weight_variance(0.0, eta=0.1, beta=0.0, M=50, policy="fixed")
    assert fixed == pytest.approx(0.01 * 51 / 12, rel=1e-12)


@given(
    M=st.integers(2, 2000),
    beta=st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.999]),
    share=st.one_of(st.floats(-12, 0).map(lambda x: 10**x), st.floats(0.9, 0.999999)),
    eta=st.sampled_from([1e-3, 0.1, 2.0]),
)
def test_recursion_equals_closed_form(M, beta, share, eta):
    curvature = share * 0.999999 * 2 * (1 + beta) / eta
    for variance in (weight_variance, velocity_variance):
        closed, recursion = (
            variance(curvature, eta=eta, beta=beta, M=M, method=method) for method in ("closed", "recursion")
        )
        assert closed == pytest.approx(recursion, rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.81])
@pytest.mark.parametrize("off", [0.0, 1e-15, 1e-12, -1e-9, 1e-7, 1e-5])
def test_near_double_roots(beta, off):
    for root in ((1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2):  # step at which both roots are sqrt(beta)
        step = root * (1 + off)
        found = [f(step, eta=1.0, beta=beta, M=40) for f in (weight_variance, velocity_variance)]
        if root > 1:  # memory of a negative root lasts as long
            assert found == pytest.approx(brute_force(step, 1.0, beta, 40), rel=1e-9)
        assert found == pytest.approx(
            [
                f(step, eta=1.0, beta=beta, M=40, method="recursion")
                for f in (weight_variance, velocity_variance)
            ],
            rel=1e-9,
        )


@pytest.mark.parametrize("M", [2, 3, 10, 50])
@pytest.mark.parametrize(
    ("beta", "step"), [(0.0, 0.02), (0.0, 1.0), (0.0, 1.9), (0.9, 0.3), (0.5, 2.9), (0.3, 0.3)]
)
@pytest.mark.parametrize("policy", ["reshuffle", "replacement"])
def test_brute_force_double_sum(M, beta, step, policy):
    eta = 0.1
    found = [
        f(step / eta, eta=eta, beta=beta, M=M, policy=policy) for f in (weight_variance, velocity_variance)
    ]
    assert found == pytest.approx(brute_force(step, eta, beta, M, policy), rel=1e-10)


@pytest.mark.parametrize(
    ("beta", "step", "M"), [(0.0, 0.01, 50), (0.9, 0.002, 100), (0.9, 3.7, 30), (0.5, 0.05, 999)]
)
def test_integral_of_the_spectrum(beta, step, M):
    found = [f(step, eta=1.0, beta=beta, M=M) for f in (weight_variance, velocity_variance)]
    assert found == pytest.approx(over_spectrum(step, 1.0, beta, M), rel=1e-9)


@pytest.mark.parametrize(
    ("beta", "step", "M"), [(0.0, 0.006, 50), (0.9, 0.05, 20), (0.5, 2.5, 7), (0.9, 0.003, 2)]
)
def test_fixed_order_is_the_mean_over_orders(beta, step, M):
    """Steady state of the period by linear algebra, averaged over many orders of one set of batches."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(M)
    noise -= noise.mean()
    noise /= math.sqrt(noise.var())  # over positions, which is what C is
    one = np.array([[1 - step, beta], [-step, beta]])  # of (weight, velocity)
    weights, velocities = [], []
    for _ in range(1200 if M > 2 else 1):
        order = rng.permutation(noise)
        whole, drift = np.eye(2), np.zeros(2)
        for x in order:
            whole, drift = one @ whole, one @ drift - x
        state = np.linalg.solve(np.eye(2) - whole, drift)
        path = []
        for x in order:
            state = one @ state - x
            path.append(state)
        weights.append(np.mean(np.array(path)[:, 0] ** 2))
        velocities.append(np.mean(np.array(path)[:, 1] ** 2))
    for found, function in ((weights, weight_variance), (velocities, velocity_variance)):
        exact = function(step, eta=1.0, beta=beta, M=M, policy="fixed")
        error = np.std(found) / math.sqrt(len(found))
        assert np.mean(found) == pytest.approx(exact, abs=4 * error + 1e-9 * exact)


def test_fixed_order_through_the_roots():
    """C / (M - 1) (M sum over k of g(k M) - sum over h of g(h)), g by its roots."""
    eta, beta, M = 0.1, 0.5, 12
    for curvature in (0.3, 3.0, 20.0):
        h = impulse(eta * curvature, eta, beta, 6000)
        g = np.correlate(h, h, "full")[len(h) - 1 :]
        periods = g[0] + 2 * g[M::M].sum()
        exact = (M * periods - 1 / curvature**2) / (M - 1)
        found = weight_variance(curvature, eta=eta, beta=beta, M=M, policy="fixed")
        assert found == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("M", [2, 3, 10, 1000])
@pytest.mark.parametrize("policy", ["reshuffle", "replacement"])
def test_autocovariance_and_spectrum(M, policy):
    h = np.arange(-M - 5, M + 6)
    covariance = autocovariance(h, M, policy=policy, noise_variance=2.0)
    assert abs(covariance.sum() - (0 if policy == "reshuffle" else 2)) < 1e-12
    w = np.array([0.0, 1e-9, 1e-4, 0.3, 2.0, math.pi, 6.2, 2 * math.pi, -0.3, 50.0])
    direct = [float(covariance @ np.cos(h * x)) for x in w]
    found = spectrum(w, M, policy=policy, noise_variance=2.0)
    assert found == pytest.approx(direct, abs=1e-11 * M)
    assert np.mean(spectrum(2 * np.pi * np.arange(4 * M) / (4 * M), M, policy=policy)) == pytest.approx(1.0)
    if policy == "reshuffle":
        assert spectrum(1e-9, M) == pytest.approx((M + 1) * M * 1e-18 / 12, rel=1e-9)


def test_fixed_order_autocovariance():
    M = 8
    assert autocovariance([0, 8, -16, 3], M, policy="fixed").tolist() == [1, 1, 1, -1 / 7]
    assert abs(autocovariance(np.arange(M), M, policy="fixed").sum()) < 1e-12
    with pytest.raises(ValueError, match=r"policy: expected 'reshuffle' or 'replacement' \(the power"):
        spectrum(0.1, M, policy="fixed")


def test_crossover():
    assert crossover_curvature(**SETTING) == pytest.approx(0.06, rel=1e-12)
    at = crossover_curvature(eta=0.001, beta=0.9, M=10_000)
    steep, flat = 0.001 / (2 * at * 0.1), 0.001**2 * 10_000 / (6 * 0.01)
    assert steep == pytest.approx(flat)
    # with noise in proportion to curvature: level above, in proportion below
    lam = np.array([1e-4, 1.2e-4])
    low = weight_variance(lam, **SETTING, noise_variance=lam)
    assert math.log(low[1] / low[0]) / math.log(1.2) == pytest.approx(0.9988, abs=3e-4)


def test_loss_fluctuation():
    lam = np.logspace(-4, 1, 50)
    noise = 1 + lam
    each = weight_variance(lam, **SETTING, noise_variance=noise)
    total = loss_fluctuation(lam, **SETTING, noise_variance=noise)
    assert total == pytest.approx(0.5 * float(lam @ each), rel=1e-12)
    white = weight_variance(lam, **SETTING, noise_variance=noise, policy="replacement")
    ratio = loss_fluctuation_ratio(lam, **SETTING, noise_variance=noise)
    assert ratio == pytest.approx(float(lam @ each) / float(lam @ white), rel=1e-12)
    assert loss_fluctuation_ratio(lam, **SETTING, policy="replacement") == 1.0
    flat = loss_fluctuation([0.0, 1e-9], **SETTING, policy="replacement")
    assert flat == pytest.approx(2 * loss_fluctuation(1e-9, **SETTING, policy="replacement"), rel=1e-6)
    assert loss_fluctuation(0.0, **SETTING) == 0.0
    with pytest.raises(
        ValueError, match="noise_variance: expected noise in at least one direction, got none"
    ):
        loss_fluctuation_ratio([1.0], **SETTING, noise_variance=0.0)


@pytest.mark.parametrize("function", [weight_variance, velocity_variance, correlation_time])
@pytest.mark.parametrize("policy", ["reshuffle", "replacement", "fixed"])
def test_arrays_are_numbers_together(function, policy):
    lam = np.array([[0.01, 0.1, 1.0], [2.0, 200.0, 700.0]])
    found = function(lam, **SETTING, policy=policy)
    assert found.shape == lam.shape
    each = [[function(float(x), **SETTING, policy=policy) for x in row] for row in lam]
    assert isinstance(each[0][0], float)
    assert found == pytest.approx(np.array(each), rel=1e-12)


def test_scaling_of_the_noise():
    lam = np.array([0.01, 1.0])
    assert weight_variance(lam, **SETTING, noise_variance=[2.0, 3.0]) == pytest.approx(
        np.array([2.0, 3.0]) * weight_variance(lam, **SETTING)
    )
    assert weight_variance(0.0, **SETTING, noise_variance=0.0, policy="replacement") == 0.0


def test_variance_of_a_batch():
    """Against the mean over all batches of a small set."""
    from itertools import combinations, product

    x = np.array([1.0, -2.0, 5.0, 0.5, 3.0])
    s2 = x.var(ddof=1)
    without = np.var([np.mean(c) for c in combinations(x, 2)])
    assert epochs.noise_variance(s2, batch_size=2, examples=5) == pytest.approx(without)
    drawn = np.var([np.mean(c) for c in product(x, repeat=2)])
    assert epochs.noise_variance(s2, batch_size=2, examples=5, policy="replacement") == pytest.approx(drawn)
    with pytest.raises(ValueError, match="batch_size: expected an int of at most examples = 5, got 6"):
        epochs.noise_variance(1.0, batch_size=6, examples=5)


REFUSED = [
    ({"curvature": -0.1}, ValueError, r"curvature: expected numbers of at least 0 .*, got -0.1"),
    ({"curvature": [1.0, 39.0]}, ValueError, r"curvature: expected numbers below 2 \(1 \+ beta\) / eta = 38"),
    ({"curvature": 38.0}, ValueError, "SGD is unstable"),
    ({"curvature": math.nan}, ValueError, "curvature: expected finite numbers, got nan"),
    ({"curvature": "x"}, TypeError, "curvature: expected real numbers"),
    ({"eta": 0.0}, ValueError, "eta: expected a finite number above 0, got 0"),
    ({"beta": 1.0}, ValueError, "beta: expected a number from 0 to below 1, got 1"),
    ({"beta": -0.1}, ValueError, "beta: expected a finite number of at least 0"),
    ({"M": 1}, ValueError, "M: expected an int of at least 2, got 1"),
    ({"M": 10.0}, TypeError, "M: expected an int of at least 2, got float"),
    (
        {"policy": "white"},
        ValueError,
        "policy: expected one of 'reshuffle', 'replacement', 'fixed', got 'white'",
    ),
    ({"noise_variance": -1.0}, ValueError, "noise_variance: expected numbers of at least 0, got -1"),
    ({"curvature": [1.0, 2.0], "noise_variance": [1.0] * 3}, ValueError, "noise_variance: expected a shape"),
    ({"method": "sum"}, ValueError, "method: expected 'closed' or 'recursion', got 'sum'"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED)
def test_refused(changed, error, message):
    settings = {"curvature": 1.0, "eta": 0.1, "beta": 0.9, "M": 10} | changed
    for function in (weight_variance, velocity_variance):
        with pytest.raises(error, match=message):
            function(**settings)


def test_refused_lags():
    with pytest.raises(TypeError, match="h: expected ints, got dtype float64"):
        autocovariance(1.0, 10)
