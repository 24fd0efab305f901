"""What the commands of `gradtail` share: mistakes of the user, numbers, and what has to be installed."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can mend; shown without a traceback."""


def at_least(least: int) -> Callable[[str], int]:
    """Return a converter to an int that is not below ``least``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return convert


def need(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"expected {' and '.join(missing)} to be installed, got nothing of that name; "
            f"pip install 'gradtail[{extra}]'"
        )
