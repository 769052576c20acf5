"""docker-compose.yaml does what it says: without Docker, from that very file, against the local Postgres."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
import requests
from compose_stack import Stack, process_environment, read, read_env_file

from bnpipe.demo.airflow_client import AirflowClient
from bnpipe.demo.processes import free_port
from bnpipe.demo.secrets import write_env
from bnpipe.errors import PlatformError

ROOT = Path(__file__).resolve().parents[2]
POSTGRES = os.environ.get("BNPIPE_TEST_POSTGRES", "")


@dataclass(frozen=True)
class Deployment:
    """A running stack and the variables that it was started with."""

    variables: dict[str, str]
    stack: Stack

    @property
    def airflow(self) -> str:
        """Airflow's address."""
        return f"http://127.0.0.1:{self.variables['AIRFLOW_PORT']}"

    @property
    def serve(self) -> str:
        """The service's address."""
        return f"http://127.0.0.1:{self.variables['SERVE_LISTEN_PORT']}"

    @property
    def mlflow(self) -> str:
        """MLflow's address."""
        return f"http://127.0.0.1:{self.variables['MLFLOW_PORT']}"


@pytest.fixture
def env_file(tmp_path: Path) -> Iterator[Path]:
    """An env-file as `bnpipe env` writes it, plus addresses of this machine; its databases are dropped at the end."""
    if not POSTGRES:
        message = "set BNPIPE_TEST_POSTGRES=postgresql://postgres@127.0.0.1:5432/postgres (a superuser) to run this"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    path = tmp_path / ".env"
    write_env(path, example=ROOT / ".env.example")
    server = urlsplit(POSTGRES)
    name = f"bnpipe_test_{secrets.token_hex(4)}"
    airflow_port = free_port(0)
    mlflow_port = free_port(0, taken=[airflow_port])
    settings = {
        "POSTGRES_HOST": server.hostname,
        "POSTGRES_PORT": server.port or 5432,
        "POSTGRES_USER": server.username or "postgres",
        "POSTGRES_PASSWORD": server.password or "unused-by-trust",
        **{key: f"{name}_{key.lower()}" for key in ("AIRFLOW_DB", "MLFLOW_DB", "MLFLOW_AUTH_DB")},
        **{key: f"{name}_{key.lower()}" for key in ("AIRFLOW_DB_USER", "MLFLOW_DB_USER")},
        "LISTEN_ADDRESS": "127.0.0.1",
        "AIRFLOW_HOST": "127.0.0.1",
        "AIRFLOW_PORT": airflow_port,
        "AIRFLOW_PUBLIC_URL": f"http://127.0.0.1:{airflow_port}",
        "AIRFLOW_API_WORKERS": 1,
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": mlflow_port,
        "MLFLOW_WORKERS": 1,
        "SERVE_LISTEN_PORT": free_port(0, taken=[airflow_port, mlflow_port]),
        "BNPIPE_HOME": tmp_path / "home",
        "BNPIPE_STATE": tmp_path / "state",
        "BNPIPE_STORE": tmp_path / "state" / "store",
    }
    with path.open("a") as file:
        file.writelines(f"{key}={value}\n" for key, value in settings.items())
    yield path
    _drop(settings)


@pytest.fixture
def deployment(env_file: Path, tmp_path: Path) -> Iterator[Deployment]:
    """The whole file but its Postgres, Prometheus and Grafana, up, with the example whose rows lie in a package."""
    variables = read_env_file(env_file)
    home, state = Path(variables["BNPIPE_HOME"]), Path(variables["BNPIPE_STATE"])
    (home / "config" / "models").mkdir(parents=True)
    for name in ("config/models/health_plan.yaml", "config/serving.yaml", "dags", "deploy", "plugins"):
        (home / name).symlink_to(ROOT / name)
    state.mkdir()
    stack = Stack(read(ROOT / "docker-compose.yaml", variables), tmp_path / "run", process_environment(tmp_path))
    try:
        stack.up(given={"postgres", "prometheus", "grafana"}, timeout=240)
        yield Deployment(variables, stack)
    finally:
        stack.processes.stop()


@pytest.mark.timeout(600)
def test_a_retrain_over_rest_promotes_a_version_that_answers(deployment: Deployment):
    """Logins hold, nothing listens beyond this machine; a run started over REST ends with a champion, which answers."""
    variables = deployment.variables
    _assert_only_local()
    _assert_logins_hold(deployment)
    client = AirflowClient(deployment.airflow, "admin", variables["AIRFLOW_ADMIN_PASSWORD"])
    client.wait_for_dag("bn_train__health_plan", timeout=10)
    client.unpause("bn_train__health_plan")
    run = client.trigger("bn_train__health_plan", run="by_hand", conf={"promotion": "auto", "reason": "the first"})
    ended = client.wait("bn_train__health_plan", run, timeout=240, check=deployment.stack.processes.check)
    logs = [client.log(ended.dag, run, task.task, tries=task.tries) for task in ended.tasks if task.state == "failed"]
    assert ended.succeeded, "\n".join(logs)
    champion = _mlflow(deployment, "registered-models/alias?name=health_plan&alias=champion").json()["model_version"]
    assert champion["version"] == "1"
    tags = {tag["key"]: tag["value"] for tag in champion["tags"]}
    assert tags["bnpipe.verdict"] == "pass"
    assert tags["bnpipe.airflow_run"].endswith("by_hand")
    assert champion["source"].startswith(("models:/", "mlflow-artifacts:/"))
    _assert_it_answers(deployment)


def _assert_it_answers(deployment: Deployment) -> None:
    """The service takes the champion over, answers, and lets the key for the metrics read them and nothing else."""
    end = time.monotonic() + 60
    while requests.get(f"{deployment.serve}/ready", timeout=10).status_code != 200:
        assert time.monotonic() < end, "the champion is not served"
        time.sleep(0.5)
    reader = ("serve", deployment.variables["MLFLOW_READER_PASSWORD"])
    moved = requests.post(
        f"{deployment.mlflow}/api/2.0/mlflow/registered-models/alias",
        json={"name": "health_plan", "alias": "challenger", "version": "1"},
        auth=reader,
        timeout=10,
    )
    assert moved.status_code == 403, moved.text
    question = f"{deployment.serve}/v1/models/health_plan/posterior"
    answer = requests.post(question, json={"rows": [{}]}, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == 1
    key = {"Authorization": f"Bearer {deployment.variables['BNPIPE_METRICS_KEY']}"}
    assert requests.post(question, json={"rows": [{}]}, headers=key, timeout=10).status_code == 403
    metrics = requests.get(f"{deployment.serve}/metrics", headers=key, timeout=10)
    assert metrics.status_code == 200
    assert 'role="champion"} 1.0' in metrics.text
    assert requests.get(f"{deployment.serve}/metrics", headers={"X-API-Key": "another"}, timeout=10).status_code == 401


def _mlflow(deployment: Deployment, path: str, **options: Any) -> requests.Response:
    """Ask MLflow over REST, as its administrator unless told otherwise."""
    login = ("admin", deployment.variables["MLFLOW_ADMIN_PASSWORD"])
    return requests.get(f"{deployment.mlflow}/api/2.0/mlflow/{path}", timeout=10, **{"auth": login, **options})


def _assert_logins_hold(deployment: Deployment) -> None:
    path = "experiments/search?max_results=1"
    assert _mlflow(deployment, path).status_code == 200
    assert _mlflow(deployment, path, auth=None).status_code == 401
    assert _mlflow(deployment, path, auth=("admin", "password1234")).status_code == 401
    assert _mlflow(deployment, path, headers={"Host": "evil.example"}).status_code == 403
    reader = ("serve", deployment.variables["MLFLOW_READER_PASSWORD"])
    assert _mlflow(deployment, path, auth=reader).status_code == 200
    assert requests.get(f"{deployment.airflow}/api/v2/dags", timeout=10).status_code == 401
    with pytest.raises(PlatformError, match="401"):
        AirflowClient(deployment.airflow, "admin", "admin").runs("bn_train__health_plan")


def _assert_only_local() -> None:
    listening = [
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def _drop(settings: dict[str, object]) -> None:
    connection = psycopg2.connect(POSTGRES)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for key in ("AIRFLOW_DB", "MLFLOW_DB", "MLFLOW_AUTH_DB"):
                cursor.execute(f'DROP DATABASE IF EXISTS "{settings[key]}" WITH (FORCE)')
            for key in ("AIRFLOW_DB_USER", "MLFLOW_DB_USER"):
                cursor.execute(f'DROP ROLE IF EXISTS "{settings[key]}"')
    finally:
        connection.close()
