"""Products of one batch's curvature matrix with a vector, in every way that a model allows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradtail.torch import differences
from gradtail.torch.batches import Batch
from gradtail.torch.frozen import seed_all

Operator = Literal["hessian", "gauss_newton", "second_moment", "covariance"]
OF_EXAMPLES: tuple[Operator, ...] = ("second_moment", "covariance")
"""Those made of the gradients of single examples."""

Vectors: TypeAlias = list[Tensor]
Product: TypeAlias = Callable[[Vectors], Vectors]
"""Takes and returns one tensor a parameter."""

_MISSING = ("not implemented", "differentiate twice", "double backward", "once_differentiable")
_ALIKE = 1e-3


@dataclass(frozen=True)
class Problem:
    """A model, a loss, and the parameters that are not constants.

    Attention is computed as a matrix throughout: fused kernels, that of CPUs too, have no second derivative.
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    names: list[str]
    parameters: list[nn.Parameter]
    device: torch.device
    seed: int

    def output(self, batch: Batch, number: int) -> tuple[Any, Any]:
        """Return the model's output for a batch, and the target."""
        inputs, targets = batch.to(self.device)
        seed_all(self.seed + number)  # dropout must drop the same in every product
        with sdpa_kernel(SDPBackend.MATH):
            return self.model(inputs), targets

    def value(self, batch: Batch, number: int) -> Tensor:
        """Return the loss of a batch."""
        with sdpa_kernel(SDPBackend.MATH):
            return checked_loss(self.loss(*self.output(batch, number)))

    def gradient(self, batch: Batch, number: int, create_graph: bool = False) -> tuple[Tensor, ...]:
        """Return the gradient, zero where a parameter has no part."""
        return torch.autograd.grad(
            self.value(batch, number), self.parameters, create_graph=create_graph, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip


def checked_loss(value: Any, *, graph: bool = True) -> Tensor:
    """Check what the loss has returned."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss: expected a scalar tensor, the mean over the batch, got {shown}")
    if graph and not value.requires_grad:
        raise ValueError("loss: expected a value that depends on the parameters, got one without a graph")
    return value.reshape(())


def lacks_second_derivative(error: RuntimeError) -> bool:
    """Whether an operation of the model or the loss can be differentiated but once."""
    return any(words in str(error) for words in _MISSING)


def kept(problem: Problem, batch: Batch, number: int, operator: Operator) -> Product:
    """Keep the graph of the first backward, and run the second alone for each product."""
    return (
        _kept_hessian(problem, batch, number)
        if operator == "hessian"
        else _kept_gauss(problem, batch, number)
    )


def _kept_hessian(problem: Problem, batch: Batch, number: int) -> Product:
    """Differentiate v'g, whose graph is that of the gradient (Pearlmutter 1994, Neural Comput. 6, 147)."""
    gradient = problem.gradient(batch, number, create_graph=True)
    live = [i for i, g in enumerate(gradient) if g.requires_grad]

    def product(v: Vectors) -> Vectors:
        if not live:  # the gradient is a constant: curvature is zero
            return [torch.zeros_like(p) for p in problem.parameters]
        return list(
            torch.autograd.grad(
                [gradient[i] for i in live], problem.parameters, [v[i] for i in live], retain_graph=True,
                allow_unused=True, materialize_grads=True,
            )
        )  # fmt: skip

    return product


def _kept_gauss(
    problem: Problem, batch: Batch, number: int, jacobian: Callable[..., Any] | None = None
) -> Product:
    """J'HJ: Jv as the derivative of u'J by u, H that of the loss by the output, and J' by backward."""
    output, targets = problem.output(batch, number)
    output = _one_output(output)
    leaf = output.detach().requires_grad_(True)
    outer = torch.autograd.grad(
        checked_loss(problem.loss(leaf, targets)), leaf, create_graph=True, materialize_grads=True
    )[0]
    if jacobian is None:
        jacobian = _forward_by_backward(problem, output)

    def product(v: Vectors) -> Vectors:
        if not outer.requires_grad:  # the loss is linear in the output
            return [torch.zeros_like(p) for p in problem.parameters]
        (forward,) = jacobian(*v)
        (curved,) = torch.autograd.grad(outer, leaf, forward, retain_graph=True, materialize_grads=True)
        return list(
            torch.autograd.grad(
                output,
                problem.parameters,
                curved,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        )

    return product


def loss_unlike(problem: Problem, batch: Batch, number: int) -> bool:
    """Whether the second derivatives of a loss by the output are not those of its first.

    That is asked only where the loss has a function with a backward pass of its own.
    """
    with torch.no_grad():
        output, targets = problem.output(batch, number)

    def first(z: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor, bool]:
        z = z.detach().requires_grad_(True)
        value = checked_loss(problem.loss(z, targets))
        (g,) = torch.autograd.grad(value, z, create_graph=create_graph, materialize_grads=True)
        return z, g, differences.has_own_functions(value)

    z, g, own = first(output, create_graph=True)
    if not own:
        return False
    u = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    u /= torch.linalg.vector_norm(u)
    found = torch.zeros_like(z)
    if g.requires_grad:
        (found,) = torch.autograd.grad(g, z, u, materialize_grads=True)
    eps = torch.finfo(z.dtype).eps
    steps = differences.longest_and_shortest(output, eps)
    return differences.grossly_unlike(found, lambda h: first(output + h * u)[1], steps, eps)


def _forward_by_backward(problem: Problem, output: Tensor) -> Callable[..., Vectors]:
    u = torch.zeros_like(output, requires_grad=True)
    back = torch.autograd.grad(
        output, problem.parameters, u, create_graph=True, allow_unused=True, materialize_grads=True
    )
    live = [i for i, b in enumerate(back) if b.requires_grad]

    def jacobian(*v: Tensor) -> Vectors:
        found = torch.autograd.grad([back[i] for i in live], u, [v[i] for i in live], retain_graph=True)
        return list(found)

    return jacobian


def _one_output(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"model: expected an output that is one tensor for operator='gauss_newton', "
            f"got {type(output).__name__}"
        )
    if not output.requires_grad:
        raise ValueError("model: expected an output that depends on the parameters, got one that does not")
    return output


def rows(problem: Problem, batch: Batch, number: int) -> Tensor:
    """Take the gradient of every example, shape (examples, parameters)."""
    inputs, targets = batch.to(problem.device)
    if isinstance(inputs, Tensor) and isinstance(targets, Tensor):
        names = own_names(problem)

        def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            output = torch.func.functional_call(problem.model, parameters, (x[None],))
            return checked_loss(problem.loss(output, y[None]), graph=False)

        each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0), randomness="different")
        values = {name: p.detach() for name, p in zip(names, problem.parameters, strict=True)}
        seed_all(problem.seed + number)
        try:
            found = each(values, inputs, targets)
        except (
            Exception
        ):  # a model that cannot be mapped over examples: one by one, where a true error comes again
            pass
        else:
            return torch.cat([found[name].reshape(batch.size, -1) for name in names], dim=1)
    single = [Batch(_example(inputs, i), _example(targets, i), 1) for i in range(batch.size)]
    return torch.stack(
        [
            torch.cat([g.reshape(-1) for g in problem.gradient(example, number * 2**20 + i)])
            for i, example in enumerate(single)
        ]
    )


def _example(value: Any, i: int) -> Any:
    if isinstance(value, Tensor):
        return value[i : i + 1] if value.ndim else value
    if isinstance(value, (list, tuple)):
        parts = [_example(part, i) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return {key: _example(part, i) for key, part in value.items()} if isinstance(value, dict) else value


def of_rows(matrix: Tensor, parameters: list[nn.Parameter]) -> Product:
    """G'Gv over the number of examples."""
    sizes = [p.numel() for p in parameters]

    def product(v: Vectors) -> Vectors:
        flat = torch.cat([part.reshape(-1).to(matrix.dtype) for part in v])
        found = matrix.T @ (matrix @ flat) / len(matrix)
        return [part.view_as(p) for part, p in zip(torch.split(found, sizes), parameters, strict=True)]

    return product


def own_names(problem: Problem) -> list[str]:
    """Return names as the model itself has them, with those of its wrappers."""
    names = {id(p): name for name, p in problem.model.named_parameters()}
    return [names[id(p)] for p in problem.parameters]


def linearised(
    problem: Problem, batch: Batch, number: int, operator: Operator, reference: Product
) -> tuple[Product, int] | None:
    """Trace differentiation in forward mode once, and keep of it what depends on the vector.

    Parameters
    ----------
    problem, batch, number, operator
    reference : callable
        The product by another way, which every trace is held against: what cannot be traced, or what
        a trace would not repeat (dropout), is noticed here.

    Returns
    -------
    tuple of callable and int, or None
        The product and the bytes that its trace holds.

    Notes
    -----
    Of a Hessian it is the gradient that is traced: what remains is about as many operations as a forward and
    a backward pass have, and none of them the derivative of a backward convolution by its weights, which is
    slow on CPUs. Of a Gauss-Newton matrix it is the model. What PyTorch cannot differentiate so
    (mse_loss, batch normalisation in training mode) is not traced.
    """
    own = own_names(problem)
    values = [p.detach() for p in problem.parameters]
    inputs, targets = batch.to(problem.device)

    def output(*parameters: Tensor) -> Tensor:
        seed_all(problem.seed + number)
        found = torch.func.functional_call(problem.model, dict(zip(own, parameters, strict=True)), (inputs,))
        return found  # type: ignore[no-any-return]

    def value(*parameters: Tensor) -> Tensor:
        return checked_loss(problem.loss(output(*parameters), targets), graph=False)

    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            if operator == "hessian":
                graph = _traced(torch.func.grad(value, argnums=tuple(range(len(values)))), values)

                product = _without_graph(graph)
            else:
                graph = _traced(lambda *parameters: [output(*parameters)], values)
                product = _kept_gauss(problem, batch, number, graph)
            if not _agree(product, reference, values, problem.seed):
                return None
    except Exception:  # tracing fails in more ways than can be listed; the reference serves
        return None
    return product, _held_bytes(graph, values)


def _without_graph(graph: Callable[..., Any]) -> Product:
    def product(v: Vectors) -> Vectors:
        with torch.no_grad():
            return list(graph(*v))

    return product


def _traced(function: Callable[..., Any], values: Vectors) -> torch.fx.GraphModule:
    """Trace the derivative of a function of tensors along others.

    It is taken without a trace first: an operation that fails then can end the process within a trace.
    """
    from torch.autograd import forward_ad
    from torch.fx.experimental.const_fold import split_const_subgraphs
    from torch.fx.experimental.proxy_tensor import make_fx

    make_dual: Callable[..., Any] = forward_ad.make_dual
    unpack_dual: Callable[..., Any] = forward_ad.unpack_dual

    def tangents(*vectors: Tensor) -> Vectors:
        with forward_ad.dual_level():
            found = list(map(unpack_dual, function(*map(make_dual, values, vectors))))
        return [torch.zeros_like(part.primal) if part.tangent is None else part.tangent for part in found]

    tangents(*values)
    return split_const_subgraphs(make_fx(tangents)(*map(torch.zeros_like, values)))


def _agree(product: Product, reference: Product, values: Vectors, seed: int) -> bool:
    """Compare two products of one vector, the one of them twice, as it may keep something."""
    generator = torch.Generator().manual_seed(seed)
    v = [torch.randn(p.shape, generator=generator).to(p) for p in values]
    expected = torch.cat([part.reshape(-1) for part in reference(v)])
    product([2 * part for part in v])
    found = torch.cat([part.reshape(-1) for part in product(v)])
    return bool((found - expected).norm() <= _ALIKE * expected.norm())


def _held_bytes(graph: torch.fx.GraphModule, values: Vectors) -> int:
    """Size up the constants of a trace."""
    storages = {}
    for module in graph.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, Tensor) and not value._is_zerotensor():  # which has no storage
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    for p in values:
        storages.pop(p.untyped_storage().data_ptr(), None)
    return sum(storages.values())
