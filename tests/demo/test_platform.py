"""The demo's platform, the real one: MLflow and Airflow's four components on SQLite."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
from pathlib import Path

import psutil
import pytest
import requests

from bnpipe.demo.airflow_client import AirflowClient, TaskState
from bnpipe.demo.platform import Platform, ending_on_signals
from bnpipe.errors import PlatformError

TINY_DAG = '''
"""A Dag of two tasks, for Airflow to find."""
import os
from airflow.sdk import dag, task

@dag(schedule=None, params={"factor": 2})
def tiny():
    @task
    def double(params=None):
        print("multiplying by", params["factor"])
        return params["factor"] * int(os.environ["BNPIPE_TEST_NUMBER"])

    @task
    def add(number):
        return number + 1

    add(double())

tiny()
'''


@pytest.mark.timeout(300)
def test_a_run_on_the_real_components(tmp_path: Path):
    """It starts in a path with a space, runs a Dag triggered over REST, says what went wrong, leaves no process."""
    home, dags, plugins = tmp_path / "the home", tmp_path / "dags", tmp_path / "plugins"
    dags.mkdir()
    plugins.mkdir()
    (dags / "tiny_dag.py").write_text(TINY_DAG)
    said: list[str] = []
    env = {"BNPIPE_TEST_NUMBER": "21"}
    platform = Platform(home, dags=dags, plugins=plugins, env=env, airflow_port=0, mlflow_port=0)
    others = set(psutil.Process().children(recursive=True))  # as a pool's resource tracker, of another test
    with platform.start(said.append):
        members = [child for child in psutil.Process().children(recursive=True) if child not in others]
        assert said[-1].startswith("ready")
        assert requests.get(f"{platform.mlflow_url}/version", timeout=5).ok
        _assert_private(home)
        _assert_only_local(members)
        client = platform.client
        client.wait_for_dag("tiny")
        client.unpause("tiny")
        run = client.trigger("tiny", conf={"factor": 3}, run="by_hand")
        seen: list[TaskState] = []
        ended = client.wait("tiny", run, timeout=120, progress=seen.append, check=platform.check)
        assert run == "by_hand"
        assert ended.succeeded
        assert [(task.task, task.state) for task in ended.tasks] == [("double", "success"), ("add", "success")]
        assert {task.task for task in seen} == {"double", "add"}
        assert client.xcom("tiny", run, "add") == 64
        assert "multiplying by 3" in client.log("tiny", run, "double")
        assert [(each.run, each.state) for each in client.runs("tiny")] == [(run, "success")]
        assert client.import_errors() == ""
        assert requests.get(client.run_url("tiny", run), timeout=5).ok
        with pytest.raises(PlatformError, match="knows no Dag nosuch"):
            client.wait_for_dag("nosuch", timeout=0.5)
        with pytest.raises(PlatformError, match="409"):
            client.trigger("tiny", run="by_hand")
        with pytest.raises(PlatformError, match="401"):
            AirflowClient(platform.airflow_url, platform.username, "wrong").runs("tiny")
    assert said[-1].startswith("stopping")
    assert not any(member.is_running() for member in members)
    with pytest.raises(PlatformError, match="does not answer"):
        client.runs("tiny")


def test_a_failed_start_says_why_and_leaves_nothing(tmp_path: Path):
    """The error holds the failing component's last words, and what had been started before it is stopped."""
    broken = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nosuch:///database"}
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(PlatformError, match=r"airflow-migrate ended with exit code 1(.|\n)*nosuch"):
        Platform(tmp_path / "home", dags=tmp_path, plugins=tmp_path, env=broken, airflow_port=0, mlflow_port=0).start()
    assert set(psutil.Process().children(recursive=True)) <= before
    assert list((tmp_path / "home" / "run").glob("*.json")) == []


def test_sigterm_ends_by_an_exception():
    """`kill` runs the same way out as Ctrl-C, and only while something is there to be stopped."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, ending_on_signals():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_sigint_is_heard_where_it_was_ignored(handler):
    """A script's background process ignores SIGINT; Ctrl-C raises KeyboardInterrupt here as in the foreground."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt), ending_on_signals():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_taken_port_is_named_with_the_one_used_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """People look at 8080 first, and would find somebody else's server there."""

    def fail(*_: object) -> None:
        raise PlatformError("nothing is started here")

    monkeypatch.setattr(Platform, "_start_all", fail)
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        platform = Platform(tmp_path / "home", dags=tmp_path, plugins=tmp_path, airflow_port=taken, mlflow_port=0)
        with pytest.raises(PlatformError, match="nothing is started"):
            platform.start(said.append)
    assert f"port {taken} is taken, Airflow will be at {platform.airflow_url}" in said
    assert [line.startswith("stopping") for line in said].count(True) == 1


def _assert_private(home: Path) -> None:
    for path in (home / "secrets.json", home / "airflow" / "passwords.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _assert_only_local(members: list[psutil.Process]) -> None:
    listening = []
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends meanwhile, as a task's, listens no more
            connections = member.net_connections(kind="inet")
            listening += [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    assert len(listening) >= 2
    assert {address.ip for address in listening} == {"127.0.0.1"}
