"""The eigenvalue solver on matrices whose spectrum is known."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from gradtail.torch import lanczos as lanczos_module  # noqa: E402
from gradtail.torch.basis import Basis  # noqa: E402
from gradtail.torch.lanczos import Lanczos, least_rows  # noqa: E402

DTYPES = [torch.float64, torch.float32]


def with_spectrum(values, seed=0):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return (q * np.asarray(values)) @ q.T


def solver(matrix, top, *, dtype=torch.float64, tol=1e-6, rows=None, seed=0):
    a = torch.tensor(matrix, dtype=dtype)
    noise = torch.finfo(dtype).eps
    return a, Lanczos(
        lambda v: a @ v, len(a), top, tol=tol, noise=noise, rows=rows or len(a), dtype=dtype,
        device=torch.device("cpu"), seed=seed,
    )  # fmt: skip


def always(products, converged):
    return products < 5000


def check(matrix, top, *, dtype=torch.float64, tol=1e-6, rows=None, seed=0):
    """Solve, and hold values, vectors and residuals against the dense solution."""
    a, found = solver(matrix, top, dtype=dtype, tol=tol, rows=rows, seed=seed)
    assert found.run(always)
    pairs = found.pairs()
    scale = np.abs(np.linalg.eigvalsh(matrix)).max() or 1.0
    near = max(tol, 40 * torch.finfo(dtype).eps)
    assert pairs.converged == top
    truth = np.linalg.eigvalsh(matrix)[::-1][:top]
    assert pairs.eigenvalues == pytest.approx(truth, abs=near * scale)
    vectors = found.vectors(top).double()
    assert (vectors @ vectors.T - torch.eye(top)).abs().max() < 300 * torch.finfo(dtype).eps
    residuals = (
        (vectors @ a.double() - torch.tensor(pairs.eigenvalues)[:, None] * vectors).norm(dim=1).numpy()
    )
    assert (residuals <= 2 * pairs.residuals + 30 * torch.finfo(dtype).eps * scale).all()
    assert residuals.max() <= near * scale
    return found


POWER_LAW = 1 / np.arange(1, 401.0)
SPECTRA = {
    "power law": (POWER_LAW, 20),
    "positive, few, and negative": (np.r_[5, 3, 2, 1, -np.arange(1, 97.0) / 20], 12),
    "more of the other sign": (np.r_[-10.0, -9, -8, np.linspace(0, 1, 97)], 6),
    "all": (np.random.default_rng(1).standard_normal(30), 30),
    "all negative": (-np.arange(1, 41.0), 5),
    "repeated": (np.r_[5, 5, 5, 4, 4, 1, np.linspace(-1, 0.5, 94)], 8),
    "nearly repeated": (np.r_[1, 1 - 1e-9, 1 - 1e-5, 0.5, 0.5, np.linspace(0, 0.3, 200)], 6),
    "every one ten times": (np.repeat(np.arange(1, 13.0), 10), 35),
    "repeated in the middle": (np.r_[1 / np.arange(1, 50.0), np.zeros(12), -1 / np.arange(1, 31.0)], 70),
    "few distinct": (np.r_[3, 2, 1, np.zeros(200)], 8),
    "a multiple of the identity": (np.full(40, 3.0), 7),
    "nothing": (np.zeros(40), 3),
    "one element": (np.array([2.0]), 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_spectra(name, dtype):
    values, top = SPECTRA[name]
    check(with_spectrum(values), top, dtype=dtype, tol=1e-6 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("name", ["power law", "repeated", "nearly repeated", "positive, few, and negative"])
def test_restarts_within_few_rows(name):
    values, top = SPECTRA[name]
    values = np.r_[values, np.linspace(values.min(), 0, 150)]
    rows = least_rows(len(values), top)
    found = check(with_spectrum(values), top, rows=rows)
    assert len(found.basis) <= rows < len(values)


def test_many_copies_within_few_rows():
    """Copies do not fit beside each other: what has converged is kept alone."""
    found = check(with_spectrum(np.repeat(np.arange(1, 31.0), 10)), 40, rows=170, tol=1e-4)
    assert found.products > 170


def test_no_copy_is_missed_in_silence():
    """Later spaces may need the direction of the residual that an earlier one has ended with."""
    n, top = 3000, 16
    for seed in range(40):
        values = np.repeat(np.abs(np.random.default_rng(seed).standard_normal(7)), 3)
        diagonal = torch.from_numpy(np.r_[values, np.zeros(n - 21)])
        found = Lanczos(
            diagonal.mul, n, top, tol=1e-4, noise=2.3e-16, rows=least_rows(n, top) + 2 * top,
            dtype=torch.float64, device=torch.device("cpu"), seed=seed,
        )  # fmt: skip
        assert found.run(always)
        truth = np.sort(values)[::-1][:top]
        assert not found.clear() or found.pairs().eigenvalues == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_start_that_misses_an_eigenvector(seed, monkeypatch):
    """The first start has nothing of the largest eigenvector, the last axis, and so has all of its space."""
    matrix = np.zeros((200, 200))
    matrix[:-1, :-1] = with_spectrum(np.linspace(0, 1, 199), seed)
    matrix[-1, -1] = 10
    real, starts = Basis.random, []

    def blind(self, generator, about=None):
        w = real(self, generator, about)
        if not starts:
            w[-1] = 0
            w /= w.norm()
        starts.append(1)
        return w

    monkeypatch.setattr(Basis, "random", blind)
    found = check(matrix, 3, seed=seed)
    assert found.pairs().eigenvalues[0] == pytest.approx(10)
    assert len(starts) == 3  # one that finds it is followed by another


def test_the_search_says_what_it_cannot_exclude(monkeypatch):
    matrix = with_spectrum(POWER_LAW)
    _, found = solver(matrix, 5, tol=1e-4)
    assert found.run(always)
    assert found.clear()
    assert POWER_LAW[5] < found.pairs().unseen <= POWER_LAW[4] * 1.05
    monkeypatch.setattr(lanczos_module, "CHECK_ROWS", 4)
    _, found = solver(matrix, 5, tol=1e-4)
    assert found.run(always)
    assert not found.clear()


def last_layer(seed, dtype, classes=24, width=16, examples=300):
    """Product with the Hessian of a linear classifier by its weights, whose eigenvalues come in bands."""
    rng = np.random.default_rng(seed)
    h = rng.standard_normal((examples, width)) * np.arange(1, width + 1) ** -rng.uniform(0.3, 1.5)
    h += rng.standard_normal(width) * rng.uniform(0, 3)
    logits = h @ rng.standard_normal((width, classes)) * rng.uniform(0.1, 3)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    given, shares = (torch.tensor(x, dtype=dtype) for x in (h, p / p.sum(axis=1, keepdims=True)))

    def product(v):
        along = shares * (given @ v.view(classes, width).T)
        along -= shares * along.sum(dim=1, keepdim=True)
        return (along.T @ given / examples).flatten()

    return product


@pytest.mark.parametrize(
    ("seed", "dtype", "tol", "top"),
    [(121, torch.float32, 0.03, 30), (163, torch.float64, 1e-3, 80), (336, torch.float32, 0.01, 30)],
)
def test_kept_pairs_that_leak_are_let_go(seed, dtype, tol, top, monkeypatch):
    """Pairs that are good enough for themselves may be too rough for smaller ones that are found later."""

    def search(kept):
        monkeypatch.setattr(lanczos_module, "_KEPT", kept)
        found = Lanczos(
            last_layer(seed, dtype), 384, top, tol=tol, noise=torch.finfo(dtype).eps, rows=384, dtype=dtype,
            device=torch.device("cpu"), seed=seed,
        )  # fmt: skip
        return found, found.run(lambda products, converged: products < 1000)

    assert search(np.inf)[0].inexact > 0  # without letting go there is no headway, and products are blamed
    found, done = search(0.5)
    assert done
    assert found.inexact == 0
    dense = torch.stack([last_layer(seed, torch.float64)(row) for row in torch.eye(384).double()])
    truth = torch.linalg.eigvalsh(dense).flip(0).numpy()[:top]
    pairs = found.pairs()
    assert pairs.eigenvalues == pytest.approx(truth, abs=pairs.residuals.max())


def test_products_that_err_by_more_than_they_should_end_the_search():
    """Of a classifier that is sure of all examples the curvature cancels: 1e-13 of errors in 1e-10."""
    found = Lanczos(
        last_layer(271, torch.float32), 384, 80, tol=1e-3, noise=torch.finfo(torch.float32).eps, rows=384,
        dtype=torch.float32, device=torch.device("cpu"), seed=271,
    )  # fmt: skip
    assert found.run(lambda products, converged: products < 1000)
    assert found.inexact > 10 * torch.finfo(torch.float32).eps
    assert found.pairs().residuals.min() >= found.inexact * found.scale


def test_products_are_few():
    """Fewer than ARPACK takes with its usual space, at the same tolerance."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    matrix = with_spectrum(np.r_[1 / np.arange(1, 301.0), -0.3 / np.arange(1, 301.0)])
    counted = []

    def product(v):
        counted.append(1)
        return matrix @ v

    for top in (10, 60):
        counted.clear()
        eigsh(LinearOperator(matrix.shape, product, dtype=float), top, which="LA", ncv=2 * top + 1, tol=1e-3)
        _, found = solver(matrix, top, tol=1e-3)
        assert found.run(always)
        assert found.products <= 1.2 * len(counted)


def test_residuals_are_checked_by_a_product():
    a, found = solver(with_spectrum(POWER_LAW), 10, tol=1e-3)
    assert found.run(always)
    products = found.products
    seen, expected = found.check(10)
    assert found.products == products + 1
    assert expected / 4 < seen < 4 * expected
    a += 0.01 * torch.eye(len(a))  # products that do not repeat
    assert found.check(10)[0] == pytest.approx(0.01, rel=0.05)


def test_a_search_that_was_stopped_goes_on_where_it_was():
    matrix = with_spectrum(SPECTRA["repeated"][0])
    _, whole = solver(matrix, 8)
    assert whole.run(always)
    _, first = solver(matrix, 8)
    assert not first.run(lambda products, converged: products < 30)
    early = first.pairs()
    assert early.converged < 8
    assert early.unseen == np.inf
    _, second = solver(matrix, 8, seed=5)
    second.load_state_dict(first.state_dict())
    assert second.run(always)
    assert second.products == whole.products
    assert (second.pairs().eigenvalues == whole.pairs().eigenvalues).all()


def test_the_same_seed_gives_the_same_bits():
    matrix = with_spectrum(POWER_LAW)
    found = [solver(matrix, 5, seed=seed)[1] for seed in (0, 0, 1)]
    assert all(one.run(always) for one in found)
    a, b, c = (one.pairs().residuals for one in found)
    assert (a == b).all()
    assert not (a == c).all()


def test_products_that_are_not_finite_are_refused():
    _, found = solver(np.full((5, 5), np.nan), 2)
    with pytest.raises(
        ValueError, match="data: expected finite derivatives of the loss, got NaN or infinity"
    ):
        found.run(always)


def test_a_basis_rotates_in_place():
    basis = Basis(5000, 150, torch.float64, torch.device("cpu"))
    rows = torch.linalg.qr(
        torch.randn(5000, 140, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0].T
    for row in rows:
        basis.append(row)
    weights = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 30)))[0]
    expected = torch.from_numpy(weights.T.copy()) @ rows[20:120]
    assert torch.allclose(basis.combine(20, weights), expected)
    basis.rotate(20, weights)
    assert torch.allclose(torch.stack([basis[20 + i] for i in range(30)]), expected)
    assert torch.equal(basis[19], rows[19])
    basis.shorten(50)
    w = torch.randn(5000, dtype=torch.float64)
    basis.remove_from(w)
    assert max(abs(torch.dot(basis[i], w)) for i in range(50)) < 1e-12
