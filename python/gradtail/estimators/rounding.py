"""Where the bins of a histogram begin for a law of real numbers, of which the inputs are roundings."""

from __future__ import annotations

from functools import cache

import numpy as np

from gradtail.states.magnitudes import FloatArray, edges_for

_HALF_MANTISSA, _HALF_LEAST, _HALF_STEP = 10, 2.0**-14, 2.0**-24  # float16: below the second, evenly spaced


@cache
def bin_starts(bits: int, mantissa: int) -> FloatArray:
    """Return where each bin begins, shape ((255 << bits) + 1,), read-only; the last is that of infinity.

    Inputs of a short mantissa are taken as rounded to the nearest value that it has: each stands for the
    real numbers up to halfway to its neighbours, and so do the bins that it is in. Bins that hold no such
    value have no width.

    Parameters
    ----------
    bits : int
        At most ``mantissa``.
    mantissa : int
        Of the inputs: 7 (bfloat16), 10 (float16) or 23.
    """
    edges = edges_for(bits)[: (255 << bits) + 1]
    if mantissa > _HALF_MANTISSA:
        return edges
    before = (np.arange(1, edges.size) << (mantissa - bits)) - 1
    starts = np.append(edges[0] / 2, (edges[1:] + edges_for(mantissa)[before]) / 2)
    if mantissa == _HALF_MANTISSA:
        small = edges < _HALF_LEAST
        starts[small] = (np.ceil(edges[small] / _HALF_STEP) - 0.5) * _HALF_STEP
    starts.flags.writeable = False
    return starts
