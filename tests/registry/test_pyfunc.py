"""The model that MLflow loads: any row gets an answer, in a process that has little installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow_place import loaded_champion
from registry_bench import make_network, make_rows

import bnpipe
from bnpipe.errors import SchemaError

TARGETS = ["late", "note"]


@pytest.fixture(scope="module")
def model(migrated_mlflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The champion, loaded as a user of MLflow would."""
    folder, example = tmp_path_factory.mktemp("pyfunc"), make_rows(3)
    with loaded_champion(migrated_mlflow_db, folder, make_network(), TARGETS, input_example=example) as model:
        yield model


def expected(frame: pd.DataFrame) -> np.ndarray:
    """P(late) straight from the engine."""
    network = make_network()
    return bnpipe.compile(network).posterior(frame, targets=["late"])["late"]


def test_answers_are_the_engines(model: Any) -> None:
    """Probabilities equal the engine's; the most probable state is named; the index is the caller's."""
    rows = make_rows(20)[["rain", "wind"]].set_axis(range(100, 120))
    answer = model.predict(rows)
    np.testing.assert_allclose(answer[["late=false", "late=true"]].to_numpy(), expected(rows), atol=1e-12)
    assert list(answer.index) == list(rows.index)
    states = np.array(["false", "true"])
    assert (answer["late"] == states[answer[["late=false", "late=true"]].to_numpy().argmax(axis=1)]).all()
    assert list(answer.columns)[-2:] == ["impossible", "unseen"]
    assert "note=delay, >= 15 min" in answer.columns


def test_missing_columns_cells_and_unknown_states(model: Any) -> None:
    """What is not known is summed out; unknown states are counted, never an error."""
    rows = pd.DataFrame({"rain": ["yes", None, "hail"], "wind": [None, 3, 99], "gate": ["A", "B", "C"]})
    answer = model.predict(rows)
    assert answer["unseen"].tolist() == [0, 0, 2]
    assert not answer["impossible"].any()
    known = pd.DataFrame({"rain": ["yes", None, None], "wind": [None, "3", None]})
    np.testing.assert_allclose(answer[["late=false", "late=true"]].to_numpy(), expected(known), atol=1e-12)
    only_rain = model.predict(rows[["rain"]])
    assert len(only_rain) == 3


@pytest.mark.parametrize(
    "convert",
    [
        lambda wind: wind.astype("category"),
        lambda wind: wind.astype(float),
        lambda wind: wind.astype(str),
        lambda wind: wind.astype("string"),
        lambda wind: wind.astype("Int64"),
        lambda wind: wind.astype("int8"),
        lambda wind: wind.astype(object),
        lambda wind: wind.astype(str).astype("category"),
    ],
    ids=["category", "float", "str", "string", "Int64", "int8", "object", "category of str"],
)
def test_columns_of_any_type(model: Any, convert: Any) -> None:
    """MLflow's signature lets every dtype through that names the states."""
    rows = make_rows(10)[["rain", "wind"]]
    pd.testing.assert_frame_equal(model.predict(rows.assign(wind=convert(rows["wind"]))), model.predict(rows))


def test_impossible_evidence(model: Any) -> None:
    """Such a row has no answer and says so; its neighbours have theirs."""
    rows = pd.DataFrame({"note": ["on time", "on time"], "wind": [3, 1], "rain": ["yes", "yes"]})
    answer = model.predict(rows)
    assert answer["impossible"].tolist() == [True, False]
    assert answer.loc[0, ["late=false", "late=true"]].isna().all()
    assert answer["late"].isna().tolist() == [True, False]
    assert answer.loc[1, "late"] == "false"


def test_cells_that_are_lists(model: Any) -> None:
    """The one kind of cell that is refused, by name."""
    with pytest.raises(SchemaError, match="rain: can't compare"):
        model.predict(pd.DataFrame({"rain": [["yes"], ["no"]]}))


@pytest.mark.filterwarnings("ignore:.*validate_serving_input:FutureWarning")
def test_the_rows_of_a_json_request(model: Any) -> None:
    """The stored serving example, which is what `mlflow models serve` receives, is understood."""
    from mlflow.artifacts import download_artifacts
    from mlflow.models import validate_serving_input

    uri = "models:/flights@champion"
    stored = Path(download_artifacts(f"{uri}/serving_input_example.json")).read_text()
    assert len(validate_serving_input(uri, stored)) == 3
    request = {"dataframe_records": [{"rain": "yes"}, {"wind": 2, "rain": None}, {"late": True}]}
    assert len(validate_serving_input(uri, json.dumps(request))) == 3


def test_targets_can_be_chosen_when_loading(model: Any) -> None:
    """`model_config` is MLflow's way to say what else to predict."""
    import mlflow

    other = mlflow.pyfunc.load_model("models:/flights@champion", model_config={"targets": ["rain"]})
    assert list(other.predict(pd.DataFrame({"late": [True]}))) == [
        "rain",
        "rain=no",
        "rain=yes",
        "impossible",
        "unseen",
    ]


BARE = """
    import sys

    BLOCKED = {
        "airflow", "duckdb", "evidently", "fsspec", "great_expectations", "igraph", "matplotlib", "pgmpy",
        "pyagrum", "pyarrow", "rich", "scipy", "sklearn",
    }

    class Bare:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
            return None

    sys.meta_path.insert(0, Bare())
    import mlflow, pandas
    model = mlflow.pyfunc.load_model("models:/flights@champion")
    answer = model.predict(pandas.DataFrame({"wind": [3, None, 77], "gate": "A"}))
    assert answer["unseen"].tolist() == [0, 0, 1], answer
    print(len(answer), sorted(name for name in sys.modules if name.split(".")[0] in BLOCKED))
"""


def test_a_fresh_process_with_only_mlflow_and_bnpipe(model: Any, repository: Path, tmp_path: Path) -> None:
    """`models:/NAME@champion` loads and predicts where nothing else can be imported."""
    import mlflow

    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BARE)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "[]"]
