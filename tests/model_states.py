"""Everything of a model that a look at it may change, and the random states."""

import random

import numpy as np
import torch


def everything(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(),  # noqa: NPY002
    )  # fmt: skip


def same(a, b):
    states, grads, modes, *rng = a
    states_, grads_, modes_, *rng_ = b
    assert states.keys() == states_.keys()
    assert all(torch.equal(states[name], states_[name]) for name in states)
    assert all((x is None and y is None) or torch.equal(x, y) for x, y in zip(grads, grads_, strict=True))
    assert modes == modes_
    assert torch.equal(rng[0], rng_[0])
    assert (rng[1] == rng_[1]).all()
    assert rng[2] == rng_[2]
