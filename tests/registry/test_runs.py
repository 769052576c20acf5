"""Runs: one for each key, with everything a reader of MLflow's page wants."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bnpipe.errors import RegistryError, RegistryUnavailable, VersionNotFound
from bnpipe.registry import Registry
from bnpipe.registry.client import DEFAULTS, Connection, brief


def test_a_retry_gets_the_same_run(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    """The key finds the run again, running once more; new params are added, the first attempt's stay."""
    key = "manual__2026-01-05T06:00:00+00:00"
    run_id = registry.start_run(model="flights", key=key, tags={"step": "1"}, params={"score": "bic", "rows": 10})
    registry.finish_run(run_id, "FAILED")
    again = registry.start_run(model="flights", key=key, tags={"step": "2"}, params={"score": "aic", "arcs": 4})
    assert again == run_id
    run = registry.connection.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"score": "bic", "rows": "10", "arcs": "4"}
    assert run.data.tags["step"] == "2"
    assert "differs in score" in caplog.text
    assert registry.start_run(model="flights", key="it's another") != run_id
    assert registry.start_run(model="other", key=key) != run_id


def test_a_retry_does_not_say_how_the_first_attempt_ended(registry: Registry) -> None:
    """While it works again it is neither failed nor promoted; what is tagged by the retry itself stays."""
    run_id = registry.start_run(model="flights", key="k", tags={"bnpipe.actor": "eve"})
    registry.log_tags(run_id, {"bnpipe.error": "fit: no", "bnpipe.outcome": "failed", "bnpipe.outcome_reason": "no"})
    registry.finish_run(run_id, "FAILED")
    assert registry.start_run(model="flights", key="k", tags={"bnpipe.outcome": "mine"}) == run_id
    tags = {name: value for name, value in registry.run_tags(run_id).items() if name.startswith("bnpipe.")}
    assert tags == {
        "bnpipe.run_key": "k",
        "bnpipe.model": "flights",
        "bnpipe.actor": "eve",
        "bnpipe.outcome": "mine",
    }


def test_a_finished_run_is_not_written_again(registry: Registry) -> None:
    """A cleared Airflow run gets a run of its own each time; one that failed is gone on with."""
    first = registry.start_run(model="flights", key="night")
    assert registry.find_run(model="flights", key="night") == first
    registry.finish_run(first, "FINISHED")
    assert registry.find_run(model="flights", key="night") is None
    second = registry.start_run(model="flights", key="night")
    assert second != first
    assert registry.run_tags(second)["bnpipe.run_key"] == "night#2"
    registry.finish_run(second, "FAILED")
    assert registry.start_run(model="flights", key="night") == second
    registry.finish_run(second, "FINISHED")
    third = registry.start_run(model="flights", key="night")
    assert registry.run_tags(third)["bnpipe.run_key"] == "night#3"


def test_the_oldest_of_two_runs_is_gone_on_with(registry: Registry) -> None:
    """Should two runs of one key ever exist, everybody agrees which it is; quotes in keys are no trouble."""
    key = "manual's"
    run_id = registry.start_run(model="flights", key=key)
    client = registry.connection.client
    experiment = client.get_run(run_id).info.experiment_id
    older = client.create_run(experiment, start_time=1, tags={"bnpipe.run_key": key}).info.run_id
    assert registry.start_run(model="flights", key=key) == older
    with pytest.raises(RegistryError, match="both kinds of quotes"):
        registry.start_run(model="flights", key='it\'s "so"')


def test_metrics_tags_and_many_params(registry: Registry) -> None:
    """More than fit into one request."""
    run_id = registry.start_run(model="flights", key="k", params={f"p{number}": number for number in range(250)})
    registry.log_metrics(run_id, {"log_loss": 0.25, "rows": 7})
    registry.log_metrics(run_id, {"log_loss": 0.5})
    registry.log_tags(run_id, {f"t{number}": "x" for number in range(150)})
    registry.finish_run(run_id, "FINISHED")
    assert len(registry.connection.client.get_run(run_id).data.params) == 250
    assert registry.metrics(run_id) == {"log_loss": 0.5, "rows": 7.0}
    assert registry.run_tags(run_id)["t149"] == "x"
    assert registry.run_status(run_id) == "FINISHED"


def test_texts_and_files(registry: Registry, tmp_path: Path) -> None:
    """Artifacts lie beside the SQLite file, not under the working directory, and can be written again."""
    run_id = registry.start_run(model="flights", key="k")
    registry.log_text(run_id, "first", "verdicts/all.json")
    registry.log_text(run_id, "größer", "verdicts/all.json")
    (tmp_path / "figure.svg").write_text("<svg/>")
    registry.log_file(run_id, tmp_path / "figure.svg", "figures/")
    registry.log_file(run_id, tmp_path / "figure.svg", "graph.svg")
    registry.log_bytes(run_id, b"\x89PNG", "graph.png")
    assert registry.artifacts(run_id) == ("figures/figure.svg", "graph.png", "graph.svg", "verdicts/all.json")
    assert registry.read_text(run_id, "verdicts/all.json") == "größer"
    assert registry.read_text(run_id, "figures/figure.svg") == registry.read_text(run_id, "graph.svg") == "<svg/>"
    assert (tmp_path / "mlartifacts" / "bnpipe-flights").is_dir()
    assert not (Path.cwd() / "mlruns").exists()
    with pytest.raises(RegistryError, match=r"nothing\.txt"):
        registry.read_text(run_id, "nothing.txt")
    with pytest.raises(RegistryError, match=r"gone\.svg"):
        registry.log_file(run_id, tmp_path / "gone.svg", "graph.svg")
    with pytest.raises(VersionNotFound):
        registry.log_text("0" * 32, "text", "path.txt")


def test_the_snapshot_is_an_input_of_the_run(registry: Registry) -> None:
    """With our fingerprint, whole, and no password; recorded once however often it is logged."""
    run_id = registry.start_run(model="flights", key="k")
    for _ in range(2):
        registry.log_snapshot(run_id, "flights", "s3://key:secret@store/snapshots/ab.parquet", "ab" * 32)
    (recorded,) = registry.connection.client.get_run(run_id).inputs.dataset_inputs
    assert recorded.dataset.digest == ("ab" * 32)[:36]
    assert recorded.dataset.source == "s3://store/snapshots/ab.parquet"
    assert {tag.key: tag.value for tag in recorded.tags}["bnpipe.data_fingerprint"] == "ab" * 32


def test_a_deleted_experiment_comes_back(registry: Registry) -> None:
    """A team that tidied up in MLflow does not stop the next night."""
    run_id = registry.start_run(model="flights", key="k")
    client = registry.connection.client
    client.delete_experiment(client.get_run(run_id).info.experiment_id)
    assert registry.start_run(model="flights", key="k2") != run_id


def test_a_dead_server_is_noticed_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port raises a retryable error within 10 s under our own defaults, and shows no password."""
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    registry = Registry("http://eve:secret@127.0.0.1:1")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    began = time.perf_counter()
    with pytest.raises(RegistryUnavailable, match=r"http://127\.0\.0\.1:1 did not answer") as caught:
        registry.champion("flights")
    assert time.perf_counter() - began < 10
    assert "secret" not in str(caught.value)
    assert caught.value.retryable


def test_a_users_own_timeouts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set in the environment is respected, for uploads too."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    with Connection("http://127.0.0.1:1").patient():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


def test_uploads_are_patient_for_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping uploads wait long; after the last the short timeout is back."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", DEFAULTS["MLFLOW_HTTP_REQUEST_TIMEOUT"])
    connection = Connection("http://127.0.0.1:1")
    first, second = connection.patient(), connection.patient()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) >= 60
    second.__exit__(None, None, None)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"


def test_an_address_that_is_none() -> None:
    """A tracking URI MLflow can't read is a plain error: waiting will not help."""
    with pytest.raises(RegistryError) as caught:
        Registry("gopher://somewhere").champion("flights")
    assert not caught.value.retryable


def test_messages_are_short_and_without_passwords() -> None:
    """Errors of any length are cut at the first line."""
    text = brief(ValueError("can't reach postgresql://eve:secret@host/db\nand\nmore"))
    assert text == "can't reach postgresql://host/db"
    assert len(brief(ValueError("x" * 10_000))) <= 400
    leaky = Connection("postgresql://eve:p@ss@host/db")
    assert leaky.shown == "postgresql://host/db"
    assert brief(ValueError(f"no answer from {leaky.uri}")) == "no answer from postgresql://host/db"
