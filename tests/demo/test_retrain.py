"""A retrain on the real components over REST, with a task's process killed on the way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bnpipe.demo.airflow_client import AirflowClient
from bnpipe.demo.platform import Platform
from bnpipe.registry import Registry

DAG = "bn_train__health_plan"


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


@pytest.mark.timeout(600)
def test_a_killed_task_is_tried_again_and_one_version_comes_out(tmp_path: Path, repository: Path):
    """A SIGKILL in `learn` and another in `register` cost two retries; one version is promoted, once."""
    env = {"BNPIPE_MODELS": str(repository / "config" / "models"), "BNPIPE_STORE": str(tmp_path / "store")}
    platform = Platform(tmp_path / "home", dags=repository / "dags", plugins=repository / "plugins", env=env)
    with platform.start():
        client = platform.client
        client.wait_for_dag(DAG)
        client.unpause(DAG)
        client.trigger(DAG, run="killed", conf={"end": "1979-01-01", "promotion": "auto", "reason": "test of kills"})
        for task in ("learn", "register"):
            _kill_when_running(client, platform, "killed", task)
        ended = client.wait(DAG, "killed", timeout=300, check=platform.check)
        assert ended.succeeded, client.log(DAG, "killed", "promote")
        assert {task.task: task.tries for task in ended.tasks if task.tries > 1} == {"learn": 2, "register": 2}
        outcome = client.xcom(DAG, "killed", "promote")
        assert (outcome["outcome"], outcome["version"]) == ("promoted", 1)
        registry = Registry(platform.mlflow_url)
        assert [version.number for version in registry.versions("health_plan")] == [1]
        [entry] = registry.history("health_plan")
        assert (entry.to, entry.outcome, entry.actor) == (1, "done", "admin")
        champion = registry.champion("health_plan")
        assert champion is not None
        assert champion.tags["bnpipe.airflow_run"] == f"{DAG}/killed"
