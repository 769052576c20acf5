"""Names of a package that are loaded when first used (PEP 562): who imports it pays only for what it touches."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def loader(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``.

    Parameters
    ----------
    package : str
        Its name.
    home : mapping of str to str
        The module, below the package, of each name.
    """

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
