"""A model's curvature as a matrix that is known by its products with vectors: the mean over the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gradtail.torch import products
from gradtail.torch.batches import Batch
from gradtail.torch.products import Operator, Problem, Product, Vectors

WORTH_TRACING = 1 << 30
"""Bytes of kept graphs, times products, from which tracing them pays for its time."""

_GRAPH = 2  # what a kept graph takes over what it has saved
_TRACE = 4  # what a trace holds over that, before it is known


class Curvature:
    """The Hessian, the Gauss-Newton matrix, or the second moment of the gradients of single examples.

    Parameters
    ----------
    problem : Problem
    batches : list of Batch
    operator : {"hessian", "gauss_newton", "second_moment"}

    Attributes
    ----------
    n : int
        Elements of the parameters.
    dtype : torch.dtype
        Of the vectors: that of the parameters, at least float32.
    noise : float
        Relative rounding error of a product.
    graph_bytes : int
        What keeping the graph of the first, largest batch takes.
    warnings : list of str

    Notes
    -----
    Nothing is kept at first: each product of a Hessian then takes a gradient with its graph, and a second
    backward pass. :meth:`keep` leaves these to the products that follow.
    """

    def __init__(self, problem: Problem, batches: list[Batch], operator: Operator) -> None:
        self._problem, self._batches, self._operator = problem, batches, operator
        self._sizes = [p.numel() for p in problem.parameters]
        self.n = sum(self._sizes)
        self.examples = sum(batch.size for batch in batches)
        self.device = problem.device
        self.dtype = torch.float32
        for p in problem.parameters:
            self.dtype = torch.promote_types(self.dtype, p.dtype)
        self.noise = max(torch.finfo(p.dtype).eps for p in problem.parameters)
        self.warnings: list[str] = []
        self._ways: list[str] = ["recomputed"] * len(batches)
        self._kept: list[Product | None] = [None] * len(batches)
        self._differences = False
        self.graph_bytes = self._try()

    @property
    def products_by(self) -> str:
        """How products are taken, and of how many batches where ways differ."""
        ways = Counter(self._ways)
        return next(iter(ways)) if len(ways) == 1 else ", ".join(f"{way} ({n})" for way, n in ways.items())

    def _try(self) -> int:
        """Take one product of the largest batch, and see what its graph holds."""
        first = max(self._batches, key=lambda batch: batch.size)
        if self._operator == "second_moment":
            return first.size * self.n * torch.empty((), dtype=self.dtype).element_size()
        held: dict[int, int] = {}

        def see(saved: Tensor) -> Tensor:
            if saved.layout == torch.strided:
                held[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        try:
            with torch.autograd.graph.saved_tensors_hooks(see, lambda saved: saved):
                product = products.kept(self._problem, first, 0, self._operator)
            product(self._split(self.random(torch.Generator().manual_seed(0))))
        except RuntimeError as error:
            if not products.lacks_second_derivative(error):
                raise
            if self._operator != "hessian":
                raise ValueError(
                    f"operator: expected 'hessian' for a model that cannot be differentiated twice, got "
                    f"{self._operator!r} ({error})"
                ) from error
            self._differentiate_by_steps(str(error))
        for p in self._problem.parameters:
            held.pop(p.untyped_storage().data_ptr(), None)
        return _GRAPH * sum(held.values())

    def _differentiate_by_steps(self, why: str) -> None:
        self._differences = True
        self._ways = ["finite differences"] * len(self._batches)
        self.noise = self.noise ** (2 / 3)
        self.warnings.append(
            f"products are differences of gradients, exact to about {self.noise:.1g} of the largest "
            f"eigenvalue, as model or loss cannot be differentiated twice ({why.splitlines()[0]:.90})"
        )

    def random(self, generator: torch.Generator) -> Tensor:
        """Draw a vector of independent signs."""
        signs = torch.randint(0, 2, (self.n,), generator=generator, dtype=torch.int8)
        return (2 * signs - 1).to(self.device, self.dtype)

    def keep(self, memory: int, expected: int, go_on: Callable[[], bool] = lambda: True) -> int:
        """Keep what products of as many batches as fit can start from.

        Parameters
        ----------
        memory : int
            Bytes.
        expected : int
            Products that will be asked for.
        go_on : callable
            Asked before each batch; False leaves the rest to be recomputed.

        Returns
        -------
        int
            Bytes taken.
        """
        if self._differences or expected < 2:
            return 0
        largest = max(batch.size for batch in self._batches)
        every = int(self.graph_bytes * self.examples / largest)
        if every <= memory + self.graph_bytes:  # then nothing is recomputed, whose graph would need room
            memory += self.graph_bytes
        taken = 0
        for i, batch in enumerate(self._batches):
            bytes_ = int(self.graph_bytes * batch.size / largest)
            if taken + bytes_ > memory or not go_on():
                break
            if self._operator == "second_moment":
                matrix = products.rows(self._problem, batch, i).to(self.dtype)
                self._kept[i], self._ways[i] = (
                    products.of_rows(matrix, self._problem.parameters),
                    "kept gradients",
                )
                taken += bytes_
                continue
            product = products.kept(self._problem, batch, i, self._operator)
            traced = None
            if bytes_ * expected >= WORTH_TRACING and taken + _TRACE * bytes_ <= memory:
                traced = products.linearised(self._problem, batch, i, self._operator, product)
            if traced is not None:
                self._kept[i], self._ways[i] = traced[0], "traced"
                taken += traced[1] + (bytes_ if self._operator == "gauss_newton" else 0)
            else:
                self._kept[i], self._ways[i] = product, "kept graph"
                taken += bytes_
        return taken

    def product(self, v: Tensor) -> Tensor:
        """Return the product with a vector, shape (n,)."""
        if self._differences:
            return self._difference(v)
        parts = self._split(v)
        total = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        for i, batch in enumerate(self._batches):
            product = self._kept[i]
            if product is None and self._operator == "second_moment":
                matrix = products.rows(self._problem, batch, i).to(self.dtype)
                product = products.of_rows(matrix, self._problem.parameters)
            elif product is None:
                product = products.kept(self._problem, batch, i, self._operator)
            total.add_(self._flat(product(parts)), alpha=batch.size / self.examples)
        return total

    def gradient(self) -> Tensor:
        """Return the mean gradient, shape (n,)."""
        total = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        for i, batch in enumerate(self._batches):
            total.add_(self._flat(self._problem.gradient(batch, i)), alpha=batch.size / self.examples)
        return total

    def _difference(self, v: Tensor) -> Tensor:
        """(g(x + hv) - g(x - hv)) / 2h, whose error h**2 + rounding / h is least at its cube root."""
        values = [p.detach().clone() for p in self._problem.parameters]
        size = float(torch.linalg.vector_norm(self._flat(values)))
        step = max(torch.finfo(p.dtype).eps for p in values) ** (1 / 3) * (1 + size)
        step /= max(float(torch.linalg.vector_norm(v)), torch.finfo(self.dtype).tiny)
        ends = []
        try:
            for h in (step, -step):
                with torch.no_grad():
                    for p, value, part in zip(self._problem.parameters, values, self._split(v), strict=True):
                        p.copy_(value + h * part)
                ends.append(self.gradient())
        finally:
            with torch.no_grad():
                for p, value in zip(self._problem.parameters, values, strict=True):
                    p.copy_(value)
        difference: Tensor = ends[0] - ends[1]
        return difference.div_(2 * step)

    def _split(self, v: Tensor) -> Vectors:
        return [
            part.view(p.shape).to(p.dtype)
            for part, p in zip(torch.split(v, self._sizes), self._problem.parameters, strict=True)
        ]

    def _flat(self, parts: Iterable[Tensor]) -> Tensor:
        flat: Tensor = torch.cat([part.detach().reshape(-1).to(self.dtype) for part in parts])
        return flat
