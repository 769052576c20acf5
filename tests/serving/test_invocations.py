"""MLflow's protocol: what `mlflow models serve` answers of the same version, to the last bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow_place import loaded_champion
from registry_bench import make_rows
from serving_bench import Kept, make_service, send

import bnpipe
from bnpipe.answers.records import day_of_id
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable, bin_labels
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.service import Service

TARGETS = ("late", "speed")


def make_mixed() -> Network:
    """Text, numbers, truth values, and a binned variable that has a state for nulls."""
    rows = make_rows(500).assign(speed=np.random.default_rng(3).gamma(2.0, 10.0, 500))
    rows.loc[::7, "speed"] = np.nan
    inferred = Schema.infer(rows.drop(columns="speed"))
    edges = (10.0, 25.0)
    speed = Variable("speed", (*bin_labels(edges), "none"), edges=edges, missing="none")
    data = bnpipe.Dataset.from_pandas(rows, Schema((*inferred.variables, speed)))
    parents = {"late": ("rain", "wind"), "note": ("late",), "speed": ("late",)}
    return bnpipe.fit(data, parents, equivalent_sample_size=0.0)


@pytest.fixture(scope="module")
def mlflow_model(migrated_mlflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The version as MLflow's scoring server loads it."""
    with loaded_champion(migrated_mlflow_db, tmp_path_factory.mktemp("pyfunc"), make_mixed(), TARGETS) as model:
        yield model


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The same network, served here."""
    return make_service(tmp_path_factory.mktemp("cache"), [make_mixed()], targets=TARGETS, log=Kept())


def theirs(model: Any, body: bytes, content_type: str = "application/json") -> list[dict[str, Any]]:
    """What the handler of MLflow's server answers."""
    from mlflow.pyfunc.scoring_server import invocations

    found = invocations(body, content_type, model, model.metadata.get_input_schema())
    assert found.status == 200
    return list(json.loads(found.response)["predictions"])


def ours(service: Service, body: bytes, content_type: str = "application/json") -> list[dict[str, Any]]:
    """What the service answers."""
    found = send(service, "POST", "/invocations", content=body, headers={"content-type": content_type})
    assert found.status_code == 200, found.text
    assert found.headers["x-model-version"] == "1"
    return list(json.loads(found.content)["predictions"])


def bits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make values comparable: NaN, which is no JSON, is null here."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]


FRAME = {
    "rain": ["yes", "no", None, "hail"],
    "wind": [1, 2, 3, 99],
    "late": [True, False, None, True],
    "note": ["on time", "delay, >= 15 min", "on time", None],
    "speed": [3.5, None, 10.0, 1e9],
    "gate": ["B", "C", "D", "E"],
}
RECORDS = [dict(zip(FRAME, cells, strict=True)) for cells in zip(*FRAME.values(), strict=True)]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(FRAME), "data": [list(row.values()) for row in RECORDS]}},
        {"dataframe_split": {"columns": ["wind"], "data": [[3], [1]], "index": [7, 9]}},
        {"dataframe_records": RECORDS},
        {"dataframe_records": [{"rain": "yes", "speed": 3}, {"rain": "no"}, {"wind": 2}]},
        {"dataframe_records": RECORDS, "params": {"temperature": 1}},
        {"dataframe_records": [{"speed": "12.5"}, {"speed": "<10"}, {"speed": "fast"}]},
        {"instances": RECORDS},
        {"instances": [{"rain": "yes", "wind": 1}]},
        {"inputs": {"rain": ["yes", None], "wind": [1, 2]}},
        {"inputs": {"rain": "yes", "wind": 3}},
        {"inputs": [{"rain": "yes"}, {"rain": "no"}]},
    ],
    ids="-".join,
)
def test_predictions_are_mlflows(mlflow_model: Any, service: Service, body: dict[str, Any]) -> None:
    """Each form of a frame gets the values, the columns and their order that MLflow's server gives."""
    text = json.dumps(body).encode()
    expected, found = bits(theirs(mlflow_model, text)), ours(service, text)
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]


def test_what_pandas_writes_is_read(mlflow_model: Any, service: Service) -> None:
    """NaN as Python's JSON has it, and what `to_json` gives."""
    frame = pd.DataFrame(FRAME)
    for text in (
        json.dumps({"dataframe_split": frame.to_dict(orient="split")}),
        '{"dataframe_split": ' + str(frame.to_json(orient="split")) + "}",
        '{"dataframe_records": ' + str(frame.to_json(orient="records")) + "}",
    ):
        assert ours(service, text.encode()) == bits(theirs(mlflow_model, text.encode()))


columns = {
    "rain": st.sampled_from(["yes", "no", "hail", None]),
    "wind": st.sampled_from([1, 2, 3, 7]),
    "late": st.booleans(),
    "note": st.sampled_from(["on time", "delay, >= 15 min", None]),
    "speed": st.floats(-5.0, 60.0) | st.none(),
}


@given(st.lists(st.fixed_dictionaries({}, optional=columns), min_size=1, max_size=6))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_any_records(mlflow_model: Any, service: Service, rows: list[dict[str, Any]]) -> None:
    """Frames with holes: a cell that a record leaves out is a null as soon as another record has it."""
    if not any(rows):  # a frame without columns loses its rows in MLflow
        return
    text = json.dumps({"dataframe_records": rows}).encode()
    assert ours(service, text) == bits(theirs(mlflow_model, text))


def test_csv(mlflow_model: Any, service: Service) -> None:
    """What `to_csv` writes is answered as the frame itself is; MLflow's server can't read CSV for these models."""
    frame = pd.DataFrame(FRAME)
    expected = bits(mlflow_model.predict(frame).to_dict(orient="records"))
    for text in (frame.to_csv(index=False), frame.to_csv(), frame.to_csv(index=False, lineterminator="\r\n")):
        assert ours(service, text.encode(), "text/csv; charset=utf-8") == expected
    assert ours(service, b"\xef\xbb\xbfwind\n3\n\n03\n3.0\n", "text/csv")[0]["unseen"] == 0


@pytest.mark.parametrize(
    "body", [{"dataframe_records": []}, {"inputs": {}}, {"dataframe_split": {"columns": [], "data": []}}]
)
def test_no_rows_get_no_predictions(service: Service, body: dict[str, Any]) -> None:
    """An empty frame has an empty answer by a version, and nothing is logged."""
    before = len(service.log.records)  # type: ignore[union-attr]
    found = send(service, "POST", "/invocations", json=body)
    assert found.status_code == 200
    assert found.json() == {"predictions": []}
    assert found.headers["x-model-version"] == "1"
    assert day_of_id(found.headers["x-request-id"]) is not None
    assert len(service.log.records) == before  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "says", "at"),
    [
        ('{"dataframe_records": [{"rain": "yes", "wind": [1]}]}', "got a list", "dataframe_records[0].wind"),
        ('{"inputs": {"rain": ["yes"], "wind": [{"x": 1}]}}', "got an object", "inputs.wind[0]"),
        ('{"inputs": {"rain": "yes", "wind": {"x": 1}}}', "or a list of such", "inputs.wind"),
        ('{"instances": [{"rain": NaN, "wind": [1]}]}', "got a list", "instances[0].wind"),
        ('{"dataframe_split": {"columns": ["a"], "data": [[1e999]]}}', "a double", "dataframe_split.data[0][0]"),
        ('{"dataframe_split": {"colums": ["a"], "data": [[1]]}}', "did you mean 'columns'?", "dataframe_split"),
    ],
    ids=["record", "column", "object", "beside NaN", "huge", "misspelt"],
)
def test_a_cell_that_is_none_is_named(service: Service, body: str, says: str, at: str) -> None:
    """By its row and column, whatever the form of the frame; a NaN elsewhere is a null."""
    found = send(service, "POST", "/invocations", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert says in found.json()["detail"]
    assert found.json()["at"] == at


def test_it_goes_the_way_of_every_question(service: Service) -> None:
    """Logged so that it can be made again, with its id in the header; the model may be named."""
    body = {"dataframe_records": [{"rain": "hail", "speed": 3}, {"rain": "yes"}]}
    found = send(service, "POST", "/v1/models/flights/invocations?version=1", json=body)
    record = service.log.answers[-1]  # type: ignore[union-attr]
    assert record.id == found.headers["x-request-id"]
    assert (record.kind, record.arm, record.version) == ("invocations", "pinned", 1)
    assert record.rows == [{"rain": "hail", "speed": 3}, {"rain": "yes", "speed": None}]
    engine = service.shelf.model("flights").version(1).engine
    again = answer_rows(engine, "invocations", Options(tuple(record.question["targets"])), record.rows)
    assert again == record.answer
    assert json.loads(record.answer) == found.json()["predictions"]
    assert [row["unseen"] for row in found.json()["predictions"]] == [1, 0]


def test_a_remembered_answer_counts_its_own_strange_cells(service: Service) -> None:
    """Rows that are the same to the network may differ in what was strange about them."""
    for rain, unseen in ((None, 0), ("hail", 1), (None, 0), ("hail", 1)):
        found = send(service, "POST", "/invocations", json={"dataframe_records": [{"rain": rain, "wind": 1}]})
        assert found.json()["predictions"][0]["unseen"] == unseen


def test_ping_and_version(service: Service, tmp_path: Path) -> None:
    """As MLflow's clients look for them; a service that can't answer yet is no healthy one."""
    import mlflow

    assert send(service, "GET", "/ping").status_code == 200
    assert send(service, "GET", "/version").text == mlflow.__version__
    empty = make_service(tmp_path)
    empty.shelf.models = {}
    assert send(empty, "GET", "/ping").status_code == 503
    assert send(empty, "POST", "/invocations", json={"inputs": {}}).status_code == 404
