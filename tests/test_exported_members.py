"""The public surface: what other programs rely on."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import bnpipe

PUBLIC = {
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
}

HEAVY = {
    "airflow", "duckdb", "evidently", "great_expectations", "igraph", "joblib", "matplotlib", "mlflow", "networkx",
    "pgmpy", "pyarrow", "pydantic", "scipy", "sklearn", "torch", "yaml",
}  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_exactly_these_names_are_public() -> None:
    """A name leaves or joins on purpose only."""
    assert set(bnpipe.__all__) == PUBLIC
    assert set(bnpipe._HOME) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_loaded_when_asked_for(name: str) -> None:
    """Each name leads to an object that is documented."""
    assert getattr(bnpipe, name) is getattr(bnpipe, name)
    assert name in dir(bnpipe)
    assert getattr(bnpipe, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` works, and so does a misspelt import."""
    assert not hasattr(bnpipe, "learn_sturcture")
    with pytest.raises(ImportError):
        from bnpipe import learn_sturcture  # noqa: F401


def test_importing_bnpipe_costs_nothing() -> None:
    """Not even numpy is loaded before a name is used."""
    assert not loaded_by("import bnpipe") & {"numpy", "pandas", *HEAVY}


FIT = (
    "import bnpipe, pandas\n"
    "data = bnpipe.Dataset.from_pandas(pandas.DataFrame({'a': ['x', 'y'], 'b': ['u', 'v']}))\n"
    "network = bnpipe.fit(data, {'b': ('a',)})\n"
)


@pytest.mark.parametrize(
    "statement",
    ["", "network.save('n.json')\nbnpipe.Network.load('n.json')", "bnpipe.compile(network)"],
    ids=["fit", "load", "compile"],
)
def test_small_work_needs_only_numpy_and_pandas(statement: str, tmp_path: Path) -> None:
    """Each Airflow task is a process of its own: numba's half second is paid by work that it makes quicker only."""
    already = loaded_by("import numpy, pandas")
    loaded = loaded_by(f"import os\nos.chdir({str(tmp_path)!r})\n{FIT}{statement}")
    assert "bnpipe" in loaded
    assert not loaded & ({"numba", "llvmlite", *HEAVY} - already)


@pytest.mark.parametrize(
    "statement",
    ["bnpipe.compile(network).posterior(data, targets=['b'])", "bnpipe.learn_structure(data)"],
    ids=["answer", "learn"],
)
def test_learning_and_the_first_answer_need_numba_besides(statement: str) -> None:
    """A base install has nothing else; numba itself takes scipy and yaml along where they are."""
    already = loaded_by("import numpy, pandas, numba")
    loaded = loaded_by(FIT + statement)
    assert "numba" in loaded
    assert not loaded & (HEAVY - already)


@pytest.mark.parametrize("module", ["bnpipe", "bnpipe.schema", "bnpipe.data", "bnpipe.parameters", "bnpipe.classifier"])
def test_the_examples_in_docstrings_run(module: str) -> None:
    """What a reader tries first gives what it says."""
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
