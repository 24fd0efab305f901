"""Small models, and their curvature as a dense matrix in float64, by other ways than the package takes."""

import numpy as np
import torch
from torch import nn

mse, ce = nn.functional.mse_loss, nn.functional.cross_entropy


def small_net(dtype=torch.float32, examples=70):
    """Return a net of 89 parameters whose Hessian has eigenvalues of both signs, and data."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(examples, 5, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (examples,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    return model, (x, y)


def _flat_function(model, of_parameters, params=None):
    """Return a function of one flat float64 vector, and the vector."""
    named = {name: p.detach().double() for name, p in model.named_parameters()}
    buffers = {name: b.detach().double() if b.is_floating_point() else b for name, b in model.named_buffers()}
    chosen = [name for name in named if params is None or name in params]
    sizes = [named[name].numel() for name in chosen]

    def function(flat):
        parts = {
            name: part.view_as(named[name]) for name, part in zip(chosen, flat.split(sizes), strict=True)
        }
        return of_parameters(lambda x: torch.func.functional_call(model, {**named, **buffers, **parts}, (x,)))

    return function, torch.cat([named[name].reshape(-1) for name in chosen])


def dense_hessian(model, loss, data, params=None):
    x, y = data[0].double(), data[1].double() if data[1].is_floating_point() else data[1]
    function, at = _flat_function(model, lambda call: loss(call(x), y), params)
    return torch.autograd.functional.hessian(function, at).numpy()


def dense_gauss_newton(model, loss, data):
    """Sum J'HJ example by example."""
    x, y = data[0].double(), data[1].double() if data[1].is_floating_point() else data[1]
    total = 0.0
    for i in range(len(x)):
        function, at = _flat_function(model, lambda call, i=i: call(x[i : i + 1])[0])
        jacobian = torch.autograd.functional.jacobian(function, at)
        inner = torch.autograd.functional.hessian(lambda z, i=i: loss(z[None], y[i : i + 1]), function(at))
        total = total + jacobian.T @ inner @ jacobian
    return (total / len(x)).numpy()


def dense_second_moment(model, loss, data):
    x, y = data[0].double(), data[1].double() if data[1].is_floating_point() else data[1]
    total = 0.0
    for i in range(len(x)):
        function, at = _flat_function(model, lambda call, i=i: loss(call(x[i : i + 1]), y[i : i + 1]))
        (gradient,) = torch.autograd.grad(function(at.requires_grad_()), at)
        total = total + torch.outer(gradient, gradient)
    return (total / len(x)).numpy()


def largest(matrix, top):
    return np.linalg.eigvalsh(matrix)[::-1][:top]
