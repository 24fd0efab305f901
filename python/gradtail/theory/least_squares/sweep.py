"""Tail indices over one argument, the others fixed, as a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from gradtail.theory.least_squares.gaussian import stationary

Argument: TypeAlias = Literal["eta", "b", "d", "sigma"]

_RISES: dict[str, bool] = {"eta": False, "b": True, "d": False, "sigma": False}


@dataclass(frozen=True)
class Sweep:
    """Tail indices along one argument.

    Attributes
    ----------
    over : {"eta", "b", "d", "sigma"}
    values : tuple of float
        Ascending.
    alpha : tuple of float or None
        None where there is no stationary law.
    rho : tuple of float
    fixed : dict
        The other arguments.
    """

    over: Argument
    values: tuple[float, ...]
    alpha: tuple[float | None, ...]
    rho: tuple[float, ...]
    fixed: dict[str, float]

    @property
    def monotone(self) -> bool:
        """Whether alpha moves strictly the way it should: up with b, down with eta, d and sigma.

        No stationary law counts as an alpha of 0, and may be repeated.
        """
        steps = [a or 0.0 for a in (self.alpha if _RISES[self.over] else self.alpha[::-1])]
        return all(a < b or a == b == 0 for a, b in itertools.pairwise(steps))

    def __str__(self) -> str:
        fixed = ", ".join(f"{name} = {value:g}" for name, value in self.fixed.items())
        lines = [f"{self.over:>10}  {'alpha':>20}  {'rho':>12}   ({fixed})"]
        for value, alpha, rho in zip(self.values, self.alpha, self.rho, strict=True):
            said = "no stationary law" if alpha is None else f"{alpha:.6f}"
            lines.append(f"{value:>10.6g}  {said:>20}  {rho:>12.6g}")
        order = "rises" if _RISES[self.over] else "falls"
        lines.append(f"alpha {order} with {self.over}: {'yes' if self.monotone else 'NO'}")
        return "\n".join(lines)


def sweep(
    over: Argument,
    values: Sequence[float],
    *,
    eta: float = math.nan,
    b: int = 0,
    d: int = 0,
    sigma: float = 1.0,
) -> Sweep:
    """Tabulate the tail index along one argument.

    Parameters
    ----------
    over : {"eta", "b", "d", "sigma"}
        The argument that ``values`` are for.
    values : sequence of numbers
        At least two; they are sorted.
    eta, b, d, sigma
        The others, as for :func:`gradtail.theory.least_squares.tail_index`; that named in ``over`` is not
        read.

    Returns
    -------
    Sweep

    Raises
    ------
    TypeError, ValueError
        ``over`` is no such argument, fewer than two values, or one is out of range.

    Examples
    --------
    >>> print(sweep("eta", [0.5, 1.0, 2.0, 3.0], b=1, d=1))
           eta                 alpha           rho   (b = 1, d = 1, sigma = 1)
           0.5              2.903966     -0.484627
             1              1.090826     -0.416992
             2              0.165505     -0.116247
             3     no stationary law      0.143859
    alpha falls with eta: yes
    """
    if over not in get_args(Argument):
        raise ValueError(f"over: expected one of {', '.join(get_args(Argument))}, got {over!r}")
    ordered = sorted(values)
    if len(ordered) < 2:
        raise ValueError(f"values: expected at least 2, got {len(ordered)}")
    given: dict[str, float] = {"eta": eta, "b": b, "d": d, "sigma": sigma}
    fixed = {name: value for name, value in given.items() if name != over}
    found = [stationary(**{**fixed, over: value}) for value in ordered]  # type: ignore[arg-type]
    return Sweep(
        over, tuple(float(v) for v in ordered), tuple(a for a, _ in found), tuple(r for _, r in found), fixed
    )
