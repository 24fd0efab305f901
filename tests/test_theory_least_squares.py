"""Tail index of SGD on Gaussian least squares: exact moments, other quadrature, drawn steps, print."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from gradtail.theory import least_squares as ls
from gradtail.theory.least_squares.quadrature import Law, remainder

TABLE = [  # d, b, sigma, eta, alpha, rho
    (1, 1, 1, 0.5, 2.903966, -0.484627),
    (1, 1, 1, 2 / 3, 2.0, -0.486440),
    (1, 1, 1, 0.8, 1.546399, -0.465744),
    (1, 1, 1, 1.0, 1.090826, -0.416992),
    (1, 1, 1, 1.5, 0.477435, -0.266165),
    (2, 1, 1, 0.375, 3.346939, -0.226584),
    (2, 1, 1, 0.5, 2.0, -0.194622),
    (2, 1, 1, 0.625, 1.158731, -0.145270),
    (2, 1, 1, 0.75, 0.583101, -0.088605),
    (10, 1, 1, 0.16, 3.018492, -0.015947),
    (10, 1, 1, 1 / 6, 2.0, -0.010843),
    (10, 1, 1, 0.17, 1.491595, -0.008195),
    (10, 1, 1, 0.175, 0.733063, -0.004113),
    (10, 5, 1, 0.60, 2.836940, -0.072429),
    (10, 5, 1, 0.625, 2.0, -0.053102),
    (10, 5, 1, 0.64, 1.518152, -0.041231),
    (10, 5, 1, 0.66, 0.898634, -0.025133),
    (10, 5, 2, 0.15, 2.836940, -0.072429),
    (100, 1, 1, 0.0196, 2.673066, -0.0000309),
    (100, 1, 1, 0.01962, 0.953394, -0.0000110),
    (100, 10, 1, 0.1800, 2.505856, -0.000876),
    (100, 10, 1, 0.1805, 1.100675, -0.000385),
]

SHAPES = [
    (1, 1),
    (1, 2),
    (5, 10),
    (10, 100),
    (3, 7),
    (1, 100),
    (100, 1),
    (50, 3),
    (1, 1000),
    (1000, 1000),
]  # b, d


@pytest.mark.parametrize(("d", "b", "sigma", "eta", "alpha", "rho"), TABLE)
def test_the_table(d, b, sigma, eta, alpha, rho):
    assert ls.tail_index(eta, b, d, sigma) == pytest.approx(alpha, abs=1e-6)
    assert ls.lyapunov(eta, b, d, sigma) == pytest.approx(rho, abs=1e-6)


def even_moment(n, c, b, d):
    """E Q**n, exactly: Q = (1 - c X)**2 + c**2 X Y with moments of chi-squared laws."""

    def chi(k, power):
        return math.prod(k + 2 * i for i in range(power))

    c, total = Fraction(c), Fraction(0)
    for j in range(n + 1 if d > 1 else 1):
        part = sum(math.comb(2 * (n - j), i) * (-c) ** i * chi(b, i + j) for i in range(2 * (n - j) + 1))
        total += math.comb(n, j) * c ** (2 * j) * chi(d - 1, j) * part
    return total


def exactly(eta):
    return Fraction(eta).limit_denominator(1000)


def log(x):
    return math.log(x.numerator) - math.log(x.denominator)


@pytest.mark.parametrize("share", [0.05, 0.6, 1.4])
@pytest.mark.parametrize(("b", "d"), SHAPES)
def test_even_moments_are_those_of_chi_squared_laws(b, d, share):
    eta = share * ls.eta_crit(b, d)
    for n in (1, 2, 3, 7):
        want = log(even_moment(n, Fraction(eta) / b, b, d))
        assert math.log(ls.moment(2 * n, eta, b, d)) == pytest.approx(want, abs=1e-11)
    closed = 1 - 2 * eta + eta**2 * (d + b + 1) / b
    assert ls.moment(2, eta, b, d) == pytest.approx(closed, abs=1e-12)
    assert ls.moment(0, eta, b, d) == 1


@pytest.mark.parametrize(
    ("eta", "b", "d"),
    [(0.02, 1, 1), (0.02, 1, 3), (0.05, 5, 50), (0.5, 100, 1), (0.1, 10, 4), (1.5, 100, 5), (1.9, 1000, 10)],
)
def test_large_indices_lie_between_exact_moments(eta, b, d):
    alpha = ls.tail_index(eta, b, d)
    n = math.floor(alpha / 2)
    below, above = (log(even_moment(k, exactly(eta) / b, b, d)) for k in (n, n + 1))
    assert below < 0 < above
    # and log h is convex: its chord, and the chord before it carried on, hold it in
    before = log(even_moment(n - 1, exactly(eta) / b, b, d))
    chord = 2 * n + 2 * below / (below - above)
    assert chord <= alpha + 1e-8
    assert alpha <= 2 * n + 2 * below / (before - below) + 1e-8
    assert math.log(ls.moment(2 * n, eta, b, d)) == pytest.approx(below, abs=1e-10)


@pytest.mark.parametrize("b", [1, 2, 7, 100])
@pytest.mark.parametrize("eta", [0.3, 1.1, 2.3, 4.0])
def test_one_dimension_by_another_quadrature(b, eta):
    c, law = eta / b, stats.chi2(b)
    cuts = [0, *sorted({1 / c, b * 0.7, b, b * 1.4}), max(2 / c, 4 * b) + 300]

    def mean(f):
        return sum(
            integrate.quad(lambda x: f(x) * law.pdf(x), low, high, limit=400, epsabs=1e-12, epsrel=1e-11)[0]
            for low, high in itertools.pairwise(cuts)
        )

    rho = mean(lambda x: math.log(abs(1 - c * x)) if c * x != 1 else 0.0)
    assert ls.lyapunov(eta, b, 1) == pytest.approx(rho, abs=2e-9)
    for s in (0.3, 1.7):
        assert ls.moment(s, eta, b, 1) == pytest.approx(mean(lambda x, s=s: abs(1 - c * x) ** s), abs=2e-9)


POINTS = [
    (0.2, 2, 3, 1.3), (0.9, 7, 4, 1.0), (0.05, 1, 30, 0.9), (1.2, 3, 1, 0.7), (0.3, 100, 20, 1.1),
    (0.9 * 2 / 1002, 1, 1000, 1.0), (2.0, 1, 1, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("eta", "b", "d", "sigma"), POINTS)
def test_steps_on_drawn_data(eta, b, d, sigma):
    rng, n = np.random.default_rng(5), 200_000 // (b * d) + 2000
    first = np.zeros(d)
    first[0] = 1
    rows = sigma * rng.standard_normal((n, b, d))
    size = np.linalg.norm(first - eta / b * np.einsum("nbd,nb->nd", rows, rows[:, :, 0]), axis=1)
    for s in (0.5, 1.0, 2.5):
        found = size**s
        assert ls.moment(s, eta, b, d, sigma) == pytest.approx(found.mean(), abs=4.5 * found.std() / n**0.5)
    logs = np.log(size)
    assert ls.lyapunov(eta, b, d, sigma) == pytest.approx(logs.mean(), abs=4.5 * logs.std() / n**0.5)


@pytest.mark.parametrize(("b", "d"), SHAPES)
@pytest.mark.parametrize("share", [0.02, 0.5, 1.00001, 30])
def test_finer_panels_change_nothing(b, d, share):
    c = share * 2 / (d + b + 1)
    coarse, fine = (Law(c, b, d, 0.7, 3.0, refine=k) for k in (1, 2))
    for s in (0.0, 0.7, 3.0):
        assert coarse.log_growth(s) == pytest.approx(fine.log_growth(s), rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(("b", "d", "sigma"), [*((b, d, 1.0) for b, d in SHAPES), (3, 7, 0.01), (1, 1, 7.0)])
def test_critical_and_largest_step(b, d, sigma):
    critical, largest = ls.eta_crit(b, d, sigma), ls.eta_max(b, d, sigma)
    assert critical < largest
    assert ls.tail_index(critical, b, d, sigma) == pytest.approx(2, abs=1e-6)
    width = largest - critical
    assert 0 < ls.tail_index(largest - 1e-3 * width, b, d, sigma) < 0.01
    assert ls.lyapunov(largest + 1e-3 * width, b, d, sigma) > 0
    for eta in (largest + 1e-3 * width, 3 * largest):
        with pytest.raises(ls.NoStationaryLawError, match="no stationary law") as caught:
            ls.tail_index(eta, b, d, sigma)
        assert caught.value.rho > 0
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("b", "d", "critical", "largest"),
    [
        (1, 1, 0.666667, 2.421250), (1, 2, 0.5, 0.937087), (1, 10, 0.166667, 0.179889),
        (5, 10, 0.625, 0.690607), (1, 100, 0.0196078, 0.0196310), (10, 100, 0.180180, 0.180891),
    ],
)  # fmt: skip
def test_steps_as_printed(b, d, critical, largest):
    assert ls.eta_crit(b, d) == pytest.approx(critical, abs=6e-7)
    assert ls.eta_max(b, d) == pytest.approx(largest, abs=6e-7)


def test_eta_and_sigma_count_by_their_product():
    assert ls.tail_index(0.15, 5, 10, 2.0) == pytest.approx(ls.tail_index(0.60, 5, 10, 1.0), abs=1e-9)
    assert ls.tail_index(1e4, 1, 1, 0.01) == pytest.approx(ls.tail_index(1.0, 1, 1), abs=1e-9)


@pytest.mark.parametrize("c", [1e-2, 1e-4, 1e-6, 1e-8])
def test_index_of_very_small_steps(c):
    alpha = ls.tail_index(c, 1, 1)
    zero, mode = c**-0.5, math.sqrt(2 * alpha + 1 / c)

    def density(t):
        return 2 * math.exp(alpha * math.log(abs(1 - c * t * t)) - t * t / 2) / math.sqrt(2 * math.pi)

    parts = ((0, min(9, zero)), (max(zero, mode - 9), mode), (mode, mode + 9))
    h = sum(integrate.quad(density, low, high, epsrel=1e-12)[0] for low, high in parts)
    assert h == pytest.approx(1, abs=max(1e-9, 1e-14 * alpha))
    # its limit is 2 k / c with k log(2 k) - k = 1/2
    assert alpha * c == pytest.approx(1.7956, rel=max(5e-4, 3 * c * math.log(1 / c)))
    assert ls.tail_index(10 * c, 10, 50) * c == pytest.approx(1.7956, rel=max(5e-3, 50 * c * math.log(1 / c)))


@settings(max_examples=8)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.02, 1.2), st.floats(1.02, 1.5))
def test_orders(b, d, share, factor):
    eta = share * ls.eta_crit(b, d)
    alpha = ls.tail_index(eta, b, d) if ls.lyapunov(eta, b, d) < 0 else None
    if alpha is None:
        return
    assert ls.lyapunov(eta, b, d) > -math.inf
    assert ls.moment(alpha, eta, b, d) == pytest.approx(1, abs=1e-9)
    assert ls.tail_index(eta / factor, b, d) > alpha
    assert ls.tail_index(eta, b + 1, d) > alpha
    if d > 1:
        assert ls.tail_index(eta, b, d - 1) > alpha


def test_sweeps():
    found = ls.sweep("d", [13, 9, 10, 11, 12], eta=0.5, b=5)
    assert found.values == (9, 10, 11, 12, 13)
    assert found.alpha == pytest.approx((7.502, 6.670, 5.731, 4.658, 3.424), abs=6e-4)
    assert found.monotone
    found = ls.sweep("b", [1, 2, 3], eta=0.17, d=10)
    assert found.alpha == pytest.approx((1.492, 14.628, 23.864), abs=6e-4)
    assert found.monotone
    assert ls.sweep("sigma", [0.5, 1.0, 1.5, 2.0], eta=0.3, b=3, d=2).monotone
    assert ls.sweep("eta", np.geomspace(0.01, 5, 7), b=2, d=3).monotone
    broken = ls.Sweep("eta", (0.1, 0.2), (1.0, 1.5), (-1.0, -1.0), {})
    assert not broken.monotone
    assert not ls.Sweep("b", (1, 2), (1.0, None), (-1.0, 1.0), {}).monotone
    assert "no stationary law" in str(ls.sweep("eta", [1, 3], b=1, d=1))
    with pytest.raises(ValueError, match="over: expected one of eta, b, d, sigma, got 'n'"):
        ls.sweep("n", [1, 2])
    with pytest.raises(ValueError, match="values: expected at least 2"):
        ls.sweep("eta", [1], b=1, d=1)


def test_remainder_of_powers_is_smooth_where_it_changes_form():
    p = np.concatenate([np.linspace(-0.3, 0.3, 61), [1e-9, -1e-9]])
    for t in (0.0, 0.3, 1.0, 4.5):
        with np.errstate(divide="ignore"):
            found = remainder(p, np.log1p(p), t)
        for x, y in zip(p.tolist(), found.tolist(), strict=True):
            terms = [math.prod((t - i) / (i + 1) for i in range(1, k)) * x**k for k in range(2, 80)]
            assert y == pytest.approx(math.fsum(terms), rel=1e-9, abs=1e-16)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: ls.tail_index(-1.0, 1, 1), ValueError, "eta: expected a finite number above 0, got -1"),
        (lambda: ls.tail_index("1", 1, 1), TypeError, "eta: expected a finite number above 0, got str"),
        (lambda: ls.tail_index(math.nan, 1, 1), ValueError, "eta: expected a finite number above 0, got nan"),
        (lambda: ls.tail_index(1.0, 0, 1), ValueError, "b: expected an int of at least 1, got 0"),
        (lambda: ls.tail_index(1.0, 1.5, 1), TypeError, "b: expected an int of at least 1, got float"),
        (lambda: ls.tail_index(1.0, 1, True), TypeError, "d: expected an int of at least 1, got bool"),
        (
            lambda: ls.tail_index(1.0, 1, 10**8),
            ValueError,
            "d: expected an int of at most 10000000, got 100000000",
        ),
        (lambda: ls.tail_index(1.0, 1, 1, 0.0), ValueError, "sigma: expected a finite number above 0, got 0"),
        (lambda: ls.tail_index(1e-10, 1, 1), ValueError, "eta: expected eta sigma.2 / b from 1e-09 to 1e.09"),
        (lambda: ls.moment(-1, 1.0, 1, 1), ValueError, "s: expected a finite number of at least 0"),
        (lambda: ls.eta_crit(1, 1, 1e-200), ValueError, "sigma: expected a number from 1e-140 to 1e.140"),
        (lambda: ls.eta_max(1, 1, 1e200), ValueError, "sigma: expected a number from 1e-140 to 1e.140"),
        (lambda: ls.eta_max(1, 1, math.inf), ValueError, "sigma: expected a finite number above 0, got inf"),
    ],
)
def test_refusals(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_moments_beyond_floats_are_infinite():
    assert ls.moment(1e6, 1.0, 1, 1) == math.inf
