"""States as ``torch.save`` likes them: tensors, numbers, strings, lists and dicts, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_ARRAY = "__ndarray__"
_TUPLE = "__tuple__"


def pack(value: Any) -> Any:
    """Replace arrays by tensors of their bytes, so that ``torch.load(weights_only=True)`` reads them.

    Notes
    -----
    Lossless, whatever the dtype: tensors have no records and, in older versions, no unsigned integers.
    """
    if isinstance(value, np.ndarray):
        data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        dtype = value.dtype.str if value.dtype.names is None else [list(field) for field in value.dtype.descr]
        return {_ARRAY: dtype, "shape": list(value.shape), "data": torch.tensor(data)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {pack(key): pack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    raise TypeError(f"state: expected numbers, strings, arrays, lists and dicts, got {type(value).__name__}")


def unpack(value: Any) -> Any:
    """Undo :func:`pack`."""
    if isinstance(value, Mapping):
        if _ARRAY in value:
            described = value[_ARRAY]
            dtype = np.dtype(described if isinstance(described, str) else [_field(f) for f in described])
            flat = np.frombuffer(value["data"].cpu().numpy().tobytes(), dtype)
            return flat.reshape([int(n) for n in value["shape"]]).copy()
        if _TUPLE in value:
            return tuple(unpack(item) for item in value[_TUPLE])
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [unpack(item) for item in value]
    return value


def as_int(value: Any) -> int:
    """Return a number of a state; ValueError if it is no int."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"state: expected an int, got {value!r}")
    return value


@contextmanager
def reading_state(whose: str) -> Iterator[None]:
    """Turn what a wrong state sets off, wherever that is, into a ValueError that says so."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if str(error).startswith("state"):
            raise
        raise ValueError(f"state: expected {whose}, got {type(error).__name__}: {error}") from error
    except KeyError as missing:
        raise ValueError(f"state: expected {whose}, got one without {missing}") from missing
    except (AttributeError, IndexError, OverflowError, RuntimeError) as error:
        raise ValueError(f"state: expected {whose}, got {type(error).__name__}: {error}") from error


def _field(field: Any) -> tuple[Any, ...]:
    name, dtype, *shape = field
    return (name, dtype, *(tuple(int(n) for n in part) for part in shape))
