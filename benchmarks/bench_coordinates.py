"""Dense CoordinateMoments: bound by the memory that their state is read from and written to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gradtail.backends import native
from gradtail.buffers import views_of
from gradtail.states.coordinate_moments import LivePiece
from gradtail.states.places import whole

from .harness import Table, compare

REFERENCE = "state read and written once (torch mul_)"


def test_dense(pool: Any, table: Table, largest: int) -> None:
    n = min(2 * 10**7, largest)
    x = torch.from_numpy(np.resize(pool, n))
    views, piece = views_of(x), LivePiece(whole((n,)), 0, 1)
    piece.rescale(np.array([-8], np.int32), np.array([True]))
    state = torch.ones(n * 4 + n // 8)
    works = {
        REFERENCE: lambda: state.mul_(1.0),
        "dense moments of every coordinate": lambda: native.update_coordinates(views, piece.pieces),
    }
    compare(
        table, f"dense coordinate moments, float32 {n:.0e}, 1 thread", works, elements=n, bytes=state.nbytes,
        reference=REFERENCE, goals={"dense moments of every coordinate": 1.3}, rounds=11,
    )  # fmt: skip
    own = piece.moments()
    np.testing.assert_allclose(own.mean, x.numpy(), rtol=1e-5)
    assert float(own.variance.max()) < 1e-9
