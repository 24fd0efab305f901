"""What a stream is asked to keep, checked once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradtail.states.budget import parse_memory
from gradtail.states.hashing import tensor_key
from gradtail.states.projection import check_buckets
from gradtail.states.table import check_bits

MOST_TRACKS = 1 << 20


@dataclass(frozen=True)
class Settings:
    """The arguments of :class:`gradtail.GradientStream`, without those that say who does the work."""

    bits: int
    window: int
    sketch: int
    tracks: int
    coordinates: str | int | None
    seed: int
    history: int
    memory: int
    stable: bool | None  # None: where arrays lie in host memory

    @classmethod
    def checked(
        cls,
        *,
        bits: object,
        window: object,
        sketch: object,
        tracks: object,
        coordinates: object,
        seed: int,
        history: object,
        memory: object,
        stable: object = None,
    ) -> Settings:
        """Check arguments as users give them; TypeError and ValueError name the one that is wrong."""
        tensor_key(seed, "")
        return cls(
            check_bits(bits),
            _integer(window, "window", 0, 1 << 20),
            0 if sketch in (0, None) and not isinstance(sketch, bool) else check_buckets(sketch),
            _integer(tracks, "tracks", 0, MOST_TRACKS),
            _coordinates(coordinates),
            int(seed),
            _integer(history, "history", 2, 1 << 40),
            parse_memory(memory),
            None if stable is None else _flag(stable, "stable"),
        )

    @property
    def takes_block_sums(self) -> bool:
        """Whether block sums are taken, or may be."""
        return self.stable is not False

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, without None."""
        return {key: "none" if value is None else value for key, value in asdict(self).items()}


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {value!r}")
    return bool(value)


def _integer(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{name}: expected an int of at most {most}, got {value}")
    return int(value)


def _coordinates(value: object) -> str | int | None:
    expected = "coordinates: expected 'auto', 'dense', None or a power of two"
    if value is None or value in ("auto", "dense"):
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise (ValueError if isinstance(value, str) else TypeError)(f"{expected}, got {value!r}")
    if value < 1 or value & (value - 1) or value > 1 << 24:
        raise ValueError(f"{expected} up to 2**24, got {value}")
    return int(value)
