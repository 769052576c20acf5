"""Retraining on the real components over REST: killed tasks, a champion moved by hand, a backfill."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnpipe.demo.airflow_client import AirflowClient, RunState
from bnpipe.demo.platform import Platform
from bnpipe.errors import PlatformError
from bnpipe.registry import LedgerEntry, Registry

MODEL = "health_plan"
DAG = f"bn_train__{MODEL}"
NOTICED = 60.0  # seconds within which a move by hand must be in the ledger


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Platform]:
    """Start everything once for the tests below, which go on from one another."""
    home = tmp_path_factory.mktemp("retrain")
    env = {
        "BNPIPE_MODELS": str(repository / "config" / "models"),
        "BNPIPE_STORE": str(home / "store"),
        "BNPIPE_POLL_SECONDS": "1",
    }
    folders = {"dags": repository / "dags", "plugins": repository / "plugins"}
    platform = Platform(home / "home", **folders, env=env, airflow_port=0, mlflow_port=0)  # other tests have others
    with platform.start():
        platform.client.wait_for_dag(DAG)
        platform.client.unpause(DAG)
        yield platform


def _ended(platform: Platform, run: str) -> RunState:
    return platform.client.wait(DAG, run, timeout=300, check=platform.check)


def _kill_when_running(client: AirflowClient, platform: Platform, run: str, task: str) -> None:
    """Kill the process of a task with SIGKILL as soon as Airflow knows its pid."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        platform.check()
        found = client._request("GET", f"dags/{DAG}/dagRuns/{run}/taskInstances/{task}", missing_ok=True) or {}
        if found.get("state") == "running" and found.get("pid"):
            os.kill(found["pid"], signal.SIGKILL)
            return
        assert found.get("state") != "success", f"{task} was over before it could be killed"
        time.sleep(0.05)
    pytest.fail(f"{task} never ran")


def _noticed(platform: Platform, entries: int) -> LedgerEntry:
    """Wait until the ledger has that many entries; give the last."""
    registry = Registry(platform.mlflow_url)
    deadline = time.monotonic() + NOTICED
    while len(history := registry.history(MODEL)) < entries:
        platform.check()
        assert time.monotonic() < deadline, f"after {NOTICED:.0f} s the ledger still ends with {history[-1]}"
        time.sleep(0.5)
    return history[-1]


def _followed(platform: Platform) -> None:
    """Wait until the watcher has announced the first champion: what it never saw it can't miss."""
    deadline = time.monotonic() + NOTICED
    while not platform.client.runs("bn_registry"):
        platform.check()
        assert time.monotonic() < deadline, f"bn_registry did not start within {NOTICED:.0f} s"
        time.sleep(0.5)


def _warned(platform: Platform) -> list[str]:
    """Gather what the runs of the registry Dag have warned of; waits for the one that is under way."""
    client = platform.client
    warnings = []
    for run in client.runs("bn_registry"):
        assert client.wait("bn_registry", run.run, timeout=NOTICED).succeeded
        warnings += client.xcom("bn_registry", run.run, "reconcile")["warnings"]
    return warnings


def _tasks_are_killed(platform: Platform) -> None:
    """A SIGKILL in `learn` and another in `register` cost two retries; one version is promoted, once."""
    client = platform.client
    client.trigger(DAG, run="killed", conf={"end": "1979-01-01", "promotion": "auto", "reason": "test of kills"})
    for task in ("learn", "register"):
        _kill_when_running(client, platform, "killed", task)
    ended = _ended(platform, "killed")
    assert ended.succeeded, client.log(DAG, "killed", "promote")
    assert {task.task: task.tries for task in ended.tasks if task.tries > 1} == {"learn": 2, "register": 2}
    outcome = client.xcom(DAG, "killed", "promote")
    assert (outcome["outcome"], outcome["version"]) == ("promoted", 1)
    registry = Registry(platform.mlflow_url)
    assert [version.number for version in registry.versions(MODEL)] == [1]
    [entry] = registry.history(MODEL)
    assert (entry.to, entry.outcome, entry.actor) == (1, "done", "admin")
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.tags["bnpipe.airflow_run"] == f"{DAG}/killed"


def _a_person_moves_the_champion(platform: Platform) -> None:
    """Triggerer, asset and `bn_registry` notice what a person did in MLflow, and warn where it needs a second look."""
    from mlflow import MlflowClient

    _followed(platform)
    mlflow = MlflowClient(platform.mlflow_url)
    newer = platform.client.trigger(DAG, conf={"end": "1980-01-01", "promotion": "manual"})
    mlflow.delete_registered_model_alias(MODEL, "champion")
    entry = _noticed(platform, 2)
    assert (entry.source, entry.to, entry.actor, entry.kind) == (1, None, "unknown (MLflow)", "by hand")

    assert _ended(platform, newer).succeeded
    outcome = platform.client.xcom(DAG, newer, "promote")
    assert (outcome["outcome"], outcome["version"]) == ("left to MLflow", 2)
    mlflow.set_model_version_tag(MODEL, "2", "bnpipe.barred", "by this test")
    mlflow.set_registered_model_alias(MODEL, "champion", "2")
    entry = _noticed(platform, 3)
    assert (entry.source, entry.to, entry.actor, entry.kind) == (None, 2, "unknown (MLflow)", "by hand")

    warned = _warned(platform)
    assert len(warned) == 2
    assert any("was removed in MLflow; it was version 1" in warning for warning in warned)
    assert any("was set to version 2 in MLflow" in warning and "by this test" in warning for warning in warned)


def _backfill_made(client: AirflowClient, wanted: dict[str, Any]) -> dict[str, Any]:
    """Ask until SQLite lets Airflow write it: meanwhile it answers 503, nothing made."""
    deadline = time.monotonic() + NOTICED
    while True:
        try:
            made: dict[str, Any] = client._request("POST", "backfills", wanted)
        except PlatformError as error:
            if "Database is locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return made


def _an_older_date_is_backfilled(platform: Platform) -> None:
    """The backfill takes 1 January 1979 of the yearly cron; with a conf of its own it is a training of its own."""
    client = platform.client
    days = {"from_date": "1978-12-01T00:00:00Z", "to_date": "1979-02-01T00:00:00Z"}
    made = _backfill_made(client, {"dag_id": DAG, **days, "dag_run_conf": {"max_parents": 2}})
    [run] = [run.run for run in client.runs(DAG) if run.run.startswith("backfill__")]
    ended = _ended(platform, run)
    assert ended.succeeded
    outcome = client.xcom(DAG, run, "promote")
    assert (outcome["outcome"], outcome["version"]) == ("superseded", 3)
    registry = Registry(platform.mlflow_url)
    version = registry.version(MODEL, 3)
    assert version.tags["bnpipe.end"].startswith("1979-01-01")
    assert version.tags["bnpipe.airflow_run"] == f"{DAG}/{run}"
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.number == 2
    assert len(registry.history(MODEL)) == 3
    assert client._request("GET", f"backfills/{made['id']}")["dag_id"] == DAG


@pytest.mark.timeout(900)
def test_a_models_life_on_the_real_components(platform: Platform):
    """Tasks killed on the way, a champion moved by hand in MLflow, a backfill beside it: each builds on the last."""
    _tasks_are_killed(platform)
    _a_person_moves_the_champion(platform)
    _an_older_date_is_backfilled(platform)
