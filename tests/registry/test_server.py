"""The registry against a real MLflow server with proxied artifacts, as in production."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from mlflow_place import mlflow_at
from registry_bench import check_agreement, make_network, make_rows

from benchmarks.service import free_port, mlflow_server
from bnpipe.errors import PromotionRefused, RegistryError, RegistryUnavailable
from bnpipe.registry import Registry, Version, client


@pytest.fixture(scope="module")
def server(migrated_mlflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server of this module's own; its whole process group ends with it."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated_mlflow_db, folder / "mlflow.db")
    with mlflow_server(folder, free_port()) as running:
        yield "http://{}:{}".format(*running.address)


def test_a_training_through_the_server(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, artifacts, version, promotion, a move by hand, load and predict: all over HTTP, no file strays."""
    monkeypatch.chdir(tmp_path)
    registry, network = Registry(server), make_network()
    run_id = registry.start_run(model="flights", key="night's 1", tags={"a": "b"}, params={"score": "bic"})
    assert registry.start_run(model="flights", key="night's 1") == run_id
    registry.log_text(run_id, "größer", "verdicts/all.json")
    assert registry.read_text(run_id, "verdicts/all.json") == "größer"
    with pytest.raises(RegistryError):
        registry.read_text(run_id, "nothing.txt")
    registry.log_snapshot(run_id, "flights", "file:///snapshots/ab.parquet", "ab" * 32)
    registry.log_metrics(run_id, {"log_loss": 0.5})

    options = {"model": "flights", "network": network, "targets": ["late"], "run_id": run_id}
    version = registry.register(
        **options, training_key="k1", tags={"bnpipe.verdict": "pass"}, input_example=make_rows(2)
    )
    assert registry.register(**options, training_key="k1") == version
    assert registry.register(**options, training_key="k2").number == 2
    assert registry.load_network(version).content_hash == network.content_hash

    registry.promote("flights", 1, actor="eve", reason="first", evidence=registry.run_url(run_id), expected=None)
    registry.connection.client.set_registered_model_alias("flights", "champion", "2")
    assert [(entry.source, entry.to) for entry in registry.reconcile("flights").by_hand] == [(1, 2)]
    registry.rollback("flights", to=1, actor="eve", reason="back", expected=2)
    assert [entry.to for entry in registry.history("flights")] == [1, 2, 1]
    assert registry.run_url(run_id).startswith(f"{server}/#/experiments/")
    monkeypatch.setenv("BNPIPE_MLFLOW_URL", "https://mlflow.example.com/")
    assert registry.run_url(run_id).startswith("https://mlflow.example.com/#/experiments/")
    monkeypatch.delenv("BNPIPE_MLFLOW_URL")
    with urllib.request.urlopen(registry.run_url(run_id), timeout=5) as page:
        assert page.status == 200
    registry.finish_run(run_id, "FINISHED")

    import mlflow

    with mlflow_at(server):
        answer = mlflow.pyfunc.load_model("models:/flights@champion").predict(pd.DataFrame({"wind": [3]}))
    assert len(answer) == 1
    assert not list(tmp_path.iterdir())


def reign(registry: Registry, model: str) -> list[Version]:
    """Make two versions champion, one after the other."""
    run_id = registry.start_run(model=model, key="k")
    versions = []
    for key in ("k1", "k2"):
        options = {"run_id": run_id, "training_key": key, "tags": {"bnpipe.verdict": "pass"}}
        versions.append(registry.register(model=model, network=make_network(), targets=["late"], **options))
        registry.promote(model, versions[-1].number, actor="schedule", reason="better")
    return versions


def test_back_to_files_that_the_server_no_longer_has(server: str) -> None:
    """Artifacts deleted behind the server are a refusal, told from a server that does not answer."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    registry = Registry(server)
    first, _ = reign(registry, "cleaned")
    logged = registry.connection.client.get_logged_model(first.tags["bnpipe.model_id"])
    location = logged.artifact_location.replace("mlflow-artifacts:", f"{server}/api/2.0/mlflow-artifacts/artifacts")
    get_artifact_repository(location).delete_artifacts("artifacts/network.json")
    assert registry.predecessor("cleaned") is None
    with pytest.raises(
        PromotionRefused, match=r"version 1: its files can't be loaded .*; no earlier champion would do"
    ):
        registry.rollback("cleaned", to=1, actor="eve", reason="worse")
    assert registry.ledger.alias("cleaned") == 2


@pytest.mark.parametrize("stage", ["claimed", "moved", "barred"])
def test_the_server_goes_away_during_a_rollback(server: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """A retryable error at each step; the retry, or reconciling, puts ledger, alias and bar together."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = f"outage-{stage}"
    registry = Registry(server)
    reign(registry, model)
    wire = Wire(int(server.rsplit(":", 1)[1]))
    away = Registry(wire.url, checkpoint=lambda reached: wire.cut() if reached == stage else None)
    with pytest.raises(RegistryUnavailable, match="did not answer"):
        away.rollback(model, actor="eve", reason="worse", key="look-1")
    found = registry.reconcile(model)
    assert [entry.kind for entry in found.closed] == ([] if stage == "claimed" else ["rollback"])
    entry = registry.rollback(model, actor="eve", reason="worse", key="look-1")
    assert (entry.source, entry.to, entry.outcome) == (2, 1, "done")
    check_agreement(registry, model)
    assert [version.barred is not None for version in registry.versions(model)] == [False, True]


class Wire:
    """A TCP wire to the server which can be slow to bring the answer to an upload, and can be cut."""

    def __init__(self, port: int, upload_delay: float = 0.0) -> None:
        self.target, self.upload_delay = ("127.0.0.1", port), upload_delay
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.ends: list[socket.socket] = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; later ones are refused."""
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                self.ends += [near, far]
                uploading = threading.Event()
                threading.Thread(target=self._carry, args=(near, far, uploading, 0.0), daemon=True).start()
                threading.Thread(
                    target=self._carry, args=(far, near, uploading, self.upload_delay), daemon=True
                ).start()

    @staticmethod
    def _carry(source: socket.socket, to: socket.socket, uploading: threading.Event, delay: float) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if data.startswith(b"PUT "):
                    uploading.set()
                elif delay and uploading.is_set():
                    time.sleep(delay)
                    uploading.clear()
                to.sendall(data)
        for end in (source, to):  # a server that ends an idle connection must end it for the client too
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_an_upload_that_is_answered_late(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store behind the server takes its time: longer than the timeout for questions is not too long."""
    monkeypatch.setitem(client.DEFAULTS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # type: ignore[index]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "large.bin").write_bytes(os.urandom(8_000_000))
    wire = Wire(int(server.rsplit(":", 1)[1]), upload_delay=2.0)
    try:
        registry = Registry(wire.url)
        run_id = registry.start_run(model="flights", key="large")
        registry.log_file(run_id, tmp_path / "large.bin", "files/")
        (found,) = registry.connection.client.list_artifacts(run_id, "files")
        assert found.file_size == 8_000_000
        with pytest.raises(RegistryUnavailable):  # what would happen without patience
            registry.connection.call("log_artifact", run_id, str(tmp_path / "large.bin"))
    finally:
        wire.cut()


def test_the_server_goes_away_in_the_middle(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retryable error; afterwards nothing is half-registered, and the same calls go through."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    wire = Wire(int(server.rsplit(":", 1)[1]))
    away = Registry(wire.url, checkpoint=lambda stage: wire.cut() if stage == "claimed version" else None)
    run_id = away.start_run(model="departures", key="k")
    options = {"model": "departures", "network": make_network(), "targets": ["late"], "training_key": "k"}
    with pytest.raises(RegistryUnavailable, match="did not answer"):
        away.register(**options, run_id=run_id)
    registry = Registry(server)
    assert registry.versions("departures") == ()
    assert registry.register(**options, run_id=run_id).number == 1
    assert len(registry.versions("departures")) == 1
