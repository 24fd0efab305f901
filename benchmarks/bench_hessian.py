"""The largest eigenvalues of the Hessian of a LeNet, beside what others take for them.

61,706 parameters, 512 examples, after 20 steps of SGD. Peers that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from gradtail.experiments.networks import LeNet
from gradtail.torch import hessian_spectrum
from gradtail.torch.asked import batches_of_all, problem_of
from gradtail.torch.curvature import Curvature

from .harness import Table, Work, compare

pytestmark = pytest.mark.filterwarnings("ignore")  # of peers

TOL = 1e-3
EXAMPLES = 512
Found = tuple[npt.NDArray[np.float64], Tensor]
"""Eigenvalues from the largest down, and vectors of shape (k, n)."""


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 1, 28, 28, generator=generator)
    y = torch.randint(0, 10, (EXAMPLES,), generator=generator)
    model, loss = LeNet(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, loss, (x, y)


class Counted:
    """An operator that counts its products."""

    def __init__(self, product: Callable[[Any], Any]) -> None:
        self._product, self.count = product, 0

    def __call__(self, v: Any) -> Any:
        self.count += 1
        return self._product(v)


def curvature_of(net: Any, expected: int) -> Curvature:
    model, loss, data = net
    problem = problem_of(model, loss, None, "hessian", None, 0)
    curvature = Curvature(problem, batches_of_all(data, None)[0], "hessian")
    curvature.keep(1 << 32, expected)
    return curvature


def by_arpack(product: Callable[[Any], Any], n: int, top: int, ncv: int | None = None) -> Found:
    start = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    operator = LinearOperator((n, n), product, dtype=np.float32)
    values, vectors = eigsh(operator, top, which="LA", tol=TOL, ncv=ncv, v0=start)
    return values[::-1].astype(np.float64), torch.from_numpy(vectors[:, ::-1].T.copy())


def own(net: Any, top: int) -> tuple[Found, int]:
    model, loss, data = net
    found = hessian_spectrum(model, loss, data, top, tol=TOL, vectors=True)
    assert found.vectors is not None
    return (found.eigenvalues, found.vectors.T), found.products


def own_product_arpack(net: Any, top: int) -> tuple[Found, int]:
    curvature = curvature_of(net, 8 * top)
    product = Counted(lambda v: curvature.product(torch.from_numpy(np.ravel(v))).numpy())
    return by_arpack(product, curvature.n, top, 2 * top + 1), product.count


def curvlinops_arpack(net: Any, top: int) -> tuple[Found, int]:
    import curvlinops

    model, loss, data = net
    operator = curvlinops.HessianLinearOperator(
        model, loss, list(model.parameters()), [data], check_deterministic=False
    ).to_scipy()
    product = Counted(lambda v: operator @ np.ravel(v))
    return by_arpack(product, operator.shape[0], top), product.count


def eigenthings(net: Any, top: int, steps: int) -> tuple[Found, int]:
    """Lanczos of a number of steps that must be known beforehand."""
    import hessian_eigenthings as peer

    model, loss, data = net
    operator = peer.HessianOperator(model, [data], peer.supervised_loss(loss))
    found = peer.lanczos(operator, k=top, max_iter=steps, tol=TOL, which="LA", reorthogonalize=True, seed=0)
    return (found.eigenvalues.double().numpy(), found.eigenvectors), found.iterations


def pyhessian_power(net: Any, top: int) -> tuple[Found, int]:
    """Power iteration, of the largest magnitudes."""
    from pyhessian import hessian

    model, loss, data = net
    operator = hessian(model, loss, data=data, cuda=False)
    values, vectors = operator.eigenvalues(top_n=top, tol=TOL)
    model.zero_grad()
    flat = torch.stack([torch.cat([part.reshape(-1) for part in v]) for v in vectors])
    return (np.array(values), flat.detach()), 0


@pytest.mark.parametrize("top", [20, 50])
def test_hessian_spectrum_of_a_lenet(net: Any, table: Table, top: int) -> None:
    cases: dict[str, Callable[[], tuple[Found, int]]] = {"gradtail": lambda: own(net, top)}
    cases["gradtail's product, eigsh with 2 K + 1"] = lambda: own_product_arpack(net, top)
    if importlib.util.find_spec("curvlinops"):
        cases["curvlinops, eigsh"] = lambda: curvlinops_arpack(net, top)
    if importlib.util.find_spec("hessian_eigenthings"):
        # it takes a number of steps and not a tolerance: about as many as ours takes products
        cases["hessian-eigenthings, lanczos"] = lambda: eigenthings(net, top, {20: 95, 50: 250}[top])
    if importlib.util.find_spec("pyhessian") and top == 20:
        cases["PyHessian, power iteration, 5 alone"] = lambda: pyhessian_power(net, 5)
    found: dict[str, tuple[Found, int, float]] = {}

    def measured(name: str, case: Callable[[], tuple[Found, int]]) -> Work:
        def work() -> None:
            began = time.process_time()
            result = case()
            found[name] = (*result, time.process_time() - began)

        return work

    works = {name: measured(name, case) for name, case in cases.items()}
    rows = compare(
        table, f"top {top} of a Hessian, 61,706 parameters, {EXAMPLES} examples", works,
        elements=0, bytes=0, reference="gradtail", rounds=1, warmup=0,
    )  # fmt: skip
    curvature = curvature_of(net, 200)
    truth = found["gradtail"][0][0]
    for name, ((values, vectors), products, cpu) in found.items():
        residuals = [
            float((curvature.product(v) - value * v).norm() / abs(value))
            for value, v in zip(values, vectors.to(curvature.dtype), strict=True)
        ]
        worst = max(residuals)
        rows[
            name
        ].case += f": {cpu:.3g} s of CPU, {products or '?'} products, residuals to {worst:.1g} of each"
        if name == "gradtail":
            assert worst <= 1.1 * TOL
        elif "eigsh" in name:
            assert values == pytest.approx(truth, rel=1e-3)


def test_products_beside_arpack(net: Any, table: Table) -> None:
    """K = 200: the products of both, on the same matrix and at the same tolerance."""
    found: dict[str, tuple[Found, int]] = {}
    cases = {"gradtail": own, "gradtail's product, eigsh with 2 K + 1": own_product_arpack}

    def work(name: str) -> Work:
        return lambda: found.update({name: cases[name](net, 200)})

    works = {name: work(name) for name in cases}
    rows = compare(
        table, "top 200 of a Hessian, 61,706 parameters", works, elements=0, bytes=0,
        reference="gradtail's product, eigsh with 2 K + 1", rounds=1, warmup=0,
    )  # fmt: skip
    (ours, few), (theirs, many) = found.values()
    rows["gradtail"].case += f": {few} products"
    rows["gradtail"].goal, rows["gradtail"].met = "products <= 1.2 times eigsh", few <= 1.2 * many
    rows["gradtail's product, eigsh with 2 K + 1"].case += f": {many} products"
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3)
