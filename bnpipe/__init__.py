"""Bayesian networks kept healthy in production.

>>> import bnpipe
>>> import pandas as pd
>>> rows = pd.DataFrame({"rain": ["no", "no", "yes", "yes"], "wet": ["no", "no", "yes", "no"]})
>>> data = bnpipe.Dataset.from_pandas(rows)
>>> network = bnpipe.fit(data, {"rain": (), "wet": ("rain",)})
>>> network.cpd("wet").table.tolist()
[[1.0, 0.0], [0.5, 0.5]]

Names are loaded when first used (PEP 562): an Airflow task pays only for what it touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bnpipe.lazy import loader

if TYPE_CHECKING:
    from bnpipe.classifier import BayesNetClassifier
    from bnpipe.cpd import CPD, Prior
    from bnpipe.data import Dataset
    from bnpipe.drift import DriftReport, compare_cpds
    from bnpipe.errors import BnpipeError
    from bnpipe.inference import Engine, Posterior, compile  # noqa: A004
    from bnpipe.knowledge import Knowledge
    from bnpipe.network import Network
    from bnpipe.parameters import fit, log_likelihood_rows, merge, refit
    from bnpipe.schema import MISSING, Schema, Variable
    from bnpipe.structure import LearnedStructure, learn_structure
    from bnpipe.verdict import Verdict

__version__ = "0.1.0"

__all__ = [
    "CPD",
    "MISSING",
    "BayesNetClassifier",
    "BnpipeError",
    "Dataset",
    "DriftReport",
    "Engine",
    "Knowledge",
    "LearnedStructure",
    "Network",
    "Posterior",
    "Prior",
    "Schema",
    "Variable",
    "Verdict",
    "compare_cpds",
    "compile",
    "fit",
    "learn_structure",
    "log_likelihood_rows",
    "merge",
    "refit",
]

_HOME: Final[dict[str, str]] = {
    "CPD": "network",
    "MISSING": "schema",
    "BayesNetClassifier": "classifier",
    "BnpipeError": "errors",
    "Dataset": "data",
    "DriftReport": "drift",
    "Engine": "inference",
    "Knowledge": "knowledge",
    "LearnedStructure": "structure",
    "Network": "network",
    "Posterior": "inference",
    "Prior": "network",
    "Schema": "schema",
    "Variable": "schema",
    "Verdict": "verdict",
    "compare_cpds": "drift",
    "compile": "inference",
    "fit": "parameters",
    "learn_structure": "structure",
    "log_likelihood_rows": "parameters",
    "merge": "parameters",
    "refit": "parameters",
}

__getattr__ = loader(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
