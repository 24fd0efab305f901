"""Which arrays share a histogram and a small sketch: none, or by rule, or by module where memory is short."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Rule = Mapping[str, str] | Callable[[str], str]

OTHER = "other"
"""Group of the names that no pattern of a rule matches, and of late names that find no room."""


_FEW = 8  # modules count as few if there is room for so many times as many


class Groups:
    """Names of arrays -> names of groups.

    Parameters
    ----------
    rule : mapping of group name to regular expression, or callable from array name to group name, optional
        The first pattern that is found in a name decides. None: each array is a group of its own, or, where
        that would be more than ``most``, each module at the greatest depth that fits.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._patterns: dict[str, re.Pattern[str]] | None = None
        self._call: Callable[[str], str] | None = None
        if isinstance(rule, Mapping):
            self._patterns = {_name(group): _pattern(group, text) for group, text in rule.items()}
        elif callable(rule):
            self._call = rule
        elif rule is not None:
            raise TypeError(
                f"groups: expected a mapping of names to regular expressions or a callable, "
                f"got {type(rule).__name__}"
            )
        self._depth: int | None = None  # None: names are groups
        self._runs: dict[str, str] = {}
        self.of: dict[str, str] = {}
        self.most: int | None = None

    @property
    def names(self) -> list[str]:
        """Groups so far, in the order in which they came."""
        return list(dict.fromkeys(self.of.values()))

    @property
    def by_rule(self) -> bool:
        """Whether a rule decides."""
        return self._patterns is not None or self._call is not None

    def preview(self, names: Sequence[str]) -> dict[str, str]:
        """Return the groups that names would have if there were room for all."""
        return {name: self._group(name) for name in names}

    def begin(self, names: Sequence[str], most: int) -> None:
        """Settle, from the first names, how coarse groups must be for at most ``most`` of them."""
        self.most = max(most, 1)
        if self.by_rule or len(names) <= self.most:
            return
        deepest = max(name.count(".") for name in names)
        depths = (d for d in range(deepest, 0, -1) if len({prefix(name, d) for name in names}) <= self.most)
        depth = next(depths, 0)
        if depth and len({prefix(name, depth) for name in names}) * _FEW >= self.most:
            self._depth = depth
        else:  # few modules with very many parts: neighbours among the parts are joined
            self._depth = depth + 1
            self._runs = _runs(
                list(dict.fromkeys(prefix(name, depth + 1) for name in names)), depth, self.most
            )

    def assign(self, names: Sequence[str]) -> dict[str, str]:
        """Return the groups of names that are new."""
        found: dict[str, str] = {}
        known = set(self.of.values())
        for name in names:
            group = self._group(name)
            if self.most is not None and group not in known and len(known) >= self.most:
                group = OTHER
            found[name] = group
            known.add(group)
        return found

    def copy(self) -> Groups:
        """Return groups that go on alike."""
        new = Groups()
        new._patterns, new._call, new._depth = self._patterns, self._call, self._depth
        new._runs, new.of, new.most = dict(self._runs), dict(self.of), self.most
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return what was assigned and how; of a callable only what it has assigned."""
        patterns = self._patterns or {}
        return {
            "names": np.array(list(self.of), np.str_),
            "of": np.array(list(self.of.values()), np.str_),
            "rule": np.array([[group, pattern.pattern] for group, pattern in patterns.items()], np.str_),
            "depth": -1 if self._depth is None else self._depth,
            "run_names": np.array(list(self._runs), np.str_),
            "runs": np.array(list(self._runs.values()), np.str_),
            "most": -1 if self.most is None else self.most,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what was saved."""
        lists = {
            key: [str(x) for x in np.asarray(state[key]).tolist()]
            for key in ("names", "of", "run_names", "runs")
        }
        self.of = dict(zip(lists["names"], lists["of"], strict=True))
        self._runs = dict(zip(lists["run_names"], lists["runs"], strict=True))
        rule = np.asarray(state["rule"]).reshape(-1, 2).tolist()
        self._patterns = {group: _pattern(group, text) for group, text in rule} or None
        depth, most = int(state["depth"]), int(state["most"])
        self._depth, self.most = None if depth < 0 else depth, None if most < 0 else most

    def _group(self, name: str) -> str:
        if self._call is not None:
            group = self._call(name)
            if not isinstance(group, str):
                raise TypeError(f"groups: expected a callable that returns str, got {group!r} for {name!r}")
            return group
        if self._patterns is not None:
            found = (group for group, pattern in self._patterns.items() if pattern.search(name))
            return next(found, OTHER)
        if self._depth is None:
            return name
        part = prefix(name, self._depth)
        return self._runs.get(part, OTHER) if self._runs else part


def prefix(name: str, depth: int) -> str:
    """Return the module of a name: its first ``depth`` parts, the last part left out."""
    parts = name.split(".")
    return ".".join(parts[:depth]) if len(parts) > depth else name


def _runs(parts: Sequence[str], depth: int, most: int) -> dict[str, str]:
    """Join neighbours of one module until at most ``most`` runs are left."""
    by_module: dict[str, list[str]] = {}
    for part in parts:
        by_module.setdefault(prefix(part, depth) if depth else "", []).append(part)
    length = -(-len(parts) // most)
    while sum(-(-len(some) // length) for some in by_module.values()) > most:
        length += 1
    runs = {}
    for some in by_module.values():
        for i in range(0, len(some), length):
            run = some[i : i + length]
            runs.update(dict.fromkeys(run, run[0] if len(run) == 1 else f"{run[0]} ... {run[-1]}"))
    return runs


def _name(group: object) -> str:
    if not isinstance(group, str):
        raise TypeError(f"groups: expected names of type str, got {group!r}")
    return group


def _pattern(group: str, text: object) -> re.Pattern[str]:
    if not isinstance(text, str):
        raise TypeError(f"groups[{group!r}]: expected a regular expression, got {text!r}")
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(
            f"groups[{group!r}]: expected a regular expression, got {text!r} ({error})"
        ) from None
