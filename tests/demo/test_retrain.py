"""Retraining and looking for drift on the real components over REST: tasks killed, a champion moved, a backfill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from alert_servers import Webhook, running
from shop_bench import SPEC, draw_days

from bnpipe.demo.airflow_client import AirflowClient, RunState
from bnpipe.demo.platform import Platform
from bnpipe.errors import PlatformError
from bnpipe.registry import LedgerEntry, Registry

MODEL = "health_plan"
DAG = f"bn_train__{MODEL}"
SHOP = "shop"
LOOK = ("snapshot", "validate", "compare", "decide", "act", "report", "start_training")
HURRIED = """\
import sys
from datetime import timedelta

if "scheduler" in sys.argv:
    import duckdb, great_expectations, mlflow, pandas, pyarrow.parquet
    import bnpipe.evaluation, bnpipe.search, bnpipe.steps

def task_policy(task):
    task.retry_delay, task.retry_exponential_backoff = timedelta(seconds=1), 0
"""  # Airflow's own hooks: retries that do not wait, and tasks, forks of the scheduler, that find libraries loaded
CALM = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
}  # what looks for changes that never come here took a core
NOTICED = 60.0  # seconds within which a move by hand must be in the ledger


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    """Keep the alerts."""
    with running(Webhook()) as server:
        yield server


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, repository: Path, webhook: Webhook) -> Iterator[Platform]:
    """Start everything once, with a health plan and a shop whose customers change on 7 February."""
    home = tmp_path_factory.mktemp("retrain")
    models = home / "models"
    models.mkdir()
    shutil.copy(repository / "config" / "models" / f"{MODEL}.yaml", models)
    by_hand = SPEC.format(name=SHOP).replace('schedule: "0 3 * * *"\n', "")
    (models / f"{SHOP}.yaml").write_text(by_hand + "drift: {window: 7d, history: 14d, actions: auto}\n")
    draw_days(home / "data" / "shop", fickle_from=date(2026, 2, 7))
    env = {
        "BNPIPE_MODELS": str(models),
        "BNPIPE_DATA": str(home / "data"),
        "BNPIPE_STORE": str(home / "store"),
        "BNPIPE_POLL_SECONDS": "1",
        "BNPIPE_ALERT_WEBHOOK": webhook.address,
        **CALM,
    }
    config = home / "home" / "airflow" / "config"
    config.mkdir(parents=True)
    (config / "airflow_local_settings.py").write_text(HURRIED)
    folders = {"dags": repository / "dags", "plugins": repository / "plugins"}
    platform = Platform(home / "home", **folders, env=env, airflow_port=0, mlflow_port=0)  # other tests have others
    with platform.start():
        for dag in (DAG, f"bn_train__{SHOP}", f"bn_drift__{SHOP}"):
            platform.client.wait_for_dag(dag)
            platform.client.unpause(dag)
        yield platform


def _ended(platform: Platform, run: str, dag: str = DAG) -> RunState:
    return platform.client.wait(dag, run, timeout=300, check=platform.check, interval=1.0)


def _kill_first_tries(platform: Platform, dag: str, run: str, tasks: Collection[str]) -> None:
    """Kill the process of each task with SIGKILL as soon as Airflow knows its pid, by its database: REST is slow."""
    deadline, left = time.monotonic() + 240, set(tasks)
    found = "SELECT task_id, state, pid FROM task_instance WHERE dag_id = ? AND run_id = ?"
    with closing(sqlite3.connect(platform.home / "airflow" / "airflow.db", timeout=30)) as database:
        while left:
            platform.check()
            assert time.monotonic() < deadline, f"{left} never ran"
            for task, state, pid in database.execute(found, (dag, run)).fetchall():
                if task in left and state == "running" and pid:
                    os.kill(pid, signal.SIGKILL)
                    left.remove(task)
                assert task not in left or state != "success", f"{task} was over too soon"
            time.sleep(0.02)


def _noticed(platform: Platform, entries: int) -> LedgerEntry:
    """Wait until the ledger has that many entries; give the last."""
    registry = Registry(platform.mlflow_url)
    deadline = time.monotonic() + NOTICED
    while len(history := registry.history(MODEL)) < entries:
        platform.check()
        assert time.monotonic() < deadline, f"after {NOTICED:.0f} s the ledger still ends with {history[-1]}"
        time.sleep(0.5)
    return history[-1]


def _asset(platform: Platform, uri: str) -> int:
    """Give Airflow's id of an asset."""
    [asset] = platform.client._request("GET", f"assets?uri_pattern={quote(uri, safe='')}")["assets"]
    return int(asset["id"])


def _followed(platform: Platform) -> None:
    """Wait until the watcher has announced the first champion: what it never saw it can't miss."""
    champion = _asset(platform, f"bnpipe://champion/{MODEL}")
    deadline = time.monotonic() + NOTICED
    while not platform.client._request("GET", f"assets/events?asset_id={champion}")["asset_events"]:
        platform.check()
        assert time.monotonic() < deadline, f"no event of the first champion within {NOTICED:.0f} s"
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
    _kill_first_tries(platform, DAG, "killed", ("learn", "register"))
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


def _announced(platform: Platform, to: str) -> str:
    """Say over REST that the shop's rows are there; give the run that this starts."""
    client = platform.client
    live = _asset(platform, f"bnpipe://live/{SHOP}")
    client._request("POST", "assets/events", {"asset_id": live, "extra": {"to": to}})
    deadline = time.monotonic() + NOTICED
    while not (runs := client.runs(f"bn_drift__{SHOP}")):
        platform.check()
        assert time.monotonic() < deadline, f"no look within {NOTICED:.0f} s of the event"
        time.sleep(0.1)
    [run] = runs
    return run.run


@pytest.mark.timeout(600)
def test_a_look_whose_tasks_are_all_killed(platform: Platform, webhook: Webhook) -> None:
    """Each task is killed once by SIGKILL; what is done is done once: a look, a refit, and a version of it."""
    client, registry = platform.client, Registry(platform.mlflow_url)
    train, drift = f"bn_train__{SHOP}", f"bn_drift__{SHOP}"
    first = client.trigger(train, conf={"end": "2026-02-02"})
    assert _ended(platform, first, train).succeeded
    look = _announced(platform, "2026-02-14")
    _kill_first_tries(platform, drift, look, LOOK)
    ended = _ended(platform, look, drift)
    assert ended.succeeded
    assert {task.task: task.tries for task in ended.tasks} == dict.fromkeys(LOOK, 2)
    assert client.xcom(drift, look, "report")["outcome"] == "refit"
    reference = client.xcom(drift, look, "snapshot")
    assert registry.run_status(reference["run_id"]) == "FINISHED"
    assert len(registry.tags_of_runs(model=SHOP, having="bnpipe.look_key")) == 1

    [refit] = [run.run for run in client.runs(train) if run.run != first]
    assert refit == f"drift__{reference['key'][:32]}"
    assert _ended(platform, refit, train).succeeded
    one, two = registry.versions(SHOP)
    assert (one.number, two.number, two.tags["bnpipe.refit_of"]) == (1, 2, "1")
    told = [alert["action"] for alert in webhook.posted if alert["model"] == SHOP]
    assert told in (["refit"], ["refit", "refit"])  # twice if the kill came right after the alert
