"""report.json: how it is named, written and read back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "gradtail.Report/1"
"""Name and version of the layout; a reader refuses any other."""

_ROW_LISTS = ("modules", "layers")


def jsonable(value: Any) -> Any:
    """Turn numbers, arrays and containers into what strict JSON holds.

    NaN and infinities become None, which readers take as "not known"; anything that JSON has no
    word for becomes its ``str``.

    Examples
    --------
    >>> jsonable({"a": np.float32(0.5), "b": (1, float("nan")), 3: np.arange(2)})
    {'a': 0.5, 'b': [1, None], '3': [0, 1]}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return str(value)


def rounded(values: Any, digits: int = 6) -> list[Any]:
    """Round a curve to significant digits, to halve its size; None where it is not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in np.asarray(values, np.float64)]


def dumps(data: Mapping[str, Any]) -> str:
    """Write strict JSON: a line for every top-level key and for every layer, so that files can be diffed."""
    parts = []
    for key, value in data.items():
        if key in _ROW_LISTS and value:
            rows = ",\n  ".join(_one_line(row) for row in value)
            parts.append(f" {json.dumps(key)}: [\n  {rows}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {_one_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _one_line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=True)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a report.json, or the one in a folder.

    Raises
    ------
    ValueError
        Not a report, or one of a layout that this version does not know.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "report.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"path: expected a report.json, got {file}, which is not JSON ({error})") from None
    return check(data, "path")


def check(data: Any, argument: str) -> dict[str, Any]:
    """Return ``data`` if it is a report of this layout."""
    if not isinstance(data, dict) or "schema" not in data:
        raise ValueError(f'{argument}: expected a report with a "schema", got {_kind(data)}')
    if data["schema"] != SCHEMA:
        raise ValueError(f"{argument}: expected schema {SCHEMA}, got {data['schema']}")
    return data


def _kind(data: Any) -> str:
    return "JSON without one" if isinstance(data, dict) else f"a JSON {type(data).__name__}"
