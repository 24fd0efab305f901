"""A model's curvature as a matrix that is known by its products with vectors: the mean over the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gradtail.torch import differences, products
from gradtail.torch.batches import Batch
from gradtail.torch.frozen import mode_of, random_parts
from gradtail.torch.products import Operator, Problem, Product, Vectors

WORTH_TRACING = 1 << 30
"""Bytes of kept graphs, times products, from which tracing them pays for its time."""

_ASYMMETRY = 1e-3
_FLOOR = 20.0  # times the noise, which the solver asks for no less than
_ROUGH = 0.01
_WORST = 0.25  # that products may be off and still be searched with
_GRAPH = 2  # what a kept graph takes over what it has saved
_TRACE = 4  # what a trace holds over that, before it is known


class Curvature:
    """The Hessian, the Gauss-Newton matrix, or a second moment of the gradients of single examples.

    Parameters
    ----------
    problem : Problem
    batches : list of Batch
    operator : {"hessian", "gauss_newton", "second_moment", "covariance"}

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
        self.warnings: list[str] = []
        self._check_statistics()
        self._check_rounding(max((p.dtype for p in problem.parameters), key=_eps))
        self._ways: list[str] = ["recomputed"] * len(batches)
        self._kept: list[Product | None] = [None] * len(batches)
        self._differences = False
        self._mean: Tensor | None = None
        self.graph_bytes = self._try()

    @property
    def products_by(self) -> str:
        """How products are taken, and of how many batches where ways differ."""
        ways = Counter(self._ways)
        return next(iter(ways)) if len(ways) == 1 else ", ".join(f"{way} ({n})" for way, n in ways.items())

    def _check_statistics(self) -> None:
        """Refuse statistics of single examples; those of batches depend on the batches."""
        if "batch statistics" not in random_parts(self._problem.model):
            return
        if self._operator in products.OF_EXAMPLES:
            raise ValueError(
                f"mode: expected 'eval' for operator={self._operator!r}, as batch normalisation in training "
                "mode, or without running statistics, would take those of single examples, got "
                f"{mode_of(self._problem.model)!r}"
            )
        size = max(batch.size for batch in self._batches)
        self.warnings.append(
            "batch normalisation takes the statistics of each batch: what is found depends on "
            f"batch_size={size}"
        )

    def _check_rounding(self, short: torch.dtype) -> None:
        """Say what short floats cost: residuals up to their rounding count as none."""
        self.noise = _eps(short)
        kind, limit = str(short).removeprefix("torch."), _FLOOR * self.noise
        if torch.finfo(short).bits < torch.finfo(torch.float32).bits:
            self.warnings.append(
                f"{kind} lets eigenvalues be told apart to about {limit:.2g} of the largest alone, whatever "
                "tol is, and some be missed: float32 (model.float(), no autocast) would to "
                f"{_FLOOR * torch.finfo(torch.float32).eps:.1g}"
            )

    def _try(self) -> int:
        """Take one product of the largest batch, and see what its graph holds."""
        first = max(self._batches, key=lambda batch: batch.size)
        if self._operator in products.OF_EXAMPLES:
            return first.size * self.n * torch.empty((), dtype=self.dtype).element_size()
        held: dict[int, int] = {}
        kinds: set[torch.dtype] = set()

        def see(saved: Tensor) -> Tensor:
            if saved.is_floating_point():
                kinds.add(saved.dtype)
            if saved.layout == torch.strided:
                held[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        why = None
        try:
            with torch.autograd.graph.saved_tensors_hooks(see, lambda saved: saved):
                product = products.kept(self._problem, first, 0, self._operator)
            asymmetry = self._asymmetry(product)
            short = max(kinds, key=_eps, default=self.dtype)
            if _eps(short) > self.noise and asymmetry > 100 * self.noise:  # autocast, which shows
                self._check_rounding(short)
            if asymmetry > max(_ASYMMETRY, 100 * self.noise):
                why = "its second derivatives are not symmetric"
            elif self._unlike(product, first):
                why = "its second derivatives are not those of its gradient"
        except RuntimeError as error:
            if not products.lacks_second_derivative(error):
                raise
            why = str(error).splitlines()[0]
            short = max(kinds, key=_eps, default=self.dtype)
            if _eps(short) > self.noise:
                self._check_rounding(short)
        if why is not None:
            if self._operator != "hessian":
                raise ValueError(
                    f"operator: expected 'hessian' for a model that cannot be differentiated twice, got "
                    f"{self._operator!r} ({why:.90})"
                )
            self._differentiate_by_steps(why)
        for p in self._problem.parameters:
            held.pop(p.untyped_storage().data_ptr(), None)
        return _GRAPH * sum(held.values())

    def _asymmetry(self, product: Product) -> float:
        """Compare u'Hv and v'Hu: functions with a first derivative alone may lose terms of H in silence."""
        generator = torch.Generator().manual_seed(0)
        u, v = self.random(generator), self.random(generator)
        hu, hv = (self._flat(product(self._split(w))) for w in (u, v))
        size = float(torch.linalg.vector_norm(hu) + torch.linalg.vector_norm(hv))
        difference = abs(float(torch.dot(u, hv) - torch.dot(v, hu)))
        return (
            difference / size if size and difference == difference else 0.0
        )  # NaN is the solver's to refuse

    def _unlike(self, product: Product, batch: Batch) -> bool:
        """Compare a product with differences, where a function brings a backward pass of its own.

        What such a pass has saved is a constant to the second, and what is left may well be symmetric. Only
        then it takes up to 19 gradients of one batch.
        """
        problem = self._problem
        if self._operator == "gauss_newton":
            return products.loss_unlike(problem, batch, 0)
        if not differences.has_own_functions(problem.value(batch, 0)):
            return False

        def gradient() -> Tensor:
            return self._flat(problem.gradient(batch, 0))

        v = self._unit(gradient()) + self._unit(self.random(torch.Generator().manual_seed(0)))
        found, eps = self._flat(product(self._split(v))), self.noise
        return differences.grossly_unlike(found, self._along(v, gradient), self._steps(eps), eps)

    def _differentiate_by_steps(self, why: str) -> None:
        """Choose the step, and measure what it errs by: along the gradient, at random, and near the top."""
        self._differences = True
        self._ways = ["finite differences"] * len(self._batches)
        rounding, steps = self.noise ** (2 / 3), self._steps(self.noise)
        first, other = (
            differences.by_all_steps(self._along(self._unit(v), self.gradient), *steps)
            for v in (self.gradient(), self.random(torch.Generator().manual_seed(0)))
        )
        best, also = min(zip(first, other, strict=True), key=lambda both: max(one.apart for one in both))
        self._length = best.step
        near_top = self._along(self._unit(best.value), self.gradient)
        long, short = (differences.central(near_top, h) for h in (best.step, best.step / 2))
        off = max(best.apart, also.apart, float(torch.linalg.vector_norm(long - short)))
        largest = max(float(torch.linalg.vector_norm(one)) for one in (best.value, also.value, long))
        error = max(rounding, off / largest if off < largest else float(off > 0))
        self.noise = max(rounding, min(error, _WORST) / _FLOOR)
        shorter = (
            "; in float64 steps can be shorter" if error > _ROUGH and self.dtype != torch.float64 else ""
        )
        self.warnings.append(
            f"products are differences of gradients, exact to about {error:.1g} of the largest "
            f"eigenvalue, as model or loss cannot be differentiated twice ({why:.90}){shorter}"
        )

    def _steps(self, eps: float) -> tuple[float, float]:
        return differences.longest_and_shortest(self._flat(self._problem.parameters), eps)

    def _unit(self, v: Tensor) -> Tensor:
        unit: Tensor = v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
        return unit

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
            if self._operator in products.OF_EXAMPLES:
                self._kept[i], self._ways[i] = self._of_examples(batch, i), "kept gradients"
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
            size = max(float(torch.linalg.vector_norm(v)), torch.finfo(self.dtype).tiny)
            return differences.central(self._along(v, self.gradient), self._length / size)
        parts = self._split(v)
        total = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        for i, batch in enumerate(self._batches):
            product = self._kept[i]
            if product is None and self._operator in products.OF_EXAMPLES:
                product = self._of_examples(batch, i)
            elif product is None:
                product = products.kept(self._problem, batch, i, self._operator)
            total.add_(self._flat(product(parts)), alpha=batch.size / self.examples)
        if self._operator == "covariance":
            if self._mean is None:
                self._mean = self._mean_of_examples()
            total.sub_(self._mean, alpha=float(torch.dot(self._mean, v)))
        return total

    def _of_examples(self, batch: Batch, number: int) -> Product:
        matrix = products.rows(self._problem, batch, number).to(self.dtype)
        return products.of_rows(matrix, self._problem.parameters)

    def _mean_of_examples(self) -> Tensor:
        """Average the gradients that the products are made of: the loss of a batch need not be their mean."""
        total = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        for i, batch in enumerate(self._batches):
            total += products.rows(self._problem, batch, i).to(self.dtype).sum(dim=0)
        return total / self.examples

    def gradient(self) -> Tensor:
        """Return the mean gradient, shape (n,)."""
        total = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        for i, batch in enumerate(self._batches):
            total.add_(self._flat(self._problem.gradient(batch, i)), alpha=batch.size / self.examples)
        return total

    def _along(self, v: Tensor, gradient: Callable[[], Tensor]) -> Callable[[float], Tensor]:
        """Return the gradient as a function of how far parameters are moved along a vector."""
        parts = self._split(v)

        def at(h: float) -> Tensor:
            values = [p.detach().clone() for p in self._problem.parameters]
            try:
                with torch.no_grad():
                    for p, value, part in zip(self._problem.parameters, values, parts, strict=True):
                        p.copy_(value + h * part)
                return gradient()
            finally:
                with torch.no_grad():
                    for p, value in zip(self._problem.parameters, values, strict=True):
                        p.copy_(value)

        return at

    def _split(self, v: Tensor) -> Vectors:
        return [
            part.view(p.shape).to(p.dtype)
            for part, p in zip(torch.split(v, self._sizes), self._problem.parameters, strict=True)
        ]

    def _flat(self, parts: Iterable[Tensor]) -> Tensor:
        flat: Tensor = torch.cat([part.detach().reshape(-1).to(self.dtype) for part in parts])
        return flat


def _eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps
