"""Views of blocks of a parameter, and where their elements lie in it, by plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gradtail.buffers import Views, views_of


class Block:
    """An array, its key and where it lies: element i has index start + i // run * stride + i % run."""

    def __init__(self, x: Any, key: int, start: int = 0, run: int = 0, stride: int = 0, row: int = 0) -> None:
        self.x, self.key, self.start, self.row = x, key, start, row
        self.run, self.stride = run or max(x.size, 1), stride

    def index(self) -> list[int]:
        """Index in the whole parameter of every element."""
        return [self.start + i // self.run * self.stride + i % self.run for i in range(self.x.size)]


def views(blocks: Sequence[Block]) -> Views:
    """Describe blocks; the caller keeps them alive."""
    found = views_of([block.x for block in blocks])
    for view, block in zip(found.table, blocks, strict=True):
        view["key"], view["start"], view["row"] = block.key, block.start, block.row
        view["run"], view["stride"] = block.run, block.stride
    return found


def shards(x: np.ndarray, key: int, row: int = 0) -> list[list[Block]]:
    """Cut a flat parameter at odd places, into rows and into columns, with empty views in between."""
    n = x.size
    cuts = sorted({0, min(n, 1), min(n, 13), n // 3, n // 2, n - n // 7, n})
    odd = [Block(x[a:b].copy(), key, a, row=row) for a, b in pairwise(cuts)]
    odd.insert(1, Block(x[:0].copy(), key, n // 2, row=row))
    found = [odd]
    for columns in (3, 24, 300, 1000):
        if n % columns or n == 0:
            continue
        wide, bounds = x.reshape(-1, columns), [0, 1, columns // 3, columns]
        found.append(
            [
                Block(np.ascontiguousarray(wide[:, a:b]).ravel(), key, a, b - a, columns, row)
                for a, b in pairwise(bounds)
                if a < b
            ]
        )
    return found
