"""How exact products are: second derivatives that are missing or wrong, differences, and short floats."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (the extra gradtail[torch])")

from curvature_models import ce, dense_hessian, mse, small_net  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from gradtail.experiments.gpt import GPT, GPTConfig  # noqa: E402
from gradtail.torch import curvature as curvature_module  # noqa: E402
from gradtail.torch import hessian_spectrum, hessian_trace  # noqa: E402
from gradtail.torch.asked import batches_of_all, problem_of  # noqa: E402
from gradtail.torch.curvature import Curvature  # noqa: E402


def curvature_of(model, loss, data, params=None, operator="hessian", mode=None, batch_size=None):
    problem = problem_of(model, loss, params, operator, mode, 0)
    return Curvature(problem, batches_of_all(data, batch_size)[0], operator)


def of_tokens(output, target):
    return ce(output.flatten(0, 1), target.flatten())


def small_gpt():
    torch.manual_seed(0)
    model = GPT(GPTConfig(layers=1, heads=2, width=8, context=8, vocabulary=16))
    generator = torch.Generator().manual_seed(0)
    return model, tuple(torch.randint(0, 16, (4, 8), generator=generator) for _ in range(2))


# Attention.


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("operator", ["hessian", "gauss_newton"])
def test_attention_can_be_differentiated_twice(operator, traced, monkeypatch):
    if traced:
        monkeypatch.setattr(curvature_module, "WORTH_TRACING", 0)
    model, data = small_gpt()
    name = "blocks.0.attention.out.weight"
    found = curvature_of(model, of_tokens, data, [name], operator)
    found.keep(1 << 30, 100)
    assert found.products_by == ("traced" if traced else "kept graph")
    assert not found.warnings
    if operator == "hessian":
        matrix = torch.stack([found.product(row) for row in torch.eye(found.n)]).double().numpy()
        x, y = data
        with sdpa_kernel(SDPBackend.MATH):
            expected = torch.autograd.functional.hessian(
                lambda w: of_tokens(torch.func.functional_call(model, {name: w.view(8, 8)}, (x,)), y),
                model.get_parameter(name).detach().reshape(-1),
            ).numpy()
        assert np.abs(matrix - expected).max() < 1e-4 * np.abs(expected).max()
