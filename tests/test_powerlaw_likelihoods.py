"""The likelihoods of a power law's rivals: against other programs, brute force and many digits."""

import math
import tracemalloc

import mpmath
import numpy as np
import pytest
from rival_samples import bins, hard_tails, points, random_tail, tail_of
from scipy import integrate, optimize, special, stats

from gradtail.estimators.powerlaw import quadrature, whole_numbers
from gradtail.estimators.powerlaw.compare import RIVALS, compare, compare_all
from gradtail.estimators.powerlaw.likelihoods import Bent, Cells, Growing, growth
from gradtail.estimators.powerlaw.quadrature import EXPONENTIAL, PARABOLA, excess_exp, masses

TWO_PARAMETERS = ("lognormal", "stretched_exponential", "truncated_power_law")
CURVES = {"lognormal": PARABOLA, "truncated_power_law": EXPONENTIAL}


def each(rival, x, xmin, given, form):
    """Log likelihood of every value by other programs: SciPy's laws and mpmath's gamma function."""
    if rival == "truncated_power_law":
        s, r = given["exponent"], given["rate"]
        if form == "integers":
            k = xmin + np.arange(10**6)
            total = np.sum(np.exp(-s * np.log(k) - r * k))
        else:
            total = float(mpmath.gammainc(1 - s, r * xmin) * mpmath.mpf(r) ** (s - 1))
        return -s * np.log(x) - r * x - math.log(total)
    if rival == "exponential" and form == "integers":
        return stats.geom.logpmf(x - xmin + 1, -math.expm1(-given["rate"]))
    law = {
        "lognormal": lambda: stats.lognorm(given["sigma"], scale=math.exp(given["mu"])),
        "exponential": lambda: stats.expon(scale=1 / given["rate"]),
        "stretched_exponential": lambda: stats.weibull_min(
            given["beta"], scale=given["rate"] ** (-1 / given["beta"])
        ),
    }[rival]()
    if form == "integers":
        return np.log(law.sf(x - 0.5) - law.sf(x + 0.5)) - law.logsf(xmin - 0.5)
    return law.logpdf(x) - law.logsf(xmin)


def samples():
    rng = np.random.default_rng(5)
    x = np.exp(rng.standard_normal(400))
    return {
        "points": points(x, 1.1),
        "bins": bins(x, 1.1, width=0.3, last=2.0),
        "integers": points(np.floor(4 * x), 3.0, "integers"),
    }


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("form", ["points", "integers"])
def test_ratio_and_statistic_by_the_definition(form, rival):
    sample, exponent = samples()[form]
    found = compare(sample, exponent, rival)
    x = np.repeat(sample.xmin * np.exp(sample.low), sample.count.astype(int))
    x, xmin = (np.rint(x), sample.xmin) if form == "integers" else (x, sample.xmin)
    law = -exponent * np.log(x) - math.log(special.zeta(exponent, xmin))
    if form == "points":
        law = math.log((exponent - 1) / xmin) - exponent * np.log(x / xmin)
    d = law - each(rival, x, xmin, found.parameters, form)
    assert found.n == x.size
    assert found.ratio == pytest.approx(d.sum(), rel=1e-7, abs=1e-9)
    if rival == "truncated_power_law":
        assert found.nested
        assert found.statistic == found.ratio
        assert found.pvalue == pytest.approx(stats.chi2(1).sf(2 * abs(d.sum())), rel=1e-6)
    else:
        z = d.sum() / d.std() / math.sqrt(d.size)
        assert found.statistic == pytest.approx(z, rel=1e-7)
        assert found.pvalue == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)


@pytest.mark.parametrize("rival", TWO_PARAMETERS)
@pytest.mark.parametrize("form", ["points", "bins", "integers"])
def test_no_other_parameters_are_likelier(form, rival):
    """Against a simplex search of a likelihood that is written down afresh."""
    sample, exponent = samples()[form]
    found = compare(sample, exponent, rival)
    low, high, base = sample.low, sample.high, sample.xmin
    if form == "integers" and rival != "truncated_power_law":
        base = sample.xmin - 0.5
        low, high = (np.log((sample.integers + side) / base) for side in (-0.5, 0.5))

    def survival(y, p, q):  # of y, times a constant
        if rival == "lognormal":
            return special.ndtr(-(p + q * y) / math.sqrt(q))
        if rival == "stretched_exponential":
            return np.exp(-p * np.expm1(q * y) / q)
        f = lambda v: math.exp(-p * v - q * excess_exp(np.float64(v)))
        return np.array([integrate.quad(f, v, min(20.0, v + 9), epsabs=1e-13)[0] if v < 20 else 0 for v in y])

    def loss(at):
        p, q = at[0], math.exp(at[1])
        if form == "integers" and rival == "truncated_power_law":
            k = np.arange(4000) / base
            terms = np.exp(-p * np.log1p(k) - q * (k - np.log1p(k)))
            log_each = -p * low - q * excess_exp(low) - math.log(terms.sum())
        elif form == "points":
            total = survival(np.zeros(1), p, q)[0]
            log_each = {
                "lognormal": lambda: stats.norm.logpdf((p + q * low) / math.sqrt(q)) + at[1] / 2,
                "stretched_exponential": lambda: math.log(p) + q * low - p * np.expm1(q * low) / q,
                "truncated_power_law": lambda: -p * low - q * excess_exp(low),
            }[rival]() - math.log(total)
        else:
            mass = survival(low, p, q) - survival(high, p, q)
            log_each = np.log(mass / survival(np.zeros(1), p, q)[0])
        return -sample.count @ log_each

    if form == "points":
        law = math.log(exponent - 1) - (exponent - 1) * low
    elif form == "bins":
        law = np.log(np.exp((1 - exponent) * low) - np.exp((1 - exponent) * high))
    else:
        law = -exponent * np.log(sample.integers) - math.log(special.zeta(exponent, sample.xmin))
    best = optimize.minimize(
        loss, [exponent - 1, -1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}
    )
    assert found.ratio == pytest.approx(sample.count @ law + best.fun, abs=1e-5)
    if rival == "lognormal":
        p, q = best.x[0], math.exp(best.x[1])
        assert found.parameters["sigma"] == pytest.approx(q**-0.5, rel=1e-3)
        assert found.parameters["mu"] == pytest.approx(math.log(base) - p / q, abs=1e-3)


@pytest.mark.parametrize(("p", "q"), [(2.0, 1e-9), (0.05, 1e-4), (49.0, 3.0), (-3.0, 2.0), (1.0, 1e4)])
@pytest.mark.parametrize("rival", CURVES)
def test_integrals_against_mpmath(rival, p, q):
    bend = (lambda y: y * y / 2) if rival == "lognormal" else (lambda y: mpmath.expm1(y) - y)
    f = lambda y: mpmath.exp(-p * y - q * bend(y))
    low, width = np.array([0.0, 0.01, 0.5, 3.0]), np.array([np.inf, 1e-9, 0.7, np.inf])
    found = masses(CURVES[rival], p, q, low, width)
    with mpmath.workdps(25):
        for i, (a, w) in enumerate(zip(map(mpmath.mpf, low), map(mpmath.mpf, width), strict=True)):
            slope = abs(p + q * float(CURVES[rival].slope(low[i]))) + math.sqrt(q)
            unit = min(w, mpmath.mpf(1 / slope if p > 0 else 1))  # mpmath's errors are absolute
            ends = [k for k in range(0, 61, 4) if k * unit < w]
            ends = [*ends, w / unit] if w < np.inf else ends

            def exact(g, a=a, unit=unit, ends=ends):
                return mpmath.quad(lambda t: g(t) * f(a + t * unit) / f(a), ends)

            total = exact(lambda t: 1)
            mean, bent = exact(lambda t: t) / total, exact(lambda t: bend(a + t * unit)) / total  # noqa: B023
            spread = exact(lambda t: (t - mean) ** 2) / total * unit**2  # noqa: B023
            log_mass = float(mpmath.log(total * unit * f(a)))
            assert found.log_mass[i] == pytest.approx(log_mass, rel=1e-14, abs=1e-12)
            assert found.mean[i] == pytest.approx([float(a + mean * unit), float(bent)], rel=1e-12)
            assert found.cov[i, 0, 0] == pytest.approx(float(spread), rel=1e-9)


@pytest.mark.parametrize("start", [1, 2, 40, 5000])
@pytest.mark.parametrize(
    ("p", "q"), [(1.3, 0.0), (2.5, 0.0), (8.0, 0.0), (0.5, 0.1), (-2.0, 1.0), (2.0, 0.3)]
)
def test_sums_over_whole_numbers(p, q, start):
    found, mean, cov = whole_numbers.total(EXPONENTIAL, p, q, float(start))
    if q == 0:
        with mpmath.workdps(40):
            exact = mpmath.log(mpmath.zeta(p, start)) + p * mpmath.log(start)
        assert found == pytest.approx(float(exact), abs=1e-12)
        return
    k = np.arange(min(60 * start / q, 4e6)) / start
    y = np.log1p(k)
    w = np.exp(-p * y - q * (k - y))
    assert found == pytest.approx(math.log(w.sum()), abs=1e-11)
    w /= w.sum()
    assert mean == pytest.approx([w @ y, w @ (k - y)], rel=1e-9)
    assert cov[1, 1] == pytest.approx(w @ (k - y - mean[1]) ** 2, rel=1e-8)


@pytest.mark.parametrize(("p", "q", "start"), [(-2e3, 1e3, 40), (-3e4, 5.0, 1), (-1e6, 1e5, 3000)])
def test_sums_about_a_mode_far_above(p, q, start):
    found, mean, cov = whole_numbers.total(EXPONENTIAL, p, q, float(start))
    mode = start * (1 + (1 - p) / q)
    reach = 12 * mode / math.sqrt(-p) + 60
    k = np.arange(max(start, math.floor(mode - reach)), mode + reach)
    y, u = np.log(k / start), (k / start - 1) - np.log(k / start)
    exponent = -p * y - q * u
    w = np.exp(exponent - exponent.max())
    assert found == pytest.approx(exponent.max() + math.log(w.sum()), rel=1e-14)
    w /= w.sum()
    assert mean == pytest.approx([w @ y, w @ u], rel=1e-12)
    assert cov[0, 0] == pytest.approx(w @ (y - mean[0]) ** 2, rel=1e-8)
    assert cov[1, 1] == pytest.approx(w @ (u - mean[1]) ** 2, rel=1e-8)


@pytest.mark.parametrize(("p", "q"), [(-134.8, 2.3e-9), (-0.9, 1e-3), (0.05, 1e-20), (1e5, 1e9), (-1e9, 1e4)])
@pytest.mark.parametrize("rival", CURVES)
def test_few_panels_whatever_the_parameters(rival, p, q):
    curve, zero = CURVES[rival], np.zeros(1)
    with np.errstate(all="ignore"):
        mode = max(0.0, float(curve.inverse(-p / q)))
        steep, bend = np.array([max(0.0, p)]), np.array([q * float(curve.factor(mode))])
        left = quadrature.reach(curve, zero, bend, np.array([mode]), -1.0)
        right = quadrature.reach(curve, steep - curve.growth, bend, np.array([np.inf]), 1.0)
    start, size, _ = quadrature.panels(curve, steep, bend, left, right)
    assert start.size <= 60
    assert start[0] == -left[0]
    assert start[1:] == pytest.approx((start + size)[:-1], abs=1e-12 * (left + right)[0])
    falls = steep * right + bend * curve.bend(right)
    falls = np.append(falls, bend * curve.bend(-left) if left < mode else [])
    assert (falls >= 0.999 * quadrature.DROP).all()  # nothing is left to add


@pytest.mark.parametrize("n", [5, 16, 17, 200, 10**7])
def test_block_sums_are_exact_for_polynomials(n):
    at, weight = whole_numbers.gram(n) if n < 10**6 else whole_numbers._scaled(n)
    sums = {1: n * (n - 1) / 2, 3: (n * (n - 1) / 2) ** 2}
    assert weight.sum() == pytest.approx(n, rel=1e-13)
    for power, exact in sums.items():
        assert weight @ at**power == pytest.approx(exact, rel=1e-11)
    if n < 10**6:
        assert weight @ (at / n) ** 31 == pytest.approx(np.sum((np.arange(n) / n) ** 31), rel=1e-12)


@pytest.mark.parametrize("width", [None, 0.3])
@pytest.mark.parametrize("rival", TWO_PARAMETERS)
def test_derivatives_of_the_likelihoods(rival, width):
    low = np.array([0.0, 0.4, 1.1, 2.0])
    widths = None if width is None else np.array([width, width, width, np.inf])
    cells = Cells(low, widths, np.array([0.4, 0.3, 0.2, 0.1]))
    law = Growing(cells) if rival == "stretched_exponential" else Bent(CURVES[rival], cells)
    at = np.array([0.3, 0.6])
    _, gradient, second, _ = law(at)
    for i, step in enumerate(np.eye(2) * 1e-5):
        up, down = law(at + step), law(at - step)
        assert gradient[i] == pytest.approx((up[0] - down[0]) / 2e-5, rel=1e-7)
        assert second[i] == pytest.approx((up[1] - down[1]) / 2e-5, rel=1e-7)
    assert law(at)[0] == pytest.approx(-cells.share @ law.each(at), rel=1e-13)


@pytest.mark.parametrize("z", [1e-9, 1e-4, 9.9e-4, 1.1e-3, 0.5, 20.0])
def test_growth_against_mpmath(z):
    found = growth(np.array([2.0]), z / 2, 2)
    for j, part in enumerate(found):
        exact = mpmath.quad(lambda v: v**j * mpmath.exp(z / 2 * v), [0, 2])  # noqa: B023
        assert part[0] == pytest.approx(float(exact), rel=1e-9)
    assert growth(np.array([2.0]), 0.0, 2) == pytest.approx([2.0, 2.0, 8 / 3])
    y = np.array([-0.3, -1e-9, 1e-12, 0.2499, 0.2501, 3.0])
    with mpmath.workdps(40):
        exact = [float(mpmath.expm1(mpmath.mpf(v)) - mpmath.mpf(v)) for v in y]
    assert excess_exp(y) == pytest.approx(exact, rel=4e-15)


@pytest.fixture
def most_panels(monkeypatch):
    """The most panels of any one bin."""
    seen, cut = [0], quadrature.panels

    def counted(*given):
        start, size, owner = cut(*given)
        seen.append(np.bincount(owner).max())
        return start, size, owner

    monkeypatch.setattr(quadrature, "panels", counted)
    return lambda: max(seen)


def check_bounded(tail, most_panels):
    sample, exponent = tail_of(*tail)
    if sample.count.size < 2 or not math.isfinite(exponent):
        return
    tracemalloc.start()
    try:
        results = compare_all(sample, exponent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6 + 400 * sample.count.size
    assert most_panels() <= 60
    for found in results.values():
        assert np.isfinite([found.ratio, found.statistic, found.pvalue]).all(), found
        assert 0 <= found.pvalue <= 1


@pytest.mark.parametrize("name", hard_tails())
def test_work_and_memory_are_bounded(name, most_panels):
    check_bounded(hard_tails()[name], most_panels)


@pytest.mark.parametrize("seed", range(72))
def test_work_and_memory_are_bounded_for_any_tail(seed, most_panels):
    check_bounded(random_tail(seed), most_panels)
