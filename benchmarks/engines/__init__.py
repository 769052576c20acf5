"""The engines that are compared, behind one face: each learns, fits and answers in its own natural way."""

from __future__ import annotations

import importlib
from typing import Final

from benchmarks.engines.base import Learner

_LEARNERS: Final = {
    "bnpipe": "bnpipe_engine:BnpipeLearner",
    "pgmpy": "pgmpy_engine:PgmpyLearner",
    "pyagrum": "pyagrum_engine:PyagrumLearner",
}


def learner(engine: str) -> Learner:
    """Give the learner of an engine; its library is loaded now."""
    module, _, name = _LEARNERS[engine].partition(":")
    made: Learner = getattr(importlib.import_module(f"benchmarks.engines.{module}"), name)()
    return made
