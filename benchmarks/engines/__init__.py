"""The engines that are compared, behind one face: each learns, fits and answers in its own natural way."""

from __future__ import annotations

import importlib
from typing import Any, Final

from benchmarks.engines.base import Answerer, Fitter, Learner

_MODULES: Final = {"bnpipe": "Bnpipe", "pgmpy": "Pgmpy", "pyagrum": "Pyagrum"}


def learner(engine: str) -> Learner:
    """Give the learner of an engine; its library is loaded now."""
    made: Learner = _class(engine, "Learner")()
    return made


def fitter(engine: str) -> Fitter:
    """Give the estimator of tables of an engine."""
    made: Fitter = _class(engine, "Fitter")()
    return made


def answerer(engine: str) -> type[Answerer]:
    """Give the class that compiles a network for questions."""
    found: type[Answerer] = _class(engine, "Answerer")
    return found


def _class(engine: str, face: str) -> Any:
    return getattr(importlib.import_module(f"benchmarks.engines.{engine}_engine"), _MODULES[engine] + face)
