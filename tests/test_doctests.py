"""The examples in the docstrings hold, in the package that is installed.

Not ``--doctest-modules python/gradtail``: that imports the source tree, which has no extension,
in the place of the installed package.
"""

import doctest
import importlib
import pkgutil

import pytest

import gradtail

OPTIONAL = {"torch", "matplotlib", "rich"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(gradtail.__path__, "gradtail.", onerror=lambda name: None)
    if module.name.rpartition(".")[2] not in ("_core", "__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"could not import {error.name!r}")
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0
