"""What one pass writes besides the table of summaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradtail.states.table import EMPTY_RECORD
from gradtail.states.tracks import TrackList


@dataclass
class Outputs:
    """Memory that ``backend.observe`` writes to.

    Attributes
    ----------
    records : ndarray of RECORD, shape (n_views,)
        Overwritten: the record of each view by itself.
    sketch : ndarray of float64, shape (r,), or None
        Added to: the sketch of everything; non-finite values count as zeros.
    row_sketches : ndarray of float64, shape (rows, f), or None
        Added to: the sketch of each row of the table, folded to f buckets (bucket mod f), f a power
        of two from 8 to r. Needs ``sketch``, which sets r.
    tracks : TrackList or None
        Its values are overwritten.
    pieces : ndarray of PIECE, shape (n_views,), or None
        CoordinateMoments of each view, updated in place; ``state`` 0 means none.
    """

    records: npt.NDArray[np.void]
    sketch: npt.NDArray[np.float64] | None = None
    row_sketches: npt.NDArray[np.float64] | None = None
    tracks: TrackList | None = None
    pieces: npt.NDArray[np.void] | None = None

    @classmethod
    def empty(cls, views: int) -> Outputs:
        """Make the records of ``views`` views and nothing else."""
        return cls(np.full(views, EMPTY_RECORD))
