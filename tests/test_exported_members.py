"""The public surface: what other programs rely on."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

import bnpipe

PUBLIC = {
    "CPD",
    "MISSING",
    "BayesNetClassifier",
    "BnpipeError",
    "Dataset",
    "Engine",
    "Knowledge",
    "LearnedStructure",
    "Network",
    "Posterior",
    "Prior",
    "Schema",
    "Variable",
    "Verdict",
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


def test_learning_and_inference_need_only_numpy_and_pandas() -> None:
    """A base install has nothing else, and each Airflow task pays for its imports."""
    already = loaded_by("import numpy, pandas")
    loaded = loaded_by(
        "import bnpipe, pandas\n"
        "data = bnpipe.Dataset.from_pandas(pandas.DataFrame({'a': ['x', 'y'], 'b': ['u', 'v']}))\n"
        "network = bnpipe.fit(data, {'b': ('a',)})\n"
        "bnpipe.compile(network).posterior(data, targets=['b'])"
    )
    assert not loaded & (HEAVY - already)


@pytest.mark.parametrize("module", ["bnpipe", "bnpipe.schema", "bnpipe.data", "bnpipe.parameters", "bnpipe.classifier"])
def test_the_examples_in_docstrings_run(module: str) -> None:
    """What a reader tries first gives what it says."""
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
